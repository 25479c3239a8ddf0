//! The thread that sends the daily summary of all backup plans, at the times that the configuration
//! in use has.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::{error, info};
use serde::{Deserialize, Serialize};

use super::threads::Threads;
use crate::backup::analysis::{self, Analyzer, PlanReport};
use crate::backup::plan_changes::LastLook;
use crate::backup::plan_query::PlanQuery;
use crate::backup::plan_summary::PlanSummary;
use crate::backup::schedule::{ZONE_READER_STACK, Zones};
use crate::backup::settings::CorrelatorSettings;
use crate::clock::{Now, Wall};
use crate::config::Config;
use crate::notify::summary_times::{SummaryStep, TimeOfDay, step};
use crate::store::{Change, ChangeSink, Store, Table, Write};
use crate::thread::{Stop, StopSource, lock};

/// The key of the row in [`Table::Meta`].
const KEY: &str = "backup_summary";

/// How long a Redis that cannot be asked is asked again, and modules that run are waited for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The thread `summary`, while the configuration has times for it, and what it must not forget.
pub struct Summaries {
    record: Mutex<Option<SummaryRecord>>,
    running: Mutex<Option<RunningSummary>>,
    sink: ChangeSink,
    last_looks: LastLooks,
}

/// Gives the last look at each plan.
type LastLooks = Box<dyn Fn() -> BTreeMap<String, LastLook> + Send + Sync>;

/// Which summary was the last: without it one would be sent twice a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SummaryRecord {
    /// The times that were configured: other ones begin to count when they are read.
    times: Vec<String>,
    /// No summary is owed from before this.
    since: Wall,
    /// When the last one was sent.
    #[serde(default)]
    sent: Option<Wall>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SummarySettings {
    times: BTreeSet<TimeOfDay>,
    correlator: CorrelatorSettings,
}

struct RunningSummary {
    settings: SummarySettings,
    _stop_source: StopSource,
}

impl Summaries {
    /// With what the store has of them; the thread does not run yet.
    pub fn open(store: &Store, sink: ChangeSink, last_looks: LastLooks) -> Arc<Summaries> {
        let record = Mutex::new(store.get(Table::Meta, KEY));
        Arc::new(Summaries { record, running: Mutex::default(), sink, last_looks })
    }

    /// Starts, stops or restarts the thread as the configuration says.
    ///
    /// # Errors
    /// When the thread cannot be started; none runs then.
    pub fn reconfigure(self: &Arc<Self>, config: &Config, threads: &Threads) -> Result<(), String> {
        let settings = SummarySettings {
            times: config.notifier.summary_at.clone(),
            correlator: CorrelatorSettings {
                max_wait: config.correlator.max_wait.min(MAX_WAIT),
                ..config.correlator.clone()
            },
        };
        self.adopt_times(&settings.times, Now::read().wall);
        let mut running = lock(&self.running);
        if running.as_ref().is_some_and(|running| running.settings == settings) {
            return Ok(());
        }
        *running = None;
        if settings.times.is_empty() {
            return Ok(());
        }
        let (stop_source, stop) = Stop::channel();
        let (own, thread_settings) = (Arc::clone(self), settings.clone());
        let work = move || own.run(&thread_settings, &stop);
        threads.spawn_with_stack("summary", ZONE_READER_STACK, work)?;
        *running = Some(RunningSummary { settings, _stop_source: stop_source });
        Ok(())
    }

    /// Ends the thread.
    pub fn stop(&self) {
        *lock(&self.running) = None;
    }

    /// Times that were not configured before count from now on: none of them was missed.
    fn adopt_times(&self, times: &BTreeSet<TimeOfDay>, now: Wall) {
        let mut record = lock(&self.record);
        let texts: Vec<String> = times.iter().map(ToString::to_string).collect();
        let known = record.as_ref().map(|record| record.times.as_slice()).unwrap_or_default();
        if known == texts {
            return;
        }
        let sent = record.as_ref().and_then(|record| record.sent);
        let adopted = SummaryRecord { times: texts, since: now, sent };
        *record = (!times.is_empty()).then_some(adopted);
        self.store(record.as_ref(), Change::default());
    }

    fn run(&self, settings: &SummarySettings, stop: &Stop) {
        loop {
            let (now, zones) = (Now::read().wall, Zones::read());
            let since = lock(&self.record).as_ref().map_or(now, |record| record.since);
            let wait = match step(&settings.times, since, now, zones.local().rules()) {
                SummaryStep::Wait(wait) => wait,
                SummaryStep::Rebase => {
                    self.update(stop, |record| record.since = now, Change::default());
                    Duration::ZERO
                }
                SummaryStep::Send => {
                    let looks = (self.last_looks)();
                    let Some(reports) = analyze(&settings.correlator, looks, stop) else { return };
                    self.send(&reports, stop);
                    Duration::ZERO
                }
            };
            if stop.wait(wait) {
                return;
            }
        }
    }

    /// Hands over the message and, in the same transaction, that it was sent.
    fn send(&self, reports: &[PlanReport], stop: &Stop) {
        let (now, zones) = (Now::read().wall, Zones::read());
        let last = lock(&self.record).as_ref().and_then(|record| record.sent);
        let event = PlanSummary { reports, last, now, zone: zones.local() }.event();
        let change = Change { events: vec![event], ..Change::default() };
        let sent = |record: &mut SummaryRecord| (record.since, record.sent) = (now, Some(now));
        if self.update(stop, sent, change) {
            info!("the daily summary of backups is queued");
        }
    }

    /// Stores the changed record; false when this thread was told to stop: then another one may run
    /// already.
    fn update(
        &self,
        stop: &Stop,
        change_record: impl FnOnce(&mut SummaryRecord),
        change: Change,
    ) -> bool {
        let mut record = lock(&self.record);
        let Some(record) = record.as_mut().filter(|_| !stop.stopped()) else { return false };
        change_record(record);
        self.store(Some(record), change);
        true
    }

    fn store(&self, record: Option<&SummaryRecord>, change: Change) {
        let write = record.map_or_else(|| Write::remove(Table::Meta, KEY), SummaryRecord::row);
        (self.sink)(Change { writes: vec![write], ..change });
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        let record = lock(&self.record);
        vec![record.as_ref().map_or_else(|| Write::remove(Table::Meta, KEY), SummaryRecord::row)]
    }
}

impl SummaryRecord {
    fn row(&self) -> Write {
        Write::put(Table::Meta, KEY, self)
    }
}

/// How all plans are, as Redis has it; none at the stop.
fn analyze(
    correlator: &CorrelatorSettings,
    last_looks: BTreeMap<String, LastLook>,
    stop: &Stop,
) -> Option<Vec<PlanReport>> {
    let analyzer = Analyzer { correlator, repo_checker: None, wait_for_running: true };
    let query = PlanQuery { last_looks: Some(last_looks), ..PlanQuery::for_all() };
    let analyzed = catch_unwind(AssertUnwindSafe(|| analyzer.analyze(&query, stop)));
    analyzed.unwrap_or_else(|_| {
        error!("looking into all backups panicked");
        Some(analysis::unknown(&query, "looking into them failed, see the log of hbd"))
    })
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    /// With this record, and the changes that they hand over.
    fn summaries(record: Option<SummaryRecord>) -> (Summaries, Receiver<Change>) {
        let (tx, rx) = unbounded();
        let sink: ChangeSink = Arc::new(move |change| {
            let _ = tx.send(change);
        });
        let last_looks: LastLooks = Box::new(BTreeMap::new);
        let record = Mutex::new(record);
        (Summaries { record, running: Mutex::default(), sink, last_looks }, rx)
    }

    fn times(texts: &[&str]) -> BTreeSet<TimeOfDay> {
        texts.iter().map(|text| TimeOfDay::parse(text).unwrap()).collect()
    }

    fn record(texts: &[&str], since: Wall, sent: Option<Wall>) -> SummaryRecord {
        SummaryRecord { times: texts.iter().map(ToString::to_string).collect(), since, sent }
    }

    #[test]
    fn times_that_are_configured_anew_count_from_now_on_and_the_others_stay() {
        let (old, sent) = (Wall(5), Some(Wall(4)));
        let before = Some(record(&["08:00"], old, sent));
        for (texts, before, after) in [
            (&["08:00"][..], None, Some(record(&["08:00"], Wall(9), None))),
            (&["08:00"], before.clone(), before.clone()),
            (&["20:00", "8:00"], before.clone(), Some(record(&["08:00", "20:00"], Wall(9), sent))),
            (&[], before, None),
            (&[], None, None),
        ] {
            let (summaries, changes) = summaries(before.clone());
            summaries.adopt_times(&times(texts), Wall(9));
            assert_eq!(*lock(&summaries.record), after);
            let writes: Vec<Write> = changes.try_iter().flat_map(|change| change.writes).collect();
            let row = after.as_ref().map(SummaryRecord::row);
            let expected = row.unwrap_or_else(|| Write::remove(Table::Meta, KEY));
            // A row that is not there any more is removed wherever it may have come back.
            assert_eq!(summaries.every_row(), std::slice::from_ref(&expected));
            let is_same = before == after;
            assert_eq!(writes, if is_same { vec![] } else { vec![expected] }, "{texts:?}");
        }
    }

    #[test]
    fn a_thread_that_was_told_to_stop_sent_a_second_one_beside_its_successor() {
        let (summaries, changes) = summaries(Some(record(&["08:00"], Wall(5), None)));
        let (source, stop) = Stop::channel();
        let reports = analysis::unknown(&PlanQuery::for_all(), "x");
        summaries.send(&reports, &stop);
        let change = changes.try_recv().unwrap();
        assert_eq!((change.events.len(), change.writes.len()), (1, 1), "one transaction");
        let sent = lock(&summaries.record).clone().unwrap();
        assert!(sent.sent == Some(sent.since) && change.writes[0] == sent.row());
        drop(source);
        summaries.send(&reports, &stop);
        assert!(changes.try_recv().is_err());
    }
}
