//! This node of a cluster, while it stands by and while it leads: its lease, its sockets, and what it
//! knows of the others.
//!
//! ```text
//!            Leads                Deposed, step-down: execve(2) with the sockets
//!  standby ---------> leader ---------------------------------------------------> standby
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::Sender;
use log::warn;

use super::sockets::KeptSockets;
use crate::clock::{Mono, Now, Wall};
use crate::cluster::lease::Lease;
use crate::cluster::members::{Member, MemberRole};
use crate::cluster::settings::{ClusterSettings, NodeRole};
use crate::notify::courier::{Courier, CourierExit, SendPermit};
use crate::thread::lock;
use crate::view::cluster::{ClusterView, NodeState, NodeView};

/// What is sent must be on its way before the lease could run out.
const SEND_MARGIN: Duration = Duration::from_millis(100);

/// A node that gave no sign for so long may be dead: each gives one a second.
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// Of how many connections it knows when they were heard last.
    connections: AtomicUsize,
    redis_trouble: Mutex<Option<String>>,
    step_down: Sender<()>,
    /// Since it leads.
    courier: OnceLock<Courier>,
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
            connections: AtomicUsize::new(0),
            redis_trouble: Mutex::new(None),
            step_down,
            courier: OnceLock::new(),
        }
    }

    /// Its name.
    pub fn node_name(&self) -> &str {
        &self.settings.node
    }

    /// The name of the cluster.
    pub fn cluster_name(&self) -> &str {
        &self.settings.name
    }

    /// How many hosts it hears itself, and of how many connections it knows when they were heard last.
    pub fn record_heard(&self, hosts: usize, connections: usize) {
        self.lease.set_hears(hosts as u64);
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// The other nodes that gave no sign for a while, and since when.
    pub fn silent_members(&self, now: Mono) -> Vec<(String, Mono)> {
        let Some(offset) = self.lease.offset() else { return Vec::new() };
        let others = self.lease.members().into_iter().filter(|one| one.name != self.node_name());
        let last_signs = others.map(|one| (one.name, Mono(one.last_sign.saturating_sub(offset))));
        last_signs.filter(|(_, at)| now.since(*at) > SIGN_TIMEOUT).collect()
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

    /// What stores the state while it leads.
    pub fn set_courier(&self, courier: Courier) {
        // It leads once: it starts anew before it leads again.
        let _ = self.courier.set(courier);
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
    /// A sentence: no other node could take over now, or not with all of the state.
    pub fn request_step_down(&self) -> Result<(), String> {
        let redis_trouble = self.redis_trouble();
        if redis_trouble.is_some() || !self.lease.redis_is_up() {
            let why = redis_trouble.unwrap_or_else(|| "it does not answer".into());
            return Err(format!("the cluster's Redis cannot be used: {why}"));
        }
        let stats = self.courier.get().map(Courier::stats);
        if let Some(why) = stats.and_then(|stats| stats.store_refuses) {
            return Err(format!("not all of the state is stored: {why}"));
        }
        let Some(offset) = self.lease.offset() else {
            return Err("the time of the cluster's Redis is not known yet".into());
        };
        let cluster_now = Wall(Now::read().mono.0 + offset);
        check_successor(&self.lease.members(), &self.settings.node, cluster_now)?;
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
            connections: self.connections.load(Ordering::Relaxed),
            redis_trouble: self.redis_trouble(),
            nodes: members.into_iter().map(|one| node_view(one, cluster_now)).collect(),
        }
    }
}

/// Whether a node but `own` could lead at once; `cluster_now` is Redis' time.
///
/// # Errors
/// A sentence: none could.
fn check_successor(members: &[Member], own: &str, cluster_now: Wall) -> Result<(), String> {
    let can_lead = |one: &&Member| one.name != own && one.role == MemberRole::Standby;
    let Some(last) = members.iter().filter(can_lead).max_by_key(|one| one.last_sign) else {
        return Err("no other node could take over".into());
    };
    let silent_for = cluster_now.since(Wall(last.last_sign));
    if silent_for > SIGN_TIMEOUT {
        return Err(format!(
            "no other node could take over: {} gave its last sign {} s ago",
            last.name,
            silent_for.as_secs()
        ));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_died_weeks_ago_was_a_successor() {
        let check = |role: &str, last_sign: i64| {
            let member = |name, role: &str, last_sign: i64| {
                let text = format!(r#"{{"role":"{role}","last_sign":{last_sign}}}"#);
                Member::from_json(name, &text).unwrap()
            };
            let members = [member("hb1", "standby", 99_000), member("hb2", role, last_sign)];
            check_successor(&members, "hb1", Wall(100_000))
        };
        assert_eq!(check("standby", 95_000), Ok(()));
        let silent = "no other node could take over: hb2 gave its last sign 60 s ago";
        assert_eq!(check("standby", 40_000), Err(silent.into()));
        assert_eq!(check("receiver", 99_000), Err("no other node could take over".into()));
    }
}
