//! Knows the truth about each plan of a simulated week, and judges by it what `hbd` tells: nothing of
//! this is the product's code.

use std::collections::{BTreeMap, BTreeSet};

use heartbeat::backup::schedule::Zones;
use heartbeat::clock::Wall;
use heartbeat::event::{BackupNotice, Event, EventKind};

use super::ns8_world::{DAY, HOUR, MINUTE, Timer, World, clock};

/// How long it may take until what can be known is told, in minutes: the recheck and its neighbours.
const BOUND: i64 = 20;
/// The same where only the watch's list of all plans can find it.
const LISTING_BOUND: i64 = 90;
/// The same where an alert that was answered before says so once more.
const REPEAT_BOUND: i64 = 215;
/// Redis is silent for an hour before that is told, and in an hour in which nothing is due that is not
/// seen.
const SILENCE: i64 = 125;

/// How a module really is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truth {
    Well,
    Failed {
        end: i64,
    },
    /// It never ran, and should not have.
    NotDue,
    /// Its run is due; to call it missing would be too early.
    Awaited,
    /// Its run is due, and late: people may call it missing or not.
    Late,
    Missing {
        since: i64,
    },
}

type Bad = BTreeSet<(String, String, String)>;

#[derive(Clone)]
struct Message {
    minute: i64,
    notice: BackupNotice,
    title: String,
    outcome: String,
    /// The modules that are not well: name, state, end.
    bad: Bad,
    open: bool,
}

pub struct Oracle {
    watch: bool,
    zones: Zones,
    told: BTreeMap<String, Message>,
    /// Each failed run that was told, and was told as over since: by plan, module and end.
    over: BTreeSet<(String, String, String)>,
    calm_since: i64,
    /// When hbd was started last.
    started: i64,
    silent_since: Option<i64>,
    last_silence: i64,
    /// Since when something is not as it should be.
    wrong_since: BTreeMap<(String, &'static str), i64>,
    last_complaint: BTreeMap<String, i64>,
    pub messages: usize,
    pub violations: Vec<String>,
}

fn end_text(zones: &Zones, end: Option<i64>) -> String {
    end.map_or(String::new(), |end| zones.local().format_minute(Wall(end / 1000 * 1000)))
}

fn truth(world: &World, plan: &str, module: &str) -> Truth {
    let facts = &world.plans[plan];
    let since = facts.member_since.get(module).copied().unwrap_or(i64::MIN);
    // What it did before it became part of the plan does not count.
    let run = world.last_run(plan, module).filter(|run| run.end >= since);
    if let Some(run) = run.filter(|run| run.errors > 0) {
        return Truth::Failed { end: run.end };
    }
    let (now, interval) = (world.wall(1), facts.timer.interval());
    let earliness = (interval / 2).min(3 * HOUR);
    let is_uncovered =
        |at: &&i64| (since..=now).contains(*at) && run.is_none_or(|run| run.end < **at - earliness);
    let Some(due) = facts.elapses.iter().find(is_uncovered) else {
        return if run.is_some() { Truth::Well } else { Truth::NotDue };
    };
    // When the clocks are put forward an interval is shorter by an hour.
    let early = ((interval - if interval > HOUR { HOUR } else { 0 }) / 4).min(6 * HOUR);
    let is_first = world.members(plan).iter().any(|one| world.last_run(plan, one).is_none());
    let late = match facts.timer {
        _ if is_first => 20 * HOUR,
        Timer::Hourly => HOUR,
        Timer::Daily(..) | Timer::Weekly(..) => 16 * HOUR,
    };
    match now - due {
        passed if passed < early => Truth::Awaited,
        passed if passed < late => Truth::Late,
        _ => Truth::Missing { since: *due },
    }
}

impl Oracle {
    pub fn new(watch: bool, zones: &Zones) -> Oracle {
        Oracle {
            watch,
            zones: zones.clone(),
            told: BTreeMap::new(),
            over: BTreeSet::new(),
            calm_since: 0,
            started: i64::MIN,
            silent_since: None,
            last_silence: i64::MIN / 2,
            wrong_since: BTreeMap::new(),
            last_complaint: BTreeMap::new(),
            messages: 0,
            violations: Vec::new(),
        }
    }

    fn violation(&mut self, world: &mut World, words: String) {
        let words = format!("minute {} ({}): {words}", world.minute, clock(world.now()));
        world.story.push(format!("      !!! {words}"));
        self.violations.push(words);
    }

    /// What the world is like in this minute, before anything of it is told.
    pub fn observe(&mut self, world: &World) {
        if !world.redis_answers() {
            self.last_silence = world.minute;
            self.silent_since.get_or_insert(world.minute);
        } else {
            self.silent_since = None;
        }
        if !world.redis_answers() || !world.hbd_runs() || world.skew != 0 {
            self.calm_since = world.minute + if world.skew == 0 { 0 } else { 180 };
        }
        if !world.hbd_runs() {
            self.started = world.wall(1);
        }
        for plan in world.missing_plans() {
            self.last_complaint.insert(plan, world.minute);
        }
    }

    /// Judges what is told.
    pub fn hear(&mut self, world: &mut World, event: &Event) {
        let EventKind::Backup { plan, notice, title, table, .. } = &event.kind else { return };
        self.messages += 1;
        let rows = table.iter().flat_map(|table| table.rows.clone()).collect::<Vec<_>>();
        let words = rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect::<Vec<_>>();
        world.tell(format!(">>> {notice:?}: {title} [{}]", words.join(", ")));
        let outcome = ["SUCCESS", "PARTIAL", "FAILED", "MISSING", "RUNNING", "UNKNOWN"]
            .into_iter()
            .find(|name| title.contains(&format!(" {name}")))
            .unwrap_or("none");
        let is_bad =
            |row: &&Vec<String>| ["failed", "missing", "unreadable"].contains(&row[1].as_str());
        let bad: Bad = rows
            .iter()
            .filter(is_bad)
            .map(|row| (row[0].clone(), row[1].clone(), row[7].clone()))
            .collect();
        let message = Message {
            minute: world.minute,
            notice: *notice,
            title: title.clone(),
            outcome: outcome.to_owned(),
            bad,
            open: *notice != BackupNotice::End && outcome != "SUCCESS",
        };
        if world.skew == 0 && self.calm_since <= world.minute {
            self.judge_words(world, plan, &rows, &message);
        }
        self.judge_repetition(world, plan, &message);
        let before = self.told.insert(plan.clone(), message.clone());
        if let Some(before) = before.filter(|before| before.open && !message.open) {
            let ends = before.bad.into_iter().filter(|(_, state, _)| state == "failed");
            self.over.extend(ends.map(|(module, _, end)| (plan.clone(), module, end)));
        }
    }

    /// Every word about a state is true.
    fn judge_words(
        &mut self,
        world: &mut World,
        plan: &str,
        rows: &[Vec<String>],
        message: &Message,
    ) {
        let members: BTreeSet<String> = world.members(plan).into_iter().collect();
        let named: BTreeSet<String> = rows.iter().map(|row| row[0].clone()).collect();
        let joined = |one: &String| world.plans[plan].member_since.get(one).copied();
        let is_new = |one: &String| joined(one).is_some_and(|at| at > world.wall(1) - 8 * DAY);
        let is_off = world.plans.get(plan).is_none_or(|plan| !plan.enabled);
        let may_lack = |one: &String| is_off && is_new(one);
        let same = named.is_subset(&members) && members.difference(&named).all(may_lack);
        if !rows.is_empty() && !same {
            self.violation(
                world,
                format!("plan {plan} has the modules {members:?}, not {named:?}"),
            );
            return;
        }
        let recently = |minute: &i64| world.minute - minute <= 400;
        let complained = self.last_complaint.get(plan).is_some_and(recently);
        for row in rows {
            let (module, state) = (&row[0], row[1].as_str());
            let truth = truth(world, plan, module);
            let run = world.last_run(plan, module);
            let changed = world.plans[plan].changed > world.wall(1) - 8 * DAY;
            let is_true = match state {
                // Of a plan that was changed just now no run is due.
                "success" if world.plans[plan].changed > world.wall(1) - DAY => {
                    truth == Truth::Well || run.is_some_and(|run| run.errors == 0)
                }
                "success" => truth == Truth::Well,
                "failed" => matches!(truth, Truth::Failed { .. }),
                "pending" => matches!(truth, Truth::NotDue | Truth::Awaited | Truth::Late),
                "missing" => match truth {
                    Truth::Missing { .. } | Truth::Late => true,
                    Truth::Awaited => complained,
                    _ => false,
                },
                _ => false,
            };
            // Who is not watched, or was off at a start, may have been switched on at any time.
            let off_at = world.plans[plan].off_at;
            let is_known = self.watch && !(off_at > i64::MIN && off_at < self.started);
            let is_true =
                is_true || changed && !is_known && (state == "missing" || state == "pending");
            if !is_true {
                self.violation(world, format!("plan {plan}: {module} is {truth:?}, not {state}"));
            } else if row[7] != end_text(&self.zones, run.map(|run| run.end)) {
                let end = end_text(&self.zones, run.map(|run| run.end));
                self.violation(world, format!("plan {plan}: {module} ended {end}, not {}", row[7]));
            }
        }
        self.judge_outcome(world, plan, rows, message);
    }

    fn judge_outcome(
        &mut self,
        world: &mut World,
        plan: &str,
        rows: &[Vec<String>],
        message: &Message,
    ) {
        let is = |state: &str| rows.iter().any(|row| row[1] == state);
        let facts = world.plans.get(plan);
        let is_on = facts.is_some_and(|plan| plan.enabled);
        let title = &message.title;
        // What is not due yet says nothing about how the plan is.
        let is_awaited = rows
            .iter()
            .any(|row| row[1] == "pending" && truth(world, plan, &row[0]) != Truth::NotDue);
        let right = match message.outcome.as_str() {
            "SUCCESS" => {
                is("success") && !is("failed") && !is("missing") && !is("unreadable") && !is_awaited
            }
            "PARTIAL" => (is("failed") || is("missing")) && (is("success") || is("pending")),
            "FAILED" => is("failed") && !is("success") && !is_awaited,
            "MISSING" if title.contains("switched off") => !is_on,
            "MISSING" => is("missing") && !is("failed") && !is("success") && !is_awaited,
            "RUNNING" => is("pending") && !is("failed") && !is("missing"),
            "UNKNOWN" if plan == "all" => {
                self.silent_since.is_some() || !world.plans.values().any(|plan| plan.enabled)
            }
            "UNKNOWN" => self.silent_since.is_some() || world.members(plan).is_empty(),
            _ if title.ends_with("what Redis says of them can be read") => world.redis_answers(),
            _ if title.ends_with("was switched off") => facts.is_some_and(|plan| !plan.enabled),
            _ if title.ends_with("no longer exists") => facts.is_none(),
            _ if title.ends_with("has no modules") => {
                facts.is_some() && world.members(plan).is_empty()
            }
            _ if title.ends_with("there is no such plan") => facts.is_none(),
            _ => false,
        };
        if !right {
            self.violation(world, format!("this is not so: {title}"));
        }
    }

    /// One message per change.
    fn judge_repetition(&mut self, world: &mut World, plan: &str, message: &Message) {
        for (module, _, end) in message.bad.iter().filter(|(_, state, _)| state == "failed") {
            let facts = world.plans.get(plan);
            let changed = facts.is_none_or(|plan| plan.changed > world.wall(1) - 7 * DAY);
            if !changed && self.over.contains(&(plan.to_owned(), module.clone(), end.clone())) {
                let words = format!("plan {plan}: {module} that failed {end} is told anew");
                self.violation(world, words);
                return;
            }
        }
        let Some(before) = self.told.get(plan).cloned() else { return };
        let day_passed = message.minute - before.minute >= DAY / MINUTE - 60;
        let same = before.outcome == message.outcome
            && before.bad == message.bad
            && before.open == message.open;
        match message.notice {
            BackupNotice::Reminder if !same || !day_passed => {
                let words =
                    format!("this is no reminder of {:?}: {:?}", before.title, message.title);
                self.violation(world, words);
            }
            BackupNotice::Report
                if same && !day_passed && !self.asks_anew(world, plan, &before) =>
            {
                let words = format!(
                    "told again after {} min: {}",
                    message.minute - before.minute,
                    message.title
                );
                self.violation(world, words);
            }
            BackupNotice::End if !before.open => {
                self.violation(world, format!("the end of nothing: {}", message.title));
            }
            _ => {}
        }
    }

    /// What should be known by now is.
    pub fn check(&mut self, world: &mut World) {
        let plans: BTreeSet<String> = world.plans.keys().chain(self.told.keys()).cloned().collect();
        for plan in plans {
            if let Some((what, bound)) = self.wrong_belief(world, &plan) {
                let since = *self.wrong_since.entry((plan.clone(), what)).or_insert(world.minute);
                let since = since.max(self.calm_since);
                if world.minute - since > bound {
                    self.wrong_since.insert((plan.clone(), what), world.minute + DAY / MINUTE);
                    let told = self.told.get(&plan).map_or("nothing", |told| told.title.as_str());
                    let words = format!("plan {plan}: {what} for {bound} min; told: {told}");
                    let members = world.members(&plan);
                    let truths: Vec<_> =
                        members.iter().map(|one| (one, truth(world, &plan, one))).collect();
                    let words = format!("{words}; truth: {truths:?}");
                    self.violation(world, words);
                }
            } else {
                self.wrong_since.retain(|(of, _), _| *of != plan);
            }
        }
    }

    /// What people wrongly believe of a plan, and how long they may.
    fn wrong_belief(&mut self, world: &World, plan: &str) -> Option<(&'static str, i64)> {
        let told = self.told.get(plan);
        let is_open = told.is_some_and(|told| told.open);
        if plan == "all" {
            let known = world.plans.values().any(|plan| plan.enabled);
            return (is_open && world.redis_answers() && known)
                .then_some(("the silence of Redis is over", BOUND));
        }
        let members = world.members(plan);
        let facts = world.plans.get(plan).filter(|_| !members.is_empty());
        let Some(facts) = facts else { return is_open.then_some(("the plan is no more", BOUND)) };
        if !facts.enabled {
            let told_off = told.is_some_and(|told| told.title.contains("switched off"));
            return (is_open && !told_off).then_some(("the plan is off", BOUND));
        }
        let due = members.iter().filter(|one| truth(world, plan, one) != Truth::NotDue);
        let truths: Vec<(String, Truth)> =
            due.map(|one| (one.clone(), truth(world, plan, one))).collect();
        if truths.is_empty() {
            return None;
        }
        let is_unsure =
            |truth: &Truth| matches!(truth, Truth::NotDue | Truth::Awaited | Truth::Late);
        // What was missed before the plan was changed may be awaited anew.
        let is_forgiven =
            |truth: &Truth| matches!(truth, Truth::Missing { since } if *since < facts.changed);
        if truths.iter().any(|(_, truth)| is_unsure(truth) || is_forgiven(truth)) {
            return None;
        }
        let bad = |(module, truth): &(String, Truth)| {
            let end = end_text(&self.zones, world.last_run(plan, module).map(|run| run.end));
            match truth {
                Truth::Failed { .. } => Some((module.clone(), "failed".to_owned(), end)),
                Truth::Missing { .. } => Some((module.clone(), "missing".to_owned(), end)),
                _ => None,
            }
        };
        let bad: Bad = truths.iter().filter_map(bad).collect();
        match told.filter(|told| told.open) {
            Some(_) if bad.is_empty() => Some(("the trouble is over", BOUND)),
            Some(told) if told.bad != bad => Some(("the trouble is another one", BOUND)),
            Some(_) => None,
            None if bad.is_empty() => None,
            None => self.untold(world, plan, &truths),
        }
    }

    /// Whether an alert about a plan began after this was told: it is owed an answer of its own.
    fn asks_anew(&self, world: &World, plan: &str, before: &Message) -> bool {
        let told_at = world.now() - (world.minute - before.minute) * MINUTE;
        let names = [format!("f{plan}n1"), format!("f{plan}n2"), format!("m{plan}")];
        let mut alerts = names.iter().filter_map(|name| world.firing.get(name));
        !before.open && alerts.any(|alert| alert.since > told_at)
    }

    fn untold(
        &self,
        world: &World,
        plan: &str,
        truths: &[(String, Truth)],
    ) -> Option<(&'static str, i64)> {
        let alerts = || {
            [1, 2]
                .into_iter()
                .filter_map(|node| Some((node, world.firing.get(&format!("f{plan}n{node}"))?)))
        };
        let asks = |(node, since): (i64, i64)| {
            truths.iter().any(|(module, truth)| match truth {
                Truth::Failed { end } => world.modules[module] == node && *end <= since + MINUTE,
                _ => false,
            })
        };
        let missing = world.firing.get(&format!("m{plan}"));
        if missing.is_some() || alerts().any(|(node, alert)| asks((node, alert.since))) {
            return Some((
                "an alert is not answered",
                if self.watch { LISTING_BOUND } else { REPEAT_BOUND },
            ));
        }
        if self.watch {
            return Some(("the watch tells nothing", LISTING_BOUND));
        }
        alerts().next().map(|_| ("a repeated alert is not answered", REPEAT_BOUND))
    }

    /// For how long Redis has been silent.
    pub fn silence_untold(&self, world: &World) -> bool {
        let told = self.told.get("all").is_some_and(|told| told.open);
        let long = self.silent_since.is_some_and(|since| world.minute - since > SILENCE + BOUND);
        self.watch && long && !told
    }
}
