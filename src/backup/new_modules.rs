//! Modules that never ran, and since when each is known: one that was added to its plan after the
//! plan ran last is not missing. Redis does not say when that was. Pure.

use std::collections::BTreeMap;

use super::plan::{ModuleState, Plan};
use super::schedule::Zones;
use crate::clock::Wall;
use crate::view::PlanView;

/// By plan and module since when each that never ran is known.
#[derive(Debug, Default)]
pub struct NewModules {
    known_since: BTreeMap<(String, String), Wall>,
}

impl NewModules {
    /// As the rows of the plans have it: what was told as missing is known for long.
    pub fn restore<'a>(rows: impl Iterator<Item = &'a PlanView>) -> NewModules {
        let mut known_since = BTreeMap::new();
        for row in rows {
            for module in row.modules.iter().filter(|module| module.end.is_none()) {
                let is_new = module.state == ModuleState::Pending.name();
                let since = if is_new { row.at } else { Wall(i64::MIN) };
                known_since.insert((row.plan.clone(), module.name.clone()), since);
            }
        }
        NewModules { known_since }
    }

    /// Takes in which modules of a plan never ran.
    pub fn note(&mut self, plan: &Plan, now: Wall) {
        for module in plan.modules.iter().filter(|module| module.run.is_none()) {
            let key = (plan.id.clone(), module.id.clone());
            self.known_since.entry(key).or_insert(now);
        }
        for module in plan.modules.iter().filter(|module| module.run.is_some()) {
            self.known_since.remove(&(plan.id.clone(), module.id.clone()));
        }
    }

    /// Modules that are missing become pending while no pass has begun since they are known. Says
    /// whether there are any.
    pub fn await_first_pass(&self, plan: &mut Plan, zones: &Zones, now: Wall) -> bool {
        // What is off is not awaited.
        if plan.enabled == Some(false) {
            return false;
        }
        let mut any = false;
        let due = |since| plan.next_elapse(zones, since).filter(|due| *due > now);
        let first_due: Vec<Option<Wall>> = plan
            .modules
            .iter()
            .map(|module| {
                let never_ran = module.state == ModuleState::Missing && module.run.is_none();
                let key = (plan.id.clone(), module.id.clone());
                due(*self.known_since.get(&key).filter(|_| never_ran)?)
            })
            .collect();
        for (module, due) in plan.modules.iter_mut().zip(first_due) {
            let Some(due) = due else { continue };
            any = true;
            module.state = ModuleState::Pending;
            let due = plan.zone.format_minute(due);
            module.why = Some(format!("no run is known, first due {due}"));
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::plan::Module;
    use super::*;

    const MONDAY: Wall = Wall(1_795_996_800_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn plan() -> Plan {
        let module = Module {
            id: "mail1".into(),
            ui_name: None,
            uuid: None,
            image: None,
            node: None,
            state: ModuleState::Missing,
            why: None,
            run: None,
        };
        let schedule = Some("Sun 03:00 UTC".into());
        Plan { id: "7".into(), schedule, modules: vec![module], ..Plan::default() }
    }

    fn state(new: &NewModules, now: Wall) -> String {
        let mut plan = plan();
        new.await_first_pass(&mut plan, &Zones::default(), now);
        let why = plan.modules[0].why.clone().unwrap_or_default();
        format!("{} {why}", plan.modules[0].state.name())
    }

    #[test]
    fn a_module_that_was_added_after_the_pass_was_missing_at_once() {
        let mut new = NewModules::default();
        assert_eq!(state(&new, MONDAY), "missing ", "nothing is known of it");
        new.note(&plan(), MONDAY);
        new.note(&plan(), MONDAY + DAY);
        let pending = "pending no run is known, first due 2026-12-06 03:00 UTC";
        assert_eq!(state(&new, MONDAY + DAY * 5), pending);
        assert_eq!(state(&new, MONDAY + DAY * 7), "missing ", "its first pass is over");
        let mut off = Plan { enabled: Some(false), ..plan() };
        assert!(!new.await_first_pass(&mut off, &Zones::default(), MONDAY + DAY));
    }

    #[test]
    fn a_restart_keeps_what_is_new_and_what_is_missing() {
        let module = |state: &str| {
            serde_json::json!({"plan": "7", "outcome": "x", "level": "ok", "at": MONDAY.to_string(), "why": "",
                "headline": "", "repositories": [], "modules": [{"name": "mail1", "state": state}]})
        };
        for (stored, expected) in [("pending", "pending"), ("missing", "missing")] {
            let row: PlanView = serde_json::from_value(module(stored)).unwrap();
            let mut new = NewModules::restore(std::iter::once(&row));
            new.note(&plan(), MONDAY + DAY);
            let now = state(&new, MONDAY + DAY);
            assert!(now.starts_with(expected), "{stored}: {now}");
        }
    }
}
