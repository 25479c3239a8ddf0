//! What became of deliveries: a line in the log, and the figures for the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use log::{error, info, warn};

use super::outbox::{Fate, Note, Record};
use crate::clock::words;

/// Why attempts fail, as the metrics name it.
pub const REASONS: [&str; 5] =
    ["unreachable", "unknown", "message_refused", "channel_refused", "expired"];

/// The figures since the start.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages that arrived, by channel.
    pub sent: BTreeMap<String, u64>,
    /// Attempts that did not, by channel and reason.
    pub failed: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// Tells how each ended; `took` is how long the attempt took that the first is about.
    pub fn tell_all(&mut self, ended: &[(Fate, Record)], took: Duration) {
        for (index, (fate, record)) in ended.iter().enumerate() {
            self.tell(fate, record, if index == 0 { took } else { Duration::ZERO });
        }
    }

    /// One line in the log for how an attempt ended, and one more in the figures.
    fn tell(&mut self, fate: &Fate, record: &Record, took: Duration) {
        let Record { channel, event, attempts, .. } = record;
        match fate {
            Fate::Delivered { events } => {
                *self.sent.entry(channel.clone()).or_default() += 1;
                let of = if *events > 1 { format!(", {events} events") } else { String::new() };
                info!("Sent notification to {channel} ({event}{of}, {})", words(took));
            }
            Fate::Waits { why, delay, may_have_arrived } => {
                self.count(channel, if *may_have_arrived { "unknown" } else { "unreachable" });
                let again = words(*delay);
                warn!(
                    "Failed to send notification to {channel}: {why} ({event}, attempt {attempts}, again in {again})"
                );
            }
            Fate::ChannelRefused { why, delay } => {
                self.count(channel, "channel_refused");
                let again = words(*delay);
                error!(
                    "Failed to send notification to {channel}: {why} (the channel pauses, {event} is kept, next probe in {again})"
                );
            }
            Fate::Unneeded => {
                info!("{event} is not told to {channel}: the alarm that it ends never arrived");
            }
            Fate::Dropped { why } => {
                let reason =
                    if why.starts_with("given up") { "expired" } else { "message_refused" };
                self.count(channel, reason);
                error!(
                    "Failed to send notification to {channel}: {why} ({event} is dropped: {})",
                    record.title
                );
            }
        }
    }

    /// Counts what was sent without the outbox; `reason` is why it failed, if it was tried.
    pub fn note(&mut self, record: &Record, reason: Option<&'static str>) {
        if record.delivered {
            *self.sent.entry(record.channel.clone()).or_default() += 1;
        } else if let Some(reason) = reason {
            self.count(&record.channel, reason);
        }
    }

    fn count(&mut self, channel: &str, reason: &'static str) {
        *self.failed.entry(channel.to_owned()).or_default().entry(reason).or_default() += 1;
    }
}

/// One line for what somebody has taken note of.
pub fn noted(note: &Note) {
    let troubles: Vec<String> = note.troubles.iter().map(ToString::to_string).collect();
    let of = if troubles.is_empty() { String::new() } else { format!(": {}", troubles.join(", ")) };
    let device = note.by.device.as_deref().unwrap_or("a device");
    info!("{} was acknowledged through {} on {device}{of}", note.event, note.by.channel);
}
