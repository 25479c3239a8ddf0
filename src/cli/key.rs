//! `hbd key`: makes a key and prints where it goes on each side; lists connections that still sign with
//! the previous one.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value as Json;

use super::client::{Client, print_unreachable};
use super::{CONFIGURATION, FAILED, HELP, config_file, print, print_error};
use crate::address::is_name;
use crate::config::Config;

/// As long as the hash that it is used with (RFC 2104, section 3).
const KEY_BYTES: usize = 32;

#[derive(Debug, Default, PartialEq)]
struct KeyArgs {
    config: Option<PathBuf>,
    url: Option<String>,
    ca_file: Option<PathBuf>,
    /// None is the key of all hosts that have none of their own.
    host: Option<String>,
    common: bool,
    write: Option<PathBuf>,
    status: bool,
}

/// Reads the arguments and does what they say. Gives the exit code: 0; with `--status`, 1 when a
/// connection still signs with the previous key, and 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(HELP)) };
    if args.status {
        return status(&args);
    }
    let known = match &args.config {
        Some(file) => match Config::load(file) {
            Ok(config) => Some(config),
            Err(problems) => {
                print_error(&problems);
                return Ok(CONFIGURATION);
            }
        },
        // Without a configuration there is a key to make all the same.
        None => Config::load(config_file(None)).ok(),
    };
    let changes = known.is_some_and(|config| has_key(&config, args.host.as_deref()));
    match make(&args, changes) {
        Ok(text) => Ok(print(&text)),
        Err(why) => {
            print_error(&why);
            Ok(FAILED)
        }
    }
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<KeyArgs>, lexopt::Error> {
    let mut args = KeyArgs::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => args.config = Some(parser.value()?.into()),
            Long("url") => args.url = Some(parser.value()?.string()?),
            Long("ca-file") => args.ca_file = Some(parser.value()?.into()),
            Long("common") => args.common = true,
            Long("write") => args.write = Some(parser.value()?.into()),
            Long("status") => args.status = true,
            Long("help") | Short('h') => return Ok(None),
            Value(host) if args.host.is_none() => args.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if usize::from(args.host.is_some()) + usize::from(args.common) + usize::from(args.status) != 1 {
        return Err(
            "name one HOST, or --common for all that have no key of their own, or --status".into(),
        );
    }
    if args.status && args.write.is_some()
        || !args.status && (args.url.is_some() || args.ca_file.is_some())
    {
        return Err("--write is for a new key, --url for --status".into());
    }
    if let Some(host) = args.host.as_deref().filter(|host| !is_name(host)) {
        let what = "a host's name is 1 to 253 letters, digits, dots, dashes, underscores";
        return Err(format!("{what}, not {host:?}").into());
    }
    Ok(Some(args))
}

/// Whether datagrams of the host, or of any, are signed already.
fn has_key(config: &Config, host: Option<&str>) -> bool {
    let own = host.and_then(|host| config.hosts.get(host)?.key.as_ref());
    own.is_some() || config.heartbeat.key.is_some()
}

/// Makes a key; the words that say where it goes. `changes` is whether there is one already.
fn make(args: &KeyArgs, changes: bool) -> Result<String, String> {
    let key = key()?;
    let (place, agent) = match &args.host {
        Some(host) => (format!("hosts.{host}"), host.as_str()),
        None => ("heartbeat".into(), "each host without a key of its own"),
    };
    let line = match &args.write {
        Some(file) => {
            write(file, &key)?;
            format!("key_file: {}", display_path(file))
        }
        None => format!("key: {key}"),
    };
    let mut text = format!("# heartbeat.yaml, under {place}\n{line}\n");
    text.push_str(&format!("# hbc.yaml on {agent}\nkey: {key}\n"));
    if changes {
        text.push_str(CHANGE);
    }
    Ok(text)
}

const CHANGE: &str = "\
# There is a key already. So that nothing is missed while it changes:
# 1. heartbeat.yaml: the present key becomes previous_key (or previous_key_file; the common key is
#    given as previous_key of a host that gets one of its own), beside the line above; reload hbd.
# 2. hbc.yaml: the line above instead of the old one; restart hbc.
# 3. When hbd key --status shows nobody any more, take previous_key out; reload hbd.
";

/// A relative path in the configuration starts from there, not from here.
fn display_path(file: &Path) -> String {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string()
}

/// New random bytes of the operating system, in hexadecimal digits.
fn key() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    let made = SystemRandom::new().fill(&mut bytes);
    made.map_err(|_| "the operating system gave no random bytes".to_owned())?;
    Ok(crate::escape::hex(&bytes))
}

/// Writes a key to a new file that only its owner can read.
fn write(file: &Path, key: &str) -> Result<(), String> {
    let refused = |why: io::Error| match why.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} exists, and no key is ever overwritten: name another file", file.display())
        }
        _ => format!("{} cannot be written: {why}", file.display()),
    };
    let mut open = OpenOptions::new();
    let mut new = open.write(true).create_new(true).mode(0o600).open(file).map_err(refused)?;
    new.write_all(format!("{key}\n").as_bytes()).and_then(|()| new.sync_all()).map_err(refused)
}

fn status(args: &KeyArgs) -> Result<u8, lexopt::Error> {
    let client = match Client::from_args(&args.config, &args.url, &args.ca_file)? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    match client.get("/api/v1/hosts", &[]) {
        Ok(answer) => {
            let old = old_keys(&answer);
            print(if old.is_empty() { "nobody signs with a previous key\n" } else { &old });
            Ok(if old.is_empty() { 0 } else { FAILED })
        }
        Err(why) => Ok(print_unreachable(&why)),
    }
}

/// A line for each connection whose last datagram was signed with the previous key. Names come from
/// the network, but the daemon accepts none with control characters.
fn old_keys(answer: &Json) -> String {
    let mut text = String::new();
    for host in answer["hosts"].as_array().into_iter().flatten() {
        let connections = host["connections"].as_array().into_iter().flatten();
        for connection in connections.filter(|connection| connection["old_key"] == true) {
            let field = |of: &Json, key: &str| of[key].as_str().unwrap_or("?").to_owned();
            text.push_str(&format!(
                "{} {} signs with the previous key, last heard {}\n",
                field(host, "name"),
                field(connection, "name"),
                field(connection, "last_seen")
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<KeyArgs>, String> {
        parse_args(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
    }

    fn value<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
        text.lines().filter_map(|line| line.strip_prefix(key)).collect()
    }

    #[test]
    fn both_sides_get_the_same_key_and_nobody_gets_it_twice() {
        let args = KeyArgs { host: Some("web1".into()), ..KeyArgs::default() };
        let (one, two) = (make(&args, false).unwrap(), make(&args, true).unwrap());
        let keys = value(&one, "key: ");
        assert_eq!((keys.len(), keys[0].len()), (2, 64));
        assert_eq!(keys[0], keys[1]);
        assert!(one.contains("under hosts.web1\n") && one.contains("hbc.yaml on web1\n"), "{one}");
        assert!(!one.contains("previous_key") && two.contains("previous_key"), "{two}");
        assert_ne!(keys[0], value(&two, "key: ")[0]);
    }

    #[test]
    fn a_file_is_for_its_owner_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web1.key");
        let args = KeyArgs { common: true, write: Some(file.clone()), ..KeyArgs::default() };
        let text = make(&args, false).unwrap();
        assert!(text.contains(&format!("key_file: {}\n", file.display())), "{text}");
        assert!(text.contains("under heartbeat\n"), "{text}");
        let written = fs::read_to_string(&file).unwrap();
        assert_eq!(value(&text, "key: "), [written.trim()]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(make(&args, false).unwrap_err().contains("name another file"));
        assert_eq!(fs::read_to_string(&file).unwrap(), written);
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        for wrong in [
            &[][..],
            &["web1", "web2"],
            &["web1", "--common"],
            &["web1", "--status"],
            &["--status", "--write", "f"],
            &["web1", "--url", "http://h"],
            &["web 1"],
            &["--frobnicate"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let host = parse(&["web1", "--write", "f"]).unwrap().unwrap();
        assert_eq!((host.host.as_deref(), host.write), (Some("web1"), Some("f".into())));
        assert!(parse(&["--help"]).unwrap().is_none());
    }

    #[test]
    fn who_still_has_the_previous_key_is_named() {
        let connection = |name, old| json!({"name": name, "old_key": old, "last_seen": "T"});
        let answer = json!({"hosts": [
            {"name": "web1", "connections": [connection("ipv4", true), connection("vpn", false)]},
            {"name": "web2", "connections": []},
        ]});
        assert_eq!(old_keys(&answer), "web1 ipv4 signs with the previous key, last heard T\n");
    }
}
