//! `hbd status`: how the hosts and channels of the running daemon are, the worst first.

use std::io::{self, Write};
use std::path::PathBuf;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::client::{Client, unreachable};
use super::terminal::Color;
use super::{FAILED, HELP, say, terminal};
use crate::escape::PercentEncoded;

mod table;

use self::table::{Look, all_well, host_page, overview};

/// As wide as everybody's terminal is.
const NARROW: usize = 80;

#[derive(Debug, Default, PartialEq)]
struct Wish {
    config: Option<PathBuf>,
    url: Option<String>,
    ca_file: Option<PathBuf>,
    host: Option<String>,
    all: bool,
    json: bool,
    color: Color,
}

/// Reads the arguments, asks the daemon and prints. Gives the exit code: 0 when all is well, 1 when
/// something is not, 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(wish) = wish(parser)? else { return Ok(say(HELP)) };
    let client = match Client::wished(&wish.config, &wish.url, &wish.ca_file)? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    let look = Look {
        width: terminal::width().unwrap_or(NARROW),
        color: wish.color.wanted(),
        all: wish.all,
    };
    let shown = match &wish.host {
        Some(host) => one(&client, host, wish.json, look),
        None => everything(&client, wish.json, look),
    };
    Ok(match shown {
        Ok((text, well)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            if well { 0 } else { FAILED }
        }
        Err(why) => unreachable(&why),
    })
}

/// What is asked for; none when it is help.
fn wish(mut parser: lexopt::Parser) -> Result<Option<Wish>, lexopt::Error> {
    let mut wish = Wish::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => wish.config = Some(parser.value()?.into()),
            Long("url") => wish.url = Some(parser.value()?.string()?),
            Long("ca-file") => wish.ca_file = Some(parser.value()?.into()),
            Long("all") => wish.all = true,
            Long("json") => wish.json = true,
            Long("color") => {
                let word = parser.value()?.string()?;
                let what = "--color must be auto, always or never";
                wish.color = Color::read(&word).ok_or(what)?;
            }
            Long("help") | Short('h') => return Ok(None),
            Value(host) if wish.host.is_none() => wish.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(wish))
}

/// The whole picture, and whether all is well.
fn everything(client: &Client, json: bool, look: Look) -> Result<(String, bool), String> {
    let (ready, why) = client.ask("/-/ready")?;
    let hosts = client.get("/api/v1/hosts", &[])?;
    let channels = client.get("/api/v1/channels", &[])?;
    let trouble = (ready != 200).then(|| terminal::plain(&why));
    let well = trouble.is_none() && all_well(&hosts, &channels);
    if json {
        let answer = json!({
            "ok": well,
            "daemon": client.base(),
            "trouble": trouble,
            "now": hosts["now"],
            "hosts": hosts["hosts"],
            "channels": channels["channels"],
        });
        return Ok((format!("{answer}\n"), well));
    }
    Ok((overview(&hosts, &channels, trouble.as_deref(), look), well))
}

/// One host with all that is known of it.
fn one(client: &Client, name: &str, json: bool, look: Look) -> Result<(String, bool), String> {
    let host = client.get(&format!("/api/v1/hosts/{}", PercentEncoded(name)), &[])?;
    let now = crate::clock::Now::read().wall;
    let hosts = json!({ "now": now.to_string(), "hosts": [host] });
    let well = all_well(&hosts, &Json::Null);
    let text = if json { format!("{host}\n") } else { host_page(&hosts, look) };
    Ok((text, well))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Wish>, String> {
        wish(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
    }

    #[test]
    fn arguments_are_read() {
        assert_eq!(parsed(&[]).unwrap().unwrap(), Wish::default());
        let wish = Wish {
            host: Some("web1".into()),
            url: Some("https://x".into()),
            ca_file: Some("ca.pem".into()),
            all: true,
            json: true,
            color: Color::Never,
            ..Wish::default()
        };
        let words =
            ["web1", "--url=https://x", "--ca-file", "ca.pem", "--all", "--json", "--color=never"];
        assert_eq!(parsed(&words).unwrap().unwrap(), wish);
        for wrong in [&["a", "b"][..], &["--color", "red"], &["--limit", "3"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
