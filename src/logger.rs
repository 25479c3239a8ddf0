//! The log on stderr: one line per record, with a syslog priority when journald reads it.

use std::io::Write;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

use crate::clock::Now;
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

fn single_line(record: &Record) -> String {
    // Text from the network must neither forge a second line nor send control sequences.
    record.args().to_string().replace(char::is_control, " ")
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
