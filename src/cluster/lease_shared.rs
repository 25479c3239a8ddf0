//! What the thread `lease` is started with, and what it and its [`super::lease::Lease`] share.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::members::Member;
use super::settings::ClusterSettings;
use super::token::Token;
use crate::clock::Mono;

/// No lease: there is no time before which it is valid.
const NO_LEASE: i64 = i64::MIN;

/// Who this node is, and what is known of the cluster before the start.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// The section `cluster`.
    pub settings: ClusterSettings,
    /// Which process of this node it is: [`super::lease::new_incarnation`].
    pub incarnation: String,
    /// Whether every other process of this node is known to be dead: the lock on its directory is ours.
    pub predecessor_dead: bool,
    /// The highest epoch that this node ever saw.
    pub highest_epoch: u64,
    /// The id of the cluster, if this node ever saw it.
    pub known_id: Option<String>,
    /// When this node lost the lease to another one lately; it is kept across a start anew.
    pub lost_at: Vec<Mono>,
    /// Which boot of the kernel our monotonic clock is of.
    pub kernel: u32,
    /// The hash of the configuration: `Config::fingerprint`.
    pub configuration: u32,
    /// The version of hbd.
    pub version: &'static str,
}

/// What happens to the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// This node leads from now on: the token is stored, and confirmed by enough replicas.
    Leads {
        /// The token of every change.
        token: Token,
        /// Who led before.
        previous: Option<Token>,
        /// How long ago the last sign of that one was.
        silent_for: Option<Duration>,
    },
    /// Another node leads, which one is told if it is known. The thread has ended.
    Deposed {
        /// Its token.
        by: Option<Token>,
    },
    /// Redis can be used, and this node cannot lead, or not notify: too few replicas confirm the lease, a
    /// newer hbd has led, or another cluster of the same name is there. Each reason is told once.
    CannotLead(String),
    /// Redis cannot be used; why. Told once until [`LeaseEvent::RedisBack`].
    RedisLost(String),
    /// Redis can be used again.
    RedisBack {
        /// Whether it is another process of Redis than before.
        restarted: bool,
    },
}

/// What the thread knows.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseView {
    pub token: Option<Token>,
    pub leader: Option<Token>,
    pub offset: Option<i64>,
    pub clocks: BTreeMap<u32, i64>,
    pub members: Vec<Member>,
    pub is_warm: bool,
    pub hears: u64,
    pub configuration: u32,
    pub redis_is_up: bool,
    pub run_id: Option<String>,
    pub highest_epoch: u64,
    pub id: Option<String>,
    pub rollbacks: u64,
}

#[derive(Debug)]
pub(super) struct LeaseShared {
    /// Until when the lease is surely ours, on our clock.
    valid_until: AtomicI64,
    pub view: Mutex<LeaseView>,
}

impl LeaseShared {
    pub fn new(view: LeaseView) -> LeaseShared {
        LeaseShared { valid_until: AtomicI64::new(NO_LEASE), view: Mutex::new(view) }
    }

    /// Until when the lease is surely ours.
    pub fn valid_until(&self) -> Option<Mono> {
        Some(self.valid_until.load(Ordering::SeqCst)).filter(|until| *until != NO_LEASE).map(Mono)
    }

    pub fn set_valid_until(&self, until: Option<Mono>) {
        self.valid_until.store(until.map_or(NO_LEASE, |until| until.0), Ordering::SeqCst);
    }
}
