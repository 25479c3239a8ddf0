//! What was read from Redis, and the plans that it makes. The keys are those of NethServer 8, in
//! both of their generations. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::{AlertTime, BackupRun, Destination, Module, Plan, RunStatus, RunWindow, judge};
use crate::clock::Wall;

/// A hash, or why it cannot be read.
pub type HashResult = Result<BTreeMap<String, String>, String>;

/// What Redis holds about the plans in question.
#[derive(Clone, Debug, Default)]
pub struct RedisSnapshot {
    /// `cluster/backup/{id}`: the plans, by id.
    pub plans: BTreeMap<String, BTreeMap<String, String>>,
    /// `cluster/module_node`.
    pub module_node: BTreeMap<String, String>,
    /// `cluster/module_uuid`.
    pub module_uuid: BTreeMap<String, String>,
    /// `node/{node}/backup_status/{id}`: by plan and node, the modules and their JSON.
    pub of_nodes: BTreeMap<String, BTreeMap<String, HashResult>>,
    /// `module/{module}/backup_status/{id}`: by plan and module, the fields.
    pub of_modules: BTreeMap<String, BTreeMap<String, HashResult>>,
    /// `module/{module}/backups`: by plan, the modules that are part of it.
    pub members: BTreeMap<String, BTreeSet<String>>,
}

/// A status key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusKey {
    /// The current layout.
    Node { node: String, plan: String },
    /// The older layout.
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

/// A module's status and the node that wrote it.
struct StatusEntry {
    status: RunStatus,
    node: Option<String>,
}

impl RedisSnapshot {
    /// The plans that are asked about where everything is: all that are switched on or whose
    /// status was written within `recent`.
    pub fn alive(&self, recent: Duration, now: Wall) -> BTreeSet<String> {
        let on = self.plans.keys().filter(|plan| self.enabled(plan) == Some(true));
        let statuses = self.of_nodes.keys().chain(self.of_modules.keys());
        let written = statuses.filter(|plan| self.written(plan) >= Some(now - recent));
        on.chain(written).cloned().collect()
    }

    fn enabled(&self, plan: &str) -> Option<bool> {
        let plan = self.plans.get(plan)?;
        // Where nothing is said, somebody had better be told when it does not run.
        Some(plan.get("enabled").is_none_or(|flag| flag.trim() == "1"))
    }

    /// When a status of the plan was last written.
    fn written(&self, plan: &str) -> Option<Wall> {
        self.statuses(plan).into_iter().filter_map(|(_, told)| told.status.latest()).max()
    }

    /// A plan and how its modules fared. Their `ui_name` and the destination's are left to be read.
    pub fn plan(
        &self,
        id: &str,
        complaint: Option<AlertTime>,
        recent: Duration,
        now: Wall,
    ) -> Plan {
        let fields = self.plans.get(id);
        let field = |name: &str| {
            let text = fields?.get(name)?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let schedule = field("schedule");
        let window = RunWindow::of(schedule.as_deref(), complaint, recent, now);
        let told = self.told(id, complaint.map(|complaint| complaint.since));
        let modules = self.modules_of(id, &told);
        let silent = self.unreadable_key(id);
        let module =
            |module: String| self.module(told.get(&module).or(silent.as_ref()), module, window);
        Plan {
            id: id.to_owned(),
            name: field("name"),
            enabled: self.enabled(id),
            destination: field("repository").map(|id| Destination { id, ..Destination::default() }),
            modules: modules.into_iter().map(module).collect(),
            schedule,
        }
    }

    /// The modules of a plan: its `instances`; in the older layout those that say so themselves;
    /// of a plan that nobody knows those that were told of. Removed modules are left out.
    fn modules_of(&self, plan: &str, told: &BTreeMap<String, StatusEntry>) -> BTreeSet<String> {
        let instances = self.plans.get(plan).and_then(|fields| fields.get("instances"));
        let mut modules: BTreeSet<String> = match instances {
            Some(list) => list.split_whitespace().map(str::to_owned).collect(),
            None => {
                let members = self.members.get(plan).into_iter().flatten();
                members.chain(told.keys()).cloned().collect()
            }
        };
        // Without this key at all nothing is known about removed modules.
        if !self.module_uuid.is_empty() {
            modules.retain(|module| self.module_uuid.contains_key(module));
        }
        modules
    }

    fn module(&self, told: Option<&StatusEntry>, id: String, window: RunWindow) -> Module {
        let (state, why) = judge(told.map(|told| &told.status), window);
        let run = match told.map(|told| &told.status) {
            Some(RunStatus::Readable(run)) if *run != BackupRun::default() => Some(run.clone()),
            Some(RunStatus::Readable(_) | RunStatus::Damaged(_)) | None => None,
        };
        let node = told.and_then(|told| told.node.clone());
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

    /// What is known of the modules that nobody tells of, where a key could not be read that may
    /// tell of them: the node where they run now need not be the one where they ran.
    fn unreadable_key(&self, plan: &str) -> Option<StatusEntry> {
        let keys = self.of_nodes.get(plan)?.values();
        let why = keys.filter_map(|statuses| statuses.as_ref().err()).next()?;
        Some(StatusEntry { status: RunStatus::Damaged(why.clone()), node: None })
    }

    /// By module, the newest that was told of it in either layout, by any node.
    fn told(&self, plan: &str, alarmed: Option<Wall>) -> BTreeMap<String, StatusEntry> {
        let mut all: BTreeMap<String, StatusEntry> = BTreeMap::new();
        for (module, told) in self.statuses(plan) {
            let told = match all.remove(module) {
                Some(before) => before.newer(told, alarmed),
                None => told,
            };
            all.insert(module.to_owned(), told);
        }
        all
    }

    /// All that was told of a plan's modules.
    fn statuses(&self, plan: &str) -> Vec<(&str, StatusEntry)> {
        let mut all = Vec::new();
        for (node, statuses) in self.of_nodes.get(plan).into_iter().flatten() {
            let told = |status| StatusEntry { status, node: Some(node.clone()) };
            match statuses {
                Ok(statuses) => all.extend(
                    statuses
                        .iter()
                        .map(|(id, json)| (id.as_str(), told(RunStatus::from_json(json)))),
                ),
                Err(why) => {
                    let there = self.module_node.iter().filter(|(_, at)| *at == node);
                    let damaged = || told(RunStatus::Damaged(why.clone()));
                    all.extend(there.map(|(id, _)| (id.as_str(), damaged())));
                }
            }
        }
        for (module, fields) in self.of_modules.get(plan).into_iter().flatten() {
            let status = match fields {
                Ok(fields) => RunStatus::from_texts(fields),
                Err(why) => RunStatus::Damaged(why.clone()),
            };
            all.push((module.as_str(), StatusEntry { status, node: None }));
        }
        all
    }
}

impl StatusEntry {
    fn newer(self, other: StatusEntry, alarmed: Option<Wall>) -> StatusEntry {
        let status = self.status.clone().newer(other.status.clone(), alarmed);
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
    fn states(facts: &RedisSnapshot) -> String {
        let plan = facts.plan("1", None, Duration::from_secs(86_400), NOW);
        let said = |module: &Module| {
            let why = module.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            format!("{} {}{why}", module.id, module.state.name())
        };
        plan.modules.iter().map(said).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_key_that_cannot_be_read_makes_nobody_missing() {
        let mut facts = RedisSnapshot {
            module_node: pairs(&[("mail1", "1"), ("samba3", "2")]),
            ..RedisSnapshot::default()
        };
        let plan = pairs(&[("schedule", "daily"), ("instances", "cloud2 mail1 samba3")]);
        facts.plans.insert("1".into(), plan);
        let good = pairs(&[("mail1", r#"{"errors": 0, "end": 1790099000}"#)]);
        let keys = [("1".to_owned(), Ok(good)), ("2".to_owned(), Err("WRONGTYPE".into()))];
        facts.of_nodes.insert("1".into(), keys.into());
        assert_eq!(
            states(&facts),
            "cloud2 unreadable: WRONGTYPE, mail1 success, samba3 unreadable: WRONGTYPE"
        );
        facts.of_nodes.get_mut("1").unwrap().remove("2");
        assert_eq!(
            states(&facts),
            "cloud2 missing: no run is known, mail1 success, samba3 missing: no run is known"
        );
    }

    #[test]
    fn a_damaged_status_is_not_passed_over_for_the_older_layout() {
        let mut facts = RedisSnapshot::default();
        facts.plans.insert("1".into(), pairs(&[("schedule", "daily"), ("instances", "mail1")]));
        let damaged = BTreeMap::from([("1".to_owned(), Ok(pairs(&[("mail1", "{not json")])))]);
        facts.of_nodes.insert("1".into(), damaged);
        let old = Ok(pairs(&[("errors", "0"), ("end", "1790099000")]));
        facts.of_modules.insert("1".into(), BTreeMap::from([("mail1".to_owned(), old)]));
        assert_eq!(states(&facts), "mail1 unreadable: the status is not JSON");
        let since = NOW - Duration::from_secs(7200);
        let complaint = Some(AlertTime { since, named: true });
        let plan = facts.plan("1", complaint, Duration::from_secs(86_400), NOW);
        assert_eq!(plan.modules[0].state, ModuleState::Success);
        assert!(facts.alive(Duration::from_secs(86_400), NOW).contains("1"));
    }
}
