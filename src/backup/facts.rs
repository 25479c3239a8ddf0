//! What was read from Redis, and the plans that it makes. The keys are those of NethServer 8, in
//! both of their generations. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::{Module, Plan, Run, Status, Window, judge};
use super::question::Question;
use crate::clock::Wall;

/// A hash, or why it cannot be read.
pub type Hash = Result<BTreeMap<String, String>, String>;

/// What Redis holds about the plans in question.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `cluster/backup/{id}`: the plans, by id.
    pub plans: BTreeMap<String, BTreeMap<String, String>>,
    /// `cluster/module_node`.
    pub module_node: BTreeMap<String, String>,
    /// `cluster/module_uuid`.
    pub module_uuid: BTreeMap<String, String>,
    /// `node/{node}/backup_status/{id}`: by plan and node, the modules and their JSON.
    pub of_nodes: BTreeMap<String, BTreeMap<String, Hash>>,
    /// `module/{module}/backup_status/{id}`: by plan and module, the fields.
    pub of_modules: BTreeMap<String, BTreeMap<String, Hash>>,
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
struct Told {
    status: Status,
    node: Option<String>,
}

impl Facts {
    /// The plans in question: the named ones, and where everything is asked about all that are
    /// switched on or whose status was written within `recent`.
    pub fn asked(&self, question: &Question, recent: Duration, now: Wall) -> BTreeSet<String> {
        let mut ids: BTreeSet<String> = question.named.keys().cloned().collect();
        if question.everything {
            let on = |plan: &&String| self.enabled(plan) == Some(true);
            ids.extend(self.plans.keys().filter(on).cloned());
            let written = self.of_nodes.keys().chain(self.of_modules.keys());
            ids.extend(written.filter(|plan| self.written(plan) >= Some(now - recent)).cloned());
        }
        ids
    }

    fn enabled(&self, plan: &str) -> Option<bool> {
        let plan = self.plans.get(plan)?;
        // Where nothing is said, somebody had better be told when it does not run.
        Some(plan.get("enabled").is_none_or(|flag| flag.trim() == "1"))
    }

    /// When a status of the plan was last written.
    fn written(&self, plan: &str) -> Option<Wall> {
        self.told(plan).into_values().filter_map(|told| told.status.latest()).max()
    }

    /// A plan and how its modules fared. Their `ui_name` and the destination's are left to be read.
    pub fn plan(&self, id: &str, alarmed: Option<Wall>, recent: Duration, now: Wall) -> Plan {
        let fields = self.plans.get(id);
        let field = |name: &str| {
            let text = fields?.get(name)?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let schedule = field("schedule");
        let enabled = self.enabled(id);
        let window = Window::of(schedule.as_deref(), alarmed, recent, now);
        let destination = field("repository")
            .map(|id| super::plan::Destination { id, ..super::plan::Destination::default() });
        let told = self.told(id);
        let modules = self.modules_of(id, &told);
        let module =
            |module: String| self.module(told.get(&module), module, window, enabled != Some(false));
        Plan {
            id: id.to_owned(),
            name: field("name"),
            enabled,
            destination,
            modules: modules.into_iter().map(module).collect(),
            schedule,
        }
    }

    /// The modules of a plan: its `instances`; in the older layout those that say so themselves;
    /// of a plan that nobody knows those that were told of. Removed modules are left out.
    fn modules_of(&self, plan: &str, told: &BTreeMap<String, Told>) -> BTreeSet<String> {
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

    fn module(&self, told: Option<&Told>, id: String, window: Window, expected: bool) -> Module {
        let (state, why) = judge(told.map(|told| &told.status), window, expected);
        let run = match told.map(|told| &told.status) {
            Some(Status::Run(run)) if *run != Run::default() => Some(run.clone()),
            Some(Status::Run(_) | Status::Damaged(_)) | None => None,
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

    /// By module, the newest that was told of it in either layout, by any node.
    fn told(&self, plan: &str) -> BTreeMap<String, Told> {
        let mut all: BTreeMap<String, Told> = BTreeMap::new();
        let mut tell = |module: &str, status: Status, node: Option<&str>| {
            let told = Told { status, node: node.map(str::to_owned) };
            let told = match all.remove(module) {
                Some(before) => before.newer(told),
                None => told,
            };
            all.insert(module.to_owned(), told);
        };
        for (node, statuses) in self.of_nodes.get(plan).into_iter().flatten() {
            match statuses {
                Ok(statuses) => {
                    for (module, json) in statuses {
                        tell(module, Status::from_json(json), Some(node));
                    }
                }
                Err(why) => {
                    for (module, _) in self.module_node.iter().filter(|(_, at)| *at == node) {
                        tell(module, Status::Damaged(why.clone()), Some(node));
                    }
                }
            }
        }
        for (module, fields) in self.of_modules.get(plan).into_iter().flatten() {
            let status = match fields {
                Ok(fields) => Status::from_texts(fields),
                Err(why) => Status::Damaged(why.clone()),
            };
            tell(module, status, None);
        }
        all
    }
}

impl Told {
    fn newer(self, other: Told) -> Told {
        let status = self.status.clone().newer(other.status.clone());
        if status == self.status { self } else { other }
    }
}
