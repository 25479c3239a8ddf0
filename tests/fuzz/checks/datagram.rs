//! Bytes for `Fleet::ingest`: junk never panics, and what is accepted keeps the limits.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use heartbeat::clock::{Mono, Now, Wall};
use heartbeat::heartbeat::datagram::{self, MAX_BYTES};
use heartbeat::heartbeat::fleet::Fleet;
use heartbeat::heartbeat::settings::{FleetConfig, HostSettings, UnknownHosts};
use heartbeat::heartbeat::threshold::{Rule, ThresholdSet};

const BEGIN: Now = Now { mono: Mono(10_000_000), wall: Wall(1_795_291_928_000) };

fn config() -> FleetConfig {
    let rule =
        Rule { warning: "> 80".parse().ok(), critical: "> 90".parse().ok(), ..Rule::default() };
    let mut config = FleetConfig::default();
    config.settings.unknown_hosts = UnknownHosts::Accept;
    config.hosts.insert("web1".into(), HostSettings { watch: true, ..HostSettings::default() });
    config
        .threshold_sets
        .insert("default".into(), ThresholdSet { rules: [("*".into(), rule)].into() });
    config
}

/// The lines of the input are datagrams, a second apart.
pub fn run(bytes: &[u8]) {
    let mut fleet = Fleet::new(config(), BEGIN);
    let mut now = BEGIN;
    for line in bytes.split(|byte| *byte == b'\n') {
        now = now.later(Duration::from_secs(1));
        let Ok(ingested) = fleet.ingest(line, IpAddr::V6(Ipv6Addr::LOCALHOST), now) else {
            continue;
        };
        let read = datagram::parse(line).expect("what was accepted unsigned can be read");
        assert!(line.len() <= MAX_BYTES && (1..=253).contains(&read.host.len()));
        assert!(ingested.ack.is_none_or(|ack| ack.len() <= line.len()));
        let view = fleet.view(&read.host).expect("a host that was heard is known");
        assert!(view.connections.len() <= 16 && view.metrics.len() <= 512);
        assert!(view.metrics.iter().all(|metric| metric.value.is_finite()));
        assert!(view.metrics.iter().all(|metric| metric.path.len() <= 200));
    }
    // Less than `forget_after`: a host that is given up does not come back with its row.
    fleet.due(now.later(Duration::from_secs(2_500_000)));
    let rows = fleet.all_rows();
    let again = Fleet::restore(config(), rows.clone(), None, now, "kernel");
    assert_eq!(again.len(), rows.len());
}
