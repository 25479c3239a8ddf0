//! A node of a cluster that does not lead: its sockets are bound and read, HTTP answers what it can,
//! and everything is there to take over.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{info, warn};

use super::cluster_file::KnownCluster;
use super::config_diff;
use super::listeners::{HttpSource, NewListeners, UdpServer, UdpSource};
use super::local_agent::{AgentTarget, IngestOwn, LocalAgent};
use super::node::ClusterNode;
use super::peers::Peers;
use super::reload::{self, Reloads};
use super::service::{COMMIT_TIMEOUT, answer_when_stored, rejection_answer};
use super::sockets::{BoundSockets, InheritedSockets};
use super::startup::{ClusterLead, Startup};
use super::takeover;
use super::threads::Threads;
use super::watchdog::{self, StandbyCheck};
use super::wiring::{self, Current};
use super::{DaemonError, RunningDaemon, config_error};
use crate::agent::host_info;
use crate::backup::alert::{self, AlertNames};
use crate::clock::{Mono, Now};
use crate::cluster::connection::Connector;
use crate::cluster::keys::Keys;
use crate::cluster::lease::{Lease, LeaseEvent, LeaseOptions, new_incarnation};
use crate::cluster::settings::ClusterSettings;
use crate::cluster::tables::RedisTables;
use crate::cluster::token::Token;
use crate::config::Config;
use crate::heartbeat::persistence::kernel_tag;
use crate::http::service::StandbyDaemon;
use crate::http::{HttpServer, Ingest, IngestResult, ReloadResult, Service};
use crate::problem::{ListenError, Problems};
use crate::store::{DirectoryLock, OpenResult, Store, Table};
use crate::thread::{ProgressCounter, Stop, StopSource};
use crate::version::VERSION;
use crate::view::cluster::ClusterView;

/// How long the stop waits for threads that are ending.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A node that stands by.
pub struct StandbyNode {
    config: Config,
    settings: ClusterSettings,
    connector: Connector,
    node: Arc<ClusterNode>,
    peers: Arc<Peers>,
    agent: LocalAgent,
    services: Arc<StandbyServices>,
    /// None where the state directory cannot be written.
    lock: Option<DirectoryLock>,
    udp: UdpServer,
    udp_progress: ProgressCounter,
    http_server: HttpServer,
    threads: Threads,
    /// Of the threads that only a standby has.
    stop_source: StopSource,
}

/// How the lead came to this node.
pub struct Lead {
    /// What it leads by.
    pub token: Token,
    /// What the node before led by.
    pub previous: Option<Token>,
    /// Since when that one gave no sign.
    pub silent_for: Option<Duration>,
}

impl StandbyNode {
    /// Opens what a node needs, and begins to ask for the lead. Redis need not be there.
    ///
    /// # Errors
    /// When a socket cannot be bound, the state directory is in use, or no thread can be started.
    pub fn start(
        config: Config,
        settings: ClusterSettings,
        inherited: InheritedSockets,
        step_down: Sender<()>,
    ) -> Result<(StandbyNode, Receiver<LeaseEvent>), DaemonError> {
        let lock = lock_directory(&config)?;
        let losses = inherited.losses().to_vec();
        let sockets = BoundSockets::open(&config, inherited)?;
        let connector = Connector::new(&settings)
            .map_err(|why| format!("cluster: Redis cannot be asked: {why}"))?;
        // One that was deposed has no dead predecessor: of two machines with one name each would take the
        // lease of the other, again and again.
        let predecessor_dead = lock.is_some() && losses.is_empty();
        let options = lease_options(&config, &settings, losses.clone(), predecessor_dead)?;
        let incarnation = options.incarnation.clone();
        let (lease, events) = Lease::start(connector.clone(), options)
            .map_err(|why| format!("the thread lease cannot be started: {why}"))?;
        let node = Arc::new(ClusterNode::new(settings.clone(), lease, losses, step_down));
        node.sockets.keep(&sockets.udp, &sockets.tcp);
        let (threads, progress) = (Threads::default(), ProgressCounter::default());
        let rules = wiring::fleet_config(&config);
        let peers = Peers::start(Arc::clone(&node), connector.clone(), &rules, &incarnation)?;
        let listen = peers.listen(progress.clone());
        let udp = UdpSource::Bound(sockets.udp).start(listen, &threads)?;
        let own = Arc::clone(&peers);
        let target: IngestOwn = Arc::new(move |bytes, from, now| own.ingest_own(bytes, from, now));
        let agent = LocalAgent::new(AgentTarget::Node(target), threads.clone());
        agent.reconfigure(&config)?;
        let services = Arc::new(StandbyServices {
            node: Arc::clone(&node),
            peers: Arc::clone(&peers),
            alert_names: Current::new(wiring::alert_names(&config)),
            reloads: Reloads::new(&config, Now::read()),
        });
        let service = Service::Standby(Arc::clone(&services) as Arc<dyn StandbyDaemon>);
        let http_server = HttpSource::Bound(sockets.tcp).start(service, &config)?;
        let (stop_source, stop) = Stop::channel();
        let mut check = StandbyCheck::new(progress.clone(), http_server.probe());
        watchdog::start(move |timeout| check.run(timeout), &threads, &stop)?;
        let standby = StandbyNode {
            config,
            settings,
            connector,
            node,
            peers,
            agent,
            services,
            lock,
            udp,
            udp_progress: progress,
            http_server,
            threads,
            stop_source,
        };
        standby.log_ready();
        Ok((standby, events))
    }

    fn log_ready(&self) {
        let udp = self.udp.address();
        info!(
            "hbd {VERSION} is ready: {} stands by in the cluster {}, heartbeats on UDP {udp}, HTTP on {}, \
             state in {}",
            self.settings.node,
            self.settings.name,
            self.http_server.address(),
            self.config.state_dir.display()
        );
    }

    /// This node.
    pub fn node(&self) -> &Arc<ClusterNode> {
        &self.node
    }

    /// Leads from now on: opens what is stored in Redis, and starts as a daemon does that was away.
    ///
    /// # Errors
    /// A sentence. The lead should be given back, and hbd start anew.
    pub fn take_over(self, lead: &Lead) -> Result<RunningDaemon, DaemonError> {
        let begun = Instant::now();
        let known = KnownCluster { epoch: lead.token.epoch, id: self.node.lease().id() };
        if let Err(why) = known.write(&self.config.state_dir) {
            warn!("the number of this takeover is not on disk here: {why}");
        }
        let StandbyNode {
            config,
            settings,
            connector,
            node,
            peers,
            agent,
            lock,
            udp,
            http_server,
            ..
        } = self;
        let now = Now::read();
        let lease = node.lease().clone();
        let token = Arc::new(move || lease.token());
        let tables = RedisTables::new(connector, Keys::new(&settings.name), token);
        let (mut store, opened) = Store::open_shared(lock, Arc::new(tables), now);
        if let OpenResult::Failed { why } = opened {
            return Err(DaemonError::Other(why));
        }
        takeover::take_over_renamed(&mut store, &config, now)?;
        let rows = store.rows(Table::Outbox);
        let repeats = rows.iter().filter(|(_, row)| is_in_flight(row)).count();
        let waiting = rows.len();
        let udp = UdpSource::Running(udp, self.udp_progress);
        let sources = (udp, HttpSource::Running(http_server));
        let previous = lead.previous.as_ref().map(|token| token.node.clone());
        let previous = previous.filter(|name| name != node.node_name());
        let cluster = ClusterLead { node: Arc::clone(&node), peers, previous, agent };
        let startup = Startup::with(store, opened, sources, Some(cluster), now);
        let daemon = RunningDaemon::start_on(config, startup, self.threads)?;
        drop(self.stop_source);
        node.record_takeover();
        info!(
            "{} leads now (epoch {}): {}; {} hosts, {waiting} deliveries wait, {repeats} may have been \
             sent ({:.1} s)",
            settings.node,
            lead.token.epoch,
            reason(lead, &settings),
            daemon.hosts(),
            begun.elapsed().as_secs_f64()
        );
        Ok(daemon)
    }

    /// Applies what the configuration file says now, or nothing of it.
    pub fn reload(&mut self) {
        let services = Arc::clone(&self.services);
        services.reloads.serve(|| self.apply_file());
    }

    fn apply_file(&mut self) -> Result<(Vec<String>, Problems), Problems> {
        let config = Config::load(&self.config.file)?;
        reload::check_fixed(&self.config, &config)?;
        let refused =
            |error: ListenError| Problems(vec![config_error(&config, (error.key, error.why))]);
        let mut listeners = NewListeners::open(&self.config, &config, &self.udp, &self.http_server)
            .map_err(refused)?;
        let kept = listeners.duplicate();
        self.http_server.set_credentials(wiring::credentials(&config));
        if let Err(error) = listeners.move_http(&mut self.http_server) {
            self.http_server.set_credentials(wiring::credentials(&self.config));
            return Err(refused(error));
        }
        self.node.sockets.replace(kept);
        listeners.move_udp(&mut self.udp);
        config.warnings.0.iter().for_each(|problem| warn!("{problem}"));
        let changes = config_diff::changes(&self.config, &config);
        self.peers.reconfigure(&wiring::fleet_config(&config));
        self.services.alert_names.replace(wiring::alert_names(&config));
        let mut warnings = config.warnings.clone();
        if let Err(why) = self.agent.reconfigure(&config) {
            let what = format!("this machine is not watched: {why}");
            warnings.0.push(config_error(&config, ("agent", what)));
        }
        self.services.reloads.record_applied(&config, Now::read());
        self.node.lease().set_configuration(config.fingerprint);
        self.config = config;
        Ok((changes, warnings))
    }

    /// Stops.
    pub fn stop(self) {
        self.node.begin_stop();
        self.services.reloads.close();
        self.http_server.stop();
        self.agent.stop();
        drop(self.stop_source);
        self.udp.close();
        self.node.release();
        for name in self.threads.join(Instant::now() + STOP_TIMEOUT) {
            warn!("thread {name} did not end");
        }
        info!("stopped");
    }
}

/// The lock of the state directory; none where it cannot be had, as on a disk that is read-only: what a
/// node needs is in Redis.
///
/// # Errors
/// A sentence: another daemon holds it.
fn lock_directory(config: &Config) -> Result<Option<DirectoryLock>, String> {
    let held = DirectoryLock::try_hold(&config.state_dir)
        .map_err(|locked| format!("state_dir: {}", locked.why))?;
    if let Err(why) = &held {
        warn!("state_dir: {why}: this node goes on without its lock");
    }
    Ok(held.ok())
}

/// What this process asks for the lease with. `predecessor_dead` needs the lock of the state directory,
/// which one process has at a time.
///
/// # Errors
/// A sentence: it has no name of its own.
pub fn lease_options(
    config: &Config,
    settings: &ClusterSettings,
    lost_at: Vec<Mono>,
    predecessor_dead: bool,
) -> Result<LeaseOptions, String> {
    let known = KnownCluster::read(&config.state_dir);
    Ok(LeaseOptions {
        settings: settings.clone(),
        incarnation: new_incarnation()?,
        predecessor_dead,
        highest_epoch: known.epoch,
        known_id: known.id,
        lost_at,
        kernel: kernel_tag(&host_info::boot_id().unwrap_or_default()),
        configuration: config.fingerprint,
        version: VERSION,
    })
}

/// Why this node leads.
fn reason(lead: &Lead, settings: &ClusterSettings) -> String {
    match &lead.previous {
        None => "no node led before".into(),
        Some(token) if token.node == settings.node => "it led before".into(),
        Some(token) => match lead.silent_for {
            // It is renewed each quarter of its time.
            Some(time) if time < settings.lease * 3 / 4 => {
                format!("{} gave the lead back", token.node)
            }
            Some(time) => format!("{} gave no sign for {:.1} s", token.node, time.as_secs_f64()),
            None => format!("{} led before", token.node),
        },
    }
}

/// Whether the row of a delivery says that an attempt was under way.
fn is_in_flight(row: &[u8]) -> bool {
    const FIELD: &[u8] = br#""in_flight":true"#;
    row.windows(FIELD.len()).any(|part| part == FIELD)
}

/// A node that does not lead, as the HTTP server sees it.
struct StandbyServices {
    node: Arc<ClusterNode>,
    peers: Arc<Peers>,
    alert_names: Current<AlertNames>,
    reloads: Reloads,
}

impl StandbyDaemon for StandbyServices {
    fn ready(&self) -> Result<(), String> {
        self.node.redis_trouble().map_or(Ok(()), Err)
    }

    fn cluster(&self) -> ClusterView {
        self.node.view()
    }

    fn ingest_heartbeat(&self, body: &[u8], peer: IpAddr) -> Ingest {
        let (tx, rx) = bounded(1);
        let then = move |_ack, stored| {
            // Fails when the request no longer waits.
            let _ = tx.send(stored);
        };
        match self.peers.ingest_over_http(body, peer.to_canonical(), then) {
            Ok(()) => answer_when_stored(rx),
            Err(why) => Ingest::Done(rejection_answer(why)),
        }
    }

    fn ingest_alert(&self, body: &[u8], peer: IpAddr) -> Ingest {
        if let Err(why) = alert::from_webhook(body, &self.alert_names.get(), Now::read().wall) {
            return Ingest::Done(IngestResult::Malformed(why));
        }
        let (rx, deadline) =
            (self.peers.deposit_alert(body, peer), Instant::now() + COMMIT_TIMEOUT);
        Ingest::Pending(Box::new(move || match rx.recv_deadline(deadline) {
            Ok(Ok(())) => IngestResult::Stored,
            Ok(Err(why)) => IngestResult::Unavailable(why),
            Err(_) => IngestResult::Unavailable("the cluster's Redis is slow".into()),
        }))
    }

    fn last_reload_refused(&self) -> bool {
        self.reloads.refused()
    }

    fn reload(&self) -> ReloadResult {
        self.reloads.request()
    }
}
