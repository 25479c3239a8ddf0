//! Times of the daemon's answers as people read them: in the zone of this machine, or in UTC.

use serde_json::Value as Json;

use super::answer::field;
use crate::backup::schedule::{Zone, Zones};
use crate::clock::{Wall, parse_rfc3339};

/// How times are shown: in which zone.
#[derive(Debug, Default)]
pub struct TimeFormat(Zone);

impl TimeFormat {
    /// The zone of this machine (`TZ`, `/etc/localtime`), or UTC.
    pub fn new(utc: bool) -> TimeFormat {
        TimeFormat(if utc { Zone::default() } else { Zones::read().local().clone() })
    }

    /// `20:12:08 CET`.
    pub fn clock(&self, at: Wall) -> String {
        let text = self.0.format_second(at);
        text.split_once(' ').map_or(text.clone(), |(_, clock)| clock.to_owned())
    }

    /// A time of an answer, to the second and with its zone: `2026-11-21 21:12:08 CET`; empty when
    /// there is none. What is no time is shown as it is.
    pub fn format(&self, of: &Json, name: &str) -> String {
        let text = field(of, name);
        parse_rfc3339(&text).map_or(text, |at| self.0.format_second(at))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_has_its_zone() {
        let rome = TimeFormat(Zones::with_local("Europe/Rome").unwrap().local().clone());
        let of = json!({"at": "2026-11-21T23:12:08.667Z", "none": null, "odd": "\u{1b}ü"});
        assert_eq!(rome.format(&of, "at"), "2026-11-22 00:12:08 CET");
        assert_eq!(TimeFormat::new(true).format(&of, "at"), "2026-11-21 23:12:08 UTC");
        assert_eq!(rome.format(&of, "none"), "");
        assert_eq!(rome.format(&of, "odd"), "ü");
    }
}
