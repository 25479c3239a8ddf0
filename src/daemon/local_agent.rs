//! The daemon's own machine as one of its hosts: what `hbc` does on others, without the network.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::{info, warn};
use ring::hmac;

use super::threads::Threads;
use crate::agent::beat::split;
use crate::agent::collect::{Collector, Sample};
use crate::agent::host_info;
use crate::agent::settings::LocalAgentSettings;
use crate::clock::{Now, Wall};
use crate::config::Config;
use crate::heartbeat::datagram::Rejection;
use crate::heartbeat::encode::{OutgoingDatagram, sign, signing_key};
use crate::heartbeat::monitor::Monitor;
use crate::heartbeat::settings::Expectation;
use crate::secret::Secret;
use crate::thread::{Stop, StopSource, lock};

/// A collector that waits for a disk is late, not dead.
const MIN_GRACE: Duration = Duration::from_secs(60);

/// The connection over which a node of a cluster says what its machine does: the node that leads is
/// another one, most of the time.
const CONNECTION: &str = "agent";

/// The host that this machine is, and how often the monitor may expect a beat of it. None in a cluster,
/// where each node is a host as others are.
pub fn expectation(config: &Config) -> Option<(String, Expectation)> {
    let settings = config.agent.as_ref().filter(|_| config.cluster.is_none())?;
    let own = config.host(&settings.host).and_then(|host| host.grace);
    let interval = settings.interval;
    let grace = own.unwrap_or_else(|| interval.saturating_mul(2).max(MIN_GRACE));
    Some((settings.host.clone(), Expectation { interval, grace }))
}

/// Who is told what this machine does.
#[derive(Clone)]
pub enum AgentTarget {
    /// The monitor of this daemon.
    Monitor(Arc<Monitor>),
    /// The node of a cluster, whoever leads.
    Node(IngestOwn),
}

/// Takes a datagram that this process made itself.
pub type IngestOwn = Arc<dyn Fn(&[u8], IpAddr, Now) -> Result<(), Rejection> + Send + Sync>;

/// The thread `agent`, while the configuration has the section `agent`.
pub struct LocalAgent {
    target: AgentTarget,
    threads: Threads,
    running: Mutex<Option<RunningAgent>>,
}

struct RunningAgent {
    identity: AgentIdentity,
    _stop_source: StopSource,
}

/// As whom it speaks.
#[derive(Clone, PartialEq)]
struct AgentIdentity {
    settings: LocalAgentSettings,
    /// The key of the host, or that of all hosts.
    key: Option<Secret>,
}

impl AgentIdentity {
    fn from_config(config: &Config) -> Option<AgentIdentity> {
        let settings = config.agent.clone()?;
        let own = config.host(&settings.host).and_then(|host| host.key.clone());
        let key = own.or_else(|| config.heartbeat.key.clone());
        Some(AgentIdentity { settings, key })
    }
}

impl LocalAgent {
    /// An agent that does not run yet.
    pub fn new(target: AgentTarget, threads: Threads) -> LocalAgent {
        LocalAgent { target, threads, running: Mutex::default() }
    }

    /// Starts, stops or restarts the thread as the configuration says. To be called when the monitor
    /// has that configuration already.
    ///
    /// # Errors
    /// When the thread cannot be started; none runs then.
    pub fn reconfigure(&self, config: &Config) -> Result<(), String> {
        let identity = AgentIdentity::from_config(config);
        let mut running = lock(&self.running);
        if running.as_ref().map(|running| &running.identity) == identity.as_ref() {
            return Ok(());
        }
        // It ends by itself when it wakes: a collector that hangs must not hold up the reload.
        *running = None;
        let Some(identity) = identity else { return Ok(()) };
        let (stop_source, stop) = Stop::channel();
        let (target, own) = (self.target.clone(), identity.clone());
        self.threads.spawn("agent", move || run(&own, &target, &stop))?;
        *running = Some(RunningAgent { identity, _stop_source: stop_source });
        Ok(())
    }

    /// Ends the thread.
    pub fn stop(&self) {
        *lock(&self.running) = None;
    }
}

/// Collects metrics and hands them on until the stop.
fn run(identity: &AgentIdentity, target: &AgentTarget, stop: &Stop) {
    let settings = &identity.settings;
    let mut collector = Collector::for_service(&settings.metrics);
    let mut sender = NodeSender::new(identity);
    let (mut last_error, mut logged) = (None, false);
    info!("this machine is watched as {}", settings.host);
    loop {
        let begun = Now::read();
        let metrics = collector.collect(begun);
        if stop.stopped() {
            return;
        }
        let now = Now::read();
        let texts = collector.texts(now);
        let taken = match target {
            AgentTarget::Monitor(monitor) => {
                monitor.ingest_local(&settings.host, &metrics, &texts, now)
            }
            AgentTarget::Node(ingest) => sender.send(ingest, Sample { metrics, texts }, now),
        };
        let why = taken.err();
        // A single error may come from a reload that is about to end this thread.
        if let Some(why) = why.filter(|_| last_error == why && !logged) {
            warn!("not all figures of {} could be taken: {why}", settings.host);
        }
        logged = why.is_some() && last_error == why;
        last_error = why;
        let spent = now.mono.since(begun.mono);
        if stop.wait(settings.interval.saturating_sub(spent)) {
            return;
        }
    }
}

/// Says what a machine does as hbc would, to the node that runs on it.
struct NodeSender {
    first: OutgoingDatagram,
    further: OutgoingDatagram,
    key: Option<hmac::Key>,
    last: Wall,
}

impl NodeSender {
    fn new(identity: &AgentIdentity) -> NodeSender {
        let further = OutgoingDatagram {
            host: identity.settings.host.clone(),
            connection: Some(CONNECTION.into()),
            interval: Some(identity.settings.interval),
            ..OutgoingDatagram::default()
        };
        NodeSender {
            first: OutgoingDatagram { boot_id: host_info::boot_id().ok(), ..further.clone() },
            further,
            key: identity.key.as_ref().map(signing_key),
            last: Wall::default(),
        }
    }

    fn send(&mut self, ingest: &IngestOwn, mut sample: Sample, now: Now) -> Result<(), Rejection> {
        sample.metrics.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        sample.metrics.dedup_by(|one, other| one.0 == other.0);
        for mut beat in split::beats(&sample, &self.first, &self.further) {
            // Of two that are signed the second is later.
            self.last = Wall((self.last.0 + 1).max(now.wall.0));
            beat.time = Some(self.last);
            let json = beat.json();
            let bytes = self.key.as_ref().map_or(json.clone(), |key| sign(key, &json));
            ingest(&bytes, IpAddr::V4(Ipv4Addr::LOCALHOST), now)?;
        }
        Ok(())
    }
}
