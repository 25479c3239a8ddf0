//! The Redis keys of NethServer 8 backups, in both layouts that exist, and the plans that they
//! describe. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::{
    AlertTime, BackupRun, Destination, Module, PassHistory, Plan, PlanSituation, RunStatus,
    RunWindow, evaluate,
};
use super::schedule::Zones;
use crate::clock::Wall;

/// The fields of a hash, or why it cannot be read.
pub type HashResult = Result<BTreeMap<String, String>, String>;

/// The hashes that describe the plans of a query, as they were read.
#[derive(Clone, Debug, Default)]
pub struct RedisSnapshot {
    /// `cluster/backup/{id}`: the plans, by id.
    pub plans: BTreeMap<String, BTreeMap<String, String>>,
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
}

/// The key of a status hash, parsed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusKey {
    /// The current layout: one hash per node and plan, a field per module.
    Node { node: String, plan: String },
    /// The older layout: one hash per module and plan.
    Module { module: String, plan: String },
}

impl StatusKey {
    /// Reads `node/{node}/backup_status/{id}` or `module/{module}/backup_status/{id}`.
    pub fn parse(key: &str) -> Option<StatusKey> {
        let parts: Vec<&str> = key.splitn(4, '/').collect();
        match parts.as_slice() {
            ["node", node, "backup_status", plan] => {
                Some(StatusKey::Node { node: (*node).into(), plan: (*plan).into() })
            }
            ["module", module, "backup_status", plan] => {
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
    /// The ids of the plans that an alert without a plan may be about: those that are switched on,
    /// and those with a status that was written within `recent`.
    pub fn active_plans(&self, recent: Duration, now: Wall) -> BTreeSet<String> {
        let on = self.plans.keys().filter(|plan| self.is_enabled(plan) == Some(true));
        let statuses = self.node_statuses.keys().chain(self.module_statuses.keys());
        let written = statuses.filter(|plan| self.last_written(plan) >= Some(now - recent));
        on.chain(written).cloned().collect()
    }

    fn is_enabled(&self, plan: &str) -> Option<bool> {
        let plan = self.plans.get(plan)?;
        // Without the field the plan counts as on: a missed backup must not go unreported.
        Some(plan.get("enabled").is_none_or(|flag| flag.trim() == "1"))
    }

    /// When a status of the plan was last written.
    fn last_written(&self, plan: &str) -> Option<Wall> {
        self.all_statuses(plan)
            .into_iter()
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
        let fields = self.plans.get(id);
        let field = |name: &str| {
            let text = fields?.get(name)?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let schedule = field("schedule");
        let latest = self.latest_statuses(id, alert_time.map(|alert| alert.since));
        let ids = self.module_ids(id, &latest);
        let window = RunWindow::new(PlanSituation {
            schedule: schedule.as_deref(),
            enabled: self.is_enabled(id) != Some(false),
            alert_time,
            history: PassHistory::of(ids.iter().map(|id| last_run(latest.get(id)))),
            default_interval: recent,
            now,
            zones: &self.zones,
        });
        let fallback = self.unreadable_entry(id);
        let module = |id: String| self.module(latest.get(&id).or(fallback.as_ref()), id, &window);
        Plan {
            id: id.to_owned(),
            name: field("name"),
            enabled: self.is_enabled(id),
            destination: field("repository").map(|id| Destination { id, ..Destination::default() }),
            modules: ids.into_iter().map(module).collect(),
            schedule,
            zone: self.zones.local().clone(),
        }
    }

    /// The modules of a plan: its `instances`; in the older layout its members, and all that have a
    /// status. Modules that were removed from the cluster are left out.
    fn module_ids(&self, plan: &str, latest: &BTreeMap<String, StatusEntry>) -> BTreeSet<String> {
        let instances = self.plans.get(plan).and_then(|fields| fields.get("instances"));
        let mut modules: BTreeSet<String> = match instances {
            Some(list) => list.split_whitespace().map(str::to_owned).collect(),
            None => {
                let members = self.members.get(plan).into_iter().flatten();
                members.chain(latest.keys()).cloned().collect()
            }
        };
        // If the whole hash is missing, no module can be known to be removed.
        if !self.module_uuid.is_empty() {
            modules.retain(|module| self.module_uuid.contains_key(module));
        }
        modules
    }

    fn module(&self, entry: Option<&StatusEntry>, id: String, window: &RunWindow) -> Module {
        let (state, why) = evaluate(entry.map(|entry| &entry.status), window);
        let run = match entry.map(|entry| &entry.status) {
            Some(RunStatus::Readable(run)) if *run != BackupRun::default() => Some(run.clone()),
            Some(RunStatus::Readable(_) | RunStatus::Damaged(_)) | None => None,
        };
        let node = entry.and_then(|entry| entry.node.clone());
        Module {
            ui_name: None,
            uuid: self.module_uuid.get(&id).cloned(),
            node: node.or_else(|| self.module_node.get(&id).cloned()),
            state,
            why,
            run,
            id,
        }
    }

    /// The status of modules without an entry, when the hash of some node could not be read: they
    /// may be in it, since the node where they run now need not be the one where they last ran.
    fn unreadable_entry(&self, plan: &str) -> Option<StatusEntry> {
        let keys = self.node_statuses.get(plan)?.values();
        let why = keys.filter_map(|statuses| statuses.as_ref().err()).next()?;
        Some(StatusEntry { status: RunStatus::Damaged(why.clone()), node: None })
    }

    /// By module its newest status, of either layout and any node.
    fn latest_statuses(
        &self,
        plan: &str,
        alert_since: Option<Wall>,
    ) -> BTreeMap<String, StatusEntry> {
        let mut all: BTreeMap<String, StatusEntry> = BTreeMap::new();
        for (module, entry) in self.all_statuses(plan) {
            let entry = match all.remove(module) {
                Some(before) => before.newer(entry, alert_since),
                None => entry,
            };
            all.insert(module.to_owned(), entry);
        }
        all
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
        Some(RunStatus::Readable(run)) => (node, Some(run)),
        Some(RunStatus::Damaged(_)) | None => (node, None),
    }
}

impl StatusEntry {
    fn newer(self, other: StatusEntry, alert_since: Option<Wall>) -> StatusEntry {
        let status = self.status.clone().newer(other.status.clone(), alert_since);
        if status == self.status { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::ModuleState;
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
            module_node: pairs(&[("mail1", "1"), ("samba3", "2")]),
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
}
