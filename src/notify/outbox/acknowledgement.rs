//! Acknowledgements: who has seen an incident, and for how long that counts. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};

/// A person has seen it: no more reminders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// When.
    pub at: Wall,
    /// Through which channel; empty when it was a request to the daemon.
    #[serde(default)]
    pub channel: String,
    /// Who, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// A comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was made, on the monotonic clock, and for how long; none: as long as the incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<(Now, Duration)>,
    /// On which device, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Acknowledgement {
    /// When it ends, if it was made for a time.
    pub fn end(&self) -> Option<Mono> {
        self.limit.map(|(from, length)| from.mono + length)
    }

    /// By whom, for people: `ann`, or `through oncall on iphone`.
    pub fn person(&self) -> String {
        match &self.by {
            Some(by) => by.clone(),
            None => {
                let device = self.device.as_deref().unwrap_or("a device");
                format!("through {} on {device}", self.channel)
            }
        }
    }

    /// By whom and when.
    pub fn describe(&self) -> String {
        let person = self.person();
        let by = if self.by.is_some() { format!("by {person}") } else { person };
        format!("{by} at {}", self.at.local())
    }

    /// Whether its time is not over.
    pub fn lasts(&self, now: Now) -> bool {
        self.end().is_none_or(|end| now.mono < end)
    }
}
