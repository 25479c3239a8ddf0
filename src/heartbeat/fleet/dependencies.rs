//! Which hosts are reached through which others. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// By host, what it is reached through: each entry must be up, of an entry with several names one.
pub type DependsOn = BTreeMap<String, Vec<Vec<String>>>;

/// Of a host that is reached through many that are down, so many are named.
pub const MAX_BEHIND: usize = 32;

/// What is known of a host by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It was heard lately: whatever it is reached through is up.
    Heard,
    /// It is down, and that was reported.
    Down,
    /// It was not heard lately, and is not reported as down.
    Silent,
    /// Nothing is expected of it.
    Unexpected,
}

/// Whether a host can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Yes, as far as is known.
    Open,
    /// That is not known yet.
    Doubtful,
    /// No: something that it is reached through is down.
    Cut,
}

/// A host is reached through another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    host: u32,
    /// Which entry of its list this is in.
    entry: u32,
    parent: u32,
}

/// All that are configured, by the indexes of hosts. Hosts without any take no room.
#[derive(Debug, Default)]
pub struct Dependencies {
    /// By host and entry.
    edges: Vec<Edge>,
    /// Parent and host, in order, each once.
    children: Vec<(u32, u32)>,
}

impl Dependencies {
    /// From the configuration; the indexes of hosts rise with their names.
    pub fn new(depends_on: &DependsOn, indexes: &HashMap<Arc<str>, u32>) -> Dependencies {
        let mut all = Dependencies::default();
        for (host, entries) in depends_on {
            let Some(host) = indexes.get(host.as_str()).copied() else { continue };
            for (entry, names) in (0..).zip(entries) {
                let parents = names.iter().filter_map(|name| indexes.get(name.as_str()));
                let edge = |parent: &u32| Edge { host, entry, parent: *parent };
                all.edges.extend(parents.map(edge));
            }
        }
        all.edges.sort_unstable_by_key(|edge| (edge.host, edge.entry));
        all.children = all.edges.iter().map(|edge| (edge.parent, edge.host)).collect();
        all.children.sort_unstable();
        all.children.dedup();
        all
    }

    /// A host that is new, behind all others, is reached through these.
    pub fn add(&mut self, host: u32, entries: &[Vec<u32>]) {
        for (entry, parents) in (0..).zip(entries) {
            for parent in parents.iter().copied() {
                self.edges.push(Edge { host, entry, parent });
                let link = (parent, host);
                if let Err(at) = self.children.binary_search(&link) {
                    self.children.insert(at, link);
                }
            }
        }
    }

    /// This host and those behind it, through which nothing is reached, are to be added again.
    pub fn remove_from(&mut self, host: u32) {
        self.edges.retain(|edge| edge.host < host);
        self.children.retain(|(_, child)| *child < host);
    }

    fn edges_of(&self, host: u32) -> &[Edge] {
        let from = self.edges.partition_point(|edge| edge.host < host);
        let count = self.edges[from..].partition_point(|edge| edge.host == host);
        &self.edges[from..from + count]
    }

    /// What a host is reached through: each entry must be up, of an entry with several hosts one.
    pub fn parents(&self, host: u32) -> impl Iterator<Item = impl Iterator<Item = u32> + '_> + '_ {
        entries(self.edges_of(host)).map(|entry| entry.iter().map(|edge| edge.parent))
    }

    /// The hosts that are reached through this one, themselves.
    pub fn children(&self, parent: u32) -> impl Iterator<Item = u32> + '_ {
        let from = self.children.partition_point(|(other, _)| *other < parent);
        let own = self.children[from..].iter().take_while(move |(other, _)| *other == parent);
        own.map(|(_, host)| *host)
    }

    /// Whether others are reached through this host.
    pub fn is_parent(&self, host: u32) -> bool {
        self.children(host).next().is_some()
    }

    /// Whether this host is reached through others.
    pub fn has_parents(&self, host: u32) -> bool {
        !self.edges_of(host).is_empty()
    }

    /// All that a host is reached through, and what these are reached through.
    pub fn ancestors(&self, host: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut next = vec![host];
        while let Some(host) = next.pop() {
            let parents = self.edges_of(host).iter().map(|edge| edge.parent);
            next.extend(parents.filter(|parent| found.insert(*parent)));
        }
        found
    }

    /// All that are reached through a host, and what is reached through these.
    pub fn descendants(&self, host: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut next = vec![host];
        while let Some(host) = next.pop() {
            next.extend(self.children(host).filter(|child| found.insert(*child)));
        }
        found
    }

    /// Whether what a host is reached through is up, by what is known of each other host.
    pub fn path(&self, host: u32, evidence: impl Fn(u32) -> Evidence) -> Path<'_> {
        let mut path = Path { all: self, host, known: BTreeMap::new() };
        // Each host comes twice: what it is reached through is looked at in between.
        let mut next = vec![(host, false)];
        while let Some((host, is_ready)) = next.pop() {
            if is_ready {
                let (own, edges) = (evidence(host), path.entries(host));
                let reach = match own {
                    _ if host == path.host => edges,
                    Evidence::Heard => Reach::Open,
                    Evidence::Down => Reach::Cut,
                    Evidence::Silent => edges.max(Reach::Doubtful),
                    Evidence::Unexpected => edges,
                };
                path.known.insert(host, (own, reach));
            } else if let Entry::Vacant(new) = path.known.entry(host) {
                new.insert((Evidence::Unexpected, Reach::Open));
                next.push((host, true));
                next.extend(self.edges_of(host).iter().map(|edge| (edge.parent, false)));
            }
        }
        path
    }

    /// The hosts that cannot be reached while `host` is down, beside what else `is_down`.
    pub fn cut_off_by(&self, host: u32, is_down: impl Fn(u32) -> bool) -> BTreeSet<u32> {
        let mut cut = BTreeSet::new();
        let mut next = vec![host];
        while let Some(parent) = next.pop() {
            for child in self.children(parent).filter(|child| *child != host) {
                let is_cut = |parent| parent == host || cut.contains(&parent) || is_down(parent);
                if !cut.contains(&child)
                    && entries(self.edges_of(child))
                        .any(|entry| entry.iter().all(|edge| is_cut(edge.parent)))
                {
                    cut.insert(child);
                    next.push(child);
                }
            }
        }
        cut
    }
}

/// The entries of a host's list.
fn entries(edges: &[Edge]) -> impl Iterator<Item = &[Edge]> {
    edges.chunk_by(|one, other| one.entry == other.entry)
}

/// What a host is reached through, and how that stands.
#[derive(Debug)]
pub struct Path<'a> {
    all: &'a Dependencies,
    host: u32,
    known: BTreeMap<u32, (Evidence, Reach)>,
}

impl Path<'_> {
    fn reach(&self, host: u32) -> Reach {
        self.known.get(&host).map_or(Reach::Open, |(_, reach)| *reach)
    }

    /// An entry is as good as the best of its hosts, and a list as bad as its worst entry.
    fn entries(&self, host: u32) -> Reach {
        let of_entry = |entry: &[Edge]| entry.iter().map(|edge| self.reach(edge.parent)).min();
        entries(self.all.edges_of(host)).filter_map(of_entry).max().unwrap_or(Reach::Open)
    }

    /// Whether the host can be reached.
    pub fn is_open(&self) -> Reach {
        self.reach(self.host)
    }

    /// The hosts that are not known to be up or down.
    pub fn silent(&self) -> impl Iterator<Item = u32> + '_ {
        let silent = self.known.iter().filter(|(_, (own, _))| *own == Evidence::Silent);
        silent.map(|(host, _)| *host).filter(|host| *host != self.host)
    }

    /// The hosts that are down and cut it off, the nearest first, [`MAX_BEHIND`] of them at most.
    pub fn down(&self) -> Vec<u32> {
        let (mut down, mut at) = (Vec::new(), 0);
        let mut found = vec![self.host];
        while at < found.len() && down.len() < MAX_BEHIND {
            let edges = self.all.edges_of(found[at]);
            let is_cut =
                |entry: &&[Edge]| entry.iter().all(|edge| self.reach(edge.parent) == Reach::Cut);
            for edge in entries(edges).filter(is_cut).flatten() {
                if !found.contains(&edge.parent) {
                    found.push(edge.parent);
                }
            }
            let (own, _) = self.known[&found[at]];
            down.extend((at > 0 && own == Evidence::Down).then_some(found[at]));
            at += 1;
        }
        down
    }
}
