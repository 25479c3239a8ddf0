//! The built-in thresholds and the figures that a machine really gives belong together.

use heartbeat::agent::collect::{CollectSettings, Collector};
use heartbeat::clock::Now;
use heartbeat::heartbeat::threshold::built_in;

/// The patterns of the built-in sets that a machine of any kind has figures for.
const ALWAYS: [&str; 3] =
    ["cpu_monitor.cpu_percent", "load_monitor.per_core", "memory_monitor.percent"];

/// A path that only a machine with swap, disks or systemd has, as the contract spells it.
const SPELT: [(&str, &str); 7] = [
    ("cpu_monitor.iowait_percent", "cpu_monitor.iowait_percent"),
    ("swap_monitor.percent", "swap_monitor.percent"),
    ("disk_monitor./.percent", "disk_monitor.*.percent"),
    ("disk_monitor./var/lib.percent", "disk_monitor.*.percent"),
    ("disk_monitor.root.percent", "disk_monitor.*.percent"),
    ("disk_monitor./srv.inodes_percent", "disk_monitor.*.inodes_percent"),
    ("systemd_monitor.failed_units", "systemd_monitor.failed_units"),
];

#[test]
fn the_built_in_limits_are_about_figures_that_there_are() {
    let mut collector = Collector::new(&CollectSettings::default());
    let begun = Now::read();
    let mut metrics = collector.collect(begun);
    // The share of the processor is that between two readings.
    while !metrics.iter().any(|(path, _)| path == "cpu_monitor.cpu_percent") {
        assert!(Now::read().mono.since(begun.mono).as_secs() < 60, "{metrics:?}");
        metrics = collector.collect(Now::read());
        std::thread::yield_now();
    }
    for (name, set) in built_in() {
        for pattern in ALWAYS {
            let found = metrics
                .iter()
                .any(|(path, _)| set.rule(path).is_some_and(|(matched, _)| matched == pattern));
            assert!(found, "{name}: nothing falls under {pattern}: {metrics:?}");
        }
        for (path, pattern) in SPELT {
            if set.rules.contains_key(pattern) {
                assert_eq!(set.rule(path).map(|(matched, _)| matched), Some(pattern), "{name}");
            }
        }
        // What fills up falls under a limit, wherever it is mounted.
        for (path, _) in &metrics {
            let fills = path.starts_with("disk_monitor.") && path.ends_with("percent");
            assert!(!fills || set.rule(path).is_some(), "{name}: {path}");
        }
    }
}
