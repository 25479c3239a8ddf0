//! `hbd notify`: sends a text now, from this process, through the real channels.
//!
//! It is for tests and scripts: the text goes to each named channel whatever its `min_level`, is tried
//! once, and is in no log of deliveries.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use lexopt::prelude::*;
use log::warn;
use serde_json::json;

use super::{CONFIGURATION, FAILED, config_file, help, json_line, print, print_error};
use crate::clock::format_duration;
use crate::config::Config;
use crate::config_file::suggestion;
use crate::event::Level;
use crate::logger;
use crate::notify::notifier::{ChannelResult, DirectMessage, MAX_TEXT, Notifier};

#[derive(Debug, Default, PartialEq)]
struct NotifyArgs {
    config: Option<PathBuf>,
    host: Option<String>,
    channels: Vec<String>,
    default: bool,
    level: Option<Level>,
    json: bool,
    text: Option<String>,
}

/// Reads the arguments, sends, and gives the exit code: 0 when every channel took it, 1 when one
/// did not.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("notify"))) };
    logger::start();
    let text = match args.text.as_deref() {
        Some("-") => match read_text(io::stdin().lock()) {
            Ok(text) => text,
            Err(why) => {
                print_error(&format!("the message cannot be read from standard input: {why}"));
                return Ok(FAILED);
            }
        },
        text => text.unwrap_or_default().to_owned(),
    };
    Ok(match Config::load(config_file(args.config.clone())) {
        Ok(config) => notify(&config, &args, text, &mut io::stdout().lock()),
        Err(problems) => {
            print_error(&problems);
            CONFIGURATION
        }
    })
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<NotifyArgs>, lexopt::Error> {
    let mut args = NotifyArgs::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => args.config = Some(parser.value()?.into()),
            Long("host") => args.host = Some(text(parser.value()?)),
            Long("channel") => args.channels.push(text(parser.value()?)),
            Long("default") => args.default = true,
            Long("level") => args.level = Some(level(&text(parser.value()?))?),
            Long("json") => args.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(_) if args.text.is_some() => {
                return Err("there is more than one message: put it in quotes".into());
            }
            Value(value) => args.text = Some(text(value)),
            Short(letter) => {
                let why = format!("there is no option -{letter}");
                return Err(format!("{why} (before a message that begins with -, put --)").into());
            }
            other => return Err(other.unexpected()),
        }
    }
    let targets = [args.host.is_some(), !args.channels.is_empty(), args.default];
    match targets.iter().filter(|given| **given).count() {
        0 => return Err("whom to tell is missing: --host, --channel or --default".into()),
        1 => {}
        _ => return Err("--host, --channel and --default exclude each other".into()),
    }
    if args.text.is_none() {
        return Err("the message is missing".into());
    }
    Ok(Some(args))
}

/// Text that is not UTF-8 is sent with replacement characters: it may be an alarm.
fn text(argument: OsString) -> String {
    argument.to_string_lossy().into_owned()
}

fn level(name: &str) -> Result<Level, lexopt::Error> {
    const LEVELS: [Level; 4] = [Level::Ok, Level::Info, Level::Warning, Level::Critical];
    let found = LEVELS.into_iter().find(|level| level.name() == name);
    found.ok_or_else(|| {
        format!("--level must be ok, info, warning or critical, not {name:?}").into()
    })
}

/// At most what is sent in any case, without the line's end that `echo` adds.
fn read_text(input: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn notify(config: &Config, args: &NotifyArgs, text: String, out: &mut impl Write) -> u8 {
    let notifier = Notifier::new(config);
    let channels = match &args.host {
        Some(host) => notifier.channels_of_host(host).to_vec(),
        None if args.default => notifier.default_channels().to_vec(),
        None => args.channels.clone(),
    };
    if let Some(host) = args.host.as_ref().filter(|host| config.host(host).is_none()) {
        let near = suggestion::nearest(host, config.hosts.keys().map(String::as_str));
        let meant = near.map_or(":".into(), |near| format!(", did you mean {near:?}?"));
        warn!("no host is called {host:?} here{meant} the default channels are used");
    }
    if channels.is_empty() {
        let whose = args.host.as_ref().map_or("default".into(), |host| format!("host {host:?}"));
        print_error(&format!("nobody was told: there is no channel for {whose}"));
    }
    let mut notice = DirectMessage { host: args.host.clone(), ..DirectMessage::new(text) };
    notice.level = args.level.unwrap_or(notice.level);
    // A closed output is ignored: the exit code is about the channels.
    let sent = notifier.send(&channels, &notice, |_, name, report| {
        if !args.json {
            let _ = writeln!(out, "{}", format_result(name, report));
        }
    });
    let results = sent.results();
    if args.json {
        let _ = out.write_all(json_line(&json!(results)).as_bytes());
    }
    if !results.is_empty() && results.values().all(|sent| *sent) { 0 } else { FAILED }
}

/// `email_ops: sent in 1 s`
fn format_result(name: &str, report: &ChannelResult) -> String {
    let took = format_duration(report.took);
    match report.why() {
        None => format!("{name}: sent in {took}"),
        Some(why) => format!("{name}: not sent, after {took}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<NotifyArgs>, String> {
        parse_args(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
    }

    #[test]
    fn arguments_name_whom_to_tell_and_one_message() {
        let args = |args: NotifyArgs| Ok(Some(NotifyArgs { text: Some("x y".into()), ..args }));
        for (arguments, expected) in [
            (
                &["--default", "x y"][..],
                args(NotifyArgs { default: true, ..NotifyArgs::default() }),
            ),
            (
                &["x y", "--host", "h"],
                args(NotifyArgs { host: Some("h".into()), ..NotifyArgs::default() }),
            ),
            (
                &["--channel=a", "--channel", "b", "--level", "critical", "--json", "x y"],
                args(NotifyArgs {
                    channels: vec!["a".into(), "b".into()],
                    level: Some(Level::Critical),
                    json: true,
                    ..NotifyArgs::default()
                }),
            ),
            (&["--help"], Ok(None)),
        ] {
            assert_eq!(parsed(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_message_may_begin_with_a_dash_after_two_of_them() {
        let text = |arguments: &[&str]| parsed(arguments).unwrap().unwrap().text.unwrap();
        assert_eq!(text(&["--default", "--", "-rf --help"]), "-rf --help");
        assert_eq!(text(&["--default", "-"]), "-");
        assert_eq!(text(&["--default", ""]), "");
        assert!(parsed(&["--default", "-5 degrees"]).unwrap_err().contains("put --"));
    }

    #[test]
    fn wrong_arguments_are_said() {
        for (arguments, why) in [
            (&["x"][..], "whom to tell is missing"),
            (&["--default"], "the message is missing"),
            (&["--default", "x", "y"], "more than one message"),
            (&["--default", "--host", "h", "x"], "exclude each other"),
            (&["--default", "--level", "loud", "x"], "must be ok, info, warning or critical"),
            (&["--default", "--levle", "ok", "x"], "--levle"),
        ] {
            let said = parsed(arguments).unwrap_err();
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
    }

    #[test]
    fn standard_input_is_read_to_a_bound() {
        assert_eq!(read_text("disk full\r\n\n".as_bytes()).unwrap(), "disk full");
        assert_eq!(read_text(&b"gr\xfc\xdfe"[..]).unwrap(), "gr\u{fffd}\u{fffd}e");
        assert_eq!(read_text(io::repeat(b'x')).unwrap().len(), MAX_TEXT + 1);
    }
}
