//! The lease: the thread that asks for it, renews it and tells of this node, and what others ask it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ring::rand::{SecureRandom, SystemRandom};

use super::connection::Connector;
use super::lease_shared::{LeaseShared, LeaseView};
use super::lease_thread::LeaseThread;
use super::members::Member;
use super::token::Token;
use crate::clock::Now;
use crate::escape::hex;
use crate::thread::{DEFAULT_STACK, Stop, StopSource, lock, spawn_critical};

pub use super::lease_shared::{LeaseEvent, LeaseOptions};

/// How long giving the lease back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The lease of this node. Cloned: all clones are one.
#[derive(Clone)]
pub struct Lease {
    shared: Arc<LeaseShared>,
    stop: Arc<Mutex<Option<StopSource>>>,
    ended: Receiver<()>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Lease({:?})", self.token())
    }
}

/// A name for this process among all processes that a node ever had.
///
/// # Errors
/// When the operating system has no random bytes to give.
pub fn new_incarnation() -> Result<String, String> {
    let mut bytes = [0; 8];
    let made = SystemRandom::new().fill(&mut bytes);
    made.map_err(|_| "the operating system gave no random bytes".to_owned())?;
    Ok(hex(&bytes))
}

impl Lease {
    /// Starts the thread `lease`, which asks for it as soon as it may.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        connector: Connector,
        options: LeaseOptions,
    ) -> io::Result<(Lease, Receiver<LeaseEvent>)> {
        let view = LeaseView {
            configuration: options.configuration,
            highest_epoch: options.highest_epoch,
            id: options.known_id.clone(),
            ..LeaseView::default()
        };
        let shared = Arc::new(LeaseShared::new(view));
        let (events, received) = unbounded();
        let (source, stop) = Stop::channel();
        let (end, ended): (Sender<()>, Receiver<()>) = bounded(0);
        let thread = LeaseThread::new(connector, options, Arc::clone(&shared), events, stop);
        spawn_critical("lease", DEFAULT_STACK, move || {
            thread.run();
            drop(end);
        })?;
        Ok((Lease { shared, stop: Arc::new(Mutex::new(Some(source))), ended }, received))
    }

    /// Whether the lease is surely ours for `margin` more: what is sent then is sent by the only leader.
    pub fn permit(&self, margin: Duration) -> bool {
        let until = self.shared.valid_until();
        until.is_some_and(|until| Now::read().mono + margin < until)
    }

    /// [`Lease::permit`] as a function.
    pub fn permit_fn(&self, margin: Duration) -> Arc<dyn Fn() -> bool + Send + Sync> {
        let lease = self.clone();
        Arc::new(move || lease.permit(margin))
    }

    fn view<T>(&self, of: impl FnOnce(&mut LeaseView) -> T) -> T {
        of(&mut lock(&self.shared.view))
    }

    /// The token of this node while it leads, whether or not the lease ran out.
    pub fn token(&self) -> Option<Token> {
        self.view(|view| view.token.clone())
    }

    /// Who held the lease when it was looked at last.
    pub fn leader(&self) -> Option<Token> {
        self.view(|view| view.leader.clone())
    }

    /// What Redis' clock is ahead of our monotonic one, in milliseconds; none before it was asked.
    pub fn offset(&self) -> Option<i64> {
        self.view(|view| view.offset)
    }

    /// By the tag of a boot, what Redis' clock is ahead of the monotonic one of that; as they were read
    /// before this node led.
    pub fn clocks(&self) -> BTreeMap<u32, i64> {
        self.view(|view| view.clocks.clone())
    }

    /// The nodes, as they were read within the last seconds.
    pub fn members(&self) -> Vec<Member> {
        self.view(|view| view.members.clone())
    }

    /// The highest epoch that was seen.
    pub fn epoch(&self) -> u64 {
        self.view(|view| view.highest_epoch)
    }

    /// The id of the cluster; to be kept, so that another one of the same name is noticed.
    pub fn id(&self) -> Option<String> {
        self.view(|view| view.id.clone())
    }

    /// Whether Redis could be used when it was last.
    pub fn redis_is_up(&self) -> bool {
        self.view(|view| view.redis_is_up)
    }

    /// Which process of Redis it is.
    pub fn run_id(&self) -> Option<String> {
        self.view(|view| view.run_id.clone())
    }

    /// How often Redis came back without our token.
    pub fn rollbacks(&self) -> u64 {
        self.view(|view| view.rollbacks)
    }

    /// Whether this node knows when every host was heard last; until then it lets others lead first.
    pub fn set_warm(&self, is_warm: bool) {
        self.view(|view| view.is_warm = is_warm);
    }

    /// How many hosts it hears, for the others to see.
    pub fn set_hears(&self, hosts: u64) {
        self.view(|view| view.hears = hosts);
    }

    /// The hash of its configuration, after a reload.
    pub fn set_configuration(&self, fingerprint: u32) {
        self.view(|view| view.configuration = fingerprint);
    }

    /// Ends the thread and gives the lease back if it is ours, so that another node need not wait. Takes
    /// two seconds at most; nothing is permitted any more.
    pub fn release(&self) {
        self.shared.set_valid_until(None);
        *lock(&self.stop) = None;
        let _ = self.ended.recv_timeout(RELEASE_TIMEOUT);
    }
}
