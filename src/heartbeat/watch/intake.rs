//! How a datagram comes in: whether it was believed is counted and logged, and who keeps the names
//! of hosts is told when one has moved.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use log::{debug, info};

use super::{STRANGERS_NAMED, Watch};
use crate::clock::Now;
use crate::heartbeat::datagram;
use crate::heartbeat::moves::Moved;
use crate::heartbeat::rejection::Rejection;

/// Told of moves while the fleet is locked: it must neither wait nor ask the watch.
pub type OnMove = Box<dyn Fn(Moved) + Send + Sync>;

/// Where a datagram came from.
pub(super) struct Source<'a> {
    pub address: IpAddr,
    /// Who is told when that address is a new one; none when it may be a proxy's.
    pub told: Option<&'a OnMove>,
}

impl Watch {
    /// From now on `told` hears of moves. Only the first one does.
    pub fn on_move(&self, told: OnMove) {
        // Nobody is replaced: there is one who keeps names.
        let _ = self.told.set(told);
    }

    /// As [`hear`](Watch::hear), for a datagram that came over HTTP: who sent it may be a proxy,
    /// and its address says nothing about where the host is.
    ///
    /// # Errors
    /// Why it was not believed; that is counted here.
    pub fn hear_over_http(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.hear_from(bytes, Source { address: from, told: None }, now, then)
    }

    pub(super) fn hear_from(
        &self,
        bytes: &[u8],
        from: Source,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        let heard = self.hear_locked(bytes, &from, now, then);
        match heard {
            Ok(()) => drop(self.accepted.fetch_add(1, Ordering::Relaxed)),
            Err(why) => self.reject(why, bytes, from.address),
        }
        heard
    }

    fn reject(&self, why: Rejection, bytes: &[u8], from: IpAddr) {
        if let Some(index) = Rejection::ALL.iter().position(|other| other.name() == why.name()) {
            self.rejected[index].fetch_add(1, Ordering::Relaxed);
        }
        debug!("a datagram from {from} was dropped: {why}");
        if why == Rejection::UnknownHost
            && let Ok(stranger) = datagram::parse(datagram::split(bytes).1)
        {
            let name = &stranger.host;
            let is_news = {
                let named = &mut self.lock().strangers;
                named.len() < STRANGERS_NAMED && named.insert(name.to_string())
            };
            if is_news {
                info!("{from} sends heartbeats as {name}, which is not under hosts: ignored");
            }
        }
    }
}
