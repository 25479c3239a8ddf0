//! The daemon's own log as a channel: needs nothing, and is what the example uses.

use std::time::Duration;

use log::{Record, logger};

use super::{Delivered, Failure, Letter, Pace};
use crate::event::Level;
use crate::notify::text::{Flavour, clean};

/// Who the lines are from; the log never filters it out.
pub const TARGET: &str = "notification";

/// A log does not tire.
pub const PACE: Pace = Pace {
    first_delay: Duration::from_secs(1),
    longest_delay: Duration::from_secs(60),
    per_minute: 6_000_000,
    burst: 100_000,
    give_up_critical: Duration::from_secs(24 * 3600),
    give_up_warning: Duration::from_secs(6 * 3600),
    give_up_rest: Duration::from_secs(3600),
    digest: None,
};

/// Writes one line, at the level that the message has.
///
/// # Errors
/// None: a log that nobody reads cannot be told from one that somebody does.
pub fn deliver(letter: &Letter) -> Result<Delivered, Failure> {
    let level = match letter.message.level {
        Level::Ok | Level::Info => log::Level::Info,
        Level::Warning => log::Level::Warn,
        Level::Critical => log::Level::Error,
    };
    let repeat = if letter.possible_repeat { " (possibly a repeat)" } else { "" };
    let title = clean(&letter.message.title, Flavour::Line);
    let event = letter.message.event;
    let details = details(letter);
    logger().log(
        &Record::builder()
            .level(level)
            .target(TARGET)
            .args(format_args!("{title}{repeat}{details} [{event}]"))
            .build(),
    );
    Ok(Delivered::default())
}

fn details(letter: &Letter) -> String {
    let details = &letter.message.details;
    if details.is_empty() {
        return String::new();
    }
    let worded: Vec<String> = details
        .iter()
        .map(|(label, text)| format!("{label}: {}", clean(text, Flavour::Line)))
        .collect();
    format!(" ({})", worded.join("; "))
}
