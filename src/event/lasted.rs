//! For how long what an event says has lasted. Pure.

use super::EventKind;
use crate::clock::{Wall, format_duration};

/// For how long what an event says has lasted at the time `at`, when it happened, as a detail; none where
/// that is not known, or its kind says it already.
pub fn lasted(kind: &EventKind, at: Wall) -> Option<(&'static str, String)> {
    let time = |since: &Wall| format_duration(at.since(*since));
    Some(match kind {
        EventKind::Overdue { last_seen, .. } => ("not heard for", time(last_seen)),
        EventKind::Threshold { since, reminder: true, .. } => {
            ("reminder", format!("at this level for {}, since {}", time(since), since.local()))
        }
        EventKind::NotBack { since, .. } => ("gone for", time(since)),
        EventKind::Missing { last_sent, .. } => ("not sent for", time(last_sent)),
        EventKind::NeverSeen { configured, .. } => ("not heard for", time(configured)),
        _ => return None,
    })
}
