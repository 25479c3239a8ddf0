//! The dry run of an update: as a script for nsupdate(1), or as the URL that would be requested.
//! Secrets are left out. Pure.

use super::method::{UpdateMethod, UpdateRequest};
use super::names::RecordFamily;
use super::settings::DyndnsEntry;

/// The text of the requests that an update makes.
pub fn requests(entry: &DyndnsEntry, request: &UpdateRequest) -> String {
    match &entry.method {
        UpdateMethod::Rfc2136(server) => {
            let mut text = format!("server {} {}\n", server.server, server.port);
            text += &format!("zone {}.\n", server.zone);
            let algorithm = server.algorithm.to_string();
            text += &format!("key {algorithm}:{} [secret]\n", server.key_name);
            for address in &request.addresses {
                let (name, kind) = (&request.name, RecordFamily::of(*address).record());
                text += &format!("update delete {name}. {kind}\n");
                text += &format!("update add {name}. {} {kind} {address}\n", server.ttl);
            }
            text + "send\n"
        }
        UpdateMethod::Http(provider) => {
            let takes = |address: &&std::net::IpAddr| {
                provider.families().contains(&RecordFamily::of(**address))
            };
            let each: Vec<UpdateRequest> = if provider.one_address_per_request() {
                let addresses = request.addresses.iter().filter(takes);
                addresses
                    .map(|one| UpdateRequest { addresses: vec![*one], ..request.clone() })
                    .collect()
            } else {
                vec![request.clone()]
            };
            let user = match &provider.user {
                Some(user) => format!("Authorization: Basic, as {user}\n"),
                None => String::new(),
            };
            each.iter()
                .map(|request| format!("GET {}\n{user}", provider.redacted_url(request)))
                .collect()
        }
    }
}
