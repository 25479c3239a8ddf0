//! Whose deliveries take how much of the outbox, and which hosts may add no more. Pure.
//!
//! A host may have a quarter as many deliveries as there is room left: one alone 3,200 of the
//! 16,000, ten of them 1,143 each, and a neighbour always finds room. It is the rule by which
//! switches share a buffer among their ports (dynamic thresholds, Choudhury and Hahne 1998).

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Subject;
use crate::notify::routing::Routes;

/// Deliveries that wait for their channels. Beyond this, messages, boots and goodbyes of hosts are
/// refused; alarms are not, and memory is made for 20,000.
const MAX_QUEUED: usize = 16_000;
/// So many deliveries a host may always have, as long as there is room at all.
const MIN_SHARE: usize = 64;
/// A watched host may have this part of the room that is left.
const PART_OF_WATCHED: usize = 4;
/// So much may each host have that is not watched, and all that are not configured together.
const PART_OF_OTHERS: usize = 16;
/// With fewer deliveries nobody can have used up a share.
const MIN_TOTAL: usize = MAX_QUEUED / (PART_OF_OTHERS + 1);
/// The shares are looked at again when so many deliveries came or went.
const STEP: usize = 16;

/// Whether there is room for messages of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// There is none for anybody; alarms are taken all the same.
    Full,
    /// Its own share is used up.
    ShareUsed,
}

/// How many deliveries of each host wait.
#[derive(Debug, Default)]
pub struct Shares {
    total: usize,
    by_host: BTreeMap<String, usize>,
    looked_at: usize,
}

/// Who may add nothing at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedShares {
    full: bool,
    hosts: BTreeSet<String>,
    strangers: bool,
}

impl Shares {
    /// A delivery about a subject is added.
    pub fn add(&mut self, subject: &Subject) {
        self.total += 1;
        if let Subject::Host(host) = subject {
            match self.by_host.get_mut(host) {
                Some(count) => *count += 1,
                None => drop(self.by_host.insert(host.clone(), 1)),
            }
        }
    }

    /// A delivery about a subject is gone.
    pub fn remove(&mut self, subject: &Subject) {
        self.total = self.total.saturating_sub(1);
        if let Subject::Host(host) = subject
            && let Some(count) = self.by_host.get_mut(host)
        {
            *count -= 1;
            if *count == 0 {
                self.by_host.remove(host);
            }
        }
    }

    /// Hosts may be others than before: the shares are looked at again.
    pub fn on_new_routes(&mut self) {
        self.looked_at = usize::MAX;
    }

    /// Who may add nothing, when that may have changed since this was asked last.
    pub fn changed(&mut self, routes: &Routes) -> Option<UsedShares> {
        if self.total.abs_diff(self.looked_at) < STEP && self.total >= MIN_TOTAL {
            return None;
        }
        let was_little = std::mem::replace(&mut self.looked_at, self.total) < MIN_TOTAL;
        let is_little = self.total < MIN_TOTAL;
        (!(was_little && is_little)).then(|| self.used(routes))
    }

    fn used(&self, routes: &Routes) -> UsedShares {
        let room = MAX_QUEUED.saturating_sub(self.total);
        let share = |part: usize| (room / part).max(MIN_SHARE);
        let mut used = UsedShares { full: room == 0, ..UsedShares::default() };
        let mut of_strangers = 0;
        for (host, count) in &self.by_host {
            let part = match routes.host(host) {
                Some(route) if route.watch => PART_OF_WATCHED,
                Some(_) => PART_OF_OTHERS,
                None => {
                    of_strangers += count;
                    continue;
                }
            };
            if *count >= share(part) {
                used.hosts.insert(host.clone());
            }
        }
        used.strangers = of_strangers >= share(PART_OF_OTHERS);
        used
    }
}

impl UsedShares {
    /// Whether there is room for messages of a host, which is configured or not.
    pub fn room(&self, host: &str, configured: bool) -> Room {
        if self.hosts.contains(host) || self.strangers && !configured {
            Room::ShareUsed
        } else if self.full {
            Room::Full
        } else {
            Room::Free
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::routing::HostRoute;

    fn routes(watched: usize) -> Routes {
        let host = |number| (format!("web{number}"), HostRoute { watch: true, channels: None });
        let mut hosts: BTreeMap<_, _> = (0..watched).map(host).collect();
        hosts.insert("quiet".into(), HostRoute { watch: false, channels: None });
        Routes { hosts, ..Routes::default() }
    }

    fn host(name: &str) -> Subject {
        Subject::Host(name.into())
    }

    /// Each of these adds a delivery in turn, until it is refused; how many each has then.
    fn fill(shares: &mut Shares, routes: &Routes, hosts: &[&str]) -> usize {
        let mut rounds = 0;
        loop {
            for name in hosts {
                let configured = routes.hosts.contains_key(*name);
                if shares.used(routes).room(name, configured) != Room::Free {
                    return rounds;
                }
                shares.add(&host(name));
            }
            rounds += 1;
        }
    }

    #[test]
    fn one_host_that_fills_the_outbox_left_no_room_for_its_neighbours() {
        let (routes, mut shares) = (routes(20), Shares::default());
        assert_eq!(fill(&mut shares, &routes, &["web0"]), 3200);
        let used = shares.used(&routes);
        assert_eq!(used.room("web0", true), Room::ShareUsed);
        assert_eq!(used.room("web1", true), Room::Free);
        assert_eq!(used.room("stranger", false), Room::Free);
    }

    #[test]
    fn ten_floods_have_equal_shares_and_leave_a_quarter() {
        let (routes, mut shares) = (routes(20), Shares::default());
        let names: Vec<String> = (0..10).map(|number| format!("web{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(fill(&mut shares, &routes, &names), 1142);
        assert_eq!(shares.used(&routes).room("web15", true), Room::Free);
    }

    #[test]
    fn hosts_that_nobody_watches_have_the_smallest_share_and_strangers_one_together() {
        let (routes, mut shares) = (routes(1), Shares::default());
        assert_eq!(fill(&mut shares, &routes, &["quiet"]), 941);
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, &routes, &["s1", "s2", "s3"]), 313);
        let used = shares.used(&routes);
        assert_eq!(used.room("s4", false), Room::ShareUsed, "a new name is no way out");
        assert_eq!(used.room("web0", true), Room::Free);
    }

    #[test]
    fn when_it_is_full_a_host_with_little_in_it_has_not_used_its_share() {
        let (routes, mut shares) = (routes(2), Shares::default());
        (0..MAX_QUEUED).for_each(|_| shares.add(&Subject::Plan("1".into())));
        assert_eq!(shares.used(&routes).room("web0", true), Room::Full);
        (0..MIN_SHARE).for_each(|_| shares.add(&host("web0")));
        assert_eq!(shares.used(&routes).room("web0", true), Room::ShareUsed);
        (0..MIN_SHARE).for_each(|_| shares.remove(&host("web0")));
        (0..MAX_QUEUED).for_each(|_| shares.remove(&Subject::Plan("1".into())));
        assert_eq!(shares.used(&routes), UsedShares::default());
        assert!(shares.by_host.is_empty());
    }

    #[test]
    fn that_there_is_room_again_is_said() {
        let (routes, mut shares) = (routes(1), Shares::default());
        let mut last = UsedShares::default();
        for _ in 0..4000 {
            shares.add(&host("web0"));
            last = shares.changed(&routes).unwrap_or(last);
        }
        assert_eq!(last.room("web0", true), Room::ShareUsed);
        for _ in 0..4000 {
            shares.remove(&host("web0"));
            last = shares.changed(&routes).unwrap_or(last);
        }
        assert_eq!(last.room("web0", true), Room::Free);
        assert_eq!(shares.changed(&routes), None, "and costs nothing while little waits");
    }
}
