//! The tables of the store, and one row to write. Pure.

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
    /// What happened, by number.
    Events,
    /// How each backup plan fared when it was last looked into, by id.
    Plans,
    /// How long each host was in which condition, by the hour.
    Hours,
    /// The same, by the day.
    Days,
    /// The names of metrics, by host.
    Names,
    /// The values of metrics, by time and host.
    Metrics,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 14] = [
        Table::Meta,
        Table::Hosts,
        Table::Outbox,
        Table::Troubles,
        Table::Receipts,
        Table::Pipelines,
        Table::History,
        Table::Dyndns,
        Table::Events,
        Table::Plans,
        Table::Hours,
        Table::Days,
        Table::Names,
        Table::Metrics,
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
            Table::Events => "events",
            Table::Plans => "plans",
            Table::Hours => "hours",
            Table::Days => "days",
            Table::Names => "names",
            Table::Metrics => "metrics",
        })
    }

    /// Whether it tells of what was: the daemon does its work without it. Its rows are not looked
    /// through at the start, and the oldest that wait for a disk to heal give way.
    pub(super) fn is_past(self) -> bool {
        match self {
            Table::Meta
            | Table::Hosts
            | Table::Outbox
            | Table::Troubles
            | Table::Receipts
            | Table::Pipelines
            | Table::Dyndns
            | Table::Plans => false,
            Table::History
            | Table::Events
            | Table::Hours
            | Table::Days
            | Table::Names
            | Table::Metrics => true,
        }
    }

    /// Whether its rows are added only: what waits of them is right whatever the file says.
    pub(super) fn only_grows(self) -> bool {
        matches!(
            self,
            Table::Outbox | Table::Pipelines | Table::History | Table::Events | Table::Plans
        )
    }
}

/// One row to write, or to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: String,
    /// What; none removes the row.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// Stores `value` as JSON.
    pub fn put(table: Table, key: impl Into<String>, value: &impl serde::Serialize) -> Write {
        let value = serde_json::to_vec(value).expect("rows are plain data with text keys");
        Write { table, key: key.into(), value: Some(value) }
    }

    /// Stores bytes of the feature's own making.
    pub fn raw(table: Table, key: impl Into<String>, value: Vec<u8>) -> Write {
        Write { table, key: key.into(), value: Some(value) }
    }

    /// Removes a row.
    pub fn remove(table: Table, key: impl Into<String>) -> Write {
        Write { table, key: key.into(), value: None }
    }
}
