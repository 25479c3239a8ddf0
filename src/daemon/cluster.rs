//! The main thread of a node of a cluster: it stands by until the lease falls to it, leads until it is
//! stopped or another node leads.

use crossbeam_channel::{Receiver, bounded, select_biased, unbounded};
use log::{error, info, warn};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::DaemonError;
use super::sockets::InheritedSockets;
use super::standby::{Lead, StandbyNode};
use crate::cluster::lease::LeaseEvent;
use crate::cluster::settings::ClusterSettings;
use crate::config::Config;
use crate::systemd;
use crate::thread::{DEFAULT_STACK, spawn_critical};

/// So many times a lost lead is noted that another node goes first.
const YIELD: usize = 2;

/// What the main thread waits for.
struct Inputs {
    signals: Receiver<i32>,
    lease: Receiver<LeaseEvent>,
    step_down: Receiver<()>,
}

/// What ended a role.
enum Turn {
    /// SIGTERM or SIGINT.
    Stop,
    /// The lead is this node's.
    Leads(Lead),
    /// Another node has the lead.
    Deposed,
    /// An operator asked for it.
    StepDown,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or not all of the state is stored at the end.
pub fn run(
    config: Config,
    settings: ClusterSettings,
    inherited: InheritedSockets,
    signals: Signals,
) -> Result<(), DaemonError> {
    let (tx, step_down) = bounded(1);
    let signals = forward(signals)?;
    let (mut standby, lease) = StandbyNode::start(config, settings, inherited, tx)?;
    let inputs = Inputs { signals, lease, step_down };
    systemd::notify("READY=1");
    let node = standby.node().clone();
    let redis = |trouble: Option<String>| node.record_redis(trouble);
    let lead = match inputs.wait(redis, || standby.reload()) {
        Turn::Leads(lead) => lead,
        Turn::Deposed | Turn::StepDown => node.start_anew(1),
        Turn::Stop => {
            begin_stop();
            standby.stop();
            return Ok(());
        }
    };
    let mut daemon = match standby.take_over(&lead) {
        Ok(daemon) => daemon,
        Err(why) => {
            error!("the lead cannot be taken: {why}");
            node.release();
            node.start_anew(YIELD)
        }
    };
    let notice_rollback = daemon.notice_rollback();
    let redis = |trouble: Option<String>| {
        if trouble.is_none() {
            notice_rollback();
        }
        redis(trouble);
    };
    match inputs.wait(redis, || daemon.reload()) {
        Turn::Stop => {
            begin_stop();
            daemon.stop_whole()
        }
        Turn::StepDown => {
            info!("another node shall lead: this one hands over");
            daemon.hand_over();
            node.start_anew(YIELD)
        }
        Turn::Deposed | Turn::Leads(_) => {
            warn!("another node leads: this one stands by from now on");
            node.start_anew(1)
        }
    }
}

fn begin_stop() {
    info!("stopping");
    systemd::notify("STOPPING=1");
}

/// Passes signals on to where they can be waited for together with something else.
fn forward(mut signals: Signals) -> Result<Receiver<i32>, DaemonError> {
    let (tx, rx) = unbounded();
    let pass = move || signals.forever().try_for_each(|signal| tx.send(signal)).is_ok();
    spawn_critical("signals", DEFAULT_STACK, pass)
        .map_err(|why| format!("the thread signals cannot be started: {why}"))?;
    Ok(rx)
}

impl Inputs {
    /// Waits for what ends the role. Meanwhile the configuration is reloaded when a signal asks for it.
    fn wait(&self, redis: impl Fn(Option<String>), mut reload: impl FnMut()) -> Turn {
        loop {
            select_biased! {
                recv(self.signals) -> signal => match signal {
                    Ok(SIGHUP) => reload(),
                    _ => return Turn::Stop,
                },
                recv(self.lease) -> event => match event {
                    Ok(LeaseEvent::Leads { token, previous, silent_for }) => {
                        return Turn::Leads(Lead { token, previous, silent_for });
                    }
                    // Without its thread nobody asks for the lease.
                    Ok(LeaseEvent::Deposed { .. }) | Err(_) => return Turn::Deposed,
                    Ok(LeaseEvent::CannotLead(why)) => error!("{why}"),
                    Ok(LeaseEvent::RedisLost(why)) => {
                        warn!("the cluster's Redis cannot be used: {why}");
                        redis(Some(why));
                    }
                    Ok(LeaseEvent::RedisBack { restarted }) => {
                        let how = if restarted { ", and was restarted" } else { "" };
                        info!("the cluster's Redis can be used again{how}");
                        redis(None);
                    }
                },
                recv(self.step_down) -> _ => return Turn::StepDown,
            }
        }
    }
}
