//! The log channel: the daemon's own log. It needs no provider, and is what the example uses.

use std::time::Duration;

use log::{Record, logger};

use super::attempt::{Delivered, Failure, OutgoingMessage, RetryPolicy};
use crate::event::Level;
use crate::notify::text::{LineBreaks, clean};

/// The target of its log records; the logger never filters it out.
pub const TARGET: &str = "notification";

/// Rate, retries and expiry: a log has no limits.
pub const RETRY_POLICY: RetryPolicy = RetryPolicy {
    first_delay: Duration::from_secs(1),
    max_delay: Duration::from_secs(60),
    per_minute: 6_000_000,
    burst: 100_000,
    give_up_critical: Duration::from_secs(24 * 3600),
    give_up_warning: Duration::from_secs(6 * 3600),
    give_up_other: Duration::from_secs(3600),
    digest: None,
};

/// Writes one line, at the level that the message has.
///
/// # Errors
/// None: the log gives no error.
pub fn deliver(outgoing: &OutgoingMessage) -> Result<Delivered, Failure> {
    let level = match outgoing.message.level {
        Level::Ok | Level::Info => log::Level::Info,
        Level::Warning => log::Level::Warn,
        Level::Critical => log::Level::Error,
    };
    let repeat = if outgoing.possible_repeat { " (possibly a repeat)" } else { "" };
    let title = clean(&outgoing.message.title, LineBreaks::Remove);
    let event = outgoing.message.event;
    let details = details(outgoing);
    logger().log(
        &Record::builder()
            .level(level)
            .target(TARGET)
            .args(format_args!("{title}{repeat}{details} [{event}]"))
            .build(),
    );
    Ok(Delivered::default())
}

fn details(outgoing: &OutgoingMessage) -> String {
    let details = &outgoing.message.details;
    if details.is_empty() {
        return String::new();
    }
    let worded: Vec<String> = details
        .iter()
        .map(|(label, text)| {
            let (label, text) = (clean(label, LineBreaks::Remove), clean(text, LineBreaks::Remove));
            format!("{label}: {text}")
        })
        .collect();
    format!(" ({})", worded.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::event::{EventId, Message, Subject};

    #[test]
    fn a_name_in_a_label_wrote_lines_and_colours_of_its_own_into_the_log() {
        let message = Message {
            event: EventId(1),
            at: Wall(0),
            level: Level::Info,
            subject: Subject::Daemon,
            thread: String::new(),
            title: "backups".into(),
            details: vec![("a\n\u{1b}[31mb".into(), "x\ny".into()), ("c".into(), "z".into())],
            link: None,
            table: None,
        };
        let outgoing = OutgoingMessage {
            channel: "log",
            message: &message,
            recipient: None,
            possible_repeat: false,
            short_form: false,
            thread: None,
            recovered_events: &[],
            now: Wall(0),
        };
        assert_eq!(details(&outgoing), " (a [31mb: x y; c: z)");
    }
}
