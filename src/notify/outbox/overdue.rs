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

    /// The first of the other hosts that a channel knows to be overdue, and how many there are; those
    /// that are `behind` it left out.
    pub fn others(&self, channel: &str, host: &str, behind: &[String]) -> (Vec<String>, usize) {
        let Some(hosts) = self.0.get(channel) else { return (Vec::new(), 0) };
        let others = || hosts.iter().filter(|name| *name != host && !behind.contains(name));
        (others().take(MAX_LISTED).cloned().collect(), others().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_behind_a_host_it_is_said_already() {
        let mut overdue = OverdueHosts::default();
        for host in ["db1", "router", "web1", "web2"] {
            overdue.update(host, ["chat".to_owned()].into());
        }
        let behind = ["web1".to_owned(), "web2".to_owned()];
        assert_eq!(overdue.others("chat", "router", &behind), (vec!["db1".to_owned()], 1));
        assert_eq!(overdue.others("chat", "router", &[]).1, 3);
        assert_eq!(overdue.others("mail", "router", &[]), (Vec::new(), 0));
    }
}
