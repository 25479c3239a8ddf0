//! Which hosts each channel knows to be overdue. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::MAX_LISTED;

/// The hosts of which each channel was told that they are overdue.
#[derive(Debug, Default)]
pub struct OverdueHosts(BTreeMap<String, BTreeSet<String>>);

impl OverdueHosts {
    /// Of this host those channels know it, and no others.
    pub fn update(&mut self, host: &str, told: BTreeSet<String>) {
        for (_, hosts) in self.0.iter_mut().filter(|(channel, _)| !told.contains(*channel)) {
            hosts.remove(host);
        }
        for channel in told {
            self.0.entry(channel).or_default().insert(host.to_owned());
        }
    }

    /// The first of the other hosts that a channel knows to be overdue, and how many there are.
    pub fn others(&self, channel: &str, host: &str) -> (Vec<String>, usize) {
        let Some(hosts) = self.0.get(channel) else { return (Vec::new(), 0) };
        let names = hosts.iter().filter(|name| *name != host).take(MAX_LISTED).cloned().collect();
        (names, hosts.len() - usize::from(hosts.contains(host)))
    }
}
