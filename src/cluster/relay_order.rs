//! Which batches of the other nodes came, and which did not. Pure.
//!
//! Every node publishes a batch each half second at least, and numbers its batches: a number that is
//! missing, and a node that says nothing, are times in which that node's hosts could not be heard.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Mono;

/// A node that publishes nothing for so long is lost: three batches in a row did not come.
pub const LOST_AFTER: Duration = Duration::from_millis(1500);
/// The most nodes that are followed; of more, those that are silent longest are forgotten.
const MAX_NODES: usize = 64;

/// What a batch says about its node, beside what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// It was published before one that came already: nothing of it counts.
    pub is_stale: bool,
    /// It is the first one of a process of its node.
    pub is_new: bool,
    /// Others of the same process before it did not come.
    pub is_missing: bool,
    /// The node was lost, and is back.
    pub is_back: bool,
    /// Batches between these times were published, or would have been, and did not come.
    pub gap: Option<(Mono, Mono)>,
}

/// What is known of one node.
#[derive(Clone, Debug)]
struct NodeOrder {
    incarnation: String,
    number: u64,
    at: Mono,
    is_lost: bool,
}

/// The order of the batches of all nodes.
#[derive(Clone, Debug, Default)]
pub struct RelayOrder {
    nodes: BTreeMap<String, NodeOrder>,
}

impl RelayOrder {
    /// A batch of a node arrives.
    pub fn arrive(&mut self, node: &str, incarnation: &str, number: u64, now: Mono) -> Arrival {
        let Some(known) = self.nodes.get_mut(node) else {
            self.make_room();
            let order =
                NodeOrder { incarnation: incarnation.into(), number, at: now, is_lost: false };
            self.nodes.insert(node.into(), order);
            return Arrival { is_new: true, ..Arrival::default() };
        };
        let same_process = known.incarnation == incarnation;
        if same_process && number <= known.number {
            return Arrival { is_stale: true, ..Arrival::default() };
        }
        // A node that was started anew received nothing in between.
        let is_missing = same_process && number > known.number + 1;
        let is_complete = same_process && !is_missing;
        let is_back = std::mem::take(&mut known.is_lost);
        let gap = (!is_complete && !is_back).then_some((known.at, now));
        if !same_process {
            known.incarnation = incarnation.into();
        }
        (known.number, known.at) = (number, now);
        Arrival { is_stale: false, is_new: !same_process, is_missing, is_back, gap }
    }

    /// The nodes that are lost by now and were not before, and since when each is.
    pub fn newly_lost(&mut self, now: Mono) -> Vec<(String, Mono)> {
        self.lose(|known| now.since(known.at) >= LOST_AFTER)
    }

    /// The subscription is lost: so are all nodes until they are heard again.
    pub fn lose_all(&mut self) -> Vec<(String, Mono)> {
        self.lose(|_| true)
    }

    fn lose(&mut self, is_lost: impl Fn(&NodeOrder) -> bool) -> Vec<(String, Mono)> {
        let mut lost = Vec::new();
        for (node, known) in &mut self.nodes {
            if !known.is_lost && is_lost(known) {
                known.is_lost = true;
                lost.push((node.clone(), known.at));
            }
        }
        lost
    }

    fn make_room(&mut self) {
        if self.nodes.len() >= MAX_NODES
            && let Some(oldest) = self.nodes.iter().min_by_key(|(_, known)| known.at)
        {
            let node = oldest.0.clone();
            self.nodes.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    fn gap(from: i64, to: i64) -> Arrival {
        let gap = Some((Mono(from), Mono(to)));
        Arrival { is_missing: true, gap, ..Arrival::default() }
    }

    fn new() -> Arrival {
        Arrival { is_new: true, ..Arrival::default() }
    }

    #[test]
    fn a_number_that_is_missing_is_a_gap_between_two_batches_and_nothing_else() {
        let mut order = RelayOrder::default();
        assert_eq!(order.arrive("hb2", "a", 17, Mono(0)), new(), "the first one");
        assert_eq!(order.arrive("hb2", "a", 18, Mono(50)), Arrival::default());
        assert_eq!(order.arrive("hb3", "a", 1, Mono(60)), new(), "another node");
        assert_eq!(order.arrive("hb2", "a", 21, Mono(200)), gap(50, 200));
        let stale = Arrival { is_stale: true, ..Arrival::default() };
        assert_eq!(order.arrive("hb2", "a", 20, Mono(210)), stale);
        assert_eq!(order.arrive("hb2", "a", 22, Mono(250)), Arrival::default());
    }

    #[test]
    fn a_node_that_was_started_anew_heard_nothing_in_between() {
        let mut order = RelayOrder::default();
        order.arrive("hb2", "a", 5, Mono(0));
        let anew = Arrival { is_missing: false, is_new: true, ..gap(0, 900) };
        assert_eq!(order.arrive("hb2", "b", 1, Mono(900)), anew);
        assert_eq!(order.arrive("hb2", "b", 2, Mono(950)), Arrival::default());
    }

    #[test]
    fn a_silent_node_is_lost_once_and_comes_back_without_a_gap_of_its_own() {
        let mut order = RelayOrder::default();
        order.arrive("hb2", "a", 5, Mono(0));
        assert_eq!(order.newly_lost(Mono(3 * SECOND / 2 - 1)), []);
        assert_eq!(order.newly_lost(Mono(3 * SECOND / 2)), [("hb2".to_owned(), Mono(0))]);
        assert_eq!(order.newly_lost(Mono(9 * SECOND)), []);
        let back = Arrival { is_back: true, ..Arrival::default() };
        let back_with_a_gap = Arrival { is_missing: true, ..back };
        assert_eq!(order.arrive("hb2", "a", 9, Mono(10 * SECOND)), back_with_a_gap);
        assert_eq!(order.arrive("hb2", "a", 10, Mono(11 * SECOND)), Arrival::default());
        assert_eq!(order.lose_all(), [("hb2".to_owned(), Mono(11 * SECOND))]);
        assert_eq!(order.lose_all(), []);
        let anew = Arrival { is_new: true, ..back };
        assert_eq!(order.arrive("hb2", "b", 1, Mono(12 * SECOND)), anew);
    }

    #[test]
    fn whoever_invents_nodes_takes_no_memory() {
        let mut order = RelayOrder::default();
        for number in 0..1000 {
            order.arrive(&format!("n{number}"), "a", 1, Mono(number));
        }
        assert_eq!(order.nodes.len(), MAX_NODES);
        assert!(order.nodes.contains_key("n999"));
    }
}
