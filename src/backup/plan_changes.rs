//! How a backup plan is configured, compared with how it was at the last look: a run that elapsed before
//! it was so is not awaited. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::schedule::{Schedule, Zones};
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
    /// What it saw.
    pub configured: ConfiguredView,
}

/// What a look sees that follows `last`, where something changed as late as it can. Looks that are
/// far apart do not show that: then it changed right after the last one, so that no run that is missing
/// is taken for one that was not due. A plan that is looked at for the first time has always been so.
pub fn compare(
    last: Option<&LastLook>,
    now: Wall,
    enabled: bool,
    schedule: Option<&str>,
    modules: &BTreeSet<String>,
) -> ConfiguredView {
    let changed = last.map(|last| if now.since(last.at) <= MAX_GAP { now } else { last.at });
    let was = last.map(|last| &last.configured);
    let since_when = |id: &String| match was.and_then(|was| was.modules.get(id)) {
        Some(since) => *since,
        None => changed,
    };
    let is_same = |was: &&ConfiguredView| {
        let any_stays = modules.iter().any(|id| was.modules.contains_key(id));
        was.enabled == enabled && was.schedule.as_deref() == schedule && any_stays
    };
    ConfiguredView {
        enabled,
        schedule: schedule.map(str::to_owned),
        since: was.filter(is_same).map_or(changed, |was| was.since),
        modules: modules.iter().map(|id| (id.clone(), since_when(id))).collect(),
    }
}

/// The modules whose first run is yet to come, since they became part of the plan after its latest
/// elapse, and since when they are.
pub fn not_due<'a>(
    configured: &'a ConfiguredView,
    zones: &Zones,
    now: Wall,
) -> BTreeMap<&'a str, Wall> {
    let schedule = configured.schedule.as_ref().and_then(|text| Schedule::parse(text, zones));
    let Some(schedule) = schedule else { return BTreeMap::new() };
    let latest = schedule.latest_elapse(now);
    let is_due = |since: Wall| latest.is_some_and(|latest| latest > since);
    let since = |(id, since): (&'a String, &Option<Wall>)| Some((id.as_str(), (*since)?));
    configured.modules.iter().filter_map(since).filter(|(_, since)| !is_due(*since)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_795_291_200_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn ids(modules: &str) -> BTreeSet<String> {
        modules.split_whitespace().map(str::to_owned).collect()
    }

    fn first(enabled: bool, schedule: &str, modules: &str) -> LastLook {
        let configured = compare(None, NOW, enabled, Some(schedule), &ids(modules));
        assert_eq!((configured.since, configured.modules.values().max()), (None, Some(&None)));
        LastLook { at: NOW, configured }
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
            let now = compare(Some(&before), soon, enabled, Some(schedule), &ids(modules));
            assert_eq!(now.since, since, "{enabled} {schedule} {modules}");
            let next = LastLook { at: soon, configured: now };
            let later = compare(Some(&next), soon + HOUR, enabled, Some(schedule), &ids(modules));
            assert_eq!(later.since, since, "it stays so");
        }
        let off = first(false, "22:00", "mail1");
        let on = |at| compare(Some(&off), at, true, Some("22:00"), &ids("mail1")).since;
        assert_eq!(on(soon), Some(soon));
        assert_eq!(on(NOW + 48 * HOUR), Some(NOW), "it may have missed its runs since");
    }

    #[test]
    fn a_module_that_joined_after_the_latest_pass_was_called_missing() {
        let zones = Zones::default();
        let before = first(true, "daily", "mail1");
        // 2026-11-21 20:00 UTC; the next pass is at midnight.
        let joined = compare(Some(&before), NOW + HOUR, true, Some("daily"), &ids("mail1 samba2"));
        let new = |at| not_due(&joined, &zones, at).into_keys().collect::<Vec<_>>();
        assert_eq!(new(NOW + HOUR), ["samba2"]);
        assert_eq!(new(NOW + 9 * HOUR), Vec::<&str>::new());
    }
}
