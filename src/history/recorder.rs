//! Records the availability and the metrics of all hosts every ten minutes, and rolls them up into
//! hours and days.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::{debug, warn};

use super::HistorySource;
use super::availability::{Availability, UptimeKind};
use super::query::{self, SeriesReader};
use super::retention::{self, RetentionSettings};
use super::rollup::{HostRows, Rollup, SlotWriter};
use super::samples::{MetricNames, NamesRoom};
use super::slots::Resolution;
use crate::clock::{Now, Wall};
use crate::event::EventId;
use crate::store::{Snapshot, Table, Write};
use crate::thread::{Stop, lock};
use crate::view::query::EventQuery;
use crate::view::{AvailabilityView, EventView, SeriesView, UptimeSample};

/// How often the clock is checked for the end of a slot.
const CLOCK_INTERVAL: Duration = Duration::from_secs(20);
/// How many hosts are stored in one transaction.
const HOSTS_PER_WRITE: usize = 100;
/// How many rows are read at a time.
const ROWS_PER_READ: usize = 1000;
/// A slot that ended longer ago ended during a suspend or a jump of the clock.
const MAX_LATENESS: Duration = Duration::from_secs(120);
/// Days that began longer ago are not shown.
const SHOWN_FOR: Duration = Duration::from_secs(91 * 86_400);
/// How many bytes a host is estimated to take: of hosts beyond `max_bytes` nothing is recorded.
const BYTES_PER_HOST: u64 = 10_000;
/// How many hosts are cached between two writes.
const MAX_CACHED_HOSTS: usize = 2000;

/// Writes the history, and answers queries for it.
pub struct Recorder {
    source: Arc<dyn HistorySource>,
    settings: Mutex<RetentionSettings>,
    /// Locked while a slot is recorded.
    cursor: Mutex<Cursor>,
    /// The hosts that were queried since the last write.
    cache: Mutex<HashMap<String, Option<Availability>>>,
}

#[derive(Default)]
struct Cursor {
    /// The ten minutes that are running: the next samples are about them.
    slot: Option<u32>,
    /// The clock was wrong at a tick: the samples that are taken next reach back to that time.
    clock_was_wrong: bool,
    /// The day on which the size was last checked.
    trimmed: Option<u32>,
}

impl Recorder {
    /// A recorder whose first slot begins with the next tick.
    pub fn new(source: Arc<dyn HistorySource>, settings: RetentionSettings) -> Recorder {
        Recorder {
            source,
            settings: Mutex::new(settings),
            cursor: Mutex::default(),
            cache: Mutex::default(),
        }
    }

    /// Applies another configuration; rows that it makes too old are removed within the hour.
    pub fn reconfigure(&self, settings: RetentionSettings) {
        *lock(&self.settings) = settings;
    }

    fn settings(&self) -> RetentionSettings {
        lock(&self.settings).clone()
    }

    /// Records until the stop.
    pub fn run(&self, stop: &Stop) {
        loop {
            self.tick(Now::read());
            if stop.wait(CLOCK_INTERVAL) {
                return;
            }
        }
    }

    /// Records the slot that has ended, if one has, and what follows from that.
    pub fn tick(&self, now: Now) {
        let current = Resolution::TenMinutes.slot(now.wall);
        let mut cursor = lock(&self.cursor);
        cursor.clock_was_wrong |= !now.wall.is_plausible();
        if !now.wall.is_plausible() || cursor.slot == Some(current) {
            return;
        }
        let ended_slot = cursor.slot.replace(current);
        match ended_slot {
            Some(ended) => self.record_slot(ended, slot_start(current, now), now),
            // These samples are discarded.
            None if cursor.clock_was_wrong => self.for_each_batch(now, |_| {}),
            None => {}
        }
        let day = Resolution::Days.slot(now.wall);
        let hour_of = |slot| Resolution::Hours.slot(Resolution::TenMinutes.start(slot));
        let hour_ended = ended_slot.is_some_and(|ended| hour_of(ended) != hour_of(current));
        let daily = hour_ended && cursor.trimmed.replace(day) != Some(day);
        // The stop does not wait for what reads long.
        drop(cursor);
        if hour_ended || ended_slot.is_none() {
            // At the start: the hours and days that ended while no daemon ran.
            self.roll_up_all(now.wall);
        }
        if hour_ended {
            self.trim(daily, now.wall);
        }
    }

    /// Records the slot that is running, at the stop.
    pub fn close(&self, now: Now) {
        let cursor = lock(&self.cursor);
        let unseen = (!cursor.clock_was_wrong).then(|| Resolution::TenMinutes.slot(now.wall));
        if let Some(slot) = cursor.slot.or(unseen).filter(|_| now.wall.is_plausible()) {
            self.record_slot(slot, now, now);
        }
    }

    /// Takes the samples until `until` and stores them as those of `slot`.
    fn record_slot(&self, slot: u32, until: Now, now: Now) {
        let snapshot = self.source.snapshot();
        if let Err(why) = &snapshot {
            warn!("ten minutes of the history are not recorded: {why}");
        }
        let outages = self.source.outages(now);
        let settings = self.settings();
        let oldest = now.wall - settings.availability;
        let taken = snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes(Table::Names));
        let mut room = NamesRoom::new(settings.max_bytes, taken);
        let writer = SlotWriter { slot, outages: &outages, oldest };
        // Samples that cannot be stored are taken all the same, so that they do not count in the next
        // slot.
        self.for_each_batch(until, |samples| {
            let Ok(snapshot) = &snapshot else { return };
            let stored = stored_rows(snapshot, slot, samples);
            if !snapshot.is_sound() {
                // What is taken for missing would be written over what is there.
                return;
            }
            let rows = samples.iter().zip(&stored);
            let rows = rows.flat_map(|(sample, stored)| writer.rows(sample, stored, &mut room));
            self.write(rows.collect());
        });
        *lock(&self.cache) = HashMap::new();
    }

    fn for_each_batch(&self, until: Now, mut ingest: impl FnMut(&[UptimeSample])) {
        let max_hosts = self.settings().max_bytes / BYTES_PER_HOST;
        let max_hosts = usize::try_from(max_hosts).unwrap_or(usize::MAX);
        for from in (0..max_hosts).step_by(HOSTS_PER_WRITE) {
            let samples =
                self.source.take_samples(from, HOSTS_PER_WRITE.min(max_hosts - from), until);
            if samples.is_empty() {
                return;
            }
            ingest(&samples);
        }
    }

    /// Rolls up the hours and days that have ended.
    fn roll_up_all(&self, now: Wall) {
        for resolution in [Resolution::Hours, Resolution::Days] {
            // A new snapshot each time: days are made of the hours that were just written.
            let Ok(snapshot) = self.source.snapshot() else { return };
            self.roll_up(resolution, &snapshot, now);
        }
    }

    /// Removes rows that are too old, and once a day those of what is no longer there.
    fn trim(&self, daily: bool, now: Wall) {
        let Ok(snapshot) = self.source.snapshot() else { return };
        let settings = self.settings();
        let mut removals = retention::expired_rows(&snapshot, &settings, now);
        if daily {
            removals.extend(retention::abandoned_rows(&snapshot, &settings, now));
        }
        if !snapshot.is_sound() {
            return;
        }
        removals.chunks(ROWS_PER_READ).for_each(|rows| self.write(rows.to_vec()));
    }

    /// Makes the missing slots of a resolution, as far back as the finer rows are kept.
    fn roll_up(&self, resolution: Resolution, snapshot: &Snapshot, now: Wall) {
        let Some(finer) = resolution.finer() else { return };
        let reach = finer.retention(Duration::MAX);
        let (first, current) = (resolution.slot(now - reach) + 1, resolution.slot(now));
        for slot in first..current {
            let (from, to) = (resolution.key(slot, ""), resolution.key(slot + 1, ""));
            if snapshot.last(Table::Metrics, &from, &to).is_none() {
                let rollup = rollup(resolution, finer, slot, snapshot);
                if !snapshot.is_sound() {
                    return;
                }
                self.write(rollup.rows(resolution, slot));
            }
        }
    }

    fn write(&self, rows: Vec<Write>) {
        if !rows.is_empty() {
            debug!("{} rows of history are written", rows.len());
            self.source.write(rows);
        }
    }

    /// The availability of these hosts, in their order; none where nothing is recorded.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn pasts(&self, hosts: &[&str], now: Now) -> Result<Vec<Option<AvailabilityView>>, String> {
        let availability = self.availability(hosts, now.wall)?.into_iter().zip(hosts);
        let past = availability.map(|(availability, host)| {
            let sample = self.source.peek_sample(host, now);
            if availability.is_none() && sample.is_none() {
                return None;
            }
            let mut availability = availability.unwrap_or_default();
            if let Some(sample) = sample {
                availability.add(now.wall, UptimeKind::Up, sample.up);
                availability.add(now.wall, UptimeKind::Degraded, sample.degraded);
                availability.add(now.wall, UptimeKind::Down, sample.down);
            }
            Some(availability.view(now.wall))
        });
        Ok(past.collect())
    }

    /// The metrics of a host over time. `metrics` are patterns; all metrics when there is none.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn series(
        &self,
        host: &str,
        metrics: &[String],
        range: Duration,
        now: Wall,
    ) -> Result<Vec<SeriesView>, String> {
        let snapshot = self.source.snapshot()?;
        let reader = SeriesReader { snapshot: &snapshot, host, now };
        Ok(reader.series(metrics, range, &self.settings()))
    }

    /// The events that a query matches, the newest first, and where the next page begins.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn events(&self, query: &EventQuery) -> Result<(Vec<EventView>, Option<EventId>), String> {
        query::events(&*self.source, query)
    }

    /// The stored availability of hosts, from the cache or the disk.
    fn availability(&self, hosts: &[&str], now: Wall) -> Result<Vec<Option<Availability>>, String> {
        let mut found: Vec<Option<Option<Availability>>> = {
            let cache = lock(&self.cache);
            hosts.iter().map(|host| cache.get(*host).cloned()).collect()
        };
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().map(Option::flatten).collect());
        }
        let snapshot = self.source.snapshot()?;
        let hours = snapshot.get_all(Table::Hours, hosts.iter().copied());
        let days = snapshot.get_all(Table::Days, hosts.iter().copied());
        let mut cache = lock(&self.cache);
        for (index, host) in hosts.iter().enumerate() {
            if found[index].is_some() {
                continue;
            }
            let (hours, days) = (row(&hours, index), row(&days, index));
            let availability =
                (hours.is_some() || days.is_some()).then(|| decode_shown(hours, days, now));
            if cache.len() < MAX_CACHED_HOSTS {
                cache.insert((*host).to_owned(), availability.clone());
            }
            found[index] = Some(availability);
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }
}

/// The availability of a host as far back as it is shown.
fn decode_shown(hours: Option<&[u8]>, days: Option<&[u8]>, now: Wall) -> Availability {
    let mut availability = Availability::decode(hours, days);
    availability.drop_days_before(now - SHOWN_FOR);
    availability
}

/// The moment when a slot began, unless that was missed: then now.
fn slot_start(slot: u32, now: Now) -> Now {
    let passed = now.wall.since(Resolution::TenMinutes.start(slot));
    if passed > MAX_LATENESS {
        return now;
    }
    Now { mono: now.mono - passed, wall: now.wall - passed }
}

fn row(rows: &[Option<Vec<u8>>], index: usize) -> Option<&[u8]> {
    rows.get(index).and_then(|row| row.as_deref())
}

/// The stored rows of these hosts.
fn stored_rows(snapshot: &Snapshot, slot: u32, samples: &[UptimeSample]) -> Vec<HostRows> {
    let names: Vec<&str> = samples.iter().map(|sample| &*sample.host).collect();
    let hosts = || names.iter().copied();
    let keys: Vec<String> = hosts().map(|host| Resolution::TenMinutes.key(slot, host)).collect();
    let mut hours = snapshot.get_all(Table::Hours, hosts()).into_iter();
    let mut days = snapshot.get_all(Table::Days, hosts()).into_iter();
    let mut points = snapshot.get_all(Table::Metrics, keys.iter().map(String::as_str)).into_iter();
    let ranges = hosts().map(MetricNames::keys).collect();
    let mut names_of = snapshot.last_of_each(Table::Names, ranges).into_iter();
    hosts()
        .map(|_| HostRows {
            hours: hours.next().flatten(),
            days: days.next().flatten(),
            names: names_of.next().flatten().map(|(_, row)| row),
            points: points.next().flatten(),
        })
        .collect()
}

/// One slot of a resolution, from the finer rows.
fn rollup(resolution: Resolution, finer: Resolution, slot: u32, snapshot: &Snapshot) -> Rollup {
    let parts = resolution.parts(slot);
    let (mut from, to) = (finer.key(parts.start, ""), finer.key(parts.end, ""));
    let mut rollup = Rollup::default();
    loop {
        let rows = snapshot.range(Table::Metrics, &from, &to, ROWS_PER_READ);
        rows.iter().for_each(|(key, bytes)| rollup.add(key, bytes));
        let Some((last, _)) = rows.last().filter(|_| rows.len() == ROWS_PER_READ) else {
            return rollup;
        };
        // The first key after it.
        from = format!("{last}\0");
    }
}
