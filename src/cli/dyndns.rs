//! `hbd dyndns`: the state of the names in the DNS, or the requests that would be sent for one.

use std::io::{self, Write};
use std::net::IpAddr;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::answer::field;
use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::local_time::TimeFormat;
use super::{CONFIGURATION, FAILED, config_file, help, json_line, print, print_error};
use crate::config::Config;
use crate::config_file::suggestion;
use crate::dyndns::dry_run;
use crate::dyndns::method::UpdateRequest;
use crate::dyndns::names::{self, RecordFamily};
use crate::dyndns::settings::DyndnsEntry;

#[derive(Debug, Default, PartialEq)]
struct DyndnsArgs {
    daemon: DaemonArgs,
    host: Option<String>,
    addresses: Vec<IpAddr>,
    dry: bool,
    utc: bool,
    json: bool,
}

/// Reads the arguments and prints. Gives the exit code: 0 when all names are kept, 1 when one
/// cannot be, 3 when the daemon cannot be reached, 78 when the configuration cannot be used.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("dyndns"))) };
    if let (true, Some(host)) = (args.dry, &args.host) {
        return Ok(match Config::load(config_file(args.daemon.config.clone())) {
            Ok(config) => print_requests(&config, Client::for_config(&config), host, &args),
            Err(problems) => {
                print_error(&problems);
                CONFIGURATION
            }
        });
    }
    let client = args.daemon.client()?;
    Ok(client.map_or_else(|code| code, |client| print_state(&client, &args)))
}

fn parse_args(mut parser: lexopt::Parser) -> Result<Option<DyndnsArgs>, lexopt::Error> {
    let mut args = DyndnsArgs::default();
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("address") => {
                let text = parser.value()?.string()?;
                let what = || format!("--address must be such as 192.0.2.7, not \"{text}\"");
                args.addresses.push(text.parse().map_err(|_| what())?);
            }
            Long("dry-run") => args.dry = true,
            Long("utc") => args.utc = true,
            Long("json") => args.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(host) if args.host.is_none() => args.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let refuse = |why: &'static str| Err(why.into());
    match &args {
        DyndnsArgs { dry: true, daemon: DaemonArgs { url: Some(_), .. }, .. }
        | DyndnsArgs { dry: true, daemon: DaemonArgs { ca_file: Some(_), .. }, .. } => {
            refuse("--dry-run needs the configuration: neither --url nor --ca-file goes with it")
        }
        DyndnsArgs { dry: true, host: None, .. } => refuse("--dry-run wants a HOST"),
        DyndnsArgs { dry: true, json: true, .. } => {
            refuse("--dry-run and --json exclude each other")
        }
        DyndnsArgs { dry: false, addresses, .. } if !addresses.is_empty() => {
            refuse("--address goes with --dry-run only")
        }
        _ => Ok(Some(args)),
    }
}

/// The names that the daemon updates, or that of one host.
fn fetch(client: &Client, host: Option<&str>) -> Result<Vec<Json>, String> {
    let answer = client.get("/api/v1/dyndns", &[])?;
    let names = answer["names"].as_array().cloned().unwrap_or_default();
    let meant = |one: &Json| host.is_none_or(|host| one["host"] == host);
    Ok(names.into_iter().filter(meant).collect())
}

fn print_state(client: &Client, args: &DyndnsArgs) -> u8 {
    let names = match fetch(client, args.host.as_deref()) {
        Ok(names) => names,
        Err(why) => return print_unreachable(&why),
    };
    if let (Some(host), true) = (&args.host, names.is_empty()) {
        let none = || format!("the daemon keeps no name of {host}: hosts.{host}.dyndns is not set");
        print_error(&client.unknown_host(host).unwrap_or_else(none));
        return FAILED;
    }
    let text = match args.json {
        true => json_line(&json!({ "names": names })),
        false => format_names(&names, &TimeFormat::new(args.utc)),
    };
    print(&text);
    let bad = |one: &Json| matches!(one["state"].as_str(), Some("failing" | "refused") | None);
    if names.iter().any(bad) { FAILED } else { 0 }
}

/// A block for each name.
fn format_names(names: &[Json], times: &TimeFormat) -> String {
    if names.is_empty() {
        return "no names are kept\n".into();
    }
    let mut text = String::new();
    for one in names {
        let (host, name, state) = (field(one, "host"), field(one, "name"), field(one, "state"));
        text += &format!("{host}: {name} is {state} ({})\n", field(one, "server"));
        for record in one["records"].as_array().into_iter().flatten() {
            let (kind, address) = (field(record, "type"), field(record, "address"));
            let (written, at) = (field(record, "written"), times.format(record, "last_update"));
            let in_zone = match (written == address, at.is_empty()) {
                (true, false) => format!("written {at}"),
                (true, true) => "found in the zone".into(),
                (false, _) if written.is_empty() => "not written yet".into(),
                (false, _) => format!("the record still says {written}"),
            };
            text += &format!("  {kind:<4} {address}, {in_zone}\n");
        }
        let why = field(&one["last_failure"], "why");
        if !why.is_empty() {
            text += &format!("  failing since {}: {why}\n", times.format(one, "failing_since"));
        }
        let next = times.format(one, "next_attempt");
        if !next.is_empty() {
            text += &format!("  next attempt {next}\n");
        }
    }
    text
}

/// Prints the requests that would be sent for a host, with the addresses of `--address`, else with
/// those that the daemon knows.
fn print_requests(
    config: &Config,
    client: Result<Client, String>,
    host: &str,
    args: &DyndnsArgs,
) -> u8 {
    let Some(entry) = config.dyndns.get(host) else {
        let near = suggestion::nearest(host, config.dyndns.keys().map(String::as_str));
        let meant = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
        print_error(&format!("hosts.{host}.dyndns is not set: no name follows that host{meant}"));
        return FAILED;
    };
    let addresses = if args.addresses.is_empty() {
        match client.and_then(|client| fetch(&client, Some(host))) {
            Ok(names) => known(&names),
            Err(why) => {
                return print_unreachable(&format!(
                    "{why}; name an address yourself with --address"
                ));
            }
        }
    } else {
        let counts = |address: &&IpAddr| entry.allow_private || names::is_public(**address);
        let (public, private): (Vec<IpAddr>, Vec<IpAddr>) = args.addresses.iter().partition(counts);
        for address in private {
            print_error(&format!(
                "{address} is private, and allow_private is not set: nothing is sent"
            ));
        }
        public
    };
    if addresses.is_empty() {
        if args.addresses.is_empty() {
            print_error(&format!("no address of {host} was heard yet: name one with --address"));
        }
        return FAILED;
    }
    let _ = io::stdout()
        .write_all(dry_run::requests(entry, &update_request(host, entry, addresses)).as_bytes());
    0
}

fn known(names: &[Json]) -> Vec<IpAddr> {
    let records = names.iter().filter_map(|one| one["records"].as_array()).flatten();
    records.filter_map(|record| record["address"].as_str()?.parse().ok()).collect()
}

/// One address of each family, the last one named.
fn update_request(host: &str, entry: &DyndnsEntry, addresses: Vec<IpAddr>) -> UpdateRequest {
    let last = |family| {
        let mut all = addresses.iter().rev().map(IpAddr::to_canonical);
        all.find(|address| RecordFamily::of(*address) == family)
    };
    let addresses: Vec<IpAddr> = RecordFamily::ALL.into_iter().filter_map(last).collect();
    UpdateRequest {
        host: host.to_owned(),
        name: entry.name.clone(),
        known: addresses.clone(),
        addresses,
    }
}
