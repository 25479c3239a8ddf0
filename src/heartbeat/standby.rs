//! The monitor of a node that does not lead: it believes what a fleet would believe, hands it on to the
//! node that leads, and keeps the last beat of each connection until it leads itself.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use log::debug;

use crate::clock::{Mono, Now};
use crate::heartbeat::counters::DatagramCounters;
use crate::heartbeat::datagram::{ReceivedDatagram, Rejection};
use crate::heartbeat::last_beats::{LastBeats, LastHeard, RoundPart};
use crate::heartbeat::listener::DatagramReceiver;
use crate::heartbeat::monitor::{AcceptedDatagram, OnAccepted, RelayedDatagram};
use crate::heartbeat::settings::FleetConfig;
use crate::thread;

/// Called with what the node that leads must get, and what is to be called with whether it will.
pub type OnNews = Arc<dyn Fn(&AcceptedDatagram, Box<dyn FnOnce(bool) + Send>) + Send + Sync>;

/// The monitor of a node that does not lead.
pub struct Standby {
    /// None when the node leads.
    beats: Mutex<Option<LastBeats>>,
    counters: DatagramCounters,
    accepted: OnceLock<OnAccepted>,
    news: OnceLock<OnNews>,
}

impl Standby {
    /// The node of that name begins to listen now.
    pub fn new(config: &FleetConfig, node: &str, now: Now) -> Standby {
        Standby {
            beats: Mutex::new(Some(LastBeats::new(config, node, now))),
            counters: DatagramCounters::default(),
            accepted: OnceLock::new(),
            news: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<LastBeats>> {
        thread::lock(&self.beats)
    }

    /// Calls `listener` with each plain beat that is believed from now on. There is one listener: a
    /// second one is not called.
    pub fn on_accepted(&self, listener: OnAccepted) {
        // An error means that there is one already.
        let _ = self.accepted.set(listener);
    }

    /// Calls `listener` with all else that is believed from now on.
    pub fn on_news(&self, listener: OnNews) {
        let _ = self.news.set(listener);
    }

    /// As [`ingest`](DatagramReceiver::ingest), for what came over HTTP: it must not be lost, whatever it
    /// is.
    ///
    /// # Errors
    /// Why it was rejected; that is counted.
    pub fn ingest_over_http(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.ingest_as(bytes, from, (now, true), then)
    }

    fn ingest_as(
        &self,
        bytes: &[u8],
        from: IpAddr,
        (now, must_store): (Now, bool),
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        let received = ReceivedDatagram::parse(bytes);
        let heard = received.and_then(|received| match self.lock().as_mut() {
            Some(beats) => beats.hear(&received, bytes, from, now),
            None => Err(Rejection::Busy),
        });
        let heard = heard.inspect_err(|rejection| {
            self.counters.count_rejected(*rejection);
            debug!("a datagram from {from} was dropped: {rejection}");
        })?;
        self.counters.count_accepted();
        let (is_news, is_direct) = (heard.is_news, !must_store);
        let accepted = AcceptedDatagram { bytes, from, is_direct, now, is_news };
        if !is_news && !must_store {
            if let Some(listener) = self.accepted.get() {
                listener(&accepted);
            }
            then(heard.ack, true);
        } else if let Some(listener) = self.news.get() {
            listener(&accepted, Box::new(move |stored| then(heard.ack, stored)));
        } else {
            then(None, false);
        }
        Ok(())
    }

    /// A datagram that another node has received, and checked.
    ///
    /// # Errors
    /// Why it is not believed here.
    pub fn keep_relayed(&self, relayed: RelayedDatagram) -> Result<(), Rejection> {
        let RelayedDatagram { bytes, from, receiver, at, .. } = relayed;
        let received = ReceivedDatagram::parse(bytes)?;
        match self.lock().as_mut() {
            Some(beats) => beats.keep_relayed(&received, bytes, (from, receiver), at),
            None => Err(Rejection::Busy),
        }
    }

    /// A part of what the node that leads heard last.
    pub fn keep_round(&self, leader: &str, part: RoundPart, times: &[LastHeard], now: Now) {
        if let Some(beats) = self.lock().as_mut() {
            beats.keep_round(leader, part, times, now);
        }
    }

    /// What the others told was not heard until then.
    pub fn gap(&self, to: Mono) {
        if let Some(beats) = self.lock().as_mut() {
            beats.gap(to);
        }
    }

    /// Applies a new configuration.
    pub fn reconfigure(&self, config: &FleetConfig) {
        if let Some(beats) = self.lock().as_mut() {
            beats.reconfigure(config);
        }
    }

    /// What was accepted and rejected.
    pub fn counters(&self) -> &DatagramCounters {
        &self.counters
    }

    /// What is asked of the beats that are kept; none when the node leads.
    pub fn read<T>(&self, read: impl FnOnce(&LastBeats) -> T) -> Option<T> {
        self.lock().as_ref().map(read)
    }

    /// The node leads from now on: what it has kept. From now on nothing is believed here.
    pub fn take(&self) -> Option<LastBeats> {
        self.lock().take()
    }
}

impl DatagramReceiver for Standby {
    fn ingest(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.ingest_as(bytes, from, (now, false), then)
    }
}
