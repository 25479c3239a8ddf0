//! This node of a cluster, while it stands by and while it leads: its lease, its sockets, and what it
//! knows of the others.
//!
//! ```text
//!            Leads                Deposed, step-down: execve(2) with the sockets
//!  standby ---------> leader ---------------------------------------------------> standby
//! ```

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use log::warn;

use super::sockets::KeptSockets;
use crate::clock::{Mono, Now};
use crate::cluster::lease::Lease;
use crate::cluster::members::{Member, MemberRole};
use crate::cluster::settings::{ClusterSettings, NodeRole};
use crate::notify::courier::{CourierExit, SendPermit};
use crate::thread::lock;
use crate::view::cluster::{ClusterView, NodeState, NodeView};

/// What is sent must be on its way before the lease could run out.
const SEND_MARGIN: Duration = Duration::from_millis(100);

/// This node of a cluster.
pub struct ClusterNode {
    settings: ClusterSettings,
    lease: Lease,
    /// For when it starts anew.
    pub sockets: KeptSockets,
    /// When it lost the lead lately.
    losses: Mutex<Vec<Mono>>,
    /// It ends: it does not start anew any more.
    stopping: AtomicBool,
    takeovers: AtomicU64,
    redis_trouble: Mutex<Option<String>>,
    step_down: Sender<()>,
}

impl ClusterNode {
    /// A node that stands by. What is sent to `step_down` asks the main thread to hand over.
    pub fn new(
        settings: ClusterSettings,
        lease: Lease,
        losses: Vec<Mono>,
        step_down: Sender<()>,
    ) -> ClusterNode {
        ClusterNode {
            settings,
            lease,
            sockets: KeptSockets::default(),
            losses: Mutex::new(losses),
            stopping: AtomicBool::new(false),
            takeovers: AtomicU64::new(0),
            redis_trouble: Mutex::new(None),
            step_down,
        }
    }

    /// Its lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether a message may be sent: while no other node can lead.
    pub fn permit(&self) -> SendPermit {
        self.lease.permit_fn(SEND_MARGIN)
    }

    /// It took over.
    pub fn record_takeover(&self) {
        self.takeovers.fetch_add(1, Ordering::Relaxed);
    }

    /// Redis cannot be asked, or can be again.
    pub fn record_redis(&self, trouble: Option<String>) {
        *lock(&self.redis_trouble) = trouble;
    }

    /// Why Redis cannot be asked.
    pub fn redis_trouble(&self) -> Option<String> {
        lock(&self.redis_trouble).clone()
    }

    /// It ends and is not started anew from now on: the ports are free when nothing serves them any
    /// more.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.sockets.close();
    }

    /// Gives the lease back: another node can lead at once.
    pub fn release(&self) {
        self.lease.release();
    }

    /// Asks the main thread to hand over to another node.
    ///
    /// # Errors
    /// A sentence: there is none.
    pub fn request_step_down(&self) -> Result<(), String> {
        let can_lead =
            |one: &Member| one.name != self.settings.node && one.role == MemberRole::Standby;
        if !self.lease.members().iter().any(can_lead) {
            return Err("no other node could take over".into());
        }
        // Fails when it is asked for already.
        let _ = self.step_down.try_send(());
        Ok(())
    }

    /// Starts hbd anew, as a node that stands by; `times` of a lost lead are added: who lost it twice
    /// lately lets others go first.
    pub fn start_anew(&self, times: usize) -> ! {
        let now = Now::read().mono;
        let losses = &mut *lock(&self.losses);
        losses.extend(std::iter::repeat_n(now, times));
        self.sockets.start_anew(losses)
    }

    /// The courier has ended.
    pub fn on_courier_exit(&self, exit: CourierExit) {
        if self.stopping.load(Ordering::Acquire) {
            return;
        }
        match exit {
            CourierExit::Stored | CourierExit::Lost => {}
            CourierExit::Deposed => {
                let by =
                    self.lease.leader().map_or_else(String::new, |by| format!(" ({})", by.node));
                warn!("another node leads{by}: {} stands by from now on", self.settings.node);
                self.start_anew(1)
            }
            CourierExit::Restart => {
                warn!("the state in Redis can be read only now: hbd takes it up");
                self.start_anew(0)
            }
        }
    }

    /// The cluster as this node knows it.
    pub fn view(&self) -> ClusterView {
        let now = Now::read();
        let cluster_now = self.lease.offset().map_or(now.wall.0, |offset| now.mono.0 + offset);
        let leads = self.lease.token().is_some();
        let leader = self.lease.leader().map(|token| token.node);
        let mut members = self.lease.members();
        // What this node told of itself may be a second old, and so may be what another one did.
        for one in &mut members {
            if one.name == self.settings.node {
                one.role = MemberRole::of(self.settings.role, leads);
            } else if leads && one.role == MemberRole::Leader {
                one.role = MemberRole::Standby;
            }
        }
        let found = members.iter().find(|one| Some(&one.name) == leader.as_ref());
        let leader_url = found.and_then(|one| one.advertise.clone());
        ClusterView {
            now: now.wall,
            name: self.settings.name.clone(),
            node: self.settings.node.clone(),
            role: match self.settings.role {
                _ if leads => NodeState::Leader,
                NodeRole::Auto => NodeState::Standby,
                NodeRole::Receiver => NodeState::Receiver,
            },
            leader,
            leader_url,
            epoch: self.lease.epoch(),
            takeovers: self.takeovers.load(Ordering::Relaxed),
            redis_trouble: self.redis_trouble(),
            nodes: members.into_iter().map(|one| node_view(one, cluster_now)).collect(),
        }
    }
}

fn node_view(member: Member, cluster_now: i64) -> NodeView {
    NodeView {
        role: match member.role {
            MemberRole::Leader => NodeState::Leader,
            MemberRole::Standby => NodeState::Standby,
            MemberRole::Receiver => NodeState::Receiver,
        },
        name: member.name,
        version: member.version,
        url: member.advertise,
        last_sign_seconds: (cluster_now - member.last_sign).max(0) as f64 / 1000.0,
        hosts: member.hears,
        configuration: format!("{:08x}", member.configuration),
    }
}
