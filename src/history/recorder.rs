//! Writes down what was, every ten minutes, and makes hours and days of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{debug, warn};

use super::HistorySource;
use super::availability::{Availability, UptimeKind};
use super::query::{self, Question, SeriesReader};
use super::retention::{self, RetentionSettings};
use super::rollup::{Rollup, SlotWriter, StoredRows};
use super::samples::MetricNames;
use super::slots::{Resolution, plausible};
use crate::clock::{Now, Wall};
use crate::event::EventId;
use crate::store::{Snapshot, Table, Write};
use crate::thread::Stop;
use crate::view::{EventView, PastView, SeriesView, UptimeSample};

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// So many hosts go to disk in one order.
const HOSTS_AT_ONCE: usize = 100;
/// So many rows are read at a time.
const ROWS_AT_ONCE: usize = 1000;
/// A slot that ended longer ago ended while nobody looked at the clock.
const LATE: Duration = Duration::from_secs(120);
/// No bar is older.
const SHOWN: Duration = Duration::from_secs(91 * 86_400);
/// So many bytes are reckoned with for each host: of more hosts than fit nothing is kept.
const HOST_BYTES: u64 = 10_000;
/// So many hosts' pasts are kept in memory while somebody looks at them.
const MOST_CACHED: usize = 2000;

/// The history, as it is written.
pub struct Recorder {
    sources: Arc<dyn HistorySource>,
    settings: Mutex<RetentionSettings>,
    /// Where the clock stands.
    clock: Mutex<Cursor>,
    /// The pasts that were looked at since they last changed.
    cache: Mutex<HashMap<String, Option<Availability>>>,
}

#[derive(Default)]
struct Cursor {
    /// The slot of ten minutes that the accounts are about which nobody has taken yet.
    slot: Option<u32>,
    /// The day on which it was last looked how much room all takes.
    trimmed: Option<u32>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// One that begins now.
    pub fn new(sources: Arc<dyn HistorySource>, settings: RetentionSettings) -> Recorder {
        Recorder {
            sources,
            settings: Mutex::new(settings),
            clock: Mutex::default(),
            cache: Mutex::default(),
        }
    }

    /// Takes over another configuration; what is too old by it goes within the hour.
    pub fn reconfigure(&self, settings: RetentionSettings) {
        *locked(&self.settings) = settings;
    }

    fn settings(&self) -> RetentionSettings {
        locked(&self.settings).clone()
    }

    /// Works until the stop.
    pub fn run(&self, stop: &Stop) {
        loop {
            self.turn(Now::read());
            if stop.wait(LOOK) {
                return;
            }
        }
    }

    /// Writes down what the time has come for.
    pub fn turn(&self, now: Now) {
        let current = Resolution::Fine.slot(now.wall);
        let mut clock = locked(&self.clock);
        if !plausible(now.wall) || clock.slot == Some(current) {
            return;
        }
        let Some(begun) = clock.slot.replace(current) else {
            // What was before nobody knew the time is not told as if it were now.
            self.each_account(now, |_| {});
            // A daemon that has just started goes on with its predecessor's hours.
            return self.roll_all(now.wall);
        };
        self.write_down(begun, moment(current, now), now);
        if Resolution::Hours.slot(Resolution::Fine.start(begun)) != Resolution::Hours.slot(now.wall)
        {
            self.roll_all(now.wall);
            let day = Some(Resolution::Days.slot(now.wall));
            let daily = std::mem::replace(&mut clock.trimmed, day) != day;
            self.trim(daily, now.wall);
        }
    }

    /// Writes down what there is, at the stop.
    pub fn close(&self, now: Now) {
        let clock = locked(&self.clock);
        if let Some(slot) = clock.slot.filter(|_| plausible(now.wall)) {
            self.write_down(slot, now, now);
        }
    }

    /// Takes the accounts until a moment, which are about a slot.
    fn write_down(&self, slot: u32, until: Now, now: Now) {
        let snapshot = self.sources.snapshot();
        if let Err(why) = &snapshot {
            warn!("ten minutes of the history are not recorded: {why}");
        }
        let unseen = self.sources.unseen(now);
        let oldest = now.wall - self.settings().availability;
        let stretch = SlotWriter { slot, unseen: &unseen, oldest };
        // Those that cannot be stored are taken all the same: what comes after them is right.
        self.each_account(until, |accounts| {
            let Ok(snapshot) = &snapshot else { return };
            let known = known(snapshot, slot, accounts);
            let rows = accounts.iter().zip(&known);
            self.leave(rows.flat_map(|(account, known)| stretch.rows(account, known)).collect());
        });
        *locked(&self.cache) = HashMap::new();
    }

    fn each_account(&self, until: Now, mut take: impl FnMut(&[UptimeSample])) {
        let most = self.settings().max_bytes / HOST_BYTES;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        for from in (0..most).step_by(HOSTS_AT_ONCE) {
            let accounts = self.sources.accounts(from, HOSTS_AT_ONCE.min(most - from), until);
            if accounts.is_empty() {
                return;
            }
            take(&accounts);
        }
    }

    /// Makes hours and days of what has ended.
    fn roll_all(&self, now: Wall) {
        for tier in [Resolution::Hours, Resolution::Days] {
            // Each sees what the one before has written.
            let Ok(snapshot) = self.sources.snapshot() else { return };
            self.roll(tier, &snapshot, now);
        }
    }

    /// Lets go of what is too old, and once a day of what takes too much room.
    fn trim(&self, daily: bool, now: Wall) {
        let Ok(snapshot) = self.sources.snapshot() else { return };
        let settings = self.settings();
        let mut gone = retention::by_age(&snapshot, &settings, now);
        if daily {
            gone.extend(retention::of_the_gone(&snapshot, &settings, now));
            gone.extend(retention::by_size(&snapshot, settings.max_bytes));
        }
        gone.chunks(ROWS_AT_ONCE).for_each(|rows| self.leave(rows.to_vec()));
    }

    /// Makes the slots of a tier that are missing and can still be made.
    fn roll(&self, tier: Resolution, snapshot: &Snapshot, now: Wall) {
        let Some(finer) = tier.finer() else { return };
        let reach = finer.kept(Duration::MAX);
        let (first, current) = (tier.slot(now - reach) + 1, tier.slot(now));
        for slot in first..current {
            let (from, to) = (tier.key(slot, ""), tier.key(slot + 1, ""));
            if snapshot.last(Table::Metrics, &from, &to).is_none() {
                self.leave(rollup(tier, finer, slot, snapshot).rows(tier, slot));
            }
        }
    }

    fn leave(&self, rows: Vec<Write>) {
        if !rows.is_empty() {
            debug!("{} rows of history are written", rows.len());
            self.sources.write(rows);
        }
    }

    /// How these hosts fared, in their order; none where nothing is recorded.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn pasts(&self, hosts: &[&str], now: Now) -> Result<Vec<Option<PastView>>, String> {
        let bars = self.bars(hosts, now.wall)?.into_iter().zip(hosts);
        let past = bars.map(|(bars, host)| {
            let running = self.sources.running(host, now);
            if bars.is_none() && running.is_none() {
                return None;
            }
            let mut bars = bars.unwrap_or_default();
            if let Some(account) = running {
                bars.add(now.wall, UptimeKind::Up, account.up);
                bars.add(now.wall, UptimeKind::Degraded, account.degraded);
                bars.add(now.wall, UptimeKind::Down, account.down);
            }
            Some(bars.view(now.wall))
        });
        Ok(past.collect())
    }

    /// The metrics of a host over time. `metrics` are patterns, all when there is none.
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
        let snapshot = self.sources.snapshot()?;
        let reader = SeriesReader { snapshot: &snapshot, host, now };
        Ok(reader.series(metrics, range, &self.settings()))
    }

    /// What happened, the newest first, and where to go on.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn events(&self, question: &Question) -> Result<(Vec<EventView>, Option<EventId>), String> {
        query::events(&*self.sources, question)
    }

    /// What is recorded of hosts, from memory or from the disk.
    fn bars(&self, hosts: &[&str], now: Wall) -> Result<Vec<Option<Availability>>, String> {
        let mut found: Vec<Option<Option<Availability>>> = {
            let cache = locked(&self.cache);
            hosts.iter().map(|host| cache.get(*host).cloned()).collect()
        };
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().map(Option::flatten).collect());
        }
        let snapshot = self.sources.snapshot()?;
        let hours = snapshot.get_all(Table::Hours, hosts.iter().copied());
        let days = snapshot.get_all(Table::Days, hosts.iter().copied());
        let mut cache = locked(&self.cache);
        for (place, host) in hosts.iter().enumerate() {
            if found[place].is_some() {
                continue;
            }
            let (hours, days) = (row(&hours, place), row(&days, place));
            let bars = (hours.is_some() || days.is_some()).then(|| shown(hours, days, now));
            if cache.len() < MOST_CACHED {
                cache.insert((*host).to_owned(), bars.clone());
            }
            found[place] = Some(bars);
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }
}

/// The bars of a host as far back as they are shown.
fn shown(hours: Option<&[u8]>, days: Option<&[u8]>, now: Wall) -> Availability {
    let mut bars = Availability::decode(hours, days);
    bars.forget(now - SHOWN);
    bars
}

/// The moment that the present slot began, where that was seen.
fn moment(slot: u32, now: Now) -> Now {
    let passed = now.wall.since(Resolution::Fine.start(slot));
    if passed > LATE {
        return now;
    }
    Now { mono: now.mono - passed, wall: now.wall - passed }
}

fn row(rows: &[Option<Vec<u8>>], place: usize) -> Option<&[u8]> {
    rows.get(place).and_then(|row| row.as_deref())
}

/// What the store holds of these hosts.
fn known(snapshot: &Snapshot, slot: u32, accounts: &[UptimeSample]) -> Vec<StoredRows> {
    let names: Vec<&str> = accounts.iter().map(|account| &*account.host).collect();
    let hosts = || names.iter().copied();
    let keys: Vec<String> = hosts().map(|host| Resolution::Fine.key(slot, host)).collect();
    let mut hours = snapshot.get_all(Table::Hours, hosts()).into_iter();
    let mut days = snapshot.get_all(Table::Days, hosts()).into_iter();
    let mut points = snapshot.get_all(Table::Metrics, keys.iter().map(String::as_str)).into_iter();
    hosts()
        .map(|host| {
            let (from, to) = MetricNames::keys(host);
            StoredRows {
                hours: hours.next().flatten(),
                days: days.next().flatten(),
                names: snapshot.last(Table::Names, &from, &to).map(|(_, row)| row),
                points: points.next().flatten(),
            }
        })
        .collect()
}

/// One slot of a tier, from the finer ones.
fn rollup(tier: Resolution, finer: Resolution, slot: u32, snapshot: &Snapshot) -> Rollup {
    let parts = tier.parts(slot);
    let (mut from, to) = (finer.key(parts.start, ""), finer.key(parts.end, ""));
    let mut rollup = Rollup::default();
    loop {
        let rows = snapshot.range(Table::Metrics, &from, &to, ROWS_AT_ONCE);
        rows.iter().for_each(|(key, bytes)| rollup.add(key, bytes));
        let Some((last, _)) = rows.last().filter(|_| rows.len() == ROWS_AT_ONCE) else {
            return rollup;
        };
        // The first key after it.
        from = format!("{last}\0");
    }
}
