//! What would be sent, in words that can be checked or tried by hand: a script for nsupdate(1), or
//! the address that would be asked for. Secrets are left out. Pure.

use super::method::{Method, Wish};
use super::names::Family;
use super::settings::Entry;

/// The requests for these addresses.
pub fn requests(entry: &Entry, wish: &Wish) -> String {
    match &entry.method {
        Method::Rfc2136(server) => {
            let mut text = format!("server {} {}\n", server.server, server.port);
            text += &format!("zone {}.\n", server.zone);
            let algorithm = server.algorithm.to_string();
            text += &format!("key {algorithm}:{} [secret]\n", server.key_name);
            for address in &wish.addresses {
                let (name, kind) = (&wish.name, Family::of(*address).record());
                text += &format!("update delete {name}. {kind}\n");
                text += &format!("update add {name}. {} {kind} {address}\n", server.ttl);
            }
            text + "send\n"
        }
        Method::Http(provider) => {
            let takes =
                |address: &&std::net::IpAddr| provider.families().contains(&Family::of(**address));
            let each: Vec<Wish> = if provider.one_by_one() {
                let addresses = wish.addresses.iter().filter(takes);
                addresses.map(|one| Wish { addresses: vec![*one], ..wish.clone() }).collect()
            } else {
                vec![wish.clone()]
            };
            let user = match &provider.user {
                Some(user) => format!("Authorization: Basic, as {user}\n"),
                None => String::new(),
            };
            each.iter().map(|wish| format!("GET {}\n{user}", provider.shown(wish))).collect()
        }
    }
}
