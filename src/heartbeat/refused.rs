//! Why a host is silent although it sends: what was refused under its name. Never believed, and bounded:
//! anybody can send such datagrams, as many as there is room for on the wire. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now, Wall};
use crate::event::RefusedBeats;

/// Of more hosts than this nothing is kept.
const MAX_HOSTS: usize = 10_000;
/// So many that are refused one after the other are no accident.
const SUSPICIOUS: u64 = 3;
/// A host that is believed now and then is logged again no sooner.
const LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// What was refused of each host since it was last believed.
#[derive(Debug, Default)]
pub struct Refusals {
    hosts: BTreeMap<Arc<str>, Refused>,
}

#[derive(Debug)]
struct Refused {
    from: IpAddr,
    why: &'static str,
    /// Since a datagram was last accepted.
    count: u64,
    since: Wall,
    logged: Option<Mono>,
}

impl Refusals {
    /// A datagram under the name of a configured host was refused. What is to be logged of that: once,
    /// when the host is not `heard` by others, or it is hardly an accident.
    pub fn add(
        &mut self,
        host: &Arc<str>,
        (from, why): (IpAddr, &'static str),
        is_heard: bool,
        now: Now,
    ) -> Option<RefusedBeats> {
        if !self.hosts.contains_key(host) && self.hosts.len() == MAX_HOSTS {
            return None;
        }
        let new = || Refused { from, why, count: 0, since: now.wall, logged: None };
        let refused = self.hosts.entry(Arc::clone(host)).or_insert_with(new);
        if refused.count == 0 {
            refused.since = now.wall;
        }
        (refused.from, refused.why) = (from, why);
        refused.count = refused.count.saturating_add(1);
        let is_news = !is_heard || refused.count >= SUSPICIOUS;
        if !is_news || refused.logged.is_some() {
            return None;
        }
        refused.logged = Some(now.mono);
        self.of(host)
    }

    /// A datagram of a host was accepted.
    pub fn accepted(&mut self, host: &str, now: Now) {
        let Some(refused) = self.hosts.get_mut(host) else { return };
        // Who floods us in its name must not fill the log with every beat of its own.
        match refused.logged {
            Some(at) if now.mono.since(at) < LOG_INTERVAL => refused.count = 0,
            Some(_) | None => drop(self.hosts.remove(host)),
        }
    }

    /// What was refused of a host since it was last believed; none when nothing was.
    pub fn of(&self, host: &str) -> Option<RefusedBeats> {
        let Refused { from, why, count, since, .. } =
            self.hosts.get(host).filter(|refused| refused.count > 0)?;
        Some(RefusedBeats {
            host: host.to_owned(),
            from: from.to_canonical().to_string(),
            why: (*why).to_owned(),
            count: *count,
            since: *since,
        })
    }

    /// Whether nothing is known of any host: nearly always.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Forgets everything: another configuration may believe other datagrams.
    pub fn clear(&mut self) {
        self.hosts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::test_fleet::{BEGIN, HERE, HOUR, SECOND};

    const WRONG: (IpAddr, &str) = (HERE, "bad signature");

    #[test]
    fn what_is_refused_is_counted_until_the_host_is_believed() {
        let (mut refusals, host) = (Refusals::default(), Arc::from("db1"));
        let mut now = BEGIN;
        let first = refusals.add(&host, WRONG, false, now).unwrap();
        let words =
            "beats that say they are db1 come from 127.0.0.1 and are refused: bad signature";
        assert_eq!(first.to_string(), format!("{words}, once, at {}", BEGIN.wall.local()));
        for _ in 1..50 {
            now = now.later(SECOND);
            assert_eq!(refusals.add(&host, WRONG, false, now), None, "it is said once");
        }
        let counted = format!("{words}, 50 times since {}", BEGIN.wall.local());
        assert_eq!(refusals.of("db1").unwrap().to_string(), counted);
        refusals.accepted("db1", now);
        assert_eq!(refusals.of("db1"), None);
        assert_eq!(refusals.add(&host, WRONG, false, now), None, "it was said just now");
        refusals.accepted("db1", now.later(HOUR));
        assert!(refusals.is_empty());
    }

    #[test]
    fn a_single_datagram_beside_the_beats_of_a_host_is_not_worth_a_line() {
        let (mut refusals, host) = (Refusals::default(), Arc::from("db1"));
        for _ in 0..5 {
            assert_eq!(refusals.add(&host, WRONG, true, BEGIN), None);
            assert_eq!(refusals.add(&host, WRONG, true, BEGIN), None);
            refusals.accepted("db1", BEGIN);
        }
        let mut said = 0;
        for _ in 0..100 {
            let added = (0..100).filter_map(|_| refusals.add(&host, WRONG, true, BEGIN));
            said += added.count();
            refusals.accepted("db1", BEGIN);
        }
        assert_eq!(said, 1, "who floods us fills no log");
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let mut refusals = Refusals::default();
        for number in 0..20_000 {
            refusals.add(&Arc::from(format!("h{number}")), WRONG, false, BEGIN);
        }
        assert_eq!(refusals.hosts.len(), MAX_HOSTS);
        assert!(refusals.of("h0").is_some() && refusals.of("h19999").is_none());
    }
}
