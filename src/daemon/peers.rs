//! What this node tells the others of its cluster, and what it hears from them: heartbeats over the relay,
//! and over the inbox what must not be lost. Who takes all that changes when this node begins to lead,
//! and nothing that comes in meanwhile is lost.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use log::debug;

use super::listeners::Listen;
use super::node::ClusterNode;
use crate::clock::{Mono, Now};
use crate::cluster::connection::Connector;
use crate::cluster::deposits::{DepositOptions, Deposits};
use crate::cluster::inbox::{HandleMessage, Inbox, InboxOptions};
use crate::cluster::inbox_entry::EntryKind;
use crate::cluster::keys::Keys;
use crate::cluster::relay::{LastHeardSource, Relay};
use crate::cluster::relay_listener::{
    ClockOffset, HeardConnection, RelayListener, RelayOptions, RelayedPart,
};
use crate::heartbeat::datagram::Rejection;
use crate::heartbeat::last_beats::{LastBeats, LastHeard, RoundPart};
use crate::heartbeat::listener::{self, DatagramReceiver};
use crate::heartbeat::monitor::{AcceptedDatagram, Monitor, RelayedDatagram};
use crate::heartbeat::settings::FleetConfig;
use crate::heartbeat::standby::Standby;
use crate::store::{ChangeSink, RawRow, Write};
use crate::thread::{ProgressCounter, Stop, StopSource, lock};

/// How often it is counted how many hosts this node hears.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// How long what comes in over HTTP waits at a takeover for what came in before.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// The roads between this node and the others.
pub struct Peers {
    node: Arc<ClusterNode>,
    connector: Connector,
    keys: Keys,
    receiver: Arc<NodeReceiver>,
    relay: Relay,
    deposits: Deposits,
    /// What others gave to this node; none before it leads.
    inbox: OnceLock<Inbox>,
    /// Of the threads of the relay and of the deposits.
    _stop_source: StopSource,
}

impl Peers {
    /// Starts the threads of a node that stands by.
    ///
    /// # Errors
    /// A sentence when a thread cannot be started.
    pub fn start(
        node: Arc<ClusterNode>,
        connector: Connector,
        config: &FleetConfig,
        incarnation: &str,
    ) -> Result<Arc<Peers>, String> {
        let why = |why| format!("the threads of the cluster cannot be started: {why}");
        let (name, keys) = (node.node_name().to_owned(), Keys::new(node.cluster_name()));
        let (stop_source, stop) = Stop::channel();
        let receiver = Arc::new(NodeReceiver {
            standby: Standby::new(config, &name, Now::read()),
            node: Arc::clone(&node),
            monitor: RwLock::default(),
            others: Mutex::default(),
        });
        let relay_options = RelayOptions {
            connector: connector.clone(),
            channel: keys.beats(),
            node: name.clone(),
            incarnation: incarnation.to_owned(),
            offset: offset_of(&node),
        };
        let listener = Arc::clone(&receiver) as Arc<dyn RelayListener>;
        let (relay, _) = Relay::start(relay_options, listener, &stop).map_err(why)?;
        let deposit_options = DepositOptions {
            connector: connector.clone(),
            stream: keys.inbox(),
            node: name,
            incarnation: incarnation.to_owned(),
            offset: offset_of(&node),
        };
        let (deposits, _) = Deposits::start(deposit_options, &stop).map_err(why)?;
        let beats = relay.clone();
        receiver.standby.on_accepted(Arc::new(move |accepted| push(&beats, accepted)));
        deposit_news(&receiver.standby, deposits.clone());
        let inbox = OnceLock::new();
        let _stop_source = stop_source;
        Ok(Arc::new(Peers {
            node,
            connector,
            keys,
            receiver,
            relay,
            deposits,
            inbox,
            _stop_source,
        }))
    }

    /// Receives datagrams for whoever takes them at the time, and counts the turns.
    pub fn listen(&self, progress: ProgressCounter) -> Listen {
        let receiver = Arc::clone(&self.receiver);
        Arc::new(move |socket, stop| {
            let counted = Cell::new(Mono(i64::MIN));
            listener::listen(socket, &*receiver, stop, || {
                progress.increment();
                receiver.count(&counted);
            });
        })
    }

    /// A datagram that came over HTTP; `then` as in [`Standby::ingest_over_http`].
    ///
    /// # Errors
    /// Why it was rejected; that is counted.
    pub fn ingest_over_http(
        &self,
        bytes: &[u8],
        from: IpAddr,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        let monitor = self.receiver.monitor();
        if let Some(leading) = monitor.clone() {
            drop(monitor);
            self.wait_caught_up();
            return leading.ingest_over_http(bytes, from, Now::read(), then);
        }
        self.receiver.standby.ingest_over_http(bytes, from, Now::read(), then)
    }

    /// Waits, while this node begins to lead, until what others had accepted before that is handled, for
    /// some seconds at most: what comes over HTTP from now on was said later.
    pub fn wait_caught_up(&self) {
        if !self.inbox.wait().wait_caught_up(CATCH_UP_TIMEOUT) {
            debug!("what others accepted is not handled yet");
        }
    }

    /// A datagram that this process made itself.
    ///
    /// # Errors
    /// Why it was rejected; that is counted.
    pub fn ingest_own(&self, bytes: &[u8], from: IpAddr, now: Now) -> Result<(), Rejection> {
        self.receiver.ingest(bytes, from, now, |_, _| {})
    }

    /// Gives the webhook of an Alertmanager to the node that leads: what became of it comes within some
    /// seconds.
    pub fn deposit_alert(&self, body: &[u8], peer: IpAddr) -> Receiver<Result<(), String>> {
        let (tx, rx) = bounded(1);
        let done = Box::new(move |result| {
            // Fails when the request no longer waits.
            let _ = tx.send(result);
        });
        self.deposits.deposit(EntryKind::Alert, body.to_vec(), peer, done);
        rx
    }

    /// Applies a new configuration to what a node keeps that stands by.
    pub fn reconfigure(&self, config: &FleetConfig) {
        self.receiver.standby.reconfigure(config);
    }

    /// This node leads from now on: `restore` makes the monitor out of what was kept so far. Whatever
    /// comes in meanwhile waits for it.
    pub fn take_over(
        &self,
        config: &FleetConfig,
        previous: Option<&str>,
        restore: impl FnOnce(LastBeats) -> Monitor,
    ) -> Arc<Monitor> {
        let receiver = &self.receiver;
        let mut leading = receiver.monitor.write().unwrap_or_else(PoisonError::into_inner);
        let now = Now::read();
        let beats = receiver.standby.take();
        let beats = beats.unwrap_or_else(|| LastBeats::new(config, self.node.node_name(), now));
        let monitor = Arc::new(restore(beats));
        let lease = self.node.lease().clone();
        monitor.set_cluster_offset(Box::new(move || lease.offset()));
        let relay = self.relay.clone();
        monitor.on_accepted(Arc::new(move |accepted| push(&relay, accepted)));
        let mut others = lock(&receiver.others);
        for (node, since) in &others.lost {
            monitor.receiver_lost(node, *since);
        }
        others.awaited.extend(previous.map(|node| (node.to_owned(), now.mono)));
        // Those that were gone before this process began to hear the others.
        for (node, since) in self.node.silent_members(now.mono) {
            monitor.receiver_lost(&node, since);
            others.awaited.insert(node, now.mono);
        }
        // Before what comes in from now on.
        monitor.send_merged();
        *leading = Some(Arc::clone(&monitor));
        monitor
    }

    /// Tells the others from now on when it heard whom last, and has what they give to it handled by
    /// `handle`, from where `rows` of the store say that the last leader stopped.
    ///
    /// # Errors
    /// A sentence when a thread cannot be started.
    pub fn lead(
        &self,
        monitor: &Arc<Monitor>,
        (rows, sink): (Vec<RawRow>, ChangeSink),
        handle: HandleMessage,
        stop: &Stop,
    ) -> Result<(), String> {
        let (monitor, counted) = (Arc::clone(monitor), Arc::clone(monitor));
        self.relay.share_last_heard(Some(Arc::new(LastHeardSource {
            hosts: Box::new(move || counted.count()),
            part: Box::new(move |from, count| last_heard(&monitor, from, count)),
        })));
        let options = InboxOptions {
            connector: self.connector.clone(),
            keys: self.keys.clone(),
            node: self.node.node_name().to_owned(),
            offset: offset_of(&self.node),
            rows,
            sink,
        };
        let (inbox, _) = Inbox::start(options, handle, stop)
            .map_err(|why| format!("the thread inbox cannot be started: {why}"))?;
        // It leads once in the life of a process.
        let _ = self.inbox.set(inbox);
        Ok(())
    }

    /// The rows that say what was handled of the inbox.
    pub fn every_row(&self) -> Vec<Write> {
        self.inbox.get().map(Inbox::every_row).unwrap_or_default()
    }
}

fn offset_of(node: &ClusterNode) -> ClockOffset {
    let lease = node.lease().clone();
    Arc::new(move || lease.offset())
}

/// What a node that stands by must not lose, it gives to the one that leads.
fn deposit_news(standby: &Standby, deposits: Deposits) {
    standby.on_news(Arc::new(move |accepted, then| {
        let kind = match (accepted.is_direct, accepted.is_news) {
            (true, _) => EntryKind::Event,
            (false, true) => EntryKind::HttpEvent,
            (false, false) => EntryKind::HttpBeat,
        };
        let done = Box::new(move |result: Result<(), String>| {
            if let Err(why) = &result {
                debug!("something that was heard is not confirmed: {why}");
            }
            then(result.is_ok());
        });
        deposits.deposit(kind, accepted.bytes.to_vec(), accepted.from, done);
    }));
}

fn push(relay: &Relay, accepted: &AcceptedDatagram) {
    relay.push(accepted.bytes, accepted.from, accepted.now.mono);
}

fn last_heard(monitor: &Monitor, from: usize, count: usize) -> Vec<HeardConnection> {
    let heard = monitor.last_heard(from, count).into_iter();
    heard
        .map(|LastHeard { host, connection, at, signed }| HeardConnection {
            host,
            connection,
            at,
            signed,
        })
        .collect()
}

/// Takes what this node receives and what the others relay: as one that stands by, or for the monitor.
pub struct NodeReceiver {
    node: Arc<ClusterNode>,
    standby: Standby,
    /// Some when this node leads.
    monitor: RwLock<Option<Arc<Monitor>>>,
    others: Mutex<OtherNodes>,
}

/// What is known of the other nodes' receivers.
#[derive(Default)]
struct OtherNodes {
    /// Those of which nothing comes, since then.
    lost: BTreeMap<String, Mono>,
    /// The node that led before, and those that gave no sign: each counts as gone until something comes
    /// that it published after this one took over.
    awaited: BTreeMap<String, Mono>,
}

impl NodeReceiver {
    fn monitor(&self) -> RwLockReadGuard<'_, Option<Arc<Monitor>>> {
        self.monitor.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitor, when this node leads.
    fn leading(&self) -> Option<Arc<Monitor>> {
        self.monitor().clone()
    }

    /// Tells how much this node hears, now and then.
    fn count(&self, counted: &Cell<Mono>) {
        let now = Now::read().mono;
        if now.since(counted.get()) < COUNT_INTERVAL {
            return;
        }
        counted.set(now);
        let (hosts, connections) = match self.leading() {
            Some(monitor) => monitor.read(|fleet| fleet.count_heard()),
            None => {
                let counts = |beats: &LastBeats| (beats.count_heard(), beats.len());
                self.standby.read(counts).unwrap_or_default()
            }
        };
        self.node.record_heard(hosts, connections);
    }

    /// What others told was not heard until then: this node knows less than the one that leads.
    fn missed(&self, to: Mono) {
        self.standby.gap(to);
        self.tell_warm();
    }

    fn tell_warm(&self) {
        if let Some(is_warm) = self.standby.read(LastBeats::is_warm) {
            self.node.lease().set_warm(is_warm);
        }
    }
}

impl DatagramReceiver for NodeReceiver {
    fn ingest(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        match &*self.monitor() {
            Some(monitor) => monitor.ingest(bytes, from, now, then),
            None => self.standby.ingest(bytes, from, now, then),
        }
    }
}

impl RelayListener for NodeReceiver {
    fn subscribed(&self, at: Mono) {
        self.missed(at);
    }

    fn arrived(&self, node: &str, at: Mono, is_complete: bool) {
        if !is_complete {
            self.missed(Now::read().mono);
        }
        let Some(monitor) = self.leading() else { return };
        let awaited = &mut lock(&self.others).awaited;
        if awaited.get(node).is_some_and(|since| *since < at) {
            awaited.remove(node);
            monitor.receiver_back(node, at);
        }
    }

    fn beat(&self, node: &str, datagram: &[u8], peer: IpAddr, at: Mono) {
        let now = Now::read();
        let relayed = RelayedDatagram {
            bytes: datagram,
            from: peer.to_canonical(),
            is_direct: true,
            receiver: node,
            at: Now { mono: at, wall: now.wall - now.mono.since(at) },
        };
        let taken = match &*self.monitor() {
            Some(monitor) => monitor.ingest_relayed(relayed, None),
            None => self.standby.keep_relayed(relayed),
        };
        if let Err(rejection) = taken {
            debug!("a datagram from {peer} that {node} relayed was dropped: {rejection}");
        }
    }

    fn last_heard(&self, node: &str, part: RelayedPart, connections: &[HeardConnection]) {
        let part = RoundPart {
            round: part.round,
            part: part.part.into(),
            parts: part.parts.into(),
            began: part.began,
        };
        let time = |heard: &HeardConnection| LastHeard {
            host: heard.host.clone(),
            connection: heard.connection.clone(),
            at: heard.at,
            signed: heard.signed,
        };
        let times: Vec<LastHeard> = connections.iter().map(time).collect();
        self.standby.keep_round(node, part, &times, Now::read());
        self.tell_warm();
    }

    fn gap(&self, node: &str, from: Mono, to: Mono) {
        if let Some(monitor) = self.leading() {
            monitor.receiver_gap(node, from, to);
        }
    }

    fn lost(&self, node: &str, since: Mono) {
        lock(&self.others).lost.insert(node.to_owned(), since);
        if let Some(monitor) = self.leading() {
            monitor.receiver_lost(node, since);
        }
    }

    fn back(&self, node: &str, at: Mono) {
        lock(&self.others).lost.remove(node);
        if let Some(monitor) = self.leading() {
            monitor.receiver_back(node, at);
        }
    }
}
