//! The tables of the store.

use redb::TableDefinition;

/// What a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The last sign of life of the daemon, the last event number.
    Meta,
    /// Hosts with their connections and alerts, by name.
    Hosts,
    /// Deliveries that wait, by number.
    Outbox,
    /// Open troubles and who was told, by their text.
    Troubles,
    /// Emergencies that nobody acknowledged yet, by channel and receipt.
    Receipts,
    /// Backup alerts that wait for their pipeline.
    Pipelines,
    /// What was sent to whom, by number.
    History,
    /// Names in the DNS, by host.
    Dyndns,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 8] = [
        Table::Meta,
        Table::Hosts,
        Table::Outbox,
        Table::Troubles,
        Table::Receipts,
        Table::Pipelines,
        Table::History,
        Table::Dyndns,
    ];

    pub(super) fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Table::Meta => "meta",
            Table::Hosts => "hosts",
            Table::Outbox => "outbox",
            Table::Troubles => "troubles",
            Table::Receipts => "receipts",
            Table::Pipelines => "pipelines",
            Table::History => "history",
            Table::Dyndns => "dyndns",
        })
    }
}
