//! The time zones of this machine: the local one, in which people read times, and those that a
//! schedule may name.

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::clock::Wall;

/// The stack, in bytes, of a thread that calls [`Zones::read`] or [`Zones::get`]: the library takes up
/// to 384 kB of it in a debug build to read the file of a zone.
pub const ZONE_READER_STACK: usize = 1024 * 1024;

/// The local time zone, and the database of all others.
#[derive(Clone, Debug)]
pub struct Zones {
    local: Zone,
    database: TimeZoneDatabase,
}

/// A time zone; by default UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zones {
    /// Reads which zone is the local one (`TZ`, `/etc/localtime`); UTC when that is not known. The
    /// thread needs [`ZONE_READER_STACK`].
    pub fn read() -> Zones {
        let local = Zone(TimeZone::try_system().unwrap_or(TimeZone::UTC));
        Zones { local, ..Zones::default() }
    }

    /// The same database with another zone as the local one; none when it has no such zone.
    pub fn with_local(name: &str) -> Option<Zones> {
        let local = Zone(jiff::tz::db().get(name).ok()?);
        Some(Zones { local, ..Zones::default() })
    }

    /// The local one.
    pub fn local(&self) -> &Zone {
        &self.local
    }

    /// A zone by its name, whose case counts, as for systemd.
    pub fn get(&self, name: &str) -> Option<Zone> {
        let zone = self.database.get(name).ok()?;
        (zone.iana_name() == Some(name)).then_some(Zone(zone))
    }
}

/// The local zone is UTC.
impl Default for Zones {
    fn default() -> Zones {
        Zones { local: Zone::default(), database: jiff::tz::db().clone() }
    }
}

impl Zone {
    /// What a calendar and a clock in this zone show.
    pub fn civil_time(&self, at: Wall) -> DateTime {
        at.in_zone(self.0.clone()).datetime()
    }

    /// `2026-11-21 20:12 CET`.
    pub fn format_minute(&self, at: Wall) -> String {
        self.format(at, "%F %H:%M %Z")
    }

    /// `20:12 CET`, with the date unless it is that of `now`.
    pub fn format_recent(&self, at: Wall, now: Wall) -> String {
        let is_today = self.civil_time(at).date() == self.civil_time(now).date();
        if is_today { self.format(at, "%H:%M %Z") } else { self.format_minute(at) }
    }

    fn format(&self, at: Wall, format: &str) -> String {
        at.in_zone(self.0.clone()).strftime(format).to_string()
    }

    /// How the library sees it.
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Zone {
        Zone(TimeZone::UTC)
    }
}
