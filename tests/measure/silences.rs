//! How long the fleet takes to find silent hosts among 100,000, a tenth of them behind a router.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use heartbeat::clock::{Mono, Now, Wall};
use heartbeat::event::{CalmEvent, EventKind, StormLimit};
use heartbeat::heartbeat::fleet::Fleet;
use heartbeat::heartbeat::settings::{FleetConfig, HostSettings};

const HOSTS: usize = 100_000;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn at(second: u64) -> Now {
    let begin = Now { mono: Mono(1_000_000_000_000), wall: Wall(1_800_000_000_000) };
    begin.later(Duration::from_secs(second))
}

/// All of them beat at the same moment.
fn fleet(storm: Option<StormLimit>) -> Fleet {
    let mut config = FleetConfig { storm, ..FleetConfig::default() };
    let watched = HostSettings { watch: true, ..HostSettings::default() };
    config.hosts = (0..HOSTS).map(|n| (format!("host{n}"), watched.clone())).collect();
    let children = (1..HOSTS).step_by(10).map(|n| format!("host{n}"));
    config.depends_on = children.map(|name| (name, vec![vec!["host0".to_owned()]])).collect();
    let mut fleet = Fleet::new(config, at(0));
    (0..HOSTS).for_each(|n| beat(&mut fleet, n, 0));
    fleet
}

fn beat(fleet: &mut Fleet, n: usize, second: u64) {
    let text = format!("{{\"host\":\"host{n}\",\"interval\":10}}");
    fleet.ingest(text.as_bytes(), HERE, at(second)).expect("a known host");
}

/// Lets everything fall due that has; the longest call, all of them together, events and storms.
fn due(fleet: &mut Fleet, second: u64) -> (Duration, Duration, usize, usize) {
    let (mut longest, mut all, mut events, mut storms) = Default::default();
    while fleet.next_deadline().is_some_and(|next| next <= at(second).mono) {
        let begun = Instant::now();
        let changes = fleet.due(at(second));
        let took = begun.elapsed();
        (longest, all) = (took.max(longest), all + took);
        events += changes.events.len();
        let is_storm = |kind: &EventKind| matches!(kind, EventKind::Calm(CalmEvent::Storm(_)));
        storms += changes.events.iter().filter(|event| is_storm(&event.kind)).count();
    }
    (longest, all, events, storms)
}

/// One silent host among 100,000, and all of them silent at once.
pub fn silences() {
    for (name, storm) in [("off", None), ("on", Some(StormLimit::default()))] {
        let mut one = fleet(storm);
        (0..HOSTS - 1).for_each(|n| beat(&mut one, n, 10));
        let (longest, _, events, _) = due(&mut one, 40);
        println!(
            "storms {name}: one silent of {HOSTS} hosts: told in {longest:?}, {events} events"
        );
        let mut all = fleet(storm);
        let mut told = (Duration::ZERO, Duration::ZERO, 0, 0);
        for second in 40..=70 {
            let (longest, took, events, storms) = due(&mut all, second);
            told = (told.0.max(longest), told.1 + took, told.2 + events, told.3 + storms);
        }
        let (longest, took, events, storms) = told;
        println!(
            "storms {name}: all silent: {took:?} in all, {longest:?} at once, {events} events, {storms} storms"
        );
    }
}
