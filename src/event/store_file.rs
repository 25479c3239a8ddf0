//! What can happen to the file of the store, and its words. Pure.

use serde::{Deserialize, Serialize};

use super::Level;
use super::description::EventDescription;
use super::message::{lines, listed};

/// What was found when the file was opened, or happened to it while the daemon ran. The store keeps
/// it until it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreFileEvent {
    /// It could not be read and was moved aside.
    MovedAside { why: String, to: String },
    /// It was damaged on disk; what could be read of it was taken over.
    Damaged {
        /// What was lost, in people's words, at most [`super::MAX_LISTED`] of them.
        rows: Vec<String>,
        /// How many rows there are in all.
        count: usize,
        /// Of what more may be lost, and nobody knows how much.
        uncounted: Vec<String>,
        /// Those of the rows that were backup alerts which were accepted.
        alerts: Vec<String>,
        why: String,
        /// The name of the damaged file.
        kept: String,
    },
    /// It is older than the last change that was written.
    Behind { what: String },
    /// It was taken away or replaced while the daemon ran, and written anew.
    Replaced {
        why: String,
        /// The name under which what lay in its place is kept.
        kept: Option<String>,
    },
}

impl StoreFileEvent {
    /// What it means.
    pub(super) fn describe(&self) -> EventDescription {
        match self {
            StoreFileEvent::MovedAside { why, to } => store_moved_aside(why, to),
            StoreFileEvent::Damaged { rows, count, uncounted, why, kept, .. } => {
                store_damaged(rows, *count, uncounted).detail("why", why).detail("kept as", kept)
            }
            StoreFileEvent::Behind { what } => store_behind(what),
            StoreFileEvent::Replaced { why, kept } => {
                store_replaced(why).detail_if("kept as", kept.clone())
            }
        }
    }
}

fn store_moved_aside(why: &str, to: &str) -> EventDescription {
    let title = "hbd could not read its state and began anew";
    EventDescription::of_daemon("store_moved_aside", Level::Warning, title)
        .detail("why", why)
        .detail("kept as", to)
        .detail(
            "lost",
            "what was waiting to be sent, which alerts were open, which hosts were heard",
        )
}

fn store_damaged(rows: &[String], count: usize, uncounted: &[String]) -> EventDescription {
    let lost = match (count, listed(rows, count)) {
        _ if !uncounted.is_empty() => "rows were lost, how many is not known".to_owned(),
        (0, _) => "nothing was lost".to_owned(),
        (1, list) => format!("1 row was lost: {}", list.unwrap_or_default()),
        (_, list) => format!("{count} rows were lost: {}", list.unwrap_or_default()),
    };
    let is_lost = count > 0 || !uncounted.is_empty();
    let level = if is_lost { Level::Critical } else { Level::Warning };
    let title = format!("hbd's state file was damaged: {lost}");
    EventDescription::of_daemon("store_damaged", level, &title)
        .detail_if("lost", (count > 0).then(|| lines(rows, count)))
        .detail_if("perhaps lost", listed(uncounted, uncounted.len()))
        .detail_if("to do", is_lost.then(|| LOOK.to_owned()))
}

/// What is to be done when it is not known what was lost.
const LOOK: &str = "look how the hosts and the backups are: hbd status, hbd backup --all";

fn store_behind(what: &str) -> EventDescription {
    let title = "hbd's state file is older than what hbd wrote last";
    EventDescription::of_daemon("store_behind", Level::Critical, title)
        .detail("why", what)
        .detail("lost", "perhaps messages that were accepted last, and what was known since")
        .detail("to do", LOOK)
}

fn store_replaced(why: &str) -> EventDescription {
    let title = "hbd's state file was taken away while hbd ran";
    EventDescription::of_daemon("store_replaced", Level::Warning, title)
        .detail("why", why)
        .detail("meanwhile", "all that hbd knows was written anew; the history begins anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_with_what_was_lost() {
        let damaged = |rows: &[&str], count, uncounted: &[&str]| {
            let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let (rows, uncounted) = (strings(rows), strings(uncounted));
            let (why, kept) = ("w".to_owned(), "k".to_owned());
            let alerts = Vec::new();
            StoreFileEvent::Damaged { rows, count, uncounted, alerts, why, kept }.describe()
        };
        for (described, level, title) in [
            (damaged(&[], 0, &[]), Level::Warning, "nothing was lost"),
            (damaged(&["host web1"], 1, &[]), Level::Critical, "1 row was lost: host web1"),
            (
                damaged(&["host a", "backup plan 2"], 5, &[]),
                Level::Critical,
                "5 rows were lost: host a, backup plan 2 and 3 more",
            ),
            (
                damaged(&["host a"], 1, &["hosts"]),
                Level::Critical,
                "rows were lost, how many is not known",
            ),
        ] {
            assert_eq!(described.title, format!("hbd's state file was damaged: {title}"));
            assert_eq!(described.level, level, "{title}");
        }
    }
}
