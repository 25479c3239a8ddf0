//! The order of the list of hosts, and the metrics in its columns. Pure.

use std::cmp::Ordering;

use super::summary::Health;
use crate::event::Level;
use crate::view::{HostView, MetricView};

/// What the list may be sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortColumn {
    /// How bad it is, the worst first.
    #[default]
    State,
    /// The name.
    Name,
    /// When it was last heard, the longest silence first.
    Heard,
    /// The processor, the busiest first.
    Cpu,
    /// The memory, the fullest first.
    Memory,
    /// The fullest disk.
    Disk,
    /// The load of each core.
    Load,
    /// The group that it is listed under, and in each the worst first.
    Group,
}

const COLUMNS: [(&str, SortColumn); 8] = [
    ("state", SortColumn::State),
    ("name", SortColumn::Name),
    ("heard", SortColumn::Heard),
    ("cpu", SortColumn::Cpu),
    ("memory", SortColumn::Memory),
    ("disk", SortColumn::Disk),
    ("load", SortColumn::Load),
    ("group", SortColumn::Group),
];

/// An order: `cpu`, or `-cpu` the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOrder {
    /// By what.
    pub column: SortColumn,
    /// The other way round.
    pub reversed: bool,
}

/// Where a host stands in an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SortKey {
    /// What it is sorted by is not known of it: it comes last, whichever way round.
    unknown: bool,
    text: String,
    rank: u64,
    /// Its name.
    pub name: String,
}

impl HostOrder {
    /// Reads one; anything else is the usual one.
    pub fn parse(text: &str) -> HostOrder {
        let (name, reversed) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let column = COLUMNS.iter().find(|(known, _)| *known == name).map(|(_, column)| *column);
        column.map_or_else(HostOrder::default, |column| HostOrder { column, reversed })
    }

    /// The order that a column's head leads to: by it, and by it the other way round when it is that
    /// already.
    pub fn turned(self, column: SortColumn) -> HostOrder {
        HostOrder { column, reversed: self.column == column && !self.reversed }
    }

    /// As a query has it; empty for the usual one.
    pub fn name(self) -> String {
        if self == HostOrder::default() {
            return String::new();
        }
        let found = COLUMNS.iter().find(|(_, column)| *column == self.column);
        let name = found.map_or("", |(name, _)| name);
        format!("{}{name}", if self.reversed { "-" } else { "" })
    }

    /// What `aria-sort` says of its column.
    pub fn direction(self) -> &'static str {
        let rises = matches!(self.column, SortColumn::Name | SortColumn::Group);
        if rises != self.reversed { "ascending" } else { "descending" }
    }

    /// Where a host stands.
    pub fn key(self, host: &HostView, health: Health) -> SortKey {
        let key = SortKey { name: host.name.clone(), ..SortKey::default() };
        let ranked = |rank: Option<u64>| (rank.is_none(), rank.unwrap_or_default());
        let most = |metric: Option<&MetricView>| {
            ranked(
                metric.filter(|metric| !metric.value.is_nan()).map(|metric| falling(metric.value)),
            )
        };
        let (unknown, rank) = match self.column {
            SortColumn::State => (false, health as u64),
            SortColumn::Name => return SortKey { text: host.name.clone(), ..key },
            SortColumn::Heard => {
                let seen = host.connections.iter().filter_map(|connection| connection.last_seen);
                ranked(seen.max().map(|seen| seen.0.max(0) as u64))
            }
            SortColumn::Cpu => most(cpu(host)),
            SortColumn::Memory => most(memory(host)),
            SortColumn::Disk => most(fullest_disk(host)),
            SortColumn::Load => most(load(host)),
            SortColumn::Group => {
                let group = host.groups.first().cloned();
                let (unknown, text) = (group.is_none(), group.unwrap_or_default());
                return SortKey { unknown, text, rank: health as u64, ..key };
            }
        };
        SortKey { unknown, rank, ..key }
    }

    /// Which of two hosts comes first.
    pub fn compare(self, a: &SortKey, b: &SortKey) -> Ordering {
        let text = a.text.cmp(&b.text);
        let text = if self.reversed { text.reverse() } else { text };
        // In each group the worst come first, whichever way round the groups are.
        let rank = a.rank.cmp(&b.rank);
        let turned = self.reversed && self.column != SortColumn::Group;
        let rank = if turned { rank.reverse() } else { rank };
        a.unknown.cmp(&b.unknown).then(text).then(rank).then_with(|| a.name.cmp(&b.name))
    }
}

/// A number that is the smaller, the greater the value is.
fn falling(value: f64) -> u64 {
    let bits = value.to_bits();
    let rising = if value.is_sign_negative() { !bits } else { bits | 1 << 63 };
    !rising
}

fn find<'a>(host: &'a HostView, path: &str) -> Option<&'a MetricView> {
    host.metrics.iter().find(|metric| metric.path == path)
}

/// How busy the processor is, in percent.
pub fn cpu(host: &HostView) -> Option<&MetricView> {
    find(host, "cpu_monitor.cpu_percent")
}

/// How full the memory is, in percent.
pub fn memory(host: &HostView) -> Option<&MetricView> {
    find(host, "memory_monitor.percent")
}

/// The load of each core.
pub fn load(host: &HostView) -> Option<&MetricView> {
    find(host, "load_monitor.per_core")
}

/// The disk that is the fullest of those whose level is the worst.
pub fn fullest_disk(host: &HostView) -> Option<&MetricView> {
    let disks = host.metrics.iter().filter(|metric| disk_name(&metric.path).is_some());
    disks.max_by(|a, b| {
        let level = |metric: &MetricView| metric.level.filter(|level| *level > Level::Ok);
        level(a).cmp(&level(b)).then(a.value.total_cmp(&b.value))
    })
}

/// The disk whose share of used space a path is: `root`, `var_lib`.
pub fn disk_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix("disk_monitor.")?.strip_suffix(".percent")?;
    (!name.contains('.')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, metrics: &[(&str, f64, Level)], groups: &[&str]) -> HostView {
        let metric = |(path, value, level): &(&str, f64, Level)| MetricView {
            path: (*path).into(),
            value: *value,
            level: Some(*level),
            since: None,
            limit: None,
            at: None,
            text: None,
            stale: false,
        };
        HostView {
            metrics: metrics.iter().map(metric).collect(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..HostView::named(name)
        }
    }

    fn sorted(order: &str) -> String {
        let order = HostOrder::parse(order);
        let (cpu, disk) = ("cpu_monitor.cpu_percent", "disk_monitor.root.percent");
        let hosts = [
            host("d", &[(cpu, 20.0, Level::Ok), (disk, 50.0, Level::Ok)], &["web"]),
            host("a", &[(cpu, -5.0, Level::Ok)], &["db", "web"]),
            host("c", &[(cpu, 100.0, Level::Critical), (disk, 9.0, Level::Ok)], &["web"]),
            host("b", &[(cpu, f64::NAN, Level::Ok)], &[]),
        ];
        let mut keys: Vec<_> = hosts.iter().map(|host| order.key(host, Health::of(host))).collect();
        keys.sort_unstable_by(|a, b| order.compare(a, b));
        keys.into_iter().map(|key| key.name).collect()
    }

    #[test]
    fn what_is_not_known_comes_last_whichever_way_round() {
        for (order, names) in [
            ("", "cabd"),
            ("state", "cabd"),
            ("-state", "abdc"),
            ("name", "abcd"),
            ("-name", "dcba"),
            ("cpu", "cdab"),
            ("-cpu", "adcb"),
            ("disk", "dcab"),
            ("-disk", "cdab"),
            ("load", "abcd"),
            ("group", "acdb"),
            ("-group", "cdab"),
            ("<b>", "cabd"),
        ] {
            assert_eq!(sorted(order), names, "{order}");
        }
    }

    #[test]
    fn the_head_of_a_column_turns_it_round() {
        let usual = HostOrder::default();
        assert_eq!((usual.name(), usual.direction()), (String::new(), "descending"));
        assert_eq!(usual.turned(SortColumn::State).name(), "-state");
        let name = usual.turned(SortColumn::Name);
        assert_eq!((name.name().as_str(), name.direction()), ("name", "ascending"));
        assert_eq!(name.turned(SortColumn::Name).direction(), "descending");
        for (text, _) in COLUMNS {
            let order = HostOrder::parse(text);
            assert_eq!(HostOrder::parse(&order.name()), order, "{text}");
        }
    }

    #[test]
    fn a_disk_beyond_its_limit_goes_before_one_that_is_fuller() {
        let disks = [
            ("disk_monitor.root.percent", 70.0, Level::Ok),
            ("disk_monitor.backup.percent", 80.0, Level::Ok),
            ("disk_monitor.root.inodes_percent", 99.0, Level::Critical),
        ];
        let path = |host: &HostView| fullest_disk(host).unwrap().path.clone();
        assert_eq!(path(&host("a", &disks, &[])), "disk_monitor.backup.percent");
        let mut all = disks.to_vec();
        all[0].2 = Level::Warning;
        assert_eq!(path(&host("a", &all, &[])), "disk_monitor.root.percent");
        assert!(fullest_disk(&host("a", &[], &[])).is_none());
    }
}
