//! Times of the daemon's answers as people read them: in the zone of this machine, or in UTC.

use jiff::tz::TimeZone;
use serde_json::Value as Json;

use super::answer::field;
use crate::clock::{Wall, local_zone, parse_rfc3339};

/// How times are shown: in which zone.
#[derive(Debug)]
pub struct TimeFormat(TimeZone);

impl TimeFormat {
    /// The zone of this machine, or UTC.
    pub fn new(utc: bool) -> TimeFormat {
        TimeFormat(if utc { TimeZone::UTC } else { local_zone() })
    }

    /// `20:12:08 CET`.
    pub fn clock(&self, at: Wall) -> String {
        at.in_zone(self.0.clone()).strftime("%T %Z").to_string()
    }

    /// A time of an answer, to the second and with its zone: `2026-11-21 21:12:08 CET`; empty when
    /// there is none. What is no time is shown as it is.
    pub fn format(&self, of: &Json, name: &str) -> String {
        let text = field(of, name);
        parse_rfc3339(&text).map_or(text, |at| at.second_in(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_has_its_zone() {
        let rome = TimeFormat(TimeZone::get("Europe/Rome").unwrap());
        let of = json!({"at": "2026-11-21T23:12:08.667Z", "none": null, "odd": "\u{1b}ü"});
        assert_eq!(rome.format(&of, "at"), "2026-11-22 00:12:08 CET");
        assert_eq!(TimeFormat::new(true).format(&of, "at"), "2026-11-21 23:12:08 UTC");
        assert_eq!(rome.format(&of, "none"), "");
        assert_eq!(rome.format(&of, "odd"), "ü");
    }
}
