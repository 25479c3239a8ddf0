//! The tables of the store, and one row to write. Pure.

use std::collections::BTreeMap;

use redb::TableDefinition;

/// A table of the store; its name on disk is in `Table::definition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// When the daemon was last alive, and the last event number.
    Meta,
    /// Hosts with their connections and alerts, by name.
    Hosts,
    /// Deliveries that wait, by number.
    Outbox,
    /// Open incidents and the channels that were notified, by their key.
    Troubles,
    /// Emergencies that are not acknowledged yet, by channel and receipt.
    Receipts,
    /// Backup alerts that wait for their pipeline.
    Pipelines,
    /// What was sent to whom, by number.
    History,
    /// Names in the DNS, by host.
    Dyndns,
    /// What happened, by number.
    Events,
    /// The last report about each backup plan, by id.
    Plans,
    /// Availability of each host, by the hour.
    Hours,
    /// The same, by the day.
    Days,
    /// The names of metrics, by host.
    Names,
    /// The values of metrics, by time and host.
    Metrics,
    /// Silences, and what is held back, by kind and name.
    Calm,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 15] = [
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
        Table::Calm,
    ];

    pub(super) fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.name())
    }

    /// What it is called where it is stored.
    pub fn name(self) -> &'static str {
        match self {
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
            Table::Calm => "calm",
        }
    }

    /// What its rows are to people.
    pub(super) fn people(self) -> &'static str {
        match self {
            Table::Meta => "notes of hbd itself",
            Table::Hosts => "hosts",
            Table::Outbox => "messages that waited to be sent",
            Table::Troubles => "records of who was told of what is wrong",
            Table::Receipts => "emergencies that nobody acknowledged yet",
            Table::Pipelines => "backup alerts that were accepted",
            Table::History => "records of sent messages",
            Table::Dyndns => "names in the DNS",
            Table::Events => "recorded events",
            Table::Plans => "backup plans",
            Table::Hours | Table::Days => "records of availability",
            Table::Names => "names of metrics",
            Table::Metrics => "recorded metrics",
            Table::Calm => "silences, and what they hold back",
        }
    }

    /// What one of its rows is to people; its key follows.
    pub(super) fn row_name(self) -> &'static str {
        match self {
            Table::Meta => "hbd's own note",
            Table::Hosts => "host",
            Table::Outbox => "a message that waited to be sent, number",
            Table::Troubles => "who was told of",
            Table::Receipts => "an emergency not acknowledged yet, receipt",
            Table::Pipelines => "an accepted backup alert,",
            Table::History => "the record of a sent message, number",
            Table::Dyndns => "the name in the DNS of host",
            Table::Events => "the record of event",
            Table::Plans => "backup plan",
            Table::Hours | Table::Days => "the availability of host",
            Table::Names => "the names of metrics of",
            Table::Metrics => "recorded metrics,",
            Table::Calm => "what is silent or held back,",
        }
    }

    /// Whether it is history: the daemon works without it. The oldest pending rows are dropped while
    /// the disk fails.
    pub fn is_history(self) -> bool {
        match self {
            Table::Meta
            | Table::Hosts
            | Table::Outbox
            | Table::Troubles
            | Table::Receipts
            | Table::Pipelines
            | Table::Dyndns
            | Table::Plans
            | Table::Calm => false,
            Table::History
            | Table::Events
            | Table::Hours
            | Table::Days
            | Table::Names
            | Table::Metrics => true,
        }
    }

    /// Whether the daemon knows every row of it, so that a row which it does not know is one that was
    /// removed, and comes back where the store has lost its last commits.
    pub fn is_known_whole(self) -> bool {
        match self {
            // Each would do harm: a host that was forgotten falls silent, a message that arrived is sent
            // again, an incident that is over ends again, a receipt is asked about, a backup is
            // reported again, a name is written again, a silence keeps alarms back.
            Table::Hosts
            | Table::Outbox
            | Table::Troubles
            | Table::Receipts
            | Table::Pipelines
            | Table::Dyndns
            | Table::Calm => true,
            // Notes: each is written whenever it changes, and the features remove their own.
            Table::Meta
            // One for each plan, which is only removed when it is too old.
            | Table::Plans
            // Records of what was, which are only removed when they are too old or too many.
            | Table::History
            | Table::Events
            | Table::Hours
            | Table::Days
            | Table::Names
            | Table::Metrics => false,
        }
    }

    /// Whether its rows are only ever added: pending ones are right whatever the file holds.
    pub(super) fn is_append_only(self) -> bool {
        matches!(
            self,
            Table::Outbox | Table::Pipelines | Table::History | Table::Events | Table::Plans
        )
    }
}

/// Rows to write, by table and key; none removes one.
pub type Rows = BTreeMap<(Table, String), Option<Vec<u8>>>;

/// Those of one table.
pub(super) fn rows_of(
    rows: &Rows,
    table: Table,
) -> impl Iterator<Item = (&String, &Option<Vec<u8>>)> {
    let from = rows.range((table, String::new())..);
    from.take_while(move |((own, _), _)| *own == table).map(|((_, key), value)| (key, value))
}

/// The key and the value of a stored row.
pub type RawRow = (String, Vec<u8>);

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

    /// Stores bytes whose format is the feature's own.
    pub fn raw(table: Table, key: impl Into<String>, value: Vec<u8>) -> Write {
        Write { table, key: key.into(), value: Some(value) }
    }

    /// Removes a row.
    pub fn remove(table: Table, key: impl Into<String>) -> Write {
        Write { table, key: key.into(), value: None }
    }
}
