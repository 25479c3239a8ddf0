//! How a backup plan is configured, compared with how it was at the last look: a run that elapsed before
//! it was so is not awaited. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::schedule::{Schedule, Zones};
use crate::btree::InsertAll;
use crate::clock::Wall;
use crate::view::ConfiguredView;

/// Of what lies between two looks that are no further apart nothing is held against a plan that was
/// changed between them: whether that was before or after an elapse is not known.
const MAX_GAP: Duration = Duration::from_secs(86_400);

/// The last look at a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLook {
    /// When that was.
    pub at: Wall,
    /// What it saw; none: an earlier version looked, which did not remember that.
    pub configured: Option<ConfiguredView>,
}

/// How a plan is configured at a look.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When that is.
    pub now: Wall,
    /// Whether its timer is on.
    pub enabled: bool,
    /// When it runs.
    pub schedule: Option<&'a str>,
    /// Its modules, and when the status of each was last written; none: it never ran.
    pub modules: &'a BTreeMap<String, Option<Wall>>,
    /// Whether what never ran is new at the first look.
    pub is_new_first: bool,
}

/// What a look sees that follows `last`, where something changed as late as it can. Looks that are
/// far apart do not show that: then it changed right after the last one, so that no run that is missing
/// is taken for one that was not due. A plan that is looked at for the first time has always been so,
/// but for its new modules.
pub fn compare(last: Option<&LastLook>, seen: Seen) -> ConfiguredView {
    let Seen { now, enabled, schedule, modules, is_new_first } = seen;
    let was = last.and_then(|last| last.configured.as_ref());
    let changed = last
        .filter(|_| was.is_some())
        .map(|last| if now.since(last.at) <= MAX_GAP { now } else { last.at });
    let since_when =
        |id: &String, ran: Option<Wall>| match (was.and_then(|was| was.modules.get(id)), last) {
            (Some(since), _) => *since,
            (None, None) => (is_new_first && ran.is_none()).then_some(now),
            // It has run since it joined.
            (None, Some(last)) if was.is_some() && ran > Some(last.at) => Some(last.at),
            (None, Some(_)) => changed,
        };
    let is_same = |was: &&ConfiguredView| {
        let any_stays = modules.keys().any(|id| was.modules.contains_key(id));
        was.enabled == enabled && was.schedule.as_deref() == schedule && any_stays
    };
    ConfiguredView {
        enabled,
        schedule: schedule.map(str::to_owned),
        since: was.filter(is_same).map_or(changed, |was| was.since),
        modules: modules.iter().map(|(id, ran)| (id.clone(), since_when(id, *ran))).insert_all(),
    }
}

/// The modules whose first run is yet to come, since they became part of the plan after its latest
/// elapse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotDue {
    /// Since when each of them is part of the plan.
    pub since: BTreeMap<String, Wall>,
    /// When they are due; none: never.
    pub first_due: Option<Wall>,
}

/// The modules of a plan that are not due yet.
pub fn not_due(configured: &ConfiguredView, zones: &Zones, now: Wall) -> NotDue {
    let schedule = configured.schedule.as_ref().and_then(|text| Schedule::parse(text, zones));
    let Some(schedule) = schedule else { return NotDue::default() };
    let latest = schedule.latest_elapse(now);
    let is_due = |since: Wall| latest.is_some_and(|latest| latest > since);
    let since = |(id, since): (&String, &Option<Wall>)| Some((id.clone(), (*since)?));
    let joined = configured.modules.iter().filter_map(since);
    NotDue {
        since: joined.filter(|(_, since)| !is_due(*since)).insert_all(),
        first_due: schedule.next_elapse(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_795_291_200_000);
    const HOUR: Duration = Duration::from_secs(3600);

    /// All but `new9` have run an hour before.
    fn runs(modules: &str) -> BTreeMap<String, Option<Wall>> {
        let ran = |id: &str| (id != "new9").then_some(NOW - HOUR);
        modules.split_whitespace().map(|id| (id.to_owned(), ran(id))).collect()
    }

    fn look(
        last: Option<&LastLook>,
        now: Wall,
        enabled: bool,
        schedule: &str,
        modules: &str,
    ) -> ConfiguredView {
        let (modules, schedule) = (&runs(modules), Some(schedule));
        compare(last, Seen { now, enabled, schedule, modules, is_new_first: true })
    }

    fn first(enabled: bool, schedule: &str, modules: &str) -> LastLook {
        let configured = look(None, NOW, enabled, schedule, modules);
        assert_eq!((configured.since, configured.modules.values().max()), (None, Some(&None)));
        LastLook { at: NOW, configured: Some(configured) }
    }

    #[test]
    fn a_run_that_elapsed_before_the_plan_was_changed_was_called_missing() {
        let soon = NOW + HOUR;
        for (enabled, schedule, modules, since) in [
            (true, "22:00", "mail1", None),
            (true, "22:00", "mail1 samba2", None),
            (true, "09:15", "mail1", Some(soon)),
            (true, "22:00", "samba2", Some(soon)),
            (false, "22:00", "mail1", Some(soon)),
        ] {
            let before = first(true, "22:00", "mail1");
            let now = look(Some(&before), soon, enabled, schedule, modules);
            assert_eq!(now.since, since, "{enabled} {schedule} {modules}");
            let next = LastLook { at: soon, configured: Some(now) };
            let later = look(Some(&next), soon + HOUR, enabled, schedule, modules);
            assert_eq!(later.since, since, "it stays so");
        }
        let off = first(false, "22:00", "mail1");
        let on = |at| look(Some(&off), at, true, "22:00", "mail1").since;
        assert_eq!(on(soon), Some(soon));
        assert_eq!(on(NOW + 48 * HOUR), Some(NOW), "it may have missed its runs since");
    }

    #[test]
    fn a_module_that_joined_after_the_latest_pass_was_called_missing() {
        let zones = Zones::default();
        let before = first(true, "daily", "mail1");
        // 2026-11-21 20:00 UTC; the next pass is at midnight.
        let joined = look(Some(&before), NOW + HOUR, true, "daily", "mail1 samba2");
        let new = |at| not_due(&joined, &zones, at).since.into_keys().collect::<Vec<_>>();
        assert_eq!(new(NOW + HOUR), ["samba2"]);
        assert_eq!(new(NOW + 9 * HOUR), Vec::<String>::new());
    }

    #[test]
    fn a_module_that_was_added_after_the_pass_was_missing_at_once() {
        let zones = Zones::default();
        let configured = look(None, NOW, true, "Sun 03:00 UTC", "mail1 new9");
        let new = not_due(&configured, &zones, NOW + HOUR);
        assert_eq!(new.since, BTreeMap::from([("new9".to_owned(), NOW)]));
        let sunday = Wall(1_795_316_400_000);
        assert_eq!(new.first_due, Some(sunday));
        assert!(not_due(&configured, &zones, sunday + HOUR).since.is_empty(), "it is due");
    }

    #[test]
    fn what_ran_between_two_looks_was_called_not_due_since_it_had_joined_between_them() {
        let before = first(true, "hourly", "mail1");
        let mut modules = runs("mail1 samba2");
        modules.insert("samba2".into(), Some(NOW + HOUR / 2));
        let seen = Seen {
            now: NOW + HOUR,
            enabled: true,
            schedule: Some("hourly"),
            modules: &modules,
            is_new_first: true,
        };
        assert_eq!(compare(Some(&before), seen).modules["samba2"], Some(NOW));
    }

    #[test]
    fn a_restart_keeps_what_is_new_and_what_is_missing() {
        let of_earlier_version = LastLook { at: NOW, configured: None };
        let later = look(Some(&of_earlier_version), NOW + HOUR, true, "daily", "mail1 new9");
        assert_eq!((later.since, later.modules["new9"]), (None, None), "it is known for long");
        let first = LastLook { at: NOW, configured: Some(look(None, NOW, true, "daily", "new9")) };
        let later = look(Some(&first), NOW + HOUR, true, "daily", "new9");
        assert_eq!((later.since, later.modules["new9"]), (None, Some(NOW)));
    }
}
