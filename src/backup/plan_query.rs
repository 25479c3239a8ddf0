//! Which plans are to be analyzed, and since when alerts fire about them. Pure.

use std::collections::BTreeMap;

use super::alert::Alert;
use super::plan::AlertTime;
use super::plan_changes::LastLook;
use crate::clock::Wall;

/// Which plans are asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanQuery {
    /// By id the plans that were named, and since when the latest alert about each of them fires; none
    /// where there is no alert.
    pub plans: BTreeMap<String, Option<Wall>>,
    /// Whether all plans are asked about: an alert that names no plan may be about any of them.
    pub all: bool,
    /// Whether all plans are meant that are off, too, however long ago they ran.
    pub with_off: bool,
    /// Since when the latest alert that names no plan fires.
    pub all_since: Option<Wall>,
    /// The same of alerts that say that a run is missing, such as NsBackupMissing, by the plan that
    /// they name. One that names none is not believed of plans whose run may still come.
    pub missing: BTreeMap<String, Option<Wall>>,
    /// The last look at each plan, by its id; none: nobody remembers the looks.
    pub last_looks: Option<BTreeMap<String, LastLook>>,
}

impl PlanQuery {
    /// One plan, without an alert.
    pub fn for_plan(plan: &str) -> PlanQuery {
        PlanQuery { plans: BTreeMap::from([(plan.to_owned(), None)]), ..PlanQuery::default() }
    }

    /// All plans, without an alert.
    pub fn for_all() -> PlanQuery {
        PlanQuery { all: true, ..PlanQuery::default() }
    }

    /// The plans that these alerts are about; `labels` may hold the id of a plan. An alert whose start
    /// is not known, or lies ahead, fires since it was `accepted`.
    pub fn from_alerts(alerts: &[Alert], labels: &[String], accepted: Wall) -> PlanQuery {
        let mut query = PlanQuery::default();
        for alert in alerts {
            let since = Some(alert.starts_at.map_or(accepted, |start| start.min(accepted)));
            if let Some(plan) = alert.plan_id(labels)
                && alert.name.to_ascii_lowercase().contains("missing")
            {
                let latest = query.missing.entry(plan.to_owned()).or_default();
                *latest = (*latest).max(since);
            }
            match alert.plan_id(labels) {
                Some(id) => {
                    let latest = query.plans.entry(id.to_owned()).or_default();
                    *latest = (*latest).max(since);
                }
                None => {
                    query.all = true;
                    query.all_since = query.all_since.max(since);
                }
            }
        }
        query
    }

    /// Since when an alert fires about a plan; none when there is no alert.
    pub fn alert_time(&self, plan: &str) -> Option<AlertTime> {
        let missing_since = self.missing.get(plan).copied().flatten();
        let alert_time = |since, names_plan| AlertTime { since, names_plan, missing_since };
        match self.plans.get(plan) {
            Some(since) => since.map(|since| alert_time(since, true)),
            None => self.all_since.map(|since| alert_time(since, false)),
        }
    }
}

/// The alerts that are about a plan: those that name it, or name none.
pub fn alerts_about<'a>(plan: &str, alerts: &'a [Alert], labels: &[String]) -> Vec<&'a Alert> {
    alerts.iter().filter(|alert| alert.plan_id(labels).is_none_or(|id| id == plan)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: Option<&str>, starts_at: i64) -> Alert {
        let labels = id.map(|id| ("id".to_owned(), id.to_owned()));
        Alert {
            name: "BackupFailed".into(),
            fingerprint: starts_at.to_string(),
            starts_at: Some(Wall(starts_at)),
            labels: labels.into_iter().collect(),
            annotations: BTreeMap::new(),
            may_repeat: false,
        }
    }

    #[test]
    fn alerts_ask_about_the_plans_they_name_and_else_about_all() {
        let labels = ["backup_id".to_owned(), "id".to_owned()];
        let alerts = [alert(Some("1"), 5), alert(Some("1"), 9), alert(Some(" "), 7)];
        let query = PlanQuery::from_alerts(&alerts, &labels, Wall(99));
        assert_eq!(query.plans, BTreeMap::from([("1".to_owned(), Some(Wall(9)))]));
        assert!(query.all);
        let alert_time = |since, names_plan| {
            Some(AlertTime { since: Wall(since), names_plan, missing_since: None })
        };
        assert_eq!(query.alert_time("1"), alert_time(9, true));
        assert_eq!(query.alert_time("2"), alert_time(7, false));
        assert_eq!(PlanQuery::for_plan("1").alert_time("1"), None);
        assert_eq!(alerts_about("1", &alerts, &labels).len(), 3);
        assert_eq!(alerts_about("2", &alerts, &labels).len(), 1);
    }

    #[test]
    fn an_alert_that_names_no_plan_made_what_was_not_run_yet_missing_in_all_plans() {
        let labels = ["id".to_owned()];
        let missing = |id| Alert { name: "NsBackupMissing".into(), ..alert(id, 5) };
        let query = PlanQuery::from_alerts(&[missing(None)], &labels, Wall(9));
        assert_eq!(query.alert_time("1").unwrap().missing_since, None);
        let query = PlanQuery::from_alerts(&[missing(Some("1"))], &labels, Wall(9));
        assert_eq!(query.alert_time("1").unwrap().missing_since, Some(Wall(5)));
    }

    #[test]
    fn an_alert_that_fires_since_nobody_knows_when_took_last_nights_run_for_an_all_clear() {
        let labels = ["id".to_owned()];
        let unknown = |id| Alert { starts_at: None, ..alert(id, 0) };
        for (alerts, since) in [
            ([alert(Some("1"), 5), unknown(Some("1"))], 50),
            ([unknown(Some("1")), alert(Some("1"), 70)], 50),
            ([alert(Some("1"), 70), alert(Some("1"), 5)], 50),
            ([alert(Some("1"), 5), alert(Some("1"), 7)], 7),
        ] {
            let query = PlanQuery::from_alerts(&alerts, &labels, Wall(50));
            assert_eq!(query.alert_time("1").unwrap().since, Wall(since));
        }
        let query = PlanQuery::from_alerts(&[unknown(None)], &labels, Wall(50));
        let since = Wall(50);
        let expected = AlertTime { since, names_plan: false, missing_since: None };
        assert_eq!(query.alert_time("2"), Some(expected));
    }
}
