//! When which backup plan is looked at without a new alert: while its trouble is open, when its alert
//! is repeated or has ended, and when its schedule says that its run should be over. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::Plan;
use super::plan_query::PlanQuery;
use super::report::ALL_PLANS;
use super::schedule::Zones;
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};

/// When the plans are listed first: after a start alerts that wait are told before.
const FIRST_LOOK: Duration = Duration::from_secs(120);
/// How often the plans are listed anew: reading all of them is the dearest question to Redis.
const LISTING_INTERVAL: Duration = Duration::from_secs(3600);
/// How often a plan is looked at because its alert is repeated, and a run that is late is awaited,
/// where nothing else is configured.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(900);
/// How soon a Redis that does not answer is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// How many plans are remembered: more than there are, but an alert may name anything.
const MAX_PLANS: usize = 10_000;
/// For how long it does not answer until that is told.
const SILENCE: Duration = Duration::from_secs(3600);

/// What is looked at without an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookPolicy {
    /// How often a plan with an open trouble is looked at; none: never.
    pub recheck: Option<Duration>,
    /// Whether every plan is watched.
    pub watch: bool,
}

impl LookPolicy {
    fn interval(self) -> Duration {
        self.recheck.unwrap_or(DEFAULT_INTERVAL)
    }
}

/// What was seen of a plan that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenPlan<'a> {
    /// Its id.
    pub id: &'a str,
    /// Whether its timer is on.
    pub enabled: bool,
    /// Whether a run of its present pass is still awaited.
    pub is_open: bool,
    /// When its next pass should be over, where its schedule says so.
    pub regular_end: Option<Wall>,
}

impl SeenPlan<'_> {
    /// What was read of a plan just now.
    pub fn of<'a>(plan: &'a Plan, zones: &Zones, now: Wall) -> SeenPlan<'a> {
        SeenPlan {
            id: &plan.id,
            enabled: plan.enabled == Some(true),
            is_open: plan.due_modules().any(|module| module.state.is_open()),
            regular_end: plan.next_regular_end(zones, now),
        }
    }
}

/// Why a plan is to be looked at out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecheckReason {
    /// An alert about it no longer fires: that proves nothing, but may be its end.
    AlertEnded,
    /// An alert about it that was reported came again.
    AlertRepeated,
}

/// The looks that lie ahead.
#[derive(Debug)]
pub struct LookSchedule {
    /// Nothing is looked at before this.
    not_before: Mono,
    next_listing: Mono,
    /// By id when a watched plan is looked at next.
    due: BTreeMap<String, Wall>,
    /// By id when a plan was looked at last.
    looked: BTreeMap<String, Mono>,
    /// Plans out of turn; none: all of them.
    requested: BTreeSet<Option<String>>,
    silent_since: Option<Mono>,
}

impl LookSchedule {
    /// Of a daemon that starts now. `open`: the plans with an open trouble, which may have ended
    /// meanwhile.
    pub fn new(open: &BTreeSet<String>, policy: LookPolicy, now: Mono) -> LookSchedule {
        let requested = open.iter().map(|plan| (plan != ALL_PLANS).then(|| plan.clone()));
        LookSchedule {
            not_before: now,
            next_listing: now + FIRST_LOOK.min(policy.interval()),
            due: BTreeMap::new(),
            looked: BTreeMap::new(),
            requested: requested.filter(|_| policy.recheck.is_some()).insert_all(),
            silent_since: None,
        }
    }

    /// A plan, or all of them, is to be looked at out of turn. One whose alert is repeated is not, when
    /// it was looked at a moment ago: an Alertmanager that is polled repeats each alert each time.
    pub fn request(
        &mut self,
        plan: Option<String>,
        reason: RecheckReason,
        policy: LookPolicy,
        now: Mono,
    ) {
        let key = plan.as_deref().unwrap_or(ALL_PLANS);
        let is_recent = |at: &Mono| now.since(*at) < policy.interval();
        let is_due =
            reason == RecheckReason::AlertEnded || !self.looked.get(key).is_some_and(is_recent);
        if is_due && self.requested.len() < MAX_PLANS {
            self.requested.insert(plan);
        }
    }

    /// What is to be looked at now, if anything. `open`: the plans with an open trouble; `known`: those
    /// that were looked at before, which are not all listed when they are switched off.
    pub fn due(
        &mut self,
        open: &BTreeSet<String>,
        known: &BTreeSet<String>,
        policy: LookPolicy,
        now: Now,
    ) -> Option<PlanQuery> {
        if now.mono < self.not_before {
            return None;
        }
        let mut query = PlanQuery::default();
        let requested = std::mem::take(&mut self.requested);
        query.all = requested.contains(&None) || (policy.watch && self.next_listing <= now.mono);
        query.plans.extend(requested.into_iter().flatten().map(|plan| (plan, None)));
        for plan in open {
            // It was told just now, by the look of an alert.
            self.looked.entry(plan.clone()).or_insert(now.mono);
        }
        let is_due = |plan: &&String| {
            policy.recheck.is_some_and(|after| now.mono.since(self.looked[*plan]) >= after)
        };
        for plan in open.iter().filter(is_due) {
            match plan.as_str() {
                ALL_PLANS => query.all = true,
                plan => drop(query.plans.insert(plan.to_owned(), None)),
            }
        }
        let due = self.due.iter().filter(|(_, at)| policy.watch && **at <= now.wall);
        query.plans.extend(due.map(|(plan, _)| (plan.clone(), None)));
        // Of one that is off it is remembered since when it is on again.
        query.with_off = query.all;
        if query.all {
            // The trouble of one that is listed no more ends, too.
            let named = open.union(known).filter(|plan| *plan != ALL_PLANS);
            query.plans.extend(named.map(|plan| (plan.clone(), None)));
        }
        (query.all || !query.plans.is_empty()).then_some(query)
    }

    /// Redis answered a look.
    pub fn on_answer(
        &mut self,
        query: &PlanQuery,
        seen: &[SeenPlan],
        policy: LookPolicy,
        now: Now,
    ) {
        self.silent_since = None;
        if query.all {
            self.next_listing = now.mono + LISTING_INTERVAL;
            self.note_look(ALL_PLANS, now.mono);
            self.due.clear();
        }
        for plan in query.plans.keys() {
            self.note_look(plan, now.mono);
            self.due.remove(plan);
        }
        for plan in seen {
            self.note_look(plan.id, now.mono);
            let soon = plan.is_open.then(|| now.wall + policy.interval());
            let next = soon.into_iter().chain(plan.regular_end).min().filter(|_| plan.enabled);
            self.due.extend(next.map(|next| (plan.id.to_owned(), next)));
        }
        self.looked.retain(|_, at| now.mono.since(*at) < LISTING_INTERVAL * 24);
    }

    fn note_look(&mut self, plan: &str, now: Mono) {
        if self.looked.len() < MAX_PLANS || self.looked.contains_key(plan) {
            self.looked.insert(plan.to_owned(), now);
        }
    }

    /// Redis did not answer. True when it has been silent for so long that it is to be told.
    pub fn on_silence(&mut self, query: PlanQuery, policy: LookPolicy, now: Mono) -> bool {
        self.not_before = now + RETRY_INTERVAL.min(policy.interval());
        self.requested.extend(query.all.then_some(None));
        self.requested.extend(query.plans.into_keys().map(Some));
        let since = *self.silent_since.get_or_insert(now);
        policy.watch && now.since(since) >= SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const POLICY: LookPolicy = LookPolicy { recheck: Some(DEFAULT_INTERVAL), watch: true };

    fn start() -> Now {
        Now { mono: Mono(0), wall: Wall(1_795_291_200_000) }
    }

    fn open(plans: &[&str]) -> BTreeSet<String> {
        plans.iter().map(|plan| (*plan).to_owned()).collect()
    }

    /// `1 2 and all`.
    fn words(query: Option<PlanQuery>) -> String {
        let Some(query) = query else { return "nothing".into() };
        let all = query.all.then(|| "all".to_owned());
        query.plans.into_keys().chain(all).collect::<Vec<_>>().join(" ")
    }

    fn seen(id: &str, regular_end: Wall) -> SeenPlan<'_> {
        SeenPlan { id, enabled: true, is_open: false, regular_end: Some(regular_end) }
    }

    #[test]
    fn plans_are_listed_and_each_is_looked_at_when_it_should_be_over() {
        let mut looks = LookSchedule::new(&open(&[]), POLICY, Mono(0));
        let due =
            |looks: &mut LookSchedule, now| words(looks.due(&open(&[]), &open(&[]), POLICY, now));
        assert_eq!(due(&mut looks, start().later(MINUTE)), "nothing", "alerts that wait go first");
        let now = start().later(FIRST_LOOK);
        assert_eq!(due(&mut looks, now), "all");
        let off = SeenPlan { enabled: false, ..seen("3", now.wall) };
        let listed = [seen("1", now.wall + 10 * MINUTE), seen("2", now.wall + HOUR * 9), off];
        looks.on_answer(&PlanQuery::for_all(), &listed, POLICY, now);
        assert_eq!(due(&mut looks, now.later(9 * MINUTE)), "nothing");
        let over = now.later(10 * MINUTE);
        assert_eq!(due(&mut looks, over), "1");
        let late = SeenPlan { is_open: true, ..seen("1", over.wall + HOUR * 24) };
        looks.on_answer(&PlanQuery::for_plan("1"), &[late], POLICY, over);
        assert_eq!(due(&mut looks, over.later(14 * MINUTE)), "nothing");
        assert_eq!(due(&mut looks, over.later(15 * MINUTE)), "1", "its run goes on");
        assert_eq!(due(&mut looks, now.later(HOUR)), "1 all");
        let none = LookPolicy { watch: false, ..POLICY };
        assert_eq!(words(looks.due(&open(&[]), &open(&[]), none, now.later(HOUR))), "nothing");
    }

    #[test]
    fn a_plan_that_is_off_was_not_looked_at_and_its_first_look_when_on_was_a_false_word() {
        let mut looks = LookSchedule::new(&open(&[]), POLICY, Mono(0));
        let now = start().later(FIRST_LOOK);
        assert_eq!(words(looks.due(&open(&[]), &open(&["3"]), POLICY, now)), "3 all");
    }

    #[test]
    fn a_plan_with_an_open_trouble_is_looked_at_again_and_again() {
        let policy = LookPolicy { watch: false, ..POLICY };
        let mut looks = LookSchedule::new(&open(&["1", "all"]), policy, Mono(0));
        let now = start();
        let due = words(looks.due(&open(&["1", "all"]), &open(&[]), policy, now));
        assert_eq!(due, "1 all", "it may have ended before the start");
        looks.on_answer(&PlanQuery::for_plan("1"), &[], policy, now);
        let soon = now.later(14 * MINUTE);
        assert_eq!(words(looks.due(&open(&["1"]), &open(&[]), policy, soon)), "nothing");
        assert_eq!(
            words(looks.due(&open(&["1", "2"]), &open(&[]), policy, soon)),
            "nothing",
            "2 is new"
        );
        assert_eq!(
            words(looks.due(&open(&["1", "2"]), &open(&[]), policy, now.later(15 * MINUTE))),
            "1"
        );
        assert_eq!(
            words(looks.due(&open(&["1", "2"]), &open(&[]), policy, now.later(29 * MINUTE))),
            "1 2"
        );
        let never = LookPolicy { recheck: None, ..policy };
        assert_eq!(
            words(looks.due(&open(&["1", "2"]), &open(&[]), never, now.later(HOUR))),
            "nothing"
        );
    }

    #[test]
    fn the_end_of_an_alert_is_looked_into_at_once_and_a_repeat_only_now_and_then() {
        let policy = LookPolicy { watch: false, ..POLICY };
        let mut looks = LookSchedule::new(&open(&[]), policy, Mono(0));
        let now = start().later(HOUR);
        let plan = || Some("1".to_owned());
        looks.request(plan(), RecheckReason::AlertRepeated, policy, now.mono);
        assert_eq!(words(looks.due(&open(&[]), &open(&[]), policy, now)), "1");
        looks.on_answer(&PlanQuery::for_plan("1"), &[], policy, now);
        let soon = now.later(MINUTE);
        looks.request(plan(), RecheckReason::AlertRepeated, policy, soon.mono);
        assert_eq!(words(looks.due(&open(&[]), &open(&[]), policy, soon)), "nothing");
        looks.request(plan(), RecheckReason::AlertEnded, policy, soon.mono);
        assert_eq!(words(looks.due(&open(&[]), &open(&[]), policy, soon)), "1");
        looks.request(None, RecheckReason::AlertEnded, policy, soon.mono);
        assert_eq!(words(looks.due(&open(&["7"]), &open(&[]), policy, soon)), "7 all");
    }

    #[test]
    fn a_redis_that_is_silent_is_asked_again_soon_and_told_after_an_hour() {
        let mut looks = LookSchedule::new(&open(&[]), POLICY, Mono(0));
        let mut now = start().later(FIRST_LOOK);
        let mut told = 0;
        for _ in 0..59 {
            let query = looks.due(&open(&["1"]), &open(&[]), POLICY, now).unwrap();
            told += usize::from(looks.on_silence(query, POLICY, now.mono));
            assert_eq!(looks.due(&open(&["1"]), &open(&[]), POLICY, now.later(MINUTE / 2)), None);
            now = now.later(MINUTE);
        }
        assert_eq!(told, 0);
        let query = looks.due(&open(&["1"]), &open(&[]), POLICY, now.later(MINUTE)).unwrap();
        assert!(looks.on_silence(query, POLICY, now.later(MINUTE).mono));
        looks.on_answer(&PlanQuery::for_all(), &[], POLICY, now);
        assert!(!looks.on_silence(PlanQuery::for_all(), POLICY, now.later(MINUTE).mono));
    }

    #[test]
    fn a_clock_that_is_put_back_delays_no_recheck() {
        let mut looks = LookSchedule::new(&open(&[]), POLICY, Mono(0));
        let now = start().later(FIRST_LOOK);
        looks.on_answer(&PlanQuery::for_plan("1"), &[], POLICY, now);
        let back = Now { mono: now.mono + HOUR, wall: now.wall - HOUR * 24 };
        assert_eq!(words(looks.due(&open(&["1"]), &open(&[]), POLICY, back)), "1 all");
    }

    #[test]
    fn whatever_alerts_name_was_remembered_while_redis_was_silent() {
        let mut looks = LookSchedule::new(&open(&[]), POLICY, Mono(0));
        let request_all = |looks: &mut LookSchedule| {
            for plan in 0..2 * MAX_PLANS {
                let reason = RecheckReason::AlertEnded;
                looks.request(Some(plan.to_string()), reason, POLICY, Mono(0));
            }
        };
        request_all(&mut looks);
        let now = Now { mono: Mono(0), wall: Wall(0) };
        let query = looks.due(&open(&[]), &open(&[]), POLICY, now).unwrap();
        assert_eq!(query.plans.len(), MAX_PLANS);
        looks.on_answer(&query, &[], POLICY, now);
        request_all(&mut looks);
        assert_eq!((looks.looked.len(), looks.requested.len()), (MAX_PLANS, MAX_PLANS));
    }
}
