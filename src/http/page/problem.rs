//! A metric beyond its limit, in the words of people. Pure.

use super::format::{limit, metric};
use super::sort::disk_name;
use crate::view::MetricView;

/// `memory 92.9 %, limit 90 %`, `disk / 97 % full, limit 95 %`.
pub fn metric_problem(view: &MetricView) -> String {
    let (name, unit) = metric(&view.path);
    let disk = disk_name(&view.path).map(|disk| if disk == "root" { "/" } else { disk });
    let name = disk.map_or(name, |disk| format!("disk {disk}"));
    let value = unit.beside_limit(view.value, view.limit.as_deref().and_then(limit));
    let said = match disk {
        _ if view.stale => format!("{name} is missing, it was {value}"),
        Some(_) => format!("{name} {value} full"),
        None => format!("{name} {value}"),
    };
    let Some((operator, limit)) = view.limit.as_deref().and_then(|limit| limit.split_once(' '))
    else {
        return said;
    };
    let limit = limit.parse().map_or_else(|_| limit.to_owned(), |limit| unit.of(limit));
    match operator {
        ">" | ">=" | "<" | "<=" => format!("{said}, limit {limit}"),
        operator => format!("{said}, limit {operator} {limit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Level;

    #[test]
    fn a_metric_beyond_its_limit_reads_as_people_say_it() {
        for (path, value, limit, stale, words) in [
            ("memory_monitor.percent", 92.925_63, "> 90.0", false, "memory 92.9 %, limit 90 %"),
            ("disk_monitor.root.percent", 97.0, "> 95.0", false, "disk / 97 % full, limit 95 %"),
            ("disk_monitor.var_lib.percent", 97.0, "", false, "disk var_lib 97 % full"),
            (
                "disk_monitor.root.inodes_percent",
                97.0,
                ">= 95.0",
                false,
                "disk root inodes 97 %, limit 95 %",
            ),
            (
                "disk_monitor.root.free_bytes",
                3e9,
                "< 5000000000.0",
                false,
                "disk root free 3 GB, limit 5 GB",
            ),
            ("load_monitor.per_core", 4.2, "> 4.0", false, "load 4.2, limit 4"),
            (
                "systemd_monitor.failed_units",
                2.0,
                "> 0.0",
                false,
                "systemd failed units 2, limit 0",
            ),
            ("queue.length", 7.0, "!= 0.0", false, "queue.length 7, limit != 0"),
            (
                "memory_monitor.percent",
                92.9,
                "> 90.0",
                true,
                "memory is missing, it was 92.9 %, limit 90 %",
            ),
        ] {
            let view = MetricView {
                path: path.into(),
                value,
                level: Some(Level::Critical),
                since: None,
                limit: Some(limit.to_owned()).filter(|limit| !limit.is_empty()),
                at: None,
                text: None,
                stale,
            };
            assert_eq!(metric_problem(&view).replace('\u{a0}', " "), words);
        }
    }
}
