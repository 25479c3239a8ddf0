//! `hbd key`: makes a key and prints where it goes on each side; lists connections that still sign with
//! the previous one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value as Json, json};

use super::answer::{field, items};
use super::client::{DaemonArgs, DaemonOption, print_unreachable};
use super::local_time::TimeFormat;
use super::{CONFIGURATION, FAILED, config_file, help, json_line, print, print_error};
use crate::address::is_name;
use crate::config::Config;
use crate::config_file::suggestion;
use crate::host_pattern;

/// As long as the hash that it is used with (RFC 2104, section 3).
const KEY_BYTES: usize = 32;

#[derive(Debug, Default, PartialEq)]
struct KeyArgs {
    daemon: DaemonArgs,
    /// None is the key of all hosts that have none of their own.
    host: Option<String>,
    common: bool,
    write: Option<PathBuf>,
    status: bool,
    utc: bool,
    json: bool,
}

/// Reads the arguments and does what they say. Gives the exit code: 0; with `--status`, 1 when a
/// connection still signs with the previous key, and 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("key"))) };
    if args.status {
        return status(&args);
    }
    let key = match key().and_then(|key| write_new(&args, &key).map(|()| key)) {
        Ok(key) => key,
        Err(why) => {
            print_error(&why);
            return Ok(FAILED);
        }
    };
    // Only now: the configuration may name the file that was just made.
    let known = match Config::load(config_file(args.daemon.config.clone())) {
        Ok(config) => Some(config),
        Err(problems) if args.daemon.config.is_some() => {
            print_error(&problems);
            // A second try must not find that the file exists.
            args.write.iter().for_each(|file| drop(fs::remove_file(file)));
            return Ok(CONFIGURATION);
        }
        // Without a configuration there is a key to make all the same.
        Err(_) => None,
    };
    Ok(print(&words(&args, &key, known.as_ref())))
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<KeyArgs>, lexopt::Error> {
    let mut args = KeyArgs::default();
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("common") => args.common = true,
            Long("write") => args.write = Some(parser.value()?.into()),
            Long("status") => args.status = true,
            Long("utc") => args.utc = true,
            Long("json") => args.json = true,
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
        || !args.status
            && (args.daemon.url.is_some() || args.daemon.ca_file.is_some() || args.json || args.utc)
    {
        return Err("--write is for a new key; --url, --json and --utc are for --status".into());
    }
    let is_good = |host: &str| is_name(host) || host_pattern::is_good_pattern(host);
    if let Some(host) = args.host.as_deref().filter(|host| !is_good(host)) {
        let what = "a host's name is 1 to 253 letters, digits, dots, dashes, underscores";
        return Err(format!("{what}, not {host:?}").into());
    }
    Ok(Some(args))
}

/// Whether datagrams of the host, or of any, are signed already with another key than the new one.
fn has_other_key(config: &Config, host: Option<&str>, new: &str) -> bool {
    let of_pattern = |host: &str| {
        let known = config.patterns.iter().find(|(pattern, _)| *pattern == host);
        known.map(|(_, settings)| settings).or_else(|| config.host(host))
    };
    let own = host.and_then(|host| of_pattern(host)?.key.as_ref());
    own.into_iter().chain(&config.heartbeat.key).any(|key| key.reveal() != new)
}

/// The words that say where a new key goes.
fn words(args: &KeyArgs, key: &str, known: Option<&Config>) -> String {
    let (place, agent) = match &args.host {
        Some(host) if host_pattern::is_pattern(host) => {
            (format!("hosts.\"{host}\""), "each host that matches it")
        }
        Some(host) => (format!("hosts.{host}"), host.as_str()),
        None => ("heartbeat".into(), "each host without a key of its own"),
    };
    let line = match &args.write {
        Some(file) => format!("key_file: {}", display_path(file)),
        None => format!("key: {key}"),
    };
    let mut text = format!("# heartbeat.yaml, under {place}\n{line}\n");
    text.push_str(&format!("# hbc.yaml on {agent}\nkey: {key}\n"));
    let Some(config) = known else { return text };
    let is_known = |host: &&str| {
        config.hosts.contains_key(*host) || config.patterns.iter().any(|(known, _)| known == *host)
    };
    if let Some(host) = args.host.as_deref().filter(|host| !is_known(host)) {
        text.push_str(&match config.patterns.pattern_of(host) {
            Some(pattern) => format!(
                "# {host} has what stands under hosts.\"{pattern}\" so far: listed by its name it has none of that\n"
            ),
            None => {
                let near = suggestion::nearest(host, config.hosts.keys().map(String::as_str));
                let meant = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
                format!("# heartbeat.yaml has no host {host} yet{meant}\n")
            }
        });
    }
    if has_other_key(config, args.host.as_deref(), key) {
        text.push_str(CHANGE);
    }
    text
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

/// Writes a key to the new file of `--write`, which only its owner can read.
fn write_new(args: &KeyArgs, key: &str) -> Result<(), String> {
    let Some(file) = &args.write else { return Ok(()) };
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
    let client = match args.daemon.client()? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    match client.get("/api/v1/hosts", &[]) {
        Ok(answer) => {
            let old = old_keys(&answer);
            if args.json {
                print(&json_line(&json!({ "previous_key": old })));
            } else if old.is_empty() {
                print("nobody signs with a previous key\n");
            } else {
                print(&format_old_keys(&old, &TimeFormat::new(args.utc)));
            }
            Ok(if old.is_empty() { 0 } else { FAILED })
        }
        Err(why) => Ok(print_unreachable(&why)),
    }
}

/// The connections whose last datagram was signed with the previous key.
fn old_keys(answer: &Json) -> Vec<Json> {
    let mut old = Vec::new();
    for host in items(answer, "hosts") {
        let connections = items(host, "connections");
        for connection in connections.filter(|connection| connection["old_key"] == true) {
            old.push(json!({
                "host": host["name"],
                "connection": connection["name"],
                "last_seen": connection["last_seen"],
            }));
        }
    }
    old
}

/// A line for each of them.
fn format_old_keys(old: &[Json], times: &TimeFormat) -> String {
    let line = |one: &Json| {
        let (host, connection) = (field(one, "host"), field(one, "connection"));
        let seen = times.format(one, "last_seen");
        format!("{host} {connection} signs with the previous key, last heard {seen}\n")
    };
    old.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<KeyArgs>, String> {
        parse_args(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
    }

    fn value<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
        text.lines().filter_map(|line| line.strip_prefix(key)).collect()
    }

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        fs::write(&file, text).unwrap();
        Config::load(&file).unwrap()
    }

    #[test]
    fn a_key_that_was_just_written_is_no_other_one() {
        let known = config("hosts: {web1: {key: 0123456789abcdef}}\n");
        assert!(!has_other_key(&known, Some("web1"), "0123456789abcdef"));
        assert!(has_other_key(&known, Some("web1"), "another"));
        assert!(!has_other_key(&known, None, "another"));
    }

    #[test]
    fn both_sides_get_the_same_key_and_nobody_gets_it_twice() {
        let args = KeyArgs { host: Some("web1".into()), ..KeyArgs::default() };
        let common = config("heartbeat: {key: 0123456789abcdef}\nhosts: {web2: {}}\n");
        let (one, two) = (key().unwrap(), key().unwrap());
        let (one, two) = (words(&args, &one, None), words(&args, &two, Some(&common)));
        let keys = value(&one, "key: ");
        assert_eq!((keys.len(), keys[0].len()), (2, 64));
        assert_eq!(keys[0], keys[1]);
        assert!(one.contains("under hosts.web1\n") && one.contains("hbc.yaml on web1\n"), "{one}");
        assert!(!one.contains("previous_key") && two.contains("previous_key"), "{two}");
        assert!(two.contains("has no host web1 yet, did you mean web2?\n"), "{two}");
        assert_ne!(keys[0], value(&two, "key: ")[0]);
    }

    #[test]
    fn a_pattern_has_a_key_for_all_its_hosts_and_a_host_of_its_own_leaves_it() {
        let known = config("hosts: {'web*': {key: 0123456789abcdef}}\n");
        let words_for = |host: &str| {
            let args = KeyArgs { host: Some(host.into()), ..KeyArgs::default() };
            words(&args, "abc", Some(&known))
        };
        let text = words_for("web*");
        assert!(text.contains("under hosts.\"web*\"\nkey: abc\n"), "{text}");
        assert!(text.contains("hbc.yaml on each host that matches it\n"), "{text}");
        assert!(!text.contains("no host") && text.contains("previous_key"), "{text}");
        let text = words_for("web7");
        assert!(text.contains("# web7 has what stands under hosts.\"web*\" so far"), "{text}");
        assert!(text.contains("previous_key"), "it signs with the key of the pattern: {text}");
        assert!(words_for("db*").contains("has no host db* yet\n"));
        assert!(parse(&["web*"]).is_ok() && parse(&["web *"]).is_err());
    }

    #[test]
    fn a_file_is_for_its_owner_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web1.key");
        let args = KeyArgs { common: true, write: Some(file.clone()), ..KeyArgs::default() };
        let new = key().unwrap();
        write_new(&args, &new).unwrap();
        let text = words(&args, &new, None);
        assert!(text.contains(&format!("key_file: {}\n", file.display())), "{text}");
        assert!(text.contains("under heartbeat\n"), "{text}");
        let written = fs::read_to_string(&file).unwrap();
        assert_eq!(value(&text, "key: "), [written.trim()]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_new(&args, &new).unwrap_err().contains("name another file"));
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
        let seen = "2026-11-21T20:12:08.667Z";
        let connection = |name, old| json!({"name": name, "old_key": old, "last_seen": seen});
        let answer = json!({"hosts": [
            {"name": "web1", "connections": [connection("ipv4", true), connection("vpn", false)]},
            {"name": "web2", "connections": []},
        ]});
        let old = old_keys(&answer);
        assert_eq!(old, [json!({"host": "web1", "connection": "ipv4", "last_seen": seen})]);
        let line = "web1 ipv4 signs with the previous key, last heard 2026-11-21 20:12:08 UTC\n";
        assert_eq!(format_old_keys(&old, &TimeFormat::new(true)), line);
    }
}
