//! The names of facts, for programs. Pure.

use super::Fact;

impl Fact {
    /// Every kind that there is, in the order of the enum.
    pub const KINDS: [&'static str; 21] = [
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

    /// What kind of fact it is, in one word that never changes.
    pub fn kind(&self) -> &'static str {
        match self {
            Fact::Overdue { .. } => "overdue",
            Fact::Shutdown { .. } => "shutdown",
            Fact::Back { .. } => "back",
            Fact::Booted { .. } => "booted",
            Fact::Said { .. } => "message",
            Fact::NeverSeen { .. } => "never_seen",
            Fact::FirstHeard { .. } => "first_heard",
            Fact::Threshold { .. } => "threshold",
            Fact::Missing { .. } => "missing",
            Fact::StoreRefuses { .. } => "store_refuses",
            Fact::StoreWrites { .. } => "store_writes",
            Fact::StoreMovedAside { .. } => "store_moved_aside",
            Fact::ChannelFails { .. } => "channel_fails",
            Fact::ChannelDelivers { .. } => "channel_delivers",
            Fact::Backup { .. } => "backup",
            Fact::AlertsLost { .. } => "alerts_lost",
            Fact::AlertmanagerSilent { .. } => "alertmanager_silent",
            Fact::AlertmanagerAnswers { .. } => "alertmanager_answers",
            Fact::DyndnsFails { .. } => "dyndns_fails",
            Fact::DyndnsKept { .. } => "dyndns_kept",
            Fact::Custom { .. } => "custom",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once() {
        let names: std::collections::BTreeSet<_> = Fact::KINDS.into_iter().collect();
        assert_eq!(names.len(), Fact::KINDS.len());
        let said = Fact::Said { host: "web1".into(), text: "x".into() };
        assert!(names.contains(said.kind()));
    }
}
