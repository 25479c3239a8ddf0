//! A week of a cluster, with time moved by hand: five plans on two nodes; modules fail, are slow, or
//! do not run because their node is off; alerts fire in the middle of a pass, are repeated, and end
//! falsely. The oracle knows what happens in each pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heartbeat::backup::analysis::PlanReport;
use heartbeat::backup::look_schedule::{LookPolicy, LookSchedule, RecheckReason, SeenPlan};
use heartbeat::backup::outcome::{Outcome, PlanOutcome};
use heartbeat::backup::plan::{AlertTime, ModuleState, Plan};
use heartbeat::backup::plan_records::{LookedAt, PlanRecords};
use heartbeat::backup::plan_tracker::LookCause;
use heartbeat::backup::redis_layout::RedisSnapshot;
use heartbeat::backup::schedule::{Schedule, Zones};
use heartbeat::backup::settings::TellingSettings;
use heartbeat::clock::{Mono, Now, Wall};
use heartbeat::event::{EventId, Level};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const STEP: Duration = Duration::from_secs(300);
const POLICY: LookPolicy = LookPolicy { recheck: Some(Duration::from_secs(900)), watch: true };
/// Monday, 2026-11-23 00:00 UTC.
const BEGIN: Wall = Wall(1_795_392_000_000);

/// A module: its node, and how many minutes it takes.
type Work = (&'static str, &'static str, u32);

/// The plans: their schedules and modules.
const PLANS: [(&str, &str, &[Work]); 5] = [
    ("1", "22:00", &[("mail1", "1", 20), ("cloud1", "1", 90), ("chat1", "2", 15)]),
    ("2", "hourly", &[("mail2", "1", 10), ("cloud2", "2", 20)]),
    ("3", "Sat 02:00", &[("mail3", "2", 180)]),
    ("4", "03:00", &[("mail4", "1", 30), ("cloud4", "2", 45), ("chat4", "2", 30)]),
    ("5", "Mon..Fri 12:00", &[("mail5", "2", 60)]),
];

/// A run of a module that will end then, with so many errors.
struct ComingRun {
    end: Wall,
    plan: &'static str,
    module: &'static str,
    node: &'static str,
    minutes: u32,
    errors: u64,
}

struct Week {
    random: u64,
    now: Wall,
    redis: RedisSnapshot,
    coming: Vec<ComingRun>,
    /// By plan since when its alert fires.
    firing: BTreeMap<&'static str, Wall>,
    records: PlanRecords,
    looks: LookSchedule,
    /// By plan whether the people believe in a trouble.
    believed: BTreeMap<String, bool>,
    /// By plan how many messages there were: news, and reminders.
    told: BTreeMap<String, (usize, usize)>,
    /// By plan the last outcome that was sure, since when it is, and how often it changed.
    truth: BTreeMap<&'static str, (String, Wall, usize)>,
}

impl Week {
    fn new(seed: u64) -> Week {
        let mut redis = RedisSnapshot::default();
        for (id, schedule, modules) in PLANS {
            let instances: Vec<&str> = modules.iter().map(|(module, ..)| *module).collect();
            let fields = [("schedule", schedule), ("enabled", "1"), ("name", id)];
            let mut fields: BTreeMap<String, String> =
                fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            fields.insert("instances".into(), instances.join(" "));
            redis.plans.insert(id.into(), fields);
            for (module, node, _) in modules {
                redis.module_node.insert((*module).into(), (*node).into());
            }
        }
        let open = BTreeSet::new();
        let mut week = Week {
            random: seed,
            now: BEGIN,
            redis,
            coming: Vec::new(),
            firing: BTreeMap::new(),
            records: PlanRecords::default(),
            looks: LookSchedule::new(&open, POLICY, Mono(0)),
            believed: BTreeMap::new(),
            told: BTreeMap::new(),
            truth: BTreeMap::new(),
        };
        // Each plan has had one good pass.
        for (plan, schedule, modules) in PLANS {
            let schedule = Schedule::parse(schedule, &Zones::default()).unwrap();
            let elapse = schedule.latest_elapse(BEGIN - MINUTE).unwrap();
            for (module, node, minutes) in modules {
                let end = elapse + MINUTE * *minutes;
                week.write(&ComingRun { end, plan, module, node, minutes: *minutes, errors: 0 });
            }
        }
        week
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % 100 < percent
    }

    fn write(&mut self, run: &ComingRun) {
        let (end, start) = (run.end.0 / 1000, (run.end - MINUTE * run.minutes).0 / 1000);
        let status = format!(r#"{{"start": {start}, "errors": {}, "end": {end}}}"#, run.errors);
        let nodes = self.redis.node_statuses.entry(run.plan.into()).or_default();
        let node = nodes.entry(run.node.into()).or_insert_with(|| Ok(BTreeMap::new()));
        node.as_mut().unwrap().insert(run.module.into(), status);
    }

    /// Begins the passes that are due: each node works through its modules.
    fn begin_passes(&mut self) {
        for (plan, text, modules) in PLANS {
            let schedule = Schedule::parse(text, &Zones::default()).unwrap();
            if schedule.latest_elapse(self.now) != Some(self.now) {
                continue;
            }
            for node in ["1", "2"] {
                let is_off = self.chance(6);
                let mut end = self.now;
                for (module, _, minutes) in modules.iter().filter(|(_, at, _)| *at == node) {
                    let slow = if self.chance(10) { 3 } else { 2 };
                    let minutes = minutes * slow / 2;
                    end = end + MINUTE * minutes;
                    let errors = u64::from(self.chance(8));
                    if !is_off {
                        self.coming.push(ComingRun { end, plan, module, node, minutes, errors });
                    }
                }
            }
        }
    }

    fn end_runs(&mut self) {
        let now = self.now;
        let over: Vec<ComingRun> = self.coming.extract_if(.., |run| run.end <= now).collect();
        for run in over {
            self.write(&run);
            if run.errors > 0 && !self.firing.contains_key(run.plan) {
                self.firing.insert(run.plan, now);
                self.look(run.plan, LookCause::Alert);
            } else if run.errors > 0 {
                self.request(run.plan, RecheckReason::AlertRepeated);
            } else if self.plan(run.plan, None).1.outcome == Outcome::Success {
                self.firing.remove(run.plan);
                self.request(run.plan, RecheckReason::AlertEnded);
            }
        }
    }

    fn request(&mut self, plan: &str, reason: RecheckReason) {
        let mono = Mono(self.now.0 - BEGIN.0);
        self.looks.request(Some(plan.to_owned()), reason, POLICY, mono);
    }

    fn plan(&self, id: &str, since: Option<Wall>) -> (Plan, PlanOutcome) {
        let alert = since.map(|since| AlertTime { since, names_plan: true, missing_since: None });
        let plan = self.redis.plan(id, alert, DAY, self.now);
        let plan_outcome = PlanOutcome::of(&plan);
        (plan, plan_outcome)
    }

    fn look(&mut self, id: &str, cause: LookCause) {
        let since = self.firing.get(id).copied().filter(|_| cause == LookCause::Alert);
        let (plan, plan_outcome) = self.plan(id, since);
        let report = PlanReport { plan, plan_outcome, repositories: None };
        let look = LookedAt { report: &report, cause, complete: true, alerts: &[] };
        let change = self.records.record(look, &TellingSettings::default(), self.now);
        for event in &change.events {
            self.check_words(&report, &event.message(EventId(1)).title);
            self.believed.insert(id.to_owned(), event.level != Level::Ok);
            let told = self.told.entry(id.to_owned()).or_default();
            if event.kind.describe().is_reminder { told.1 += 1 } else { told.0 += 1 }
        }
    }

    /// No module is called missing that has yet to end in this pass, and was there in the one before.
    fn check_words(&self, report: &PlanReport, title: &str) {
        let text = report.plan.schedule.as_deref().unwrap();
        let schedule = Schedule::parse(text, &Zones::default()).unwrap();
        let latest = schedule.latest_elapse(self.now).unwrap();
        let before = schedule.latest_elapse(Wall(latest.0 - 1)).unwrap();
        for module in &report.plan.modules {
            let comes = self.coming.iter().any(|run| run.module == module.id);
            let was_there = module.run.as_ref().is_some_and(|run| run.end >= Some(before));
            let is_false = module.state == ModuleState::Missing && comes && was_there;
            assert!(!is_false, "{}: {title}, but {} runs", self.now, module.id);
        }
    }

    fn look_at_due(&mut self) {
        let now = Now { mono: Mono(self.now.0 - BEGIN.0), wall: self.now };
        let Some(query) = self.looks.due(&self.records.open_plans(), POLICY, now) else { return };
        let ids: BTreeSet<&str> = PLANS
            .iter()
            .map(|(id, ..)| *id)
            .filter(|id| query.all || query.plans.contains_key(*id))
            .collect();
        let plans: Vec<Plan> = ids.iter().map(|id| self.plan(id, None).0).collect();
        let seen = plans.iter().map(|plan| SeenPlan {
            id: &plan.id,
            enabled: true,
            is_open: plan.modules.iter().any(|module| module.state.is_open()),
            regular_end: plan.next_regular_end(&Zones::default(), self.now),
        });
        self.looks.on_answer(&query, &seen.collect::<Vec<_>>(), POLICY, now);
        ids.into_iter().for_each(|id| self.look(id, LookCause::Recheck));
    }

    /// What has been sure for an hour is what the people believe.
    fn check_beliefs(&mut self) {
        for (id, ..) in PLANS {
            let (plan, plan_outcome) = self.plan(id, None);
            let is_bad = |state| !matches!(state, ModuleState::Success);
            let bad = plan.modules.iter().filter(|module| is_bad(module.state));
            let facts: Vec<_> = bad
                .map(|module| (&module.id, module.state, module.run.as_ref().map(|run| run.end)))
                .collect();
            let facts = format!("{} {facts:?}", plan_outcome.outcome.name());
            let is_open = plan.modules.iter().any(|module| module.state.is_open());
            let truth = self.truth.entry(id).or_insert_with(|| (facts.clone(), self.now, 0));
            if is_open {
                truth.1 = self.now;
            } else if truth.0 != facts {
                *truth = (facts, self.now, truth.2 + 1);
            } else if self.now.since(truth.1) > HOUR + 2 * STEP {
                let believed = self.believed.get(id).copied().unwrap_or(false);
                let is_trouble = plan_outcome.outcome != Outcome::Success;
                assert_eq!(believed, is_trouble, "{} plan {id}: {}", self.now, truth.0);
            }
        }
    }
}

#[test]
fn in_a_week_nobody_hears_a_false_word_or_the_same_one_twice_or_misses_the_end() {
    for seed in 1..=3 {
        let mut week = Week::new(seed);
        while week.now < BEGIN + DAY * 7 {
            week.begin_passes();
            week.end_runs();
            if week.chance(2) {
                // A restarted Prometheus: what it says proves nothing.
                week.request("1", RecheckReason::AlertEnded);
            }
            week.look_at_due();
            week.check_beliefs();
            week.now = week.now + STEP;
        }
        for (id, ..) in PLANS {
            let (news, reminders) = week.told.get(id).copied().unwrap_or_default();
            let changes = week.truth[id].2;
            // An alert in the middle of a pass is answered before the pass is over.
            assert!(news <= 2 * changes + 1, "seed {seed} plan {id}: {news} of {changes}");
            assert!(reminders <= 7, "seed {seed} plan {id}: {reminders} reminders");
        }
    }
}
