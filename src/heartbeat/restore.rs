//! From stored rows back to hosts: what an old clock means on the present one. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Incident, Level};
use crate::heartbeat::blindness::Blindness;
use crate::heartbeat::connection::{Connection, Grant};
use crate::heartbeat::gauge::Gauge;
use crate::heartbeat::host::{Boots, Host, MAX_CONNECTIONS};
use crate::heartbeat::metrics::MAX_METRICS;
use crate::heartbeat::presence::{Known, Presence};
use crate::heartbeat::profile::{Common, Names, Profile};
use crate::heartbeat::row::{AlertRow, ConnectionRow, Mark, Row};
use crate::heartbeat::threshold::Standing;
use crate::view::State;

/// 2024-01-01: a wall clock that shows less was never set.
const EARLIEST: Wall = Wall(1_704_067_200_000);

/// The longest interval that a datagram may promise, in milliseconds.
const LONGEST_INTERVAL: u32 = 604_800_000;

/// Whether a wall clock may be believed.
pub fn plausible(wall: Wall) -> bool {
    wall >= EARLIEST
}

/// A kernel's boot id in short, to tell whose monotonic clock a row was written on (FNV-1a).
pub fn kernel_tag(boot_id: &str) -> u32 {
    let step = |tag: u32, byte: u8| (tag ^ u32::from(byte)).wrapping_mul(16_777_619);
    boot_id.trim().bytes().fold(2_166_136_261, step).max(1)
}

/// How the clock of stored rows relates to the present one.
#[derive(Debug)]
pub struct Frame {
    now: Now,
    kernel: u32,
    /// The kernel of the mark, and what to add to its monotonic times.
    marked: Option<(u32, i64)>,
    /// How long the daemon was away; none when nobody knows.
    away: Option<Duration>,
}

impl Frame {
    /// Compares the clocks; what the daemon missed is added to `blindness`.
    pub fn new(
        mark: Option<&Mark>,
        kernel_boot: &str,
        now: Now,
        blindness: &mut Blindness,
    ) -> Frame {
        let kernel = kernel_tag(kernel_boot);
        let mut frame = Frame { now, kernel, marked: None, away: None };
        let Some(mark) = mark else {
            return frame;
        };
        let same_kernel = mark.kernel_boot.trim() == kernel_boot.trim();
        if same_kernel && mark.now.mono <= now.mono {
            frame.marked = Some((kernel, 0));
            frame.away = Some(now.mono.since(mark.now.mono));
            blindness.add(mark.now.mono, now.mono);
        } else if !same_kernel && plausible(now.wall) && mark.now.wall <= now.wall {
            let elapsed = now.wall.since(mark.now.wall);
            let stop = now.mono - elapsed;
            let shift = stop.0.saturating_sub(mark.now.mono.0);
            frame.marked = Some((kernel_tag(&mark.kernel_boot), shift));
            frame.away = Some(elapsed);
            blindness.add(stop, now.mono);
        }
        frame
    }

    /// What to add to a time of a row of `kernel`, at best by its monotonic clock, else by the wall
    /// clock that was read together with it.
    fn shift(&self, kernel: u32, read: Now) -> i64 {
        self.shift_of(kernel).unwrap_or_else(|| {
            (self.now.mono - self.now.wall.since(read.wall)).0.saturating_sub(read.mono.0)
        })
    }

    /// What to add to a monotonic time of `kernel`, where its clock is known.
    fn shift_of(&self, kernel: u32) -> Option<i64> {
        match self.marked {
            Some((marked, shift)) if kernel == marked || kernel == 0 => Some(shift),
            _ => (kernel == self.kernel && self.away.is_some()).then_some(0),
        }
    }

    fn translate(&self, kernel: u32, read: Now) -> Now {
        let mono = Mono(read.mono.0.saturating_add(self.shift(kernel, read)));
        Now { mono: mono.min(self.now.mono), wall: read.wall }
    }

    /// What is left of a time since when a value is beyond its limit, where that has to last for
    /// `hold`: only the time in which the daemon listened counts, and when it was away for longer
    /// than that, it begins anew.
    fn resume(&self, kernel: u32, since: Option<Mono>, hold: Duration) -> Option<Mono> {
        let away = self.away.filter(|away| *away <= hold)?;
        let since = Mono(since?.0.saturating_add(self.shift_of(kernel)?));
        Some((since + away).min(self.now.mono))
    }

    /// The tag of the present kernel.
    pub fn kernel(&self) -> u32 {
        self.kernel
    }
}

/// A host as its row tells, and the troubles whose rules are gone.
pub fn host(
    name: Arc<str>,
    row: Row,
    profile: Arc<Profile>,
    frame: &Frame,
    common: &Common,
    names: &mut Names,
) -> (Host, Vec<Incident>) {
    let now = frame.now;
    let mut host = Host::new(name, profile.clone(), now);
    host.reported = row.reported;
    host.leaving = row.leaving;
    host.named = row.named;
    host.boots = row.boot_id.map(|current| {
        let previous = row.previous_boot_id.map(Into::into);
        Box::new(Boots { current: current.into(), previous })
    });
    let booted = row.booted.zip(frame.shift_of(row.kernel));
    host.booted = booted.map(|(booted, shift)| Mono(booted.0.saturating_add(shift)).min(now.mono));
    for stored in row.connections.into_iter().take(MAX_CONNECTIONS) {
        if host.place(&stored.name).is_none() {
            let connection = connection(stored, row.kernel, &profile, frame, common, names);
            host.connections.push(connection);
        }
    }
    host.connections.shrink_to_fit();
    host.settle(now);
    host.since = row.since;
    host.configured = row.configured;
    if !plausible(row.configured) {
        // Configured while the clock was not set yet: it must not look ages old. That must be
        // stored, or each start would begin to count anew.
        host.configured = now.wall;
        host.changed = plausible(now.wall);
    }
    let mut ended = host.review_vouched(now);
    if row.unwatched && profile.watch {
        ended.extend(host.tell_anew(common, now));
        host.changed = true;
    }
    for stored in row.alerts.into_iter().take(MAX_METRICS) {
        ended.extend(alert(&mut host, stored, row.kernel, frame, names));
    }
    (host, ended)
}

/// Gives the host a metric back as its row tells; the trouble that is over when its rule is gone.
fn alert(
    host: &mut Host,
    row: AlertRow,
    kernel: u32,
    frame: &Frame,
    names: &mut Names,
) -> Option<Incident> {
    let now = frame.now;
    let over = host.place(&row.over);
    let heard = over.map_or(now.mono, |over| host.connections[over].seen.mono);
    // Rows of earlier versions do not tell when it came.
    let at = if row.known.at == Wall::default() { row.since } else { row.known.at };
    let presence = Presence::restore(Known { at, ..row.known }, over.unwrap_or(usize::MAX), heard);
    let path = names.intern(&row.path);
    let mut gauge = Gauge::new(path, row.value, presence, &host.profile, now);
    let mut ended = None;
    match gauge.watched.as_deref_mut() {
        Some(watched) if watched.rule.reaches(row.level) => {
            if row.level >= Level::Warning {
                watched.standing = Standing::at(row.level);
                watched.since = row.since;
                watched.told = frame.translate(kernel, row.told);
                watched.missing = row.missing;
            }
            if host.state == State::Up {
                let since = |since| frame.resume(kernel, since, watched.rule.hold);
                let (warning, critical) = (since(row.warning_since), since(row.critical_since));
                watched.standing.resume(warning, critical);
            }
        }
        Some(_) | None if row.level >= Level::Warning => {
            ended = Some(Incident::Metric { host: host.name.as_ref().into(), metric: row.path });
        }
        Some(_) | None => {}
    }
    host.gauges.push(gauge);
    ended
}

fn connection(
    row: ConnectionRow,
    kernel: u32,
    profile: &Profile,
    frame: &Frame,
    common: &Common,
    names: &mut Names,
) -> Connection {
    let shift = frame.shift(kernel, row.seen);
    let mut connection = Connection::new(names.intern(&row.name), frame.now);
    connection.state = row.state;
    connection.covered = row.covered;
    connection.shifts = row.shifts;
    connection.interval = row.interval.min(LONGEST_INTERVAL);
    connection.since = row.since;
    connection.seen = frame.translate(kernel, row.seen);
    connection.signed = row.signed;
    connection.key = row.key;
    connection.address = row.address.and_then(|address| address.parse().ok());
    // No deadline is later than it would be after a beat at this moment, whatever the row says.
    let latest = frame.now.mono + connection.promise(profile, common).patience();
    let granted = row.granted.map(|grant| Grant {
        from: Mono(grant.from.0.saturating_add(shift)),
        until: Mono(grant.until.0.saturating_add(shift)).min(latest),
    });
    let whole = Grant { from: frame.now.mono, until: latest };
    let waits = row.state == State::Up || row.covered;
    let unknown = waits && (frame.away.is_none() || (row.covered && granted.is_none()));
    connection.granted = if unknown { Some(whole) } else { granted };
    connection
}
