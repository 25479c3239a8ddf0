//! What a daemon begins with: the store, the sockets and the clocks, before a thread runs; and the
//! features with the state that the store has of them.

use std::sync::Arc;
use std::time::Duration;

use super::backups::Backups;
use super::dyndns;
use super::history;
use super::listeners::{HttpSource, UdpSource};
use super::local_agent::LocalAgent;
use super::notifications;
use super::peers::Peers;
use super::reload::Reloads;
use super::service::Services;
use super::sockets::{BoundSockets, InheritedSockets};
use super::summary::Summaries;
use super::takeover;
use super::wiring::{self, Current, HeartbeatAlerts, LabelledHosts};
use super::{DaemonError, node::ClusterNode};
use crate::agent::host_info;
use crate::clock::Now;
use crate::config::Config;
use crate::event::Incident;
use crate::heartbeat::clocks::ClusterClocks;
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::fleet::receivers::RECEIVERS_KEY;
use crate::heartbeat::fleet::restore::Takeover;
use crate::heartbeat::fleet::storm::STORM_KEY;
use crate::heartbeat::monitor::{self, Monitor};
use crate::heartbeat::persistence::{HostRow, LastAlive};
use crate::notify::courier::Courier;
use crate::notify::notifier::Notifier;
use crate::store::{ChangeSink, OpenResult, RawRow, Store, Table};
use crate::thread::Stop;

/// A longer age of a stored time is not believed: a clock was wrong.
const MAX_PLAUSIBLE_AGE: Duration = Duration::from_secs(48 * 3600);

/// The store, the sockets and the clocks.
pub struct Startup {
    /// The state.
    pub store: Store,
    /// What happened while it was opened.
    pub opened: OpenResult,
    /// When a daemon last listened.
    pub last_alive: Option<LastAlive>,
    /// A message said that the Alertmanager that is polled does not answer.
    pub alertmanager_silent: bool,
    /// The boot of the kernel whose clock counts.
    pub kernel_boot: String,
    /// The time of the start.
    pub now: Now,
    /// Where heartbeats come in.
    pub udp: UdpSource,
    /// Where HTTP does.
    pub http: HttpSource,
    /// The cluster that this daemon leads.
    pub cluster: Option<ClusterLead>,
}

/// What a node of a cluster leads with.
pub struct ClusterLead {
    /// The node.
    pub node: Arc<ClusterNode>,
    /// The others.
    pub peers: Arc<Peers>,
    /// Which of them led before.
    pub previous: Option<String>,
    /// What watches the machine of this one.
    pub agent: LocalAgent,
}

impl Startup {
    /// Of a daemon that is no node of a cluster: its own file, and new sockets.
    ///
    /// # Errors
    /// When another daemon has the file, or a socket cannot be bound.
    pub fn prepare(config: &Config) -> Result<Startup, DaemonError> {
        let now = Now::read();
        let (mut store, opened) = Store::open(&config.state_dir, now)
            .map_err(|locked| format!("state_dir: {}", locked.why))?;
        takeover::take_over_renamed(&mut store, config, now)?;
        let BoundSockets { udp, tcp } = BoundSockets::open(config, InheritedSockets::default())?;
        let sources = (UdpSource::Bound(udp), HttpSource::Bound(tcp));
        Ok(Startup::with(store, opened, sources, None, now))
    }

    /// With a store that is open, and the sockets.
    pub fn with(
        store: Store,
        opened: OpenResult,
        (udp, http): (UdpSource, HttpSource),
        cluster: Option<ClusterLead>,
        now: Now,
    ) -> Startup {
        let last_alive = store.get(Table::Meta, monitor::LAST_ALIVE_KEY);
        let incidents = store.rows(Table::Troubles);
        let alertmanager_silent =
            incidents.iter().any(|(key, _)| *key == Incident::Alertmanager.key());
        let kernel_boot = host_info::boot_id().unwrap_or_default();
        Startup {
            store,
            opened,
            last_alive,
            alertmanager_silent,
            kernel_boot,
            now,
            udp,
            http,
            cluster,
        }
    }

    /// The rows that belong to no feature; none of a daemon that leads no cluster.
    pub fn meta_rows(&self) -> Vec<RawRow> {
        self.cluster.as_ref().map(|_| self.store.rows(Table::Meta)).unwrap_or_default()
    }

    /// The features, with the state that the store has of them.
    pub fn services(
        &self,
        config: &Config,
        courier: &Courier,
        sink: &ChangeSink,
        stop: &Stop,
    ) -> Services {
        let monitor = self.restore_fleet(config, courier, Arc::clone(sink));
        let backups = Backups::open(config, &self.store, sink, stop);
        let reporter = Arc::clone(&backups.reporter);
        let last_looks = Box::new(move || reporter.last_looks());
        let summaries = Summaries::open(&self.store, Arc::clone(sink), last_looks);
        let updater = dyndns::open(config, &self.store, courier, Arc::clone(sink), self.now);
        Services {
            updater,
            recorder: Arc::new(history::open(&monitor, courier, config.history.clone())),
            monitor,
            courier: courier.clone(),
            notifier: Current::new(Notifier::new(config).sharing(courier.channel_state())),
            sending: notifications::semaphore(),
            backups,
            summaries,
            heartbeat_alerts: Arc::new(Current::new(HeartbeatAlerts::from_config(config))),
            labels: Current::new(LabelledHosts::from_config(config)),
            reloads: Reloads::new(config, self.now),
            cluster: self.cluster.as_ref().map(|lead| Arc::clone(&lead.node)),
            peers: self.cluster.as_ref().map(|lead| Arc::clone(&lead.peers)),
        }
    }

    /// The hosts that the store has, under the present configuration.
    fn restore_fleet(&self, config: &Config, courier: &Courier, sink: ChangeSink) -> Arc<Monitor> {
        let rows = self.store.read::<HostRow>(Table::Hosts);
        let (rules, last_alive) = (wiring::fleet_config(config), self.last_alive.clone());
        let courier = courier.clone();
        let load = Box::new(move |host: &str, configured| wiring::load(&courier, host, configured));
        let monitor = |mut fleet: Fleet, now| {
            fleet.restore_storm(self.store.get(Table::Meta, STORM_KEY), now);
            Monitor::new(fleet, self.kernel_boot.clone(), sink, load)
        };
        let Some(ClusterLead { node, peers, previous, .. }) = &self.cluster else {
            let fleet = Fleet::restore(rules, rows, last_alive, self.now, &self.kernel_boot);
            return Arc::new(monitor(fleet, self.now));
        };
        peers.take_over(&rules.clone(), previous.as_deref(), |beats| {
            // What was heard since the start is not later than that.
            let now = Now::read();
            let lease = node.lease();
            let own = lease.offset().unwrap_or_else(|| now.wall.0 - now.mono.0);
            let takeover = Takeover {
                now,
                kernel_boot: self.kernel_boot.clone(),
                clocks: ClusterClocks { own, of: lease.clocks() },
                told_gone: self.store.get(Table::Meta, RECEIVERS_KEY).unwrap_or_default(),
                previous: previous.clone(),
                beats,
            };
            monitor(Fleet::restore_in_cluster(rules, rows, last_alive, takeover), now)
        })
    }
}

/// A time of an earlier run on this boot's clock: its age is what counts. An implausible age means
/// that a clock was wrong, and the time counts as now: late is better than never.
pub fn rebase_time(then: Now, last_alive: Option<&LastAlive>, kernel_boot: &str, now: Now) -> Now {
    match last_alive {
        Some(last_alive) if last_alive.kernel_boot == kernel_boot && then.mono <= now.mono => then,
        _ => {
            let age = now.wall.since(then.wall);
            let age = if age > MAX_PLAUSIBLE_AGE { Duration::ZERO } else { age };
            Now { mono: now.mono - age, wall: then.wall }
        }
    }
}
