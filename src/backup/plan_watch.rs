//! The thread that looks at backup plans without a new alert: again while they have an open trouble,
//! and when their runs should be over.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use log::{error, warn};

use super::analysis::PlansReading;
use super::correlator;
use super::look_schedule::{LookPolicy, LookSchedule, RecheckReason, SeenPlan};
use super::plan_query::PlanQuery;
use super::plan_reporter::PlanReporter;
use super::plan_tracker::LookCause;
use super::report::ALL_PLANS;
use super::schedule::Zones;
use crate::btree::InsertAll;
use crate::clock::Now;

/// How many requests wait: more than there are plans. Those beyond are dropped, since the open
/// troubles are looked at in their turn.
const MAX_REQUESTS: usize = 1000;
/// How often it is looked whether something is due: the wall clock may jump.
const TICK: Duration = Duration::from_secs(10);

/// Requests that plans be looked at out of turn. Cloned: all clones reach the same watch.
#[derive(Clone, Debug)]
pub struct RecheckRequests(Sender<RecheckRequest>);

type RecheckRequest = (Option<String>, RecheckReason);

impl RecheckRequests {
    /// Requests, and where they arrive.
    pub fn channel() -> (RecheckRequests, PendingRechecks) {
        let (tx, rx) = bounded(MAX_REQUESTS);
        (RecheckRequests(tx), PendingRechecks(rx))
    }

    /// Requests that these plans are looked at; none: all plans.
    pub fn request(&self, reason: RecheckReason, plans: impl Iterator<Item = Option<String>>) {
        for plan in plans.insert_all::<BTreeSet<_>>() {
            // Full, or nobody watches any more.
            let _ = self.0.try_send((plan, reason));
        }
    }
}

/// Where the requests arrive. Cloned: each request reaches one of the clones.
#[derive(Clone, Debug)]
pub struct PendingRechecks(Receiver<RecheckRequest>);

/// Looks at plans until the stop.
pub fn run(reporter: &Arc<PlanReporter>, requests: &PendingRechecks) {
    let mut watch = PlanWatch {
        looks: LookSchedule::new(&reporter.open_plans(), policy(reporter), Now::read().mono),
        reporter,
        is_idle: false,
    };
    let stop = reporter.stop();
    while !stop.stopped() {
        let tick = TICK.min(policy(reporter).recheck.unwrap_or(TICK));
        select! {
            recv(requests.0) -> request => {
                let policy = policy(reporter);
                for (plan, reason) in request.into_iter().chain(requests.0.try_iter()) {
                    watch.looks.request(plan, reason, policy, Now::read().mono);
                }
            }
            recv(after(tick)) -> _ => {}
            recv(stop.receiver()) -> _ => return,
        }
        if catch_unwind(AssertUnwindSafe(|| watch.look())).is_err() {
            error!("watching the backups panicked, the next look goes on");
        }
    }
}

fn policy(reporter: &PlanReporter) -> LookPolicy {
    let settings = reporter.settings();
    LookPolicy { recheck: settings.correlator.recheck, watch: settings.correlator.watch_plans }
}

struct PlanWatch<'a> {
    looks: LookSchedule,
    reporter: &'a Arc<PlanReporter>,
    /// Whether the log says that there is nothing to watch.
    is_idle: bool,
}

impl PlanWatch<'_> {
    /// Looks at what is due.
    fn look(&mut self) {
        let policy = policy(self.reporter);
        let open = self.reporter.open_plans();
        let known = self.reporter.known_plans();
        let Some(query) = self.looks.due(&open, &known, policy, Now::read()) else {
            return;
        };
        let Some(reading) = self.reporter.read(&query, false) else { return };
        let now = Now::read();
        if reading.is_unanswered {
            if self.looks.on_silence(query, policy, now.mono) {
                self.tell_silence(&reading);
            }
            return;
        }
        let zones = Zones::read();
        let seen: Vec<SeenPlan> = reading
            .reports
            .iter()
            .map(|report| SeenPlan::of(&report.plan, &zones, now.wall))
            .collect();
        self.looks.on_answer(&query, &seen, policy, now);
        self.reporter.tell_in_background(query, LookCause::Recheck, reading);
    }

    /// Of no plan anything is known any more, and that is told as an answer would be. A Redis that
    /// never held a cluster has nothing to watch.
    fn tell_silence(&mut self, reading: &PlansReading) {
        if self.reporter.is_forgotten(ALL_PLANS) {
            return;
        }
        let settings = self.reporter.settings();
        let holds = correlator::holds_cluster(&settings.correlator, self.reporter.stop());
        if matches!(holds, None | Some(Ok(false))) && !self.reporter.knows_plans() {
            if !std::mem::replace(&mut self.is_idle, true) {
                warn!("no backup plan is watched: Redis holds no cluster");
            }
            return;
        }
        let why = reading.reports.first().map(|report| report.plan_outcome.why.as_str());
        let query = PlanQuery::for_all();
        let silence = PlansReading::unknown(&query, why.unwrap_or("Redis does not answer"));
        self.reporter.tell_in_background(query, LookCause::Alert, silence);
    }
}
