//! The names of facts, for programs. Pure.

use super::EventKind;

impl EventKind {
    /// Every kind that there is, in the order of the enum.
    pub const NAMES: [&'static str; 21] = [
        "overdue",
        "shutdown",
        "back",
        "booted",
        "message",
        "never_seen",
        "first_heard",
        "threshold",
        "missing",
        "store_refuses",
        "store_writes",
        "store_moved_aside",
        "channel_fails",
        "channel_delivers",
        "backup",
        "alerts_lost",
        "alertmanager_silent",
        "alertmanager_answers",
        "dyndns_fails",
        "dyndns_kept",
        "custom",
    ];

    /// What kind of kind it is, in one word that never changes.
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::Overdue { .. } => "overdue",
            EventKind::Shutdown { .. } => "shutdown",
            EventKind::Back { .. } => "back",
            EventKind::Booted { .. } => "booted",
            EventKind::Said { .. } => "message",
            EventKind::NeverSeen { .. } => "never_seen",
            EventKind::FirstHeard { .. } => "first_heard",
            EventKind::Threshold { .. } => "threshold",
            EventKind::Missing { .. } => "missing",
            EventKind::StoreRefuses { .. } => "store_refuses",
            EventKind::StoreWrites { .. } => "store_writes",
            EventKind::StoreMovedAside { .. } => "store_moved_aside",
            EventKind::ChannelFails { .. } => "channel_fails",
            EventKind::ChannelDelivers { .. } => "channel_delivers",
            EventKind::Backup { .. } => "backup",
            EventKind::AlertsLost { .. } => "alerts_lost",
            EventKind::AlertmanagerSilent { .. } => "alertmanager_silent",
            EventKind::AlertmanagerAnswers { .. } => "alertmanager_answers",
            EventKind::DyndnsFails { .. } => "dyndns_fails",
            EventKind::DyndnsKept { .. } => "dyndns_kept",
            EventKind::Custom { .. } => "custom",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once() {
        let names: std::collections::BTreeSet<_> = EventKind::NAMES.into_iter().collect();
        assert_eq!(names.len(), EventKind::NAMES.len());
        let said = EventKind::Said { host: "web1".into(), text: "x".into() };
        assert!(names.contains(said.name()));
    }
}
