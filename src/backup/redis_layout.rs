//! The Redis keys of NethServer 8 backups, in both layouts that exist, and the plans that they
//! describe. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::plan::{
    AlertTime, BackupRun, Destination, Module, ModuleState, PassHistory, Plan, PlanSituation,
    RunStatus, RunWindow, evaluate,
};
use super::plan_changes::{self, LastLook, NotDue, Seen};
use super::plan_query::PlanQuery;
use super::redis::{Fields, KeyError, KeyResult};
use super::schedule::Zones;
use crate::btree::InsertAll;
use crate::clock::Wall;
use crate::view::ConfiguredView;

/// What stands before the id of a plan in its key.
const PLAN_PREFIX: &str = "cluster/backup/";

/// A node where no module is any more may still hold the status of one that was moved: of all nodes
/// up to this one the status is asked for. The ids of nodes are counted up from 1.
const MIN_NODES_ASKED: u32 = 64;

/// The most nodes that are asked for, whatever an id says.
const MAX_NODES_ASKED: u32 = 1000;

/// The fields of a hash, or why it cannot be read.
pub type HashResult = Result<Fields, String>;

/// The names of the keys about backups that exist, as far as they could be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyListing {
    /// The ids of the plans; some may be none after all, since only the name of the key is known.
    pub plans: BTreeSet<String>,
    /// The statuses.
    pub statuses: BTreeSet<StatusKey>,
    /// The modules that say in the older layout to which plans they belong.
    pub members: BTreeSet<String>,
}

impl KeyListing {
    /// Takes in a key; says whether it is one about backups.
    pub fn insert(&mut self, key: &str) -> bool {
        if let Some(plan) = key.strip_prefix(PLAN_PREFIX) {
            return is_direct_child(plan) && self.plans.insert(plan.to_owned());
        }
        if let Some(status) = StatusKey::parse(key) {
            return self.statuses.insert(status);
        }
        let module = key.strip_prefix("module/").and_then(|rest| rest.strip_suffix("/backups"));
        module.is_some_and(|module| self.members.insert(module.to_owned()))
    }

    /// Whether a key is one about backups.
    pub fn is_about_backups(key: &str) -> bool {
        KeyListing::default().insert(key)
    }
}

/// Keys below that of a plan are none.
fn is_direct_child(plan: &str) -> bool {
    !plan.is_empty() && !plan.contains('/')
}

/// The key of a plan.
pub fn plan_key(plan: &str) -> String {
    format!("{PLAN_PREFIX}{plan}")
}

/// The key of the set of the plans that a module belongs to, in the older layout.
pub fn members_key(module: &str) -> String {
    format!("module/{module}/backups")
}

/// The hashes that describe the plans of a query, as they were read.
#[derive(Clone, Debug, Default)]
pub struct RedisSnapshot {
    /// `cluster/backup/{id}`: the plans, by id.
    pub plans: BTreeMap<String, Fields>,
    /// The plans whose key cannot be read, and why.
    pub unreadable_plans: BTreeMap<String, String>,
    /// `cluster/module_node`.
    pub module_node: BTreeMap<String, String>,
    /// `cluster/module_uuid`.
    pub module_uuid: BTreeMap<String, String>,
    /// `node/{node}/backup_status/{id}`: by plan and node, the modules and their JSON.
    pub node_statuses: BTreeMap<String, BTreeMap<String, HashResult>>,
    /// `module/{module}/backup_status/{id}`: by plan and module, the fields.
    pub module_statuses: BTreeMap<String, BTreeMap<String, HashResult>>,
    /// `module/{module}/backups`: by plan, the modules that are part of it.
    pub members: BTreeMap<String, BTreeSet<String>>,
    /// Where the schedules are at home, and in which people read times.
    pub zones: Zones,
    /// The last look at each plan, by its id; none: nobody remembers the looks.
    pub last_looks: Option<BTreeMap<String, LastLook>>,
}

/// The key of a status hash, parsed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusKey {
    /// The current layout: one hash per node and plan, a field per module.
    Node { node: String, plan: String },
    /// The older layout: one hash per module and plan.
    Module { module: String, plan: String },
}

impl fmt::Display for StatusKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StatusKey::Node { node, plan } => write!(f, "node/{node}/backup_status/{plan}"),
            StatusKey::Module { module, plan } => write!(f, "module/{module}/backup_status/{plan}"),
        }
    }
}

impl StatusKey {
    /// Reads `node/{node}/backup_status/{id}` or `module/{module}/backup_status/{id}`.
    pub fn parse(key: &str) -> Option<StatusKey> {
        let parts: Vec<&str> = key.splitn(4, '/').collect();
        match parts.as_slice() {
            ["node", node, "backup_status", plan] if is_direct_child(plan) => {
                Some(StatusKey::Node { node: (*node).into(), plan: (*plan).into() })
            }
            ["module", module, "backup_status", plan] if is_direct_child(plan) => {
                Some(StatusKey::Module { module: (*module).into(), plan: (*plan).into() })
            }
            _ => None,
        }
    }

    /// The plan that it is about.
    pub fn plan(&self) -> &str {
        match self {
            StatusKey::Node { plan, .. } | StatusKey::Module { plan, .. } => plan,
        }
    }
}

/// The status of a module, and the node that wrote it where the key names one.
struct StatusEntry {
    status: RunStatus,
    node: Option<String>,
}

impl RedisSnapshot {
    /// Whether the database knows nothing about a cluster.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
            && self.unreadable_plans.is_empty()
            && self.module_node.is_empty()
            && self.module_uuid.is_empty()
            && self.node_statuses.values().all(BTreeMap::is_empty)
            && self.module_statuses.values().all(BTreeMap::is_empty)
    }

    /// Takes in what was read of the key of a plan. One that is not there is no plan. One that
    /// cannot be read is one if it is `named`, or looks like one: NethServer counts its plans.
    pub fn add_plan(&mut self, id: &str, read: KeyResult<Fields>, named: bool) {
        match read {
            Ok(fields) if fields.is_empty() => {}
            Ok(fields) => {
                self.plans.insert(id.to_owned(), fields);
            }
            Err(error) if named || id.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.unreadable_plans.insert(id.to_owned(), error.describe(&plan_key(id)));
            }
            Err(_) => {}
        }
    }

    /// Takes in what was read of a status; those of nodes come first. A key that our user may not
    /// read need not exist: it counts where one is to be expected.
    pub fn add_status(&mut self, key: StatusKey, read: KeyResult<Fields>) {
        let expected = match (&key, &read) {
            (_, Ok(fields)) => !fields.is_empty(),
            (_, Err(KeyError::Unusable(_))) => true,
            (StatusKey::Node { node, .. }, Err(KeyError::Hidden(_))) => {
                self.module_node.is_empty() || self.module_node.values().any(|at| at == node)
            }
            (StatusKey::Module { module, plan }, Err(KeyError::Hidden(_))) => {
                !self.is_in_current_layout(plan, module)
            }
        };
        if !expected {
            return;
        }
        let hash = read.map_err(|error| error.describe(&key.to_string()));
        match key {
            StatusKey::Node { node, plan } => {
                self.node_statuses.entry(plan).or_default().insert(node, hash)
            }
            StatusKey::Module { module, plan } => {
                self.module_statuses.entry(plan).or_default().insert(module, hash)
            }
        };
    }

    /// Whether a node has a status of the module.
    fn is_in_current_layout(&self, plan: &str, module: &str) -> bool {
        let nodes = self.node_statuses.get(plan).into_iter().flat_map(BTreeMap::values);
        nodes.flatten().any(|statuses| statuses.contains_key(module))
    }

    /// The keys that may hold the statuses of a plan, those of nodes first.
    pub fn status_keys(&self, plan: &str) -> Vec<StatusKey> {
        let node = |node| StatusKey::Node { node, plan: plan.to_owned() };
        let module = |module| StatusKey::Module { module, plan: plan.to_owned() };
        let modules = match self.instances(plan) {
            Some(instances) => instances.into_iter().filter(|id| self.has_module(id)).insert_all(),
            None => self.known_modules(),
        };
        self.nodes().into_iter().map(node).chain(modules.into_iter().map(module)).collect()
    }

    /// The ids of the nodes that there are or were.
    fn nodes(&self) -> BTreeSet<String> {
        let known = self.module_node.values().map(|node| node.trim().to_owned());
        let highest = known.clone().filter_map(|node| node.parse().ok()).max().unwrap_or(0);
        let counted = 1..=highest.clamp(MIN_NODES_ASKED, MAX_NODES_ASKED);
        counted
            .map(|node| node.to_string())
            .chain(known.filter(|node| !node.is_empty()))
            .insert_all()
    }

    /// The modules of the cluster, as far as it says which there are.
    pub fn known_modules(&self) -> BTreeSet<String> {
        match self.module_node.is_empty() {
            false => self.module_node.keys().cloned().collect(),
            true => self.module_uuid.keys().cloned().collect(),
        }
    }

    /// Whether a module is part of the cluster. If nothing says which modules there are, none can be
    /// known to be removed.
    fn has_module(&self, module: &str) -> bool {
        match (self.module_node.is_empty(), self.module_uuid.is_empty()) {
            (false, _) => self.module_node.contains_key(module),
            (true, false) => self.module_uuid.contains_key(module),
            (true, true) => true,
        }
    }

    fn instances(&self, plan: &str) -> Option<BTreeSet<String>> {
        let list = self.plans.get(plan)?.get("instances")?;
        Some(list.split_whitespace().map(str::to_owned).insert_all())
    }

    /// The ids of the plans that a look at all of them is about.
    pub fn listed_plans(&self, query: &PlanQuery, recent: Duration, now: Wall) -> BTreeSet<String> {
        let mut listed = self.active_plans(recent, now);
        if query.with_off {
            listed.extend(self.plans.keys().cloned());
        }
        listed
    }

    /// The ids of the plans that an alert without a plan may be about: those that are switched on,
    /// and those with a status that was written within `recent`.
    fn active_plans(&self, recent: Duration, now: Wall) -> BTreeSet<String> {
        let on = self.plans.keys().filter(|plan| self.is_enabled(plan) == Some(true));
        let statuses = self.node_statuses.keys().chain(self.module_statuses.keys());
        let written = statuses.filter(|plan| self.last_written(plan) >= Some(now - recent));
        on.chain(written).chain(self.unreadable_plans.keys()).cloned().insert_all()
    }

    /// A field of a plan that is not empty.
    fn plan_field(&self, plan: &str, name: &str) -> Option<&str> {
        let text = self.plans.get(plan)?.get(name)?.trim();
        (!text.is_empty()).then_some(text)
    }

    fn is_enabled(&self, plan: &str) -> Option<bool> {
        let plan = self.plans.get(plan)?;
        // Without the field the plan counts as on: a missed backup must not go unreported.
        Some(plan.get("enabled").is_none_or(|flag| flag.trim() == "1"))
    }

    /// When a status of one of the plan's modules was last written.
    fn last_written(&self, plan: &str) -> Option<Wall> {
        self.all_statuses(plan)
            .into_iter()
            .filter(|(module, _)| self.has_module(module))
            .filter_map(|(_, entry)| entry.status.last_written())
            .max()
    }

    /// A plan with the states of its modules. The names of modules and destination are read later.
    pub fn plan(
        &self,
        id: &str,
        alert_time: Option<AlertTime>,
        recent: Duration,
        now: Wall,
    ) -> Plan {
        if let Some(why) = self.unreadable_plans.get(id) {
            let (why, zone) = (Some(why.clone()), self.zones.local().clone());
            return Plan { id: id.to_owned(), why, zone, ..Plan::default() };
        }
        let field = |name| self.plan_field(id, name).map(str::to_owned);
        let schedule = field("schedule");
        let latest = self.latest_statuses(id, alert_time.map(|alert| alert.since));
        let mut ids = self.module_ids(id, &latest);
        let enabled = self.is_enabled(id) != Some(false);
        let complained = alert_time.is_some_and(|alert| alert.missing_since.is_some());
        let configured = self.configured(id, complained, &ids, &latest, now);
        let fallback = self.unreadable_entry(id);
        let mut new = self.not_due(&configured, &latest, now);
        if complained || fallback.is_some() {
            new = NotDue::default();
        }
        let all_new = ids.iter().all(|id| new.since.contains_key(id));
        if !enabled && !all_new {
            // What is off is not awaited.
            ids.retain(|id| !new.since.contains_key(id));
            new = NotDue::default();
        }
        let is_due = |id: &&String| all_new || !new.since.contains_key(*id);
        let window = RunWindow::new(PlanSituation {
            schedule: schedule.as_deref(),
            enabled,
            since: configured.since.filter(|_| !complained),
            alert_time,
            history: PassHistory::of(ids.iter().filter(is_due).map(|id| last_run(latest.get(id)))),
            default_interval: recent,
            now,
            zones: &self.zones,
        });
        let module = |id: String| {
            let entry = latest.get(&id);
            let is_new = enabled && new.since.contains_key(&id);
            let module = self.module(entry.or(fallback.as_ref()), id, &window);
            if is_new { self.pending(module, new.first_due) } else { module }
        };
        let not_due = ids.iter().filter(|id| !is_due(id)).cloned().insert_all();
        Plan {
            id: id.to_owned(),
            name: field("name"),
            enabled: self.is_enabled(id),
            destination: field("repository").map(|id| Destination { id, ..Destination::default() }),
            modules: ids.into_iter().map(module).collect(),
            schedule,
            zone: self.zones.local().clone(),
            why: None,
            configured: Some(configured),
            not_due,
        }
    }

    /// How a plan is configured, and since when. At the first look that is remembered a module that
    /// never ran counts as new, unless an alert says that a run is missing.
    fn configured(
        &self,
        id: &str,
        complained: bool,
        modules: &BTreeSet<String>,
        latest: &BTreeMap<String, StatusEntry>,
        now: Wall,
    ) -> ConfiguredView {
        let ran = |id: &String| {
            let entry = latest.get(id)?;
            Some(entry.status.last_written().unwrap_or(Wall(i64::MIN)))
        };
        let modules = modules.iter().map(|id| (id.clone(), ran(id))).insert_all();
        let last = self.last_looks.as_ref().and_then(|looks| looks.get(id));
        let seen = Seen {
            now,
            enabled: self.is_enabled(id) != Some(false),
            schedule: self.plan_field(id, "schedule"),
            modules: &modules,
            is_new_first: self.last_looks.is_some() && !complained,
        };
        plan_changes::compare(last, seen)
    }

    /// The modules of a plan that are not due yet, and have not run all the same.
    fn not_due(
        &self,
        configured: &ConfiguredView,
        latest: &BTreeMap<String, StatusEntry>,
        now: Wall,
    ) -> NotDue {
        let mut new = plan_changes::not_due(configured, &self.zones, now);
        let has_run = |id: &str, since| latest.get(id).is_some_and(|entry| !entry.is_before(since));
        new.since.retain(|id, since| !has_run(id, *since));
        new
    }

    /// A module that is not due yet.
    fn pending(&self, module: Module, first_due: Option<Wall>) -> Module {
        let due = first_due.map(|due| self.zones.local().format_minute(due));
        let due = due.map_or_else(|| "never due".into(), |due| format!("first due {due}"));
        let run = if module.run.is_some() {
            "no run of this plan since it joined"
        } else {
            "no run is known"
        };
        Module { state: ModuleState::Pending, why: Some(format!("{run}, {due}")), ..module }
    }

    /// The modules of a plan: its `instances`; in the older layout its members, and all that have a
    /// status. Modules that were removed from the cluster are left out.
    fn module_ids(&self, plan: &str, latest: &BTreeMap<String, StatusEntry>) -> BTreeSet<String> {
        let mut modules = self.instances(plan).unwrap_or_else(|| {
            let members = self.members.get(plan).into_iter().flatten();
            members.chain(latest.keys()).cloned().insert_all()
        });
        modules.retain(|module| self.has_module(module));
        modules
    }

    fn module(&self, entry: Option<&StatusEntry>, id: String, window: &RunWindow) -> Module {
        let (state, why) = evaluate(entry.map(|entry| &entry.status), window);
        let run = match entry.map(|entry| &entry.status) {
            Some(RunStatus::Readable(run) | RunStatus::Failed(run, _))
                if *run != BackupRun::default() =>
            {
                Some(run.clone())
            }
            Some(RunStatus::Readable(_) | RunStatus::Failed(..) | RunStatus::Damaged(_)) | None => {
                None
            }
        };
        let node = entry.and_then(|entry| entry.node.clone());
        let node = node.or_else(|| self.module_node.get(&id).cloned());
        let uuid = self.module_uuid.get(&id).cloned();
        Module { uuid, node, why, run, id, state, ..Module::default() }
    }

    /// The status of modules without an entry, when the hash of some node could not be read: they
    /// may be in it, since the node where they run now need not be the one where they last ran.
    fn unreadable_entry(&self, plan: &str) -> Option<StatusEntry> {
        let keys = self.node_statuses.get(plan)?.values();
        let why = keys.filter_map(|statuses| statuses.as_ref().err()).next()?;
        Some(StatusEntry { status: RunStatus::Damaged(why.clone()), node: None })
    }

    /// By module its newest status, of either layout and any node. A damaged one that a module left
    /// behind when it was moved counts only where there is no other: no run will mend it.
    fn latest_statuses(
        &self,
        plan: &str,
        alert_since: Option<Wall>,
    ) -> BTreeMap<String, StatusEntry> {
        let mut all: BTreeMap<String, StatusEntry> = BTreeMap::new();
        let (left_behind, current): (Vec<_>, Vec<_>) =
            self.all_statuses(plan).into_iter().partition(|(id, entry)| self.has_left(id, entry));
        for (module, entry) in current {
            let entry = match all.remove(module) {
                Some(before) => before.newer(entry, alert_since),
                None => entry,
            };
            all.insert(module.to_owned(), entry);
        }
        for (module, entry) in left_behind {
            all.entry(module.to_owned()).or_insert(entry);
        }
        all
    }

    /// Whether a status is damaged and stands where the module is no longer.
    fn has_left(&self, module: &str, entry: &StatusEntry) -> bool {
        let now_at = self.module_node.get(module);
        matches!(entry.status, RunStatus::Damaged(_))
            && entry.node.as_ref().zip(now_at).is_some_and(|(node, now_at)| node != now_at)
    }

    /// Every status of a plan's modules, in both layouts.
    fn all_statuses(&self, plan: &str) -> Vec<(&str, StatusEntry)> {
        let mut all = Vec::new();
        for (node, statuses) in self.node_statuses.get(plan).into_iter().flatten() {
            let entry = |status| StatusEntry { status, node: Some(node.clone()) };
            match statuses {
                Ok(statuses) => all.extend(
                    statuses
                        .iter()
                        .map(|(id, json)| (id.as_str(), entry(RunStatus::from_json(json)))),
                ),
                Err(why) => {
                    let there = self.module_node.iter().filter(|(_, at)| *at == node);
                    let damaged = || entry(RunStatus::Damaged(why.clone()));
                    all.extend(there.map(|(id, _)| (id.as_str(), damaged())));
                }
            }
        }
        for (module, fields) in self.module_statuses.get(plan).into_iter().flatten() {
            let status = match fields {
                Ok(fields) => RunStatus::from_fields(fields),
                Err(why) => RunStatus::Damaged(why.clone()),
            };
            all.push((module.as_str(), StatusEntry { status, node: None }));
        }
        all
    }
}

/// The node and the last run of a module.
fn last_run(entry: Option<&StatusEntry>) -> (Option<&str>, Option<&BackupRun>) {
    let node = entry.and_then(|entry| entry.node.as_deref());
    match entry.map(|entry| &entry.status) {
        Some(RunStatus::Readable(run) | RunStatus::Failed(run, _)) => (node, Some(run)),
        Some(RunStatus::Damaged(_)) | None => (node, None),
    }
}

impl StatusEntry {
    /// Whether it is that of a run before this time.
    fn is_before(&self, time: Wall) -> bool {
        self.status.last_written().is_some_and(|at| at < time)
    }

    fn newer(self, other: StatusEntry, alert_since: Option<Wall>) -> StatusEntry {
        let status = self.status.clone().newer(other.status.clone(), alert_since);
        if status == self.status { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_790_100_000_000);

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// `mail1 missing: no run is known`.
    fn states(snapshot: &RedisSnapshot) -> String {
        let plan = snapshot.plan("1", None, Duration::from_secs(86_400), NOW);
        let said = |module: &Module| {
            let why = module.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            format!("{} {}{why}", module.id, module.state.name())
        };
        plan.modules.iter().map(said).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_key_that_cannot_be_read_makes_nobody_missing() {
        let mut snapshot = RedisSnapshot {
            module_node: pairs(&[("mail1", "1"), ("samba3", "2"), ("cloud2", "3")]),
            ..RedisSnapshot::default()
        };
        let plan = pairs(&[("schedule", "daily"), ("instances", "cloud2 mail1 samba3")]);
        snapshot.plans.insert("1".into(), plan);
        let good = pairs(&[("mail1", r#"{"errors": 0, "end": 1790099000}"#)]);
        let keys = [("1".to_owned(), Ok(good)), ("2".to_owned(), Err("WRONGTYPE".into()))];
        snapshot.node_statuses.insert("1".into(), keys.into());
        assert_eq!(
            states(&snapshot),
            "cloud2 unreadable: WRONGTYPE, mail1 success, samba3 unreadable: WRONGTYPE"
        );
        snapshot.node_statuses.get_mut("1").unwrap().remove("2");
        assert_eq!(
            states(&snapshot),
            "cloud2 missing: no run is known, mail1 success, samba3 missing: no run is known"
        );
    }

    #[test]
    fn a_module_that_was_just_added_is_pending_where_looks_are_remembered() {
        let mut snapshot = RedisSnapshot::default();
        let plan = pairs(&[("schedule", "daily"), ("instances", "cloud2 mail1")]);
        snapshot.plans.insert("1".into(), plan);
        let good = Ok(pairs(&[("mail1", r#"{"errors": 0, "end": 1790099000}"#)]));
        snapshot.node_statuses.insert("1".into(), BTreeMap::from([("1".to_owned(), good)]));
        let missing = "cloud2 missing: no run is known, mail1 success";
        assert_eq!(states(&snapshot), missing);
        snapshot.last_looks = Some(BTreeMap::new());
        let pending =
            "cloud2 pending: no run is known, first due 2026-09-23 00:00 UTC, mail1 success";
        assert_eq!(states(&snapshot), pending);
        let (recent, hour) = (Duration::from_secs(86_400), Duration::from_secs(3600));
        let seen = snapshot.plan("1", None, recent, NOW);
        let last = LastLook { at: NOW, configured: seen.configured };
        snapshot.last_looks = Some(BTreeMap::from([("1".to_owned(), last)]));
        for (missing_since, expected) in [(None, "pending"), (Some(NOW), "missing")] {
            let alert = AlertTime { since: NOW, names_plan: true, missing_since };
            let plan = snapshot.plan("1", Some(alert), recent, NOW + hour);
            assert_eq!(plan.modules[0].state.name(), expected, "an alert may say so");
        }
        let off = pairs(&[("schedule", "daily"), ("instances", "cloud2 mail1"), ("enabled", "0")]);
        snapshot.plans.insert("1".into(), off);
        assert_eq!(states(&snapshot), "mail1 success", "what is off is not awaited");
    }

    #[test]
    fn a_damaged_status_is_not_passed_over_for_the_older_layout() {
        let mut snapshot = RedisSnapshot::default();
        snapshot.plans.insert("1".into(), pairs(&[("schedule", "daily"), ("instances", "mail1")]));
        let damaged = BTreeMap::from([("1".to_owned(), Ok(pairs(&[("mail1", "{not json")])))]);
        snapshot.node_statuses.insert("1".into(), damaged);
        let old = Ok(pairs(&[("errors", "0"), ("end", "1790099000")]));
        snapshot.module_statuses.insert("1".into(), BTreeMap::from([("mail1".to_owned(), old)]));
        assert_eq!(states(&snapshot), "mail1 unreadable: the status is not JSON");
        let since = NOW - Duration::from_secs(7200);
        let alert_time = Some(AlertTime { since, names_plan: true, missing_since: None });
        let plan = snapshot.plan("1", alert_time, Duration::from_secs(86_400), NOW);
        assert_eq!(plan.modules[0].state, ModuleState::Success);
        assert!(snapshot.active_plans(Duration::from_secs(86_400), NOW).contains("1"));
    }

    #[test]
    fn what_a_cluster_once_had_is_left_out() {
        let plan = pairs(&[("schedule", "daily"), ("instances", "mail1 samba3 web9 cloud2")]);
        let mut snapshot = RedisSnapshot {
            module_node: pairs(&[("mail1", "1"), ("cloud2", "2")]),
            // As cores before 3.21.1 leave it.
            module_uuid: pairs(&[("mail1", "u"), ("samba3", "u"), ("web9", "u"), ("cloud2", "u")]),
            ..RedisSnapshot::default()
        };
        snapshot.plans.insert("1".into(), plan);
        let good = r#"{"errors": 0, "end": 1790099000}"#;
        let bad = r#"{"errors": 1, "end": 1780099000}"#;
        let one = pairs(&[("mail1", good), ("samba3", bad), ("web9", bad), ("cloud2", bad)]);
        let two = pairs(&[("cloud2", good), ("mail1", "{not json")]);
        for (node, statuses) in [("1", one), ("2", two), ("9", pairs(&[("gone7", bad)]))] {
            let key = StatusKey::Node { node: node.into(), plan: "1".into() };
            snapshot.add_status(key, Ok(statuses));
        }
        assert_eq!(states(&snapshot), "cloud2 success, mail1 success", "moved, and damaged before");
        snapshot.plans.get_mut("1").unwrap().remove("instances");
        assert_eq!(states(&snapshot), "cloud2 success, mail1 success", "in the older layout, too");
        snapshot.module_node.clear();
        snapshot.module_uuid.remove("samba3");
        assert_eq!(
            states(&snapshot),
            "cloud2 success, mail1 unreadable: the status is not JSON, web9 failed: has not run since",
            "without nodes the UUIDs say which modules there are"
        );
    }

    #[test]
    fn keys_that_are_no_plans_are_taken_for_none() {
        let mut listing = KeyListing::default();
        for key in [
            "cluster/backup/1",
            "cluster/backup/1/lock",
            "cluster/backup/",
            "cluster/backup_repository/d1",
            "node/1/backup_status/1",
            "node/1/backup_status/",
            "module/mail1/backup_status/2",
            "module/mail1/backups",
            "module/mail1/backups/2",
            "task/module/mail1/backups",
        ] {
            listing.insert(key);
        }
        assert_eq!(listing.plans, BTreeSet::from(["1".to_owned()]));
        let statuses: Vec<String> = listing.statuses.iter().map(StatusKey::to_string).collect();
        assert_eq!(statuses, ["node/1/backup_status/1", "module/mail1/backup_status/2"]);
        assert_eq!(listing.members, BTreeSet::from(["mail1".to_owned()]));

        let mut snapshot = RedisSnapshot::default();
        let wrong = || Err(KeyError::Unusable("WRONGTYPE".into()));
        snapshot.add_plan("lock", wrong(), false);
        snapshot.add_plan("6", Ok(BTreeMap::new()), true);
        assert!(snapshot.is_empty());
        snapshot.add_plan("5", wrong(), false);
        snapshot.add_plan("other", wrong(), true);
        let unreadable: Vec<&String> = snapshot.unreadable_plans.keys().collect();
        assert_eq!(unreadable, ["5", "other"]);
    }

    #[test]
    fn a_key_that_nobody_may_see_makes_no_module_unreadable_that_another_key_knows() {
        let mut snapshot = RedisSnapshot {
            module_node: pairs(&[("mail1", "1"), ("cloud2", "1")]),
            ..RedisSnapshot::default()
        };
        let plan = pairs(&[("schedule", "daily"), ("instances", "mail1 cloud2")]);
        snapshot.plans.insert("1".into(), plan);
        let hidden = || Err(KeyError::Hidden("NOPERM".into()));
        for key in snapshot.status_keys("1") {
            let read = match &key {
                StatusKey::Node { node, .. } if node == "1" => {
                    Ok(pairs(&[("mail1", r#"{"errors": 0, "end": 1790099000}"#)]))
                }
                StatusKey::Node { .. } | StatusKey::Module { .. } => hidden(),
            };
            snapshot.add_status(key, read);
        }
        assert_eq!(
            states(&snapshot),
            "cloud2 unreadable: module/cloud2/backup_status/1 cannot be read: NOPERM, mail1 success"
        );
        snapshot.node_statuses.clear();
        let key = StatusKey::Node { node: "1".into(), plan: "1".into() };
        snapshot.add_status(key, hidden());
        assert!(
            states(&snapshot)
                .ends_with("mail1 unreadable: node/1/backup_status/1 cannot be read: NOPERM")
        );
    }

    #[test]
    fn of_a_plan_those_statuses_are_asked_for_that_there_may_be() {
        let mut snapshot = RedisSnapshot {
            module_node: pairs(&[("mail1", "1"), ("cloud2", "70"), ("samba3", "x")]),
            ..RedisSnapshot::default()
        };
        snapshot.plans.insert("1".into(), pairs(&[("instances", "mail1 removed4")]));
        snapshot.plans.insert("2".into(), BTreeMap::new());
        let keys = |plan: &str| -> Vec<String> {
            snapshot.status_keys(plan).iter().map(StatusKey::to_string).collect()
        };
        assert_eq!(keys("1").len(), 71 + 1, "nodes 1 to 70 and x, and the module that is left");
        assert_eq!(keys("2").len(), 71 + 3);
        assert!(keys("1").contains(&"module/mail1/backup_status/1".to_owned()));
        assert_eq!(RedisSnapshot::default().status_keys("1").len(), 64);
        snapshot.module_node.insert("odd1".into(), "4000000000".into());
        assert_eq!(snapshot.status_keys("1").len(), 1000 + 2 + 1);
    }

    #[test]
    fn of_a_plan_that_cannot_be_read_the_times_were_in_another_zone() {
        let zones = Zones::with_local("Europe/Rome").unwrap();
        let mut snapshot = RedisSnapshot { zones, ..RedisSnapshot::default() };
        snapshot.add_plan("6", Err(KeyError::Unusable("WRONGTYPE".into())), true);
        let plan = snapshot.plan("6", None, Duration::from_secs(86_400), Wall(0));
        assert_eq!(plan.zone.format_minute(Wall(0)), "1970-01-01 01:00 CET");
    }
}
