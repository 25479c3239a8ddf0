//! The time zones of this machine: the local one, and those that a schedule may name.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::clock::Wall;

/// The local time zone, and the database of all others.
#[derive(Clone, Debug)]
pub struct Zones {
    local: TimeZone,
    database: TimeZoneDatabase,
}

impl Zones {
    /// Reads which zone is the local one (`TZ`, `/etc/localtime`); UTC when that is not known.
    pub fn read() -> Zones {
        let local = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        Zones { local, database: jiff::tz::db().clone() }
    }

    /// The same database with another zone as the local one; none when it has no such zone.
    pub fn with_local(name: &str) -> Option<Zones> {
        let local = jiff::tz::db().get(name).ok()?;
        Some(Zones { local, database: jiff::tz::db().clone() })
    }

    /// The local one.
    pub fn local(&self) -> &TimeZone {
        &self.local
    }

    /// A zone by its name, whose case counts, as for systemd.
    pub fn get(&self, name: &str) -> Option<TimeZone> {
        self.database.get(name).ok().filter(|zone| zone.iana_name() == Some(name))
    }
}

/// The time that a clock in this zone shows.
pub fn civil_time(at: Wall, zone: &TimeZone) -> DateTime {
    zone.to_datetime(timestamp(at))
}

/// The nearest that the library can represent.
pub fn timestamp(at: Wall) -> Timestamp {
    let limit = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(at.0).unwrap_or(limit)
}
