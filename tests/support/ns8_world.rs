//! NethServer 8 as a simulation whose clock is moved by hand, a minute at a time: two nodes, plans and
//! their timers, runs that fail or are slow, what Redis holds of them, and the alerts about them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use heartbeat::backup::redis_layout::RedisSnapshot;
use heartbeat::backup::schedule::Zones;
use heartbeat::clock::Wall;
use serde_json::{Value, json};

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
const GROUP_INTERVAL: i64 = 5;
const REPEAT_INTERVAL: i64 = 180;

/// SplitMix64: the same story for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as i64
    }

    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high - low + 1)
    }

    pub fn one_in(&mut self, many: i64) -> bool {
        self.below(many) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            None
        } else {
            Some(from[self.below(from.len() as i64) as usize].clone())
        }
    }
}

/// What a calendar in Europe/Rome shows, from the rule of the European Union and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// 0 is Monday.
    pub weekday: i64,
    pub hour: i64,
    pub minute: i64,
    /// Minutes since the epoch as a local clock counts them.
    pub minutes: i64,
}

/// In 2026 summer time goes from 29 March to 25 October, at 01:00 UTC.
const SUMMER: (i64, i64) = (1_774_746_000_000, 1_792_890_000_000);

pub fn local(at: i64) -> Local {
    let offset = if (SUMMER.0..SUMMER.1).contains(&at) { 2 } else { 1 };
    let minutes = (at + offset * HOUR).div_euclid(MINUTE);
    let day = minutes.div_euclid(1440);
    Local {
        weekday: (day + 3).rem_euclid(7),
        hour: minutes.rem_euclid(1440) / 60,
        minute: minutes.rem_euclid(60),
        minutes,
    }
}

/// `Tue 03 14:05`, by the day of the story.
pub fn clock(at: i64) -> String {
    let Local { weekday, hour, minute, .. } = local(at);
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][weekday as usize];
    format!("{day} {hour:02}:{minute:02}")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    Hourly,
    Daily(i64, i64),
    Weekly(i64, i64, i64),
}

impl Timer {
    pub fn interval(self) -> i64 {
        match self {
            Timer::Hourly => HOUR,
            Timer::Daily(..) => DAY,
            Timer::Weekly(..) => 7 * DAY,
        }
    }

    fn text(self) -> String {
        match self {
            Timer::Hourly => "hourly".into(),
            Timer::Daily(hour, minute) => format!("*-*-* {hour:02}:{minute:02}:00"),
            Timer::Weekly(weekday, hour, minute) => {
                let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][weekday as usize];
                format!("{day} {hour:02}:{minute:02}")
            }
        }
    }

    fn matches(self, at: Local) -> bool {
        match self {
            Timer::Hourly => at.minute == 0,
            Timer::Daily(hour, minute) => (at.hour, at.minute) == (hour, minute),
            Timer::Weekly(weekday, hour, minute) => {
                (at.weekday, at.hour, at.minute) == (weekday, hour, minute)
            }
        }
    }

    /// Whether it elapses in this minute: of an hour that the clocks show twice only in the first.
    pub fn elapses(self, at: i64) -> bool {
        let now = local(at);
        self.matches(now) && local(at - HOUR).minutes != now.minutes
    }
}

pub struct PlanFacts {
    pub name: String,
    pub timer: Timer,
    pub enabled: bool,
    pub instances: BTreeSet<String>,
    /// When its timer elapsed while it was switched on.
    pub elapses: Vec<i64>,
    /// Since when a module is part of it.
    pub member_since: BTreeMap<String, i64>,
    /// When it was changed last, and when it was switched off last.
    pub changed: i64,
    pub off_at: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub start: i64,
    pub end: i64,
    pub errors: u64,
}

struct Pass {
    plan: String,
    node: i64,
    queue: VecDeque<String>,
    /// The module, when its run began, and in which minute it is over.
    current: Option<(String, i64, i64)>,
    any_failed: bool,
}

/// An alert that fires: its labels, and since when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firing {
    pub labels: BTreeMap<String, String>,
    pub since: i64,
}

#[derive(Default)]
struct Group {
    /// What was notified as firing: by fingerprint the start.
    notified: BTreeMap<String, Firing>,
    last: i64,
    next: i64,
}

/// What Alertmanager sends, as a body of its webhook.
pub struct Delivery {
    pub body: String,
    group: String,
    firing: BTreeMap<String, Firing>,
}

/// What a seed decides about a cluster.
pub struct Site {
    /// Core from 3.21.1: the gauge stays at 0, removed modules are removed everywhere.
    pub new_core: bool,
    pub missing_rule: bool,
    pub missing_rule_names_plan: bool,
    pub second_alertmanager: bool,
    pub polled: bool,
    pub clock_jumps: bool,
}

pub struct World {
    pub random: Random,
    pub site: Site,
    pub minute: i64,
    pub begin: i64,
    /// By how much the clock of node 1 is wrong.
    pub skew: i64,
    pub plans: BTreeMap<String, PlanFacts>,
    /// The modules that there are, and their nodes.
    pub modules: BTreeMap<String, i64>,
    /// What older cores never remove.
    left_over: BTreeSet<String>,
    /// By node and plan.
    pub statuses: BTreeMap<(i64, String), BTreeMap<String, Run>>,
    passes: Vec<Pass>,
    gauges: BTreeMap<(String, i64), bool>,
    pub off_until: BTreeMap<i64, i64>,
    pub redis_off_until: i64,
    pub hbd_off_until: i64,
    prometheus_off_until: i64,
    skew_until: i64,
    failing_until: BTreeMap<(String, String), i64>,
    usual: BTreeMap<(String, String), i64>,
    /// Of all alerts that fire by fingerprint.
    pub firing: BTreeMap<String, Firing>,
    groups: BTreeMap<String, Group>,
    repeated: Vec<(i64, String)>,
    next_module: i64,
    pub story: Vec<String>,
}

impl World {
    pub fn new(seed: u64, begin: i64) -> World {
        let timers = [
            Timer::Hourly,
            Timer::Daily(22, 0),
            Timer::Daily(1, 0),
            Timer::Daily(2, 30),
            Timer::Weekly(6, 3, 0),
        ];
        let modules = ["mail1", "nextcloud1", "samba1", "webtop1"].map(|id| (id.to_owned(), 1));
        let others = ["mail2", "loki1", "traefik2", "wordpress1"].map(|id| (id.to_owned(), 2));
        let modules: BTreeMap<String, i64> = modules.into_iter().chain(others).collect();
        let mut world = World {
            random: Random(seed),
            site: Site {
                new_core: seed.is_multiple_of(2),
                missing_rule: seed % 3 == 1,
                missing_rule_names_plan: seed % 9 < 6,
                second_alertmanager: seed % 5 == 2,
                polled: seed % 4 == 3,
                clock_jumps: seed % 8 == 5,
            },
            minute: 0,
            begin,
            skew: 0,
            plans: BTreeMap::new(),
            modules,
            left_over: BTreeSet::new(),
            statuses: BTreeMap::new(),
            passes: Vec::new(),
            gauges: BTreeMap::new(),
            off_until: BTreeMap::new(),
            redis_off_until: 0,
            hbd_off_until: 0,
            prometheus_off_until: 0,
            skew_until: 0,
            failing_until: BTreeMap::new(),
            usual: BTreeMap::new(),
            firing: BTreeMap::new(),
            groups: BTreeMap::new(),
            repeated: Vec::new(),
            next_module: 5,
            story: Vec::new(),
        };
        for (number, timer) in timers.into_iter().enumerate() {
            world.add_plan(number + 1, timer);
        }
        world
    }

    /// A plan whose modules ran when they should have.
    fn add_plan(&mut self, number: usize, timer: Timer) {
        let id = number.to_string();
        let all: Vec<String> = self.modules.keys().cloned().collect();
        let mut instances: BTreeSet<String> = BTreeSet::new();
        while instances.len() < number.clamp(2, 4) {
            instances.extend(self.random.pick(&all));
        }
        let mut elapses = Vec::new();
        let mut at = self.begin;
        while elapses.is_empty() {
            at -= MINUTE;
            elapses.extend(timer.elapses(at).then_some(at));
        }
        for node in [1, 2] {
            let mut start = at;
            for module in &instances {
                if self.modules[module] != node {
                    continue;
                }
                let end = start + self.usual(&id, module) * MINUTE;
                let run = Run { start, end, errors: 0 };
                self.statuses.entry((node, id.clone())).or_default().insert(module.clone(), run);
                start = end;
            }
        }
        let (name, enabled, changed) = (format!("Plan{number}"), true, i64::MIN);
        let member_since = BTreeMap::new();
        let off_at = i64::MIN;
        let plan =
            PlanFacts { name, timer, enabled, instances, elapses, member_since, changed, off_at };
        self.plans.insert(id, plan);
    }

    fn usual(&mut self, plan: &str, module: &str) -> i64 {
        let hourly = plan == "1";
        let random = &mut self.random;
        let usual = if hourly { random.between(1, 4) } else { random.between(2, 40) };
        *self.usual.entry((plan.to_owned(), module.to_owned())).or_insert(usual)
    }

    /// The true time.
    pub fn now(&self) -> i64 {
        self.begin + self.minute * MINUTE
    }

    /// What the clock of a node shows.
    pub fn wall(&self, node: i64) -> i64 {
        self.now() + if node == 1 { self.skew } else { 0 }
    }

    pub fn is_on(&self, node: i64) -> bool {
        self.off_until.get(&node).is_none_or(|until| *until <= self.minute)
    }

    pub fn redis_answers(&self) -> bool {
        self.is_on(1) && self.redis_off_until <= self.minute
    }

    pub fn hbd_runs(&self) -> bool {
        self.is_on(1) && self.hbd_off_until <= self.minute
    }

    pub fn tell(&mut self, words: String) {
        let line = format!("{:5} {}  {words}", self.minute, clock(self.now()));
        self.story.push(line);
    }

    /// The modules of a plan that there are.
    pub fn members(&self, plan: &str) -> Vec<String> {
        let instances = self.plans.get(plan).map(|plan| &plan.instances);
        let exists = |module: &&String| self.modules.contains_key(*module);
        instances.into_iter().flatten().filter(exists).cloned().collect()
    }

    pub fn last_run(&self, plan: &str, module: &str) -> Option<Run> {
        let runs = [1, 2].map(|node| {
            self.statuses.get(&(node, plan.to_owned())).and_then(|all| all.get(module)).copied()
        });
        runs.into_iter().flatten().max_by_key(|run| run.end)
    }

    /// Another minute. `quiet`: nothing new goes wrong.
    pub fn step(&mut self, quiet: bool) {
        self.minute += 1;
        if self.skew != 0 && self.skew_until <= self.minute {
            self.skew = 0;
            self.tell("the clock of node 1 is put right".into());
        }
        if self.minute % 60 == 17 && !quiet {
            self.misfortune();
        }
        self.run_timers();
        for index in 0..self.passes.len() {
            self.go_on(index);
        }
        self.passes.retain(|pass| pass.current.is_some() || !pass.queue.is_empty());
        self.evaluate_rules();
    }

    fn run_timers(&mut self) {
        let ids: Vec<String> = self.plans.keys().cloned().collect();
        for id in ids {
            let (leader, other) = (self.wall(1), self.wall(2));
            let plan = self.plans.get_mut(&id).expect("it was listed");
            if !plan.enabled {
                continue;
            }
            let timer = plan.timer;
            if timer.elapses(leader) {
                plan.elapses.push(leader);
            }
            for (node, at) in [(1, leader), (2, other)] {
                if timer.elapses(at) && self.is_on(node) {
                    self.begin_pass(&id, node);
                }
            }
        }
    }

    /// What elapses while a pass goes on is skipped.
    fn begin_pass(&mut self, plan: &str, node: i64) {
        if self.passes.iter().any(|pass| pass.plan == plan && pass.node == node) {
            return;
        }
        let mut queue: VecDeque<String> = self.members(plan).into();
        queue.retain(|module| self.modules[module] == node);
        if !self.site.new_core {
            self.gauges.insert((plan.to_owned(), node), true);
        }
        let (plan, current, any_failed) = (plan.to_owned(), None, false);
        self.passes.push(Pass { plan, node, queue, current, any_failed });
    }

    fn go_on(&mut self, index: usize) {
        let pass = &self.passes[index];
        let (plan, node) = (pass.plan.clone(), pass.node);
        if let Some((module, start, until)) = pass.current.clone() {
            if self.minute < until {
                return;
            }
            self.passes[index].current = None;
            self.end_run(index, &plan, node, &module, start);
        }
        while let Some(module) = self.passes[index].queue.pop_front() {
            if self.modules.get(&module) != Some(&node) {
                continue;
            }
            let usual = self.usual(&plan, &module);
            let takes = match self.random.below(40) {
                0 => usual * 10,
                1..4 => usual * 3,
                _ => usual + self.random.below(2),
            };
            let start = self.wall(node);
            self.passes[index].current = Some((module, start, self.minute + takes.min(400)));
            return;
        }
        if self.site.new_core && !self.passes[index].any_failed {
            self.gauges.insert((plan, node), true);
        }
    }

    fn end_run(&mut self, index: usize, plan: &str, node: i64, module: &str, start: i64) {
        if self.modules.get(module) != Some(&node) || !self.plans.contains_key(plan) {
            return;
        }
        let key = (plan.to_owned(), module.to_owned());
        let fails = self.failing_until.get(&key).is_some_and(|until| *until > self.minute);
        let fails = fails || self.random.one_in(60);
        let run = Run { start, end: self.wall(node), errors: u64::from(fails) };
        self.statuses.entry((node, plan.to_owned())).or_default().insert(module.to_owned(), run);
        if fails {
            self.passes[index].any_failed = true;
            self.gauges.insert((plan.to_owned(), node), false);
            self.tell(format!("plan {plan}: {module} on node {node} fails"));
        } else if plan != "1" {
            self.tell(format!("plan {plan}: {module} on node {node} succeeds"));
        }
    }

    fn evaluate_rules(&mut self) {
        let mut active: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        if self.prometheus_off_until <= self.minute && self.is_on(1) {
            for ((plan, node), _) in self.gauges.iter().filter(|(_, ok)| !**ok) {
                let Some(facts) = self.plans.get(plan).filter(|_| self.is_on(*node)) else {
                    continue;
                };
                let labels = [
                    label("alertname", "BackupFailed"),
                    label("id", plan),
                    label("name", &facts.name),
                    label("node", &node.to_string()),
                    label("service", "backup"),
                ];
                active.insert(format!("f{plan}n{node}"), labels.into());
            }
            for plan in self.missing_plans() {
                let mut labels = BTreeMap::from([label("alertname", "NsBackupMissing")]);
                let key = match self.site.missing_rule_names_plan {
                    true => {
                        labels.extend([label("backup_id", &plan)]);
                        format!("m{plan}")
                    }
                    false => "m".into(),
                };
                active.insert(key, labels);
            }
        }
        self.firing.retain(|key, _| active.contains_key(key));
        let since = self.wall(1);
        for (key, labels) in active {
            self.firing.entry(key).or_insert(Firing { labels, since });
        }
    }

    /// The plans about which the site's own rule complains.
    pub fn missing_plans(&self) -> Vec<String> {
        let is_old = |plan: &String, facts: &PlanFacts, module: &String| {
            let grace = if facts.timer == Timer::Hourly { 2 * HOUR } else { 4 * HOUR };
            let run = self.last_run(plan, module).filter(|run| run.errors == 0);
            run.is_some_and(|run| {
                run.end.max(facts.changed) < self.wall(1) - facts.timer.interval() - grace
            })
        };
        let missing = |(plan, facts): &(&String, &PlanFacts)| {
            facts.enabled && self.members(plan).iter().any(|module| is_old(plan, facts, module))
        };
        let plans = self.plans.iter().filter(|_| self.site.missing_rule);
        plans.filter(missing).map(|(plan, _)| plan.clone()).collect()
    }

    /// What Alertmanager wants to send now.
    pub fn deliveries(&mut self) -> Vec<Delivery> {
        if !self.is_on(1) {
            return Vec::new();
        }
        let mut by_group: BTreeMap<String, BTreeMap<String, Firing>> = BTreeMap::new();
        for (key, alert) in &self.firing {
            let of = |name| alert.labels.get(name).map_or("", String::as_str);
            let group = format!("{} {}", of("alertname"), of("node"));
            by_group.entry(group).or_default().insert(key.clone(), alert.clone());
        }
        for group in self.groups.keys() {
            by_group.entry(group.clone()).or_default();
        }
        let mut deliveries = Vec::new();
        for (name, firing) in by_group {
            let new = || Group { next: self.minute + 1, last: i64::MIN / 2, ..Group::default() };
            let group = self.groups.entry(name.clone()).or_insert_with(new);
            if firing.is_empty() && group.notified.is_empty() {
                self.groups.remove(&name);
                continue;
            }
            if self.minute < group.next {
                continue;
            }
            let changed = firing != group.notified;
            if changed || self.minute - group.last >= REPEAT_INTERVAL {
                let ended =
                    group.notified.iter().filter(|(key, alert)| firing.get(*key) != Some(*alert));
                let ended: Vec<_> =
                    ended.map(|(key, alert)| webhook_alert(key, alert, false)).collect();
                let alerts = firing.iter().map(|(key, alert)| webhook_alert(key, alert, true));
                let alerts: Vec<Value> = alerts.chain(ended).collect();
                let body = json!({ "version": "4", "alerts": alerts }).to_string();
                deliveries.push(Delivery { body, group: name, firing });
            } else {
                group.next = self.minute + GROUP_INTERVAL;
            }
        }
        let due = |(at, _): &(i64, String)| *at <= self.minute;
        let (due, later) = self.repeated.drain(..).partition(due);
        self.repeated = later;
        let again = due.into_iter().map(|(_, body)| Delivery {
            body,
            group: String::new(),
            firing: BTreeMap::new(),
        });
        deliveries.into_iter().chain(again).collect()
    }

    /// A delivery was taken; what is not comes again.
    pub fn delivered(&mut self, delivery: Delivery) {
        let Some(group) = self.groups.get_mut(&delivery.group) else { return };
        group.notified = delivery.firing;
        group.last = self.minute;
        group.next = self.minute + GROUP_INTERVAL;
        if self.site.second_alertmanager {
            let later = self.minute + self.random.between(1, 3);
            self.repeated.push((later, delivery.body));
        }
    }

    /// What Alertmanager's API answers.
    pub fn api(&self) -> String {
        let alerts = self.firing.iter().map(|(key, alert)| {
            let mut alert = webhook_alert(key, alert, true);
            alert["status"] = json!({ "state": "active" });
            alert
        });
        Value::from_iter(alerts).to_string()
    }

    /// What Redis holds.
    pub fn snapshot(&self, zones: &Zones) -> RedisSnapshot {
        let mut snapshot = RedisSnapshot { zones: zones.clone(), ..RedisSnapshot::default() };
        for (id, plan) in &self.plans {
            let instances: Vec<&str> = plan.instances.iter().map(String::as_str).collect();
            let fields = [
                ("name", plan.name.clone()),
                ("repository", "d1".into()),
                ("schedule", plan.timer.text()),
                ("enabled", if plan.enabled { "1" } else { "" }.into()),
                ("instances", instances.join(" ")),
            ];
            let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
            snapshot.plans.insert(id.clone(), fields);
        }
        let nodes = self.modules.iter().map(|(module, node)| (module.clone(), node.to_string()));
        snapshot.module_node = nodes.collect();
        let uuids = self.modules.keys().chain(&self.left_over);
        snapshot.module_uuid =
            uuids.map(|module| (module.clone(), format!("u-{module}"))).collect();
        for ((node, plan), runs) in &self.statuses {
            let status = |(module, run): (&String, &Run)| {
                let Run { start, end, errors } = run;
                let json = json!({
                    "start": start / 1000, "end": end / 1000, "errors": errors,
                    "total_size": 123_456_789, "total_file_count": 4321, "snapshots_count": 7
                });
                (module.clone(), json.to_string())
            };
            let statuses = Ok(runs.iter().map(status).collect());
            snapshot
                .node_statuses
                .entry(plan.clone())
                .or_default()
                .insert(node.to_string(), statuses);
        }
        snapshot
    }

    /// Once an hour something may go wrong, or be changed.
    fn misfortune(&mut self) {
        let plans: Vec<String> = self.plans.keys().cloned().collect();
        let modules: Vec<String> = self.modules.keys().cloned().collect();
        let (Some(plan), Some(module)) = (self.random.pick(&plans), self.random.pick(&modules))
        else {
            return;
        };
        match self.random.below(70) {
            0..3 => {
                let members = self.members(&plan);
                let Some(module) = self.random.pick(&members) else { return };
                let until = self.minute + self.random.between(60, 2900);
                self.failing_until.insert((plan, module), until);
            }
            3 => {
                // The destination is away.
                let until = self.minute + self.random.between(60, 1500);
                let members = self.members(&plan).into_iter();
                self.failing_until.extend(members.map(|module| ((plan.clone(), module), until)));
            }
            4 => self.switch_off(2, &[30, 400, 1800]),
            5 if self.random.one_in(2) => self.switch_off(1, &[10, 60, 500]),
            6 => {
                let limits = [5, 30, 300];
                let limit = self.random.pick(&limits).expect("there are some");
                self.redis_off_until = self.minute + self.random.between(2, limit);
                self.tell(format!("Redis is away until {}", self.redis_off_until));
            }
            7 | 8 => {
                self.hbd_off_until = self.minute + 1;
                self.tell("hbd is restarted".into());
            }
            9 => {
                self.hbd_off_until = self.minute + self.random.between(60, 600);
                self.tell(format!("hbd is down until {}", self.hbd_off_until));
            }
            10 | 11 => {
                self.prometheus_off_until = self.minute + self.random.between(5, 60);
                self.tell(format!("Prometheus is down until {}", self.prometheus_off_until));
            }
            12 => self.remove_module(&module),
            13 => self.move_module(&module),
            14 => self.rename_module(&module),
            15 => self.add_member(&plan, &module),
            16 | 17 => self.change_plan(&plan),
            18 | 19 => {
                for node in [1, 2] {
                    if self.is_on(node) {
                        self.begin_pass(&plan, node);
                    }
                }
                self.tell(format!("plan {plan} is run by hand"));
            }
            20 if self.site.clock_jumps => {
                self.skew = if self.random.one_in(2) { HOUR } else { -HOUR };
                self.skew_until = self.minute + self.random.between(5, 200);
                self.tell(format!("the clock of node 1 jumps by {} h", self.skew / HOUR));
            }
            _ => {}
        }
    }

    fn switch_off(&mut self, node: i64, limits: &[i64]) {
        let limit = self.random.pick(limits).expect("there are some");
        let until = self.minute + self.random.between(2, limit);
        self.off_until.insert(node, until);
        self.passes.retain(|pass| pass.node != node);
        if !self.site.new_core {
            self.gauges.retain(|(_, at), _| *at != node);
        }
        self.tell(format!("node {node} is off until {until}"));
    }

    fn forget_module(&mut self, module: &str) {
        self.modules.remove(module);
        if self.site.new_core {
            self.statuses.values_mut().for_each(|runs| {
                runs.remove(module);
            });
            self.plans.values_mut().for_each(|plan| {
                plan.instances.remove(module);
            });
        } else {
            self.left_over.insert(module.to_owned());
        }
    }

    fn remove_module(&mut self, module: &str) {
        if self.modules.len() > 4 {
            self.tell(format!("{module} is removed"));
            self.forget_module(module);
        }
    }

    fn move_module(&mut self, module: &str) {
        let node = 3 - self.modules[module];
        self.tell(format!("{module} is moved to node {node}"));
        self.modules.insert(module.to_owned(), node);
    }

    /// It gets another id on another node, and is part of the same plans.
    fn rename_module(&mut self, module: &str) {
        let node = 3 - self.modules[module];
        let kind = module.trim_end_matches(|c: char| c.is_ascii_digit());
        let new = format!("{kind}{}", self.next_module);
        self.next_module += 1;
        self.tell(format!("{module} becomes {new} on node {node}"));
        let plans: Vec<String> = self.plans.keys().cloned().collect();
        for plan in plans {
            if self.plans[&plan].instances.contains(module) {
                self.add_member(&plan, &new);
            }
        }
        self.forget_module(module);
        self.modules.insert(new, node);
    }

    fn add_member(&mut self, plan: &str, module: &str) {
        let now = self.wall(1);
        let facts = self.plans.get_mut(plan).expect("it was listed");
        if facts.instances.insert(module.to_owned()) {
            facts.member_since.insert(module.to_owned(), now);
            facts.changed = now;
            self.tell(format!("{module} becomes part of plan {plan}"));
        }
    }

    fn change_plan(&mut self, plan: &str) {
        let kind = self.random.below(9);
        let (hour, now) = (self.random.below(24), self.wall(1));
        let facts = self.plans.get_mut(plan).expect("it was listed");
        facts.changed = now;
        let words = match kind {
            0 => {
                self.plans.remove(plan);
                if self.site.new_core {
                    self.statuses.retain(|(_, of), _| of != plan);
                }
                self.passes.retain(|pass| pass.plan != plan);
                "is deleted".to_owned()
            }
            1 => {
                facts.instances.clear();
                "is emptied".into()
            }
            2..7 => {
                facts.enabled = !facts.enabled;
                // What it missed before it was switched off is nobody's concern any more.
                facts.elapses.clear();
                if !facts.enabled {
                    facts.off_at = now;
                }
                format!("is switched {}", if facts.enabled { "on" } else { "off" })
            }
            _ if matches!(facts.timer, Timer::Daily(..)) => {
                facts.timer = Timer::Daily(hour, 15);
                format!("runs at {hour}:15 from now on")
            }
            _ => return,
        };
        self.tell(format!("plan {plan} {words}"));
        // One that is empty gets modules again some time.
        let all: Vec<String> = self.modules.keys().cloned().collect();
        if kind > 1 && self.members(plan).is_empty() {
            let new: Vec<String> = (0..3).filter_map(|_| self.random.pick(&all)).collect();
            new.iter().for_each(|module| self.add_member(plan, module));
        }
    }
}

fn webhook_alert(fingerprint: &str, alert: &Firing, fires: bool) -> Value {
    json!({
        "status": if fires { "firing" } else { "resolved" },
        "labels": alert.labels,
        "annotations": { "summary_en": "backup", "summary_it": "backup" },
        "startsAt": Wall(alert.since).to_string(),
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": fingerprint,
    })
}
