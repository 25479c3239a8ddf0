//! The nodes that hear for the one that decides: which are gone, which hosts are heard by nobody
//! because of that, and what is told of it. Pure.

use std::time::Duration;

use super::Fleet;
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind, MAX_LISTED, NodeEvent};
use crate::heartbeat::connection::Connection;
use crate::heartbeat::fleet::deadlines::{DeadlineEntry, DeadlineKind};
use crate::heartbeat::host::Host;
use crate::store::{Table, Write};
use crate::view::HostState;

/// The key of the names of the nodes of which it was told that hosts are heard by nobody.
pub const RECEIVERS_KEY: &str = "receivers";

/// A node must be gone for so long until its hosts are counted, and they are counted this often.
const COUNT_INTERVAL: Duration = Duration::from_secs(30);

/// The row [`RECEIVERS_KEY`].
pub fn receivers_write(told: &Vec<String>) -> Write {
    if told.is_empty() {
        return Write::remove(Table::Meta, RECEIVERS_KEY);
    }
    Write::put(Table::Meta, RECEIVERS_KEY, told)
}

impl Fleet {
    /// A node is gone since then: what nobody else hears is excused until it is back.
    pub fn receiver_lost(&mut self, node: &str, at: Mono) {
        let Some(number) = self.blindness.number(node) else { return };
        let Some(receiver) = self.blindness.receiver_mut(number) else { return };
        match receiver.lost_at {
            Some(_) => {}
            None => {
                receiver.lost_at = Some(at);
                self.schedule_receiver(number, at + COUNT_INTERVAL);
            }
        }
    }

    /// A node hears again since then.
    pub fn receiver_back(&mut self, node: &str, at: Mono) {
        let Some(number) = self.blindness.number(node) else { return };
        let receiver = self.blindness.receiver_mut(number);
        if receiver.and_then(|receiver| receiver.is_back(at)).is_some() {
            // Stored at once: the next node that leads may not know that this one was gone.
            for host in self.apply_blindness(true) {
                self.hosts[host as usize].must_store_now = true;
                self.deadlines.push(DeadlineEntry { at, host, kind: DeadlineKind::Untold });
            }
            self.schedule_receiver(number, at);
        }
    }

    /// What a node heard from one moment to another did not arrive.
    pub fn receiver_gap(&mut self, node: &str, from: Mono, to: Mono) {
        self.blindness.gap(node, from, to);
    }

    /// The nodes that are gone at present.
    pub fn lost_receivers(&self) -> impl Iterator<Item = &str> {
        let lost = self.blindness.receivers().iter().filter(|receiver| receiver.lost_at.is_some());
        lost.map(|receiver| receiver.name.as_str())
    }

    /// How many hosts are heard by the receiver of this process, and how many connections were ever heard.
    pub fn count_heard(&self) -> (usize, usize) {
        let own = self.blindness.own().map_or(0, |own| 1 << own);
        let by_own = |one: &Connection| one.receivers.bits() & own != 0;
        let hosts = self.hosts.iter().filter(|host| host.connections.iter().any(by_own));
        let heard =
            |host: &Host| host.connections.iter().filter(|one| one.state != HostState::New).count();
        (hosts.count(), self.hosts.iter().map(heard).sum())
    }

    /// How many watched hosts are heard by nobody, since all nodes that heard them are gone.
    pub fn count_unheard(&self) -> usize {
        let lost = self.blindness.lost_bits();
        if lost == 0 {
            return 0;
        }
        self.hosts.iter().filter(|host| is_unheard(host, lost, lost)).count()
    }

    pub(super) fn restore_told(&mut self, told: &[String], now: Now) {
        for node in told {
            let Some(number) = self.blindness.number(node) else { continue };
            if let Some(receiver) = self.blindness.receiver_mut(number) {
                receiver.is_told = true;
            }
        }
        self.schedule_receivers(now);
    }

    /// Counts the hosts of all nodes that are gone, or of which that was told, again and again.
    pub(super) fn schedule_receivers(&mut self, now: Now) {
        for number in 0..self.blindness.receivers().len() {
            let receiver = &self.blindness.receivers()[number];
            if receiver.is_told || receiver.lost_at.is_some() {
                self.schedule_receiver(number as u8, now.mono + COUNT_INTERVAL);
            }
        }
    }

    /// The receivers of which it was told that they are gone; none without a cluster.
    pub fn told_gone(&self) -> Option<Vec<String>> {
        self.blindness.own()?;
        let told = self.blindness.receivers().iter().filter(|receiver| receiver.is_told);
        Some(told.map(|receiver| receiver.name.clone()).collect())
    }

    fn schedule_receiver(&mut self, number: u8, at: Mono) {
        let kind = DeadlineKind::Receiver(number);
        self.deadlines.push(DeadlineEntry { at, host: u32::MAX, kind });
    }

    /// Counts the hosts that are heard by nobody because a node is gone.
    pub(super) fn receiver_due(&mut self, number: u8, now: Now) -> Option<Event> {
        let lost = self.blindness.lost_bits();
        let lost_here = lost & (1 << number);
        let unheard = self.hosts.iter().filter(|host| is_unheard(host, lost, lost_here));
        let names: Vec<&Host> = unheard.collect();
        let count = names.len();
        let hosts = names.iter().take(MAX_LISTED).map(|host| host.name.as_ref().into()).collect();
        let receiver = self.blindness.receiver_mut(number)?;
        let was_told = std::mem::replace(&mut receiver.is_told, count > 0);
        let node = receiver.name.clone();
        if lost_here != 0 {
            self.schedule_receiver(number, now.mono + COUNT_INTERVAL);
        }
        let kind = match (was_told, count > 0) {
            (false, true) => NodeEvent::Gone { node, hosts, count },
            (true, false) => NodeEvent::Heard { node },
            (true, true) | (false, false) => return None,
        };
        self.pending.receivers = self.told_gone();
        Some(Event::new(now.wall, EventKind::Node(kind)))
    }
}

/// Whether nobody hears a watched host while those receivers are `lost`, because some of `which` are.
fn is_unheard(host: &Host, lost: u16, which: u16) -> bool {
    let up = |connection: &&Connection| connection.state == HostState::Up;
    let mut up = host.connections.iter().filter(up).map(|connection| connection.receivers.bits());
    let gone = |bits: u16| bits != 0 && bits & !lost == 0;
    let all_gone = host.profile.watch && host.state == HostState::Up && up.all(gone);
    all_gone && host.receivers() & which != 0
}
