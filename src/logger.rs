//! The log on stderr: one line per record, with a syslog priority when journald reads it.

use std::io::Write;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

use crate::clock::Now;
use crate::escape::{LineBreaks, visible};
use crate::notify::channel;

/// Starts the log. `HBD_LOG` sets what is shown (`debug`, `warn`, `heartbeat::notify=debug`; see
/// the crate env_logger); notifications of the `log` channel are always shown.
pub fn start() {
    start_with("HBD_LOG");
}

/// The same with another variable than `HBD_LOG`.
pub fn start_with(variable: &str) {
    // journald sets this, and takes the time itself: systemd.exec(5), sd-daemon(3).
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info);
    if let Ok(filter) = std::env::var(variable) {
        builder.parse_filters(&filter);
    }
    builder
        .filter_module(channel::log::TARGET, LevelFilter::Info)
        .target(Target::Stderr)
        .format(move |out, record| {
            if may_print_secrets(record.target(), record.level()) {
                Ok(())
            } else if journal {
                writeln!(out, "<{}>{}", priority(record.level()), single_line(record))
            } else {
                let time = Now::read().wall;
                writeln!(out, "{time} {:5} {}", record.level(), single_line(record))
            }
        })
        .init();
}

/// At trace, the HTTP client prints whole URLs, and a webhook's URL is its password: whatever
/// `HBD_LOG` asks for (`ureq::unversioned=trace` too), such lines are not printed.
fn may_print_secrets(target: &str, level: Level) -> bool {
    target.starts_with("ureq") && level > Level::Info
        || target.starts_with("rustls") && level > Level::Warn
}

/// Text of others must neither forge a second line nor steer the terminal that shows the log.
fn single_line(record: &Record) -> String {
    visible(&record.args().to_string(), LineBreaks::Remove).collect()
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_plan_turned_a_line_of_the_log_round() {
        let arguments = format_args!("plan \u{202e}7\u{200b}\n\u{9b}31m\u{2028}of {}", "\u{1b}[1m");
        let record = Record::builder().args(arguments).build();
        assert_eq!(single_line(&record), "plan 7 31m of [1m");
    }

    #[test]
    fn no_filter_makes_the_http_client_print_its_urls() {
        for (target, level, hidden) in [
            ("ureq", Level::Debug, true),
            ("ureq::unversioned::transport", Level::Trace, true),
            ("ureq_proto::client", Level::Debug, true),
            ("rustls::client::hs", Level::Info, true),
            ("ureq", Level::Info, false),
            ("rustls", Level::Warn, false),
            ("heartbeat::notify", Level::Trace, false),
        ] {
            assert_eq!(may_print_secrets(target, level), hidden, "{target} {level}");
        }
    }
}
