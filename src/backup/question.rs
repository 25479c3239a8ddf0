//! What is to be found out: about which plans, and since when somebody complains. Pure.

use std::collections::BTreeMap;

use super::alert::Alert;
use super::plan::AlertTime;
use crate::clock::Wall;

/// Which plans are asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanQuery {
    /// The plans that were named, and since when each is complained about, where that is known.
    pub named: BTreeMap<String, Option<Wall>>,
    /// Whether somebody complained without naming a plan: all of them are then looked at.
    pub everything: bool,
    /// Since when that one complains.
    pub everything_since: Option<Wall>,
}

impl PlanQuery {
    /// About one plan, with nobody complaining.
    pub fn about(plan: &str) -> PlanQuery {
        PlanQuery { named: BTreeMap::from([(plan.to_owned(), None)]), ..PlanQuery::default() }
    }

    /// About all plans, with nobody complaining.
    pub fn about_everything() -> PlanQuery {
        PlanQuery { everything: true, ..PlanQuery::default() }
    }

    /// What these alerts want to know; `labels` may hold the id of a plan. Of several alerts about
    /// a plan the latest counts.
    pub fn of(alerts: &[Alert], labels: &[String]) -> PlanQuery {
        let mut question = PlanQuery::default();
        for alert in alerts {
            match alert.plan_id(labels) {
                Some(id) => {
                    let since = question.named.entry(id.to_owned()).or_default();
                    *since = (*since).max(alert.starts_at);
                }
                None => {
                    question.everything = true;
                    question.everything_since = question.everything_since.max(alert.starts_at);
                }
            }
        }
        question
    }

    /// The complaint about a plan; none when there is none, or nobody knows since when.
    pub fn complaint(&self, plan: &str) -> Option<AlertTime> {
        match self.named.get(plan) {
            Some(since) => since.map(|since| AlertTime { since, named: true }),
            None => self.everything_since.map(|since| AlertTime { since, named: false }),
        }
    }
}

/// The alerts that are about a plan: those that name it, or name none.
pub fn about<'a>(plan: &str, alerts: &'a [Alert], labels: &[String]) -> Vec<&'a Alert> {
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
        }
    }

    #[test]
    fn alerts_ask_about_the_plans_they_name_and_else_about_all() {
        let labels = ["backup_id".to_owned(), "id".to_owned()];
        let alerts = [alert(Some("1"), 5), alert(Some("1"), 9), alert(Some(" "), 7)];
        let question = PlanQuery::of(&alerts, &labels);
        assert_eq!(question.named, BTreeMap::from([("1".to_owned(), Some(Wall(9)))]));
        assert!(question.everything);
        let complaint = |since, named| Some(AlertTime { since: Wall(since), named });
        assert_eq!(question.complaint("1"), complaint(9, true));
        assert_eq!(question.complaint("2"), complaint(7, false));
        assert_eq!(PlanQuery::about("1").complaint("1"), None);
        assert_eq!(about("1", &alerts, &labels).len(), 3);
        assert_eq!(about("2", &alerts, &labels).len(), 1);
    }
}
