//! `hbd dyndns`: how the names in the DNS stand, and what would be sent for one of them.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::client::{Client, unreachable};
use super::{CONFIGURATION, FAILED, HELP, complain, config_file, say};
use crate::config::Config;
use crate::dyndns::method::Wish;
use crate::dyndns::names::{self, Family};
use crate::dyndns::settings::Entry;
use crate::dyndns::show;
use crate::notify::text::{LineBreaks, clean};

#[derive(Debug, Default, PartialEq)]
struct Wanted {
    config: Option<PathBuf>,
    url: Option<String>,
    ca_file: Option<PathBuf>,
    host: Option<String>,
    addresses: Vec<IpAddr>,
    dry: bool,
    json: bool,
}

/// Reads the arguments and prints. Gives the exit code: 0 when all names are kept, 1 when one
/// cannot be, 3 when the daemon cannot be reached, 78 when the configuration cannot be used.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(wanted) = wanted(parser)? else { return Ok(say(HELP)) };
    if let (true, Some(host)) = (wanted.dry, &wanted.host) {
        return Ok(match Config::load(config_file(wanted.config.clone())) {
            Ok(config) => rehearse(&config, Client::of(&config), host, &wanted),
            Err(problems) => {
                complain(&problems);
                CONFIGURATION
            }
        });
    }
    let client = Client::wished(&wanted.config, &wanted.url, &wanted.ca_file)?;
    Ok(client.map_or_else(|code| code, |client| state(&client, &wanted)))
}

fn wanted(mut parser: lexopt::Parser) -> Result<Option<Wanted>, lexopt::Error> {
    let mut wanted = Wanted::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => wanted.config = Some(parser.value()?.into()),
            Long("url") => wanted.url = Some(parser.value()?.string()?),
            Long("ca-file") => wanted.ca_file = Some(parser.value()?.into()),
            Long("address") => wanted.addresses.push(parser.value()?.parse()?),
            Long("dry-run") => wanted.dry = true,
            Long("json") => wanted.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(host) if wanted.host.is_none() => wanted.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let refuse = |why: &'static str| Err(why.into());
    match &wanted {
        Wanted { dry: true, url: Some(_), .. } | Wanted { dry: true, ca_file: Some(_), .. } => {
            refuse("--dry-run needs the configuration: neither --url nor --ca-file goes with it")
        }
        Wanted { dry: true, host: None, .. } => refuse("--dry-run wants a HOST"),
        Wanted { dry: true, json: true, .. } => refuse("--dry-run and --json exclude each other"),
        Wanted { dry: false, addresses, .. } if !addresses.is_empty() => {
            refuse("--address goes with --dry-run only")
        }
        _ => Ok(Some(wanted)),
    }
}

/// The names that the daemon keeps, or the one of a host.
fn ask(client: &Client, host: Option<&str>) -> Result<Vec<Json>, String> {
    let answer = client.get("/api/v1/dyndns", &[])?;
    let names = answer["names"].as_array().cloned().unwrap_or_default();
    let meant = |one: &Json| host.is_none_or(|host| one["host"] == host);
    Ok(names.into_iter().filter(meant).collect())
}

fn state(client: &Client, wanted: &Wanted) -> u8 {
    let names = match ask(client, wanted.host.as_deref()) {
        Ok(names) => names,
        Err(why) => return unreachable(&why),
    };
    if let (Some(host), true) = (&wanted.host, names.is_empty()) {
        complain(&format!("the daemon keeps no name of {host}"));
        return FAILED;
    }
    let text =
        if wanted.json { format!("{}\n", json!({ "names": names })) } else { in_words(&names) };
    say(&text);
    let bad = |one: &Json| matches!(one["state"].as_str(), Some("failing" | "refused") | None);
    if names.iter().any(bad) { FAILED } else { 0 }
}

/// A block for each name.
fn in_words(names: &[Json]) -> String {
    if names.is_empty() {
        return "no names are kept\n".into();
    }
    let mut text = String::new();
    for one in names {
        let (host, name, state) = (word(one, "host"), word(one, "name"), word(one, "state"));
        text += &format!("{host}: {name} is {state} ({})\n", word(one, "server"));
        for record in one["records"].as_array().into_iter().flatten() {
            let (kind, address) = (word(record, "type"), word(record, "address"));
            let (written, at) = (word(record, "written"), word(record, "last_update"));
            let in_zone = match (written == address, at.is_empty()) {
                (true, false) => format!("written {at}"),
                (true, true) => "found in the zone".into(),
                (false, _) if written.is_empty() => "not written yet".into(),
                (false, _) => format!("the record still says {written}"),
            };
            text += &format!("  {kind:<4} {address}, {in_zone}\n");
        }
        let why = word(&one["last_failure"], "why");
        if !why.is_empty() {
            text += &format!("  failing since {}: {why}\n", word(one, "failing_since"));
        }
        let next = word(one, "next_attempt");
        if !next.is_empty() {
            text += &format!("  next attempt {next}\n");
        }
    }
    text
}

fn word(one: &Json, name: &str) -> String {
    one[name].as_str().map_or_else(String::new, |text| clean(text, LineBreaks::Remove))
}

/// What would be sent for a host, from the addresses that are named, else from those that the
/// daemon knows.
fn rehearse(config: &Config, client: Result<Client, String>, host: &str, wanted: &Wanted) -> u8 {
    let Some(entry) = config.dyndns.get(host) else {
        complain(&format!("hosts.{host}.dyndns is not set: no name follows that host"));
        return FAILED;
    };
    let addresses = if wanted.addresses.is_empty() {
        match client.and_then(|client| ask(&client, Some(host))) {
            Ok(names) => known(&names),
            Err(why) => {
                return unreachable(&format!("{why}; name an address yourself with --address"));
            }
        }
    } else {
        let counts = |address: &&IpAddr| entry.allow_private || names::is_public(**address);
        let (public, private): (Vec<IpAddr>, Vec<IpAddr>) =
            wanted.addresses.iter().partition(counts);
        for address in private {
            complain(&format!(
                "{address} is private, and allow_private is not set: nothing is sent"
            ));
        }
        public
    };
    if addresses.is_empty() {
        if wanted.addresses.is_empty() {
            complain(&format!("no address of {host} was heard yet: name one with --address"));
        }
        return FAILED;
    }
    let _ = io::stdout().write_all(show::requests(entry, &wish(host, entry, addresses)).as_bytes());
    0
}

fn known(names: &[Json]) -> Vec<IpAddr> {
    let records = names.iter().filter_map(|one| one["records"].as_array()).flatten();
    records.filter_map(|record| record["address"].as_str()?.parse().ok()).collect()
}

/// One address of each family, the last one named.
fn wish(host: &str, entry: &Entry, addresses: Vec<IpAddr>) -> Wish {
    let last = |family| {
        let mut all = addresses.iter().rev().map(IpAddr::to_canonical);
        all.find(|address| Family::of(*address) == family)
    };
    let addresses: Vec<IpAddr> = Family::ALL.into_iter().filter_map(last).collect();
    Wish { host: host.to_owned(), name: entry.name.clone(), known: addresses.clone(), addresses }
}
