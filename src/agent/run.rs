//! `hbc run`: beats until a signal stops it. One thread waits and sends; resolving names and collecting
//! metrics have threads of their own, because either may take any time.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use super::beat::scheduler::{BeatScheduler, HostIdentity};
use super::beat::session::{ClockReading, LinkChange};
use super::collect::Sample;
use super::endpoint::Endpoint;
use super::host_info;
use super::poll::{Poller, Waker};
use super::resolver::Resolver;
use super::sampler::{CollectFn, Sampler};
use super::settings::{self, AgentSettings, CliOverrides};
use super::shutdown_reason;
use super::signals::{SignalAction, SignalFlags};
use crate::clock::{Mono, Now, Wall, format_duration};
use crate::heartbeat::datagram::MAX_BYTES;
use crate::heartbeat::encode;
use crate::problem::Problems;
use crate::systemd;
use crate::{descriptors, memory};

/// Why it did not run.
#[derive(Debug)]
pub enum RunError {
    /// The configuration is refused.
    Configuration(Problems),
    /// Something else; a sentence.
    Other(String),
}

impl From<String> for RunError {
    fn from(why: String) -> RunError {
        RunError::Other(why)
    }
}

/// Runs until SIGTERM, SIGINT or SIGUSR1. `collect` gives what collects the metrics that the
/// settings ask for.
///
/// # Errors
/// When it cannot start, or cannot wait any more.
pub fn run(
    overrides: &CliOverrides,
    collect: &dyn Fn(&AgentSettings) -> Option<CollectFn>,
) -> Result<(), RunError> {
    memory::limit_arenas(ARENAS);
    descriptors::close_inherited_on_exec();
    memory::split_program(MAPPING_SIZE);
    let mut poller = Poller::new().map_err(|why| format!("nothing can be waited for: {why}"))?;
    let signals = SignalFlags::new(&poller.waker())
        .map_err(|why| format!("the signals cannot be received: {why}"))?;
    let mut settings = load(overrides).map_err(RunError::Configuration)?;
    let last_timestamp = LastTimestamp::open(systemd::runtime_directory());
    let waker = poller.waker();
    let mut agent = Agent::new(&settings, collect(&settings), &waker, last_timestamp)?;
    systemd::notify("READY=1");
    memory::trim();
    while agent.run(&mut poller, &signals)? == SignalAction::Reload {
        match load(overrides) {
            Ok(new) if new == settings => info!("the configuration is as it was"),
            Ok(new) => {
                agent = Agent::new(&new, collect(&new), &waker, agent.last_timestamp)?;
                settings = new;
            }
            Err(problems) => {
                problems.0.iter().for_each(|problem| error!("{problem}"));
                error!("the configuration stays as it was");
            }
        }
    }
    Ok(())
}

fn load(overrides: &CliOverrides) -> Result<AgentSettings, Problems> {
    let (settings, warnings) = AgentSettings::load(overrides, &|name| std::env::var(name).ok())?;
    for problem in &warnings.0 {
        warn!("{problem}");
    }
    settings.with_machine_name()
}

/// All threads share one arena of the allocator: by default each gets one of its own, with pages of
/// its own, for a speed that an agent does not need.
const ARENAS: i32 = 1;
/// With mappings of this size some 200 kB less of the program is resident; the kernel takes some 40 kB
/// for them.
const MAPPING_SIZE: usize = 8 * 1024;
/// How often a socket is opened again where there is no route.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(30);
/// A server that cannot be reached at all is reported after this time.
const REPORT_AFTER: Duration = Duration::from_secs(10);
/// How many datagrams are read from one socket before the others have their turn.
const MAX_RECEIVED_AT_ONCE: usize = 64;

/// The state of the loop: what is sent, the sockets, and the threads that it asks.
struct Agent {
    scheduler: BeatScheduler,
    /// In the order of the scheduler's connections.
    endpoints: Vec<Endpoint>,
    resolvers: Vec<Resolver>,
    /// In the order of the settings' servers.
    servers: Vec<ServerState>,
    sampler: Option<Sampler>,
    next_reconnect: Mono,
    interval: Duration,
    watchdog: Option<systemd::Watchdog>,
    last_timestamp: LastTimestamp,
}

/// Whether there is a route to a server.
#[derive(Debug, Default)]
struct ServerState {
    /// Since when none of its connections is present.
    unreachable_since: Option<Mono>,
    /// That was logged.
    reported: bool,
}

impl Agent {
    /// An agent as `settings` say, with the metrics that `collect` gives, whose timestamps are later
    /// than `last_timestamp`.
    ///
    /// # Errors
    /// What the machine lacks for it.
    fn new(
        settings: &AgentSettings,
        collect: Option<CollectFn>,
        waker: &Waker,
        last_timestamp: LastTimestamp,
    ) -> Result<Agent, String> {
        let now = Now::read();
        let identity = HostIdentity {
            host: settings.host.clone().map_or_else(settings::hostname, Ok)?,
            boot_id: host_info::boot_id().ok(),
            key: settings.key.as_ref().map(encode::signing_key),
            interval: settings.interval,
        };
        let endpoints = Endpoint::from_settings(settings);
        let mut resolvers: Vec<Resolver> = Vec::new();
        for endpoint in &endpoints {
            if !resolvers.iter().any(|resolver| *resolver.server() == endpoint.server) {
                resolvers.push(Resolver::start(endpoint.server.clone(), waker.clone(), now)?);
            }
        }
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        let every = format_duration(settings.interval);
        info!("{} beats every {every} to {}", identity.host, servers.join(", "));
        let connections =
            endpoints.iter().map(|endpoint| (endpoint.server_index, endpoint.connection.clone()));
        Ok(Agent {
            scheduler: BeatScheduler::new(identity, connections, last_timestamp.get(), now),
            endpoints,
            resolvers,
            servers: settings.servers.iter().map(|_| ServerState::default()).collect(),
            sampler: collect.map(|collect| Sampler::start(collect, waker.clone())).transpose()?,
            next_reconnect: now.mono,
            interval: settings.interval,
            watchdog: systemd::Watchdog::from_environment(now.mono),
            last_timestamp,
        })
    }

    /// Runs until a signal asks for something; what it asks for. Before
    /// [`Stop`](SignalAction::Stop) the shutdown was sent.
    ///
    /// # Errors
    /// When it cannot wait any more.
    fn run(&mut self, poller: &mut Poller, signals: &SignalFlags) -> Result<SignalAction, String> {
        let mut action = None;
        loop {
            let now = Now::read();
            if action.is_none() {
                action = signals.take();
                match action {
                    Some(SignalAction::Stop) => {
                        let reason = shutdown_reason::find();
                        self.scheduler.shut_down(reason, host_info::uptime().ok(), Now::read());
                        continue;
                    }
                    Some(other) => return Ok(other),
                    None => {}
                }
            }
            if self.scheduler.is_finished(now) {
                return Ok(SignalAction::Stop);
            }
            self.process_due(now);
            self.wait(poller).map_err(|why| format!("nothing can be waited for: {why}"))?;
        }
    }

    /// Does everything whose time has come.
    fn process_due(&mut self, now: Now) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(now.mono);
        }
        self.update_addresses(now);
        if self.scheduler.start_round(now) {
            for (index, endpoint) in self.endpoints.iter_mut().enumerate() {
                endpoint.fail_over(self.scheduler.session(index));
            }
            self.connect(now);
            match &mut self.sampler {
                Some(sampler) => sampler.request(now),
                None => {
                    self.scheduler.send_round(&Sample::default(), host_info::uptime().ok(), now)
                }
            }
        } else if self.next_reconnect <= now.mono {
            self.connect_and_send(now);
        }
        if let Some(sample) = self.sampler.as_mut().and_then(Sampler::take_sample) {
            self.scheduler.send_round(&sample, host_info::uptime().ok(), now);
        } else if self.scheduler.metrics_overdue(now) {
            self.scheduler.send_round(&Sample::default(), host_info::uptime().ok(), now);
        }
        for (index, change) in self.scheduler.detect_silence(now) {
            let known = self.scheduler.session(index).has_answered();
            log_change(&self.endpoints[index], &change, known);
        }
        for (index, bytes) in self.scheduler.due(read_clock()) {
            self.endpoints[index].send(&bytes);
        }
        self.last_timestamp.store(self.scheduler.last_timestamp());
    }

    /// Takes over what the resolvers found, and has them resolve again where that is due.
    fn update_addresses(&mut self, now: Now) {
        let mut changed = false;
        for resolver in &mut self.resolvers {
            let result = resolver.take_result(now);
            let of_server = |endpoint: &&mut Endpoint| endpoint.server == *resolver.server();
            let endpoints = self.endpoints.iter_mut().filter(of_server);
            match result {
                Some(Ok(addresses)) => {
                    endpoints.for_each(|endpoint| endpoint.addresses.update(&addresses));
                    changed = true;
                }
                Some(Err(why)) => {
                    let unknown = endpoints.filter(|endpoint| endpoint.addresses.is_empty());
                    unknown.for_each(|endpoint| endpoint.last_error = Some(why.clone()));
                }
                None => {}
            }
            let suspect = is_suspect(&self.endpoints, &self.scheduler, resolver);
            if !suspect {
                resolver.on_server_answers();
            }
            resolver.request_if_due(suspect, now);
        }
        if changed {
            self.connect_and_send(now);
        }
    }

    /// Opens the sockets that can be opened now, and sends at once over a new one.
    fn connect_and_send(&mut self, now: Now) {
        if self.connect(now) {
            self.scheduler.send_now(now);
        }
    }

    /// Opens the sockets that can be opened now; whether one was opened.
    fn connect(&mut self, now: Now) -> bool {
        self.next_reconnect = now.mono + RECONNECT_INTERVAL.min(self.interval);
        let mut opened = false;
        for (index, endpoint) in self.endpoints.iter_mut().enumerate() {
            opened |= endpoint.connect();
            // A connection that answered once, or is configured, is reported when it fails.
            let expected = endpoint.named || self.scheduler.session(index).has_answered();
            self.scheduler.set_present(index, expected || endpoint.socket().is_some());
        }
        for server in 0..self.servers.len() {
            self.log_reachability(server, now);
        }
        opened
    }

    /// Logs that there is no route at all to a server, and its return, once.
    fn log_reachability(&mut self, server: usize, now: Now) {
        let all: Vec<usize> = (0..self.endpoints.len())
            .filter(|index| self.endpoints[*index].server_index == server)
            .collect();
        let address = &self.endpoints[all[0]].server;
        let state = &mut self.servers[server];
        if all.iter().any(|index| self.scheduler.is_present(*index)) {
            if std::mem::take(state).reported {
                info!("{address}: there is a way to it now");
            }
            return;
        }
        let since = *state.unreachable_since.get_or_insert(now.mono);
        let overdue = now.mono.since(since) >= REPORT_AFTER;
        if overdue && !std::mem::replace(&mut state.reported, true) {
            let why = all.iter().find_map(|index| self.endpoints[*index].last_error.as_deref());
            let why = why.unwrap_or("its name is being looked for, and nobody answers");
            warn!("{address}: {why}; trying on");
        }
    }

    /// Waits until a datagram comes or something is due, and takes in what came.
    fn wait(&mut self, poller: &mut Poller) -> std::io::Result<()> {
        let resolvers = self.resolvers.iter().filter_map(Resolver::next_request);
        let watchdog = self.watchdog.as_ref().map(systemd::Watchdog::next);
        let own = [self.next_reconnect, self.scheduler.next_deadline()];
        let until = resolvers.chain(watchdog).chain(own).min().unwrap_or(self.next_reconnect);
        let mut open = Vec::new();
        let mut sockets = Vec::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if let Some(socket) = endpoint.socket() {
                open.push(index);
                sockets.push(socket.as_raw_fd());
            }
        }
        for readable in poller.wait(until, &sockets)? {
            self.receive(open[readable]);
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) {
        let mut buffer = [0; MAX_BYTES];
        for _ in 0..MAX_RECEIVED_AT_ONCE {
            let Some(bytes) = self.endpoints[index].receive(&mut buffer) else { return };
            let known = self.scheduler.session(index).has_answered();
            match self.scheduler.ingest(index, bytes, read_clock()) {
                Ok(change) => {
                    let endpoint = &mut self.endpoints[index];
                    endpoint.last_error = None;
                    match change {
                        Some(change) => log_change(endpoint, &change, true),
                        None if !known => info!("{} answers", endpoint.label()),
                        None => {}
                    }
                    if !known {
                        // What only the start and the first beat needed is free by now.
                        memory::trim();
                    }
                }
                Err(why) => self.endpoints[index].last_error = Some(why.into()),
            }
        }
    }
}

fn read_clock() -> ClockReading {
    ClockReading { now: Now::read(), instant: Instant::now() }
}

/// Whether a server may be elsewhere by now: none of its connections answers, or one of them has
/// just ceased to.
fn is_suspect(endpoints: &[Endpoint], scheduler: &BeatScheduler, resolver: &Resolver) -> bool {
    let of_server = |index: &usize| {
        endpoints[*index].server == *resolver.server() && scheduler.is_present(*index)
    };
    let sessions = || (0..endpoints.len()).filter(of_server).map(|index| scheduler.session(index));
    sessions().all(|session| session.is_failing())
        || sessions()
            .any(|session| session.is_failing() && session.has_answered() && !session.is_silent())
}

/// Logs a change; `known` says whether the server ever answered over this connection.
fn log_change(endpoint: &Endpoint, change: &LinkChange, known: bool) {
    let label = endpoint.label();
    match change {
        LinkChange::Silent(time) => {
            let why = endpoint.last_error.as_deref().unwrap_or(if known {
                "nothing comes back"
            } else {
                "is hbd listening there, does it know this host, do key and clock agree?"
            });
            warn!("{label} has not answered for {}: {why}", format_duration(*time));
        }
        LinkChange::Recovered(time) => {
            info!("{label} answers again, after {}", format_duration(*time))
        }
    }
}

/// The last timestamp, kept for the next start of the agent: hbd believes no earlier one, and the
/// clock may be set back meanwhile.
///
/// It is milliseconds since 1970 as text, in the file `told` of the runtime directory that systemd
/// gives (systemd.exec(5)): that lies in memory and does not outlive the boot.
struct LastTimestamp {
    file: Option<PathBuf>,
    last: Wall,
}

impl LastTimestamp {
    /// What an earlier agent stored in `directory`. Without one it is kept in this process only.
    fn open(directory: Option<PathBuf>) -> LastTimestamp {
        let file = directory.map(|directory| directory.join("told"));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let last = text.and_then(|text| text.trim().parse().ok()).map(Wall).unwrap_or_default();
        LastTimestamp { file, last }
    }

    fn get(&self) -> Wall {
        self.last
    }

    fn store(&mut self, last: Wall) {
        if last == self.last {
            return;
        }
        self.last = last;
        if let Some(file) = &self.file
            && let Err(why) = fs::write(file, last.0.to_string())
        {
            debug!("{} cannot be written: {why}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_knows_what_was_told_last() {
        let directory = tempfile::tempdir().unwrap();
        let open = || LastTimestamp::open(Some(directory.path().to_owned()));
        assert_eq!(open().get(), Wall(0), "nothing was");
        open().store(Wall(1_700_000_000_123));
        assert_eq!(open().get(), Wall(1_700_000_000_123));
        fs::write(directory.path().join("told"), "").unwrap();
        assert_eq!(open().get(), Wall(0), "that was cut off");
    }

    #[test]
    fn without_a_place_it_is_known_until_the_end() {
        let mut last_timestamp = LastTimestamp::open(None);
        last_timestamp.store(Wall(5));
        assert_eq!(last_timestamp.get(), Wall(5));
        let mut last_timestamp = LastTimestamp::open(Some("/nonexistent".into()));
        last_timestamp.store(Wall(5));
        assert_eq!(last_timestamp.get(), Wall(5));
    }
}
