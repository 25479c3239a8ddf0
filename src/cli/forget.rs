//! `hbd forget`: has the running daemon forget a connection that was given up, or a whole host.

use lexopt::prelude::*;

use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::{FAILED, help, print, print_error};
use crate::escape::PercentEncoded;
use crate::notify::text::{LineBreaks, clean};

#[derive(Debug, Default, PartialEq)]
struct ForgetArgs {
    daemon: DaemonArgs,
    host: String,
    connection: Option<String>,
}

/// Reads the arguments and asks the daemon. Gives the exit code: 0 when it is forgotten, 1 when the
/// daemon knows no such thing, 3 when it cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("forget"))) };
    let client = args.daemon.client()?;
    Ok(client.map_or_else(|code| code, |client| forget(&client, &args)))
}

fn parse_args(mut parser: lexopt::Parser) -> Result<Option<ForgetArgs>, lexopt::Error> {
    let mut args = ForgetArgs::default();
    let mut named = None;
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Value(name) if named.is_none() => named = Some(name.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let named = named
        .filter(|name| !name.is_empty())
        .ok_or("name what to forget: HOST or HOST/CONNECTION")?;
    match named.split_once('/') {
        None => args.host = named,
        Some((host, connection)) if !host.is_empty() && !connection.is_empty() => {
            (args.host, args.connection) = (host.to_owned(), Some(connection.to_owned()));
        }
        Some(_) => return Err("name what to forget: HOST or HOST/CONNECTION".into()),
    }
    Ok(Some(args))
}

fn forget(client: &Client, args: &ForgetArgs) -> u8 {
    let path = format!("/api/v1/hosts/{}/forget", PercentEncoded(&args.host));
    let query: Vec<_> = args.connection.iter().map(|name| ("connection", name.clone())).collect();
    let words = |text: &str| clean(text, LineBreaks::Remove);
    match client.post(&path, &query) {
        Ok((200, _)) => {
            let connection = args.connection.iter().map(|name| format!(" {name}"));
            let what = format!("{}{}", args.host, connection.collect::<String>());
            print(&format!("{} is forgotten until it beats again\n", words(&what)))
        }
        Ok((404, why)) => {
            print_error(&client.unknown_host(&args.host).unwrap_or_else(|| words(&why)));
            FAILED
        }
        Ok((_, why)) | Err(why) => print_unreachable(&words(&why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<ForgetArgs, String> {
        let parser = lexopt::Parser::from_args(arguments);
        parse_args(parser).map(Option::unwrap).map_err(|why| why.to_string())
    }

    #[test]
    fn a_host_or_one_of_its_connections_is_named() {
        let args = parsed(&["web1/vpn", "--url", "http://a:1"]).unwrap();
        assert_eq!((&*args.host, args.connection.as_deref()), ("web1", Some("vpn")));
        assert_eq!(parsed(&["web1"]).unwrap().connection, None);
        for wrong in [&[][..], &[""], &["/vpn"], &["web1/"], &["a", "b"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
