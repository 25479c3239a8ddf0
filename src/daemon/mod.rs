//! The daemon: opens everything, starts the threads, reloads the configuration, stops in order.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, unbounded};
use log::{error, info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::clock::{self, Now};
use crate::config::Config;
use crate::descriptors;
use crate::event::{Event, EventKind};
use crate::http::{HttpServer, Service};
use crate::memory::{self, FreeMemory};
use crate::notify::channel::Channel;
use crate::notify::courier::{Courier, CourierExit, CourierHooks, EveryRow};
use crate::notify::notifier::Notifier;
use crate::notify::outbox::Outbox;
use crate::problem::{ListenError, Problem, Problems, Severity};
use crate::store::{Change, ChangeSink, OpenResult, RawRow, Store};
use crate::systemd;
use crate::thread::{DEFAULT_STACK, ProgressCounter, Stop, StopSource, spawn_critical};
use crate::version::VERSION;

mod alert_poller;
mod backups;
mod calm;
mod cluster;
mod cluster_file;
mod config_diff;
mod dyndns;
mod history;
pub mod inbox;
mod listeners;
mod local_agent;
pub mod migration;
mod node;
mod notifications;
mod peers;
mod reload;
mod service;
mod signal_check;
mod sockets;
mod standby;
mod startup;
mod summary;
mod takeover;
mod threads;
mod watchdog;
mod wiring;

use self::alert_poller::{AlertPoller, AlertTargets};
use self::listeners::{NewListeners, UdpServer, listen_for};
use self::local_agent::{AgentTarget, LocalAgent};
use self::service::Services;
use self::sockets::{InheritedSockets, KeptSockets};
use self::startup::{Startup, rebase_time};
use self::threads::Threads;
use self::watchdog::{Progress, ThreadCheck};
use self::wiring::{HeartbeatAlerts, LabelledHosts};

/// The arenas of the allocator that all threads of the daemon share.
const ARENAS: i32 = 2;

/// With mappings of this size some 1.5 MB less of the program is resident; the kernel takes 100 kB for
/// them.
const MAPPING_SIZE: usize = 16 * 1024;

/// How often memory that is free is given back to the kernel.
const RELEASE_INTERVAL: Duration = Duration::from_secs(5);

/// How often what was last heard is stored in a cluster, where another node may need it at any moment.
const CLUSTER_FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// With more hosts it is stored as rarely as without a cluster: each time is a row of some 300 bytes.
const CLUSTER_FLUSH_HOSTS: usize = 500;

/// How long the stop waits for programs that are being killed, and for threads that are ending.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a process that started itself anew tries a configuration again that is refused.
const CONFIG_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How long a reload waits for the list of open alarms.
const SUCCESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the daemon did not run.
#[derive(Debug)]
pub enum DaemonError {
    /// The configuration is refused.
    Configuration(Problems),
    /// Something else; a sentence.
    Other(String),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DaemonError::Configuration(problems) => problems.fmt(f),
            DaemonError::Other(why) => f.write_str(why),
        }
    }
}

impl From<String> for DaemonError {
    fn from(why: String) -> DaemonError {
        DaemonError::Other(why)
    }
}

impl From<ListenError> for DaemonError {
    fn from(error: ListenError) -> DaemonError {
        DaemonError::Other(error.to_string())
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub fn run(config_file: &Path) -> Result<(), DaemonError> {
    memory::limit_arenas(ARENAS);
    memory::split_program(MAPPING_SIZE);
    memory::release_large_blocks();
    raise_descriptor_limit();
    let inherited = InheritedSockets::take();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|why| format!("the signals cannot be received: {why}"))?;
    let config = match Config::load(config_file) {
        Ok(config) => config,
        // It ran until now, and systemd starts nothing again that ends because of its configuration: a
        // node would be lost to an edit that is half done.
        Err(problems) if inherited.is_anew() => match await_config(config_file, problems)? {
            Some(config) => config,
            None => return Ok(()),
        },
        Err(problems) => return Err(DaemonError::Configuration(problems)),
    };
    for problem in &config.warnings.0 {
        warn!("{problem}");
    }
    if let Some(settings) = config.cluster.clone() {
        return cluster::run(config, settings, inherited, signals);
    }
    let mut daemon = RunningDaemon::start(config)?;
    systemd::notify("READY=1");
    for signal in signals.forever() {
        if signal == SIGHUP {
            daemon.reload();
            continue;
        }
        info!("stopping");
        systemd::notify("STOPPING=1");
        break;
    }
    daemon.stop_whole()
}

/// Tries a configuration that was refused again and again, at once when SIGHUP comes; none when SIGTERM
/// or SIGINT comes before it is right. The signals are received beside those of the caller, who receives
/// each of them, too.
fn await_config(file: &Path, problems: Problems) -> Result<Option<Config>, DaemonError> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|why| format!("the signals cannot be received: {why}"))?;
    let handle = signals.handle();
    let (tx, rx) = unbounded();
    let pass = move || signals.forever().try_for_each(|signal| tx.send(signal)).is_ok();
    let thread = spawn_critical("signals", DEFAULT_STACK, pass)
        .map_err(|why| format!("the thread signals cannot be started: {why}"))?;
    let mut watchdog = systemd::Watchdog::from_environment(Now::read().mono);
    let mut logged = Vec::new();
    log_new(problems, &mut logged);
    let config = loop {
        if let Some(watchdog) = &mut watchdog {
            watchdog.feed(Now::read().mono);
        }
        match rx.recv_timeout(CONFIG_RETRY_INTERVAL) {
            Ok(SIGHUP) | Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                info!("stopping");
                systemd::notify("STOPPING=1");
                break None;
            }
        }
        match Config::load(file) {
            Ok(config) => {
                info!("{} can be used again", file.display());
                break Some(config);
            }
            Err(problems) => log_new(problems, &mut logged),
        }
    };
    handle.close();
    // A panic in it aborts the process.
    let _ = thread.join();
    Ok(config)
}

/// Logs the problems that were not logged yet.
fn log_new(problems: Problems, logged: &mut Vec<Problem>) {
    for problem in problems.0 {
        if logged.contains(&problem) {
            continue;
        }
        match problem.severity {
            Severity::Error => error!("{problem}"),
            Severity::Warning => warn!("{problem}"),
        }
        logged.push(problem);
    }
}

/// Says so when there can be too few descriptors, whose first sign would be an alarm that is late.
fn raise_descriptor_limit() {
    match descriptors::raise_limit() {
        Ok(limit) if limit >= descriptors::ENOUGH => {}
        Ok(limit) => warn!(
            "hbd may have {limit} files and connections open, and {} are enough: with fewer, \
             strangers can hold up alarms; raise LimitNOFILE= of its unit, or ulimit -n",
            descriptors::ENOUGH
        ),
        Err(why) => warn!("how many files hbd may open cannot be known: {why}"),
    }
}

struct RunningDaemon {
    /// The configuration in use.
    config: Config,
    services: Arc<Services>,
    agent: LocalAgent,
    courier_thread: JoinHandle<CourierExit>,
    udp: UdpServer,
    http_server: HttpServer,
    alert_poller: AlertPoller,
    threads: Threads,
    stop_source: StopSource,
}

impl RunningDaemon {
    fn start(config: Config) -> Result<RunningDaemon, DaemonError> {
        let startup = Startup::prepare(&config)?;
        let (udp, tcp) = (startup.udp.address(), startup.http.address());
        let state_dir = config.state_dir.clone();
        let daemon = RunningDaemon::start_on(config, startup, Threads::default())?;
        info!(
            "hbd {VERSION} is ready: heartbeats on UDP {udp}, HTTP on {tcp}, {} hosts, state in {}",
            daemon.services.monitor.count(),
            state_dir.display()
        );
        Ok(daemon)
    }

    /// On what is open already.
    fn start_on(
        config: Config,
        startup: Startup,
        threads: Threads,
    ) -> Result<RunningDaemon, DaemonError> {
        let (courier, pending) = Courier::new();
        let (stop_source, stop) = Stop::channel();
        let progress = Progress { udp: startup.udp.progress(), ..Progress::default() };
        let sink = change_sink(&courier);
        let meta = startup.meta_rows();
        let services = Arc::new(startup.services(&config, &courier, &sink, &stop));
        let Startup { store, opened, last_alive, now, cluster, .. } = startup;
        let (kernel_boot, alertmanager_silent) = (startup.kernel_boot, startup.alertmanager_silent);
        let hooks = courier_hooks(&services);
        let permit = Arc::clone(&hooks.permit);
        let courier_thread = pending
            .open(store, wiring::notify_settings(&config), hooks, |then| {
                rebase_time(then, last_alive.as_ref(), &kernel_boot, now)
            })
            .map_err(|why| format!("the courier cannot be started: {why}"))?;
        // A daemon that dies before its first flush must not extend every deadline anew at its next
        // start: who has fallen silent would never be reported.
        services.monitor.flush(now, true);
        report_store_state(&courier, opened, now);
        signal_check::start(&config);
        let monitor = &services.monitor;
        dyndns::start(&services.updater, monitor, permit, (&threads, &stop))?;
        lead_peers(&services, (meta, Arc::clone(&sink)), &stop)?;
        let listen = listen_for(monitor, progress.udp.clone());
        let udp = startup.udp.start(listen, &threads)?;
        spawn_deadline_thread(&services, progress.deadlines.clone(), &threads)?;
        history::start(&services.recorder, &threads, &stop)?;
        services.summaries.reconfigure(&config, &threads)?;
        services.backups.start_watch(&threads)?;
        let targets = alert_targets(&services, sink);
        let mut alert_poller = AlertPoller::new(targets, alertmanager_silent, threads.clone());
        alert_poller.reconfigure(&config.receiver)?;
        let target = AgentTarget::Monitor(Arc::clone(monitor));
        let own = || LocalAgent::new(target, threads.clone());
        let agent = cluster.map_or_else(own, |lead| lead.agent);
        agent.reconfigure(&config)?;
        let service = Service::Daemon(Arc::clone(&services) as Arc<dyn crate::http::Daemon>);
        let http_server = startup.http.start(service, &config)?;
        let probe = http_server.probe();
        let mut check = ThreadCheck::new(progress, Arc::clone(monitor), courier, probe);
        watchdog::start(move |timeout| check.run(timeout), &threads, &stop)?;
        Ok(RunningDaemon {
            config,
            services,
            agent,
            courier_thread,
            udp,
            http_server,
            alert_poller,
            threads,
            stop_source,
        })
    }

    /// Stops.
    ///
    /// # Errors
    /// Not all of the state is on disk.
    fn stop_whole(self) -> Result<(), DaemonError> {
        if self.stop() {
            return Ok(());
        }
        Err(DaemonError::Other("stopped, and not all of the state is on disk".into()))
    }

    /// Hands over to another node. Hbd must start anew then: what comes in waits in the sockets.
    fn hand_over(self) {
        // A thread that ended would let nothing more into the socket.
        if !self.end(std::mem::forget) {
            warn!("not all of the state is stored");
        }
    }

    /// Ends everything; false when not all of the state is on disk.
    fn stop(self) -> bool {
        if let Some(node) = &self.services.cluster {
            node.begin_stop();
        }
        let (services, threads) = (Arc::clone(&self.services), self.threads.clone());
        let stored = self.end(UdpServer::close);
        let deadline = Instant::now() + STOP_TIMEOUT;
        services.backups.reporter.wait_for_restic(STOP_TIMEOUT);
        for name in threads.join(deadline) {
            warn!("thread {name} did not end");
        }
        info!("stopped");
        stored
    }

    /// No new work, then one last attempt each, then everything on disk; false when it is not. A node of
    /// a cluster gives the lead back as soon as that is so.
    fn end(self, close: impl FnOnce(UdpServer)) -> bool {
        self.services.reloads.close();
        self.http_server.stop();
        drop((self.stop_source, self.alert_poller));
        self.agent.stop();
        self.services.summaries.stop();
        self.services.monitor.close();
        self.services.updater.close();
        self.services.recorder.close(Now::read());
        self.services.backups.pipelines.close();
        close(self.udp);
        self.services.courier.stop();
        let stored = matches!(self.courier_thread.join(), Ok(CourierExit::Stored));
        if let Some(node) = &self.services.cluster {
            node.release();
        }
        stored
    }

    /// Has the store commit something: when Redis went back, that is noticed at once.
    fn notice_rollback(&self) -> impl Fn() + use<> {
        let monitor = Arc::clone(&self.services.monitor);
        move || {
            monitor.flush(Now::read(), true);
        }
    }

    /// How many hosts are known.
    fn hosts(&self) -> usize {
        self.services.monitor.count()
    }

    /// Applies what the configuration file says now, or nothing of it.
    fn reload(&mut self) {
        let services = Arc::clone(&self.services);
        services.reloads.serve(|| self.apply_file());
    }

    /// What changed, and the warnings; or all that is in the way, and then nothing has changed.
    fn apply_file(&mut self) -> Result<(Vec<String>, Problems), Problems> {
        let config = Config::load(&self.config.file)?;
        let refused = |error: (&str, String)| Problems(vec![config_error(&config, error)]);
        reload::check_fixed(&self.config, &config)?;
        if let Some((new, old)) = takeover::pending(&self.services.monitor, &config) {
            let what = format!(
                "{new} takes over what is known of {old} only when hbd starts: restart it (systemctl restart hbd)"
            );
            return Err(refused((&format!("hosts.{new}.was"), what)));
        }
        let mut listeners = NewListeners::open(&self.config, &config, &self.udp, &self.http_server)
            .map_err(|error| refused((error.key, error.why)))?;
        let kept = listeners.duplicate();
        // Before the first connection comes in at the new address.
        self.http_server.set_credentials(wiring::credentials(&config));
        if let Err(error) = listeners.move_http(&mut self.http_server) {
            self.http_server.set_credentials(wiring::credentials(&self.config));
            return Err(refused((error.key, error.why)));
        }
        // Nothing below can fail as a whole: from here on the new configuration is the one in use.
        if let Some(node) = &self.services.cluster {
            node.sockets.replace(kept);
            node.lease().set_configuration(config.fingerprint);
        }
        for problem in &config.warnings.0 {
            warn!("{problem}");
        }
        let mut changes = config_diff::changes(&self.config, &config);
        changes.extend(self.successions(&config));
        let mut warnings = config.warnings.clone();
        let (unwatched, failures) = self.apply(&config);
        changes.extend(unwatched);
        warnings.0.extend(failures);
        listeners.move_udp(&mut self.udp);
        self.services.reloads.record_applied(&config, Now::read());
        self.config = config;
        Ok((changes, warnings))
    }

    /// What becomes of messages and open alarms whose channels the new configuration has no more.
    fn successions(&self, config: &Config) -> Vec<String> {
        let kept = |(name, old): (&String, &Channel)| {
            config.channels.get(name).is_some_and(|new| new.recipients() == old.recipients())
        };
        let before = &self.config.channels;
        if !before.is_empty() && before.iter().all(kept) {
            return Vec::new();
        }
        let settings = wiring::notify_settings(config);
        let look = move |_: &Store, outbox: &Outbox| {
            outbox.successions(&settings.queue_settings(), &settings.routes)
        };
        // The courier logs the same; while the disk is slow only there.
        self.services.courier.inspect(SUCCESSION_TIMEOUT, look).unwrap_or_default()
    }

    /// Applies a configuration to everything but the listeners. Returns what those are told who were
    /// told of hosts, and what could not be started; the next reload tries that again.
    fn apply(&mut self, config: &Config) -> (Vec<String>, Vec<Problem>) {
        clock::read_local_zone();
        let services = &self.services;
        // In this order: what the new rules find must go by the new routes.
        services.courier.reconfigure(wiring::notify_settings(config));
        signal_check::start(config);
        services.updater.reconfigure(config.dyndns.clone());
        let unwatched = services.monitor.reconfigure(wiring::fleet_config(config));
        let agent = self.agent.reconfigure(config);
        services.backups.reporter.reconfigure(wiring::pipeline_settings(config));
        history::reconfigure(&services.recorder, &services.courier, config.history.clone());
        services.heartbeat_alerts.replace(HeartbeatAlerts::from_config(config));
        services.labels.replace(LabelledHosts::from_config(config));
        let notifier = Notifier::new(config).sharing(services.courier.channel_state());
        services.notifier.replace(notifier);
        let poller = self.alert_poller.reconfigure(&config.receiver);
        let summary = services.summaries.reconfigure(config, &self.threads);
        let agent = agent.map_err(|why| ("agent", format!("this machine is not watched: {why}")));
        let poller = poller.map_err(|why| ("receiver.poll_url", format!("is not polled: {why}")));
        let summary = summary.map_err(|why| ("notifier.summary_at", format!("is not sent: {why}")));
        let failures = [agent, poller, summary].into_iter().filter_map(Result::err);
        let problems: Vec<_> = failures.map(|failure| config_error(config, failure)).collect();
        problems.iter().for_each(|problem| error!("{problem}"));
        (unwatched, problems)
    }
}

/// An error at a key of the file of `config`.
fn config_error(config: &Config, (key, what): (&str, String)) -> Problem {
    let file = config.file.display().to_string();
    Problem { severity: Severity::Error, file, line: None, path: key.to_owned(), what }
}

/// Where the alerts go that are polled.
fn alert_targets(services: &Services, sink: ChangeSink) -> AlertTargets {
    AlertTargets {
        monitor: Arc::clone(&services.monitor),
        pipelines: Arc::clone(&services.backups.pipelines),
        heartbeat_alerts: Arc::clone(&services.heartbeat_alerts),
        sink,
    }
}

/// Handles from now on what the other nodes accept, where there are some.
fn lead_peers(
    services: &Arc<Services>,
    stored: (Vec<RawRow>, ChangeSink),
    stop: &Stop,
) -> Result<(), String> {
    let Some(peers) = &services.peers else { return Ok(()) };
    let handling = Arc::clone(services);
    let handle = Box::new(move |message| inbox::handle(&handling, message));
    peers.lead(&services.monitor, stored, handle, stop)?;
    // What was said before counts before a host is called silent, and before what is said now.
    peers.wait_caught_up();
    Ok(())
}

/// What the courier calls.
fn courier_hooks(services: &Services) -> CourierHooks {
    let every_row = every_row(services);
    match services.cluster.clone() {
        Some(node) => {
            node.set_courier(services.courier.clone());
            CourierHooks {
                every_row,
                permit: node.permit(),
                on_exit: Box::new(move |exit| node.on_courier_exit(exit)),
            }
        }
        None => CourierHooks {
            every_row,
            permit: Arc::new(|| true),
            on_exit: Box::new(on_courier_exit),
        },
    }
}

/// Starts hbd again in place of this process when the state from before the start can be read at
/// last: only a daemon that begins with it knows what it says.
fn on_courier_exit(exit: CourierExit) {
    if exit == CourierExit::Restart {
        warn!("the state from before the start can be read now: hbd starts anew to take it up");
        KeptSockets::default().start_anew(&[]);
    }
}

/// Passes changes of the features on to the courier.
fn change_sink(courier: &Courier) -> ChangeSink {
    let courier = courier.clone();
    Arc::new(move |change| courier.commit(change))
}

/// All rows of the features, for a store that lost its own.
fn every_row(services: &Services) -> EveryRow {
    let (monitor, pipelines) =
        (Arc::clone(&services.monitor), Arc::clone(&services.backups.pipelines));
    let reporter = Arc::clone(&services.backups.reporter);
    let (updater, summaries) = (Arc::clone(&services.updater), Arc::clone(&services.summaries));
    let peers = services.peers.clone();
    Box::new(move || {
        let handled = peers.as_ref().map(|peers| peers.every_row()).unwrap_or_default();
        let own = [updater.every_row(), summaries.every_row(), reporter.every_row(), handled];
        [monitor.all_rows(), pipelines.every_row(), own.concat()].concat()
    })
}

/// Starts the thread that processes deadlines: those of hosts, and of alerts that wait.
fn spawn_deadline_thread(
    services: &Services,
    progress: ProgressCounter,
    threads: &Threads,
) -> Result<(), String> {
    let (monitor, pipelines) =
        (Arc::clone(&services.monitor), Arc::clone(&services.backups.pipelines));
    let in_cluster = services.cluster.is_some();
    threads.spawn("deadlines", move || {
        let begun = Now::read().mono;
        let (mut free, mut released, mut flushed) = (FreeMemory::default(), begun, begun);
        monitor.run_deadlines(|| {
            progress.increment();
            pipelines.start_pending();
            let now = Now::read();
            if now.mono.since(released) >= RELEASE_INTERVAL {
                released = now.mono;
                free.release();
            }
            if in_cluster && now.mono.since(flushed) >= CLUSTER_FLUSH_INTERVAL {
                flushed = now.mono;
                if monitor.count() <= CLUSTER_FLUSH_HOSTS {
                    monitor.flush(now, true);
                }
            }
        });
    })
}

/// Sends a message when the store cannot be written; what else there is to tell of it, the courier
/// tells.
fn report_store_state(courier: &Courier, opened: OpenResult, now: Now) {
    if let OpenResult::Failed { why } = opened {
        error!("the state cannot be written: {why}");
        let events = vec![Event::new(now.wall, EventKind::StoreRefuses { why })];
        courier.commit(Change { events, ..Change::default() });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use tempfile::TempDir;

    use super::*;
    use crate::http::ReloadResult;
    use crate::thread::lock;

    const BEFORE: &str = "\
heartbeat: {port: 0}
receiver: {port: 0}
hosts: {web1: {watch: true}}
notification_channels: {log: {type: log}}
default_notification_channels: [log]
";

    fn write(directory: &TempDir, text: &str) {
        let text = format!("state_dir: {}\n{text}", directory.path().join("state").display());
        fs::write(directory.path().join("heartbeat.yaml"), text).unwrap();
    }

    fn start(directory: &TempDir, text: &str) -> RunningDaemon {
        write(directory, text);
        let config = Config::load(directory.path().join("heartbeat.yaml"));
        RunningDaemon::start(config.unwrap_or_else(|why| panic!("{why}"))).unwrap()
    }

    /// The status line of an answer that was asked for without a token.
    fn status(daemon: &RunningDaemon) -> String {
        let mut stream = TcpStream::connect(daemon.http_server.address()).unwrap();
        stream.write_all(b"GET /api/v1/hosts HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_reload_that_could_not_start_a_thread_was_half_applied() {
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = start(&directory, BEFORE);
        let before = daemon.config.clone();
        let after = "\
heartbeat: {host: 127.0.0.2, port: 0}
receiver: {host: 127.0.0.2, port: 0, token: a-new-secret}
hosts: {web1: {watch: true}, web2: {watch: true}}
notification_channels: {log: {type: log}, more: {type: log}}
default_notification_channels: [log]
";
        write(&directory, after);
        lock(&daemon.threads.refused).push("udp");
        let ReloadResult::Refused(problems) = reload(&mut daemon) else { panic!("it was applied") };
        let problem = problems.to_string();
        assert!(problem.contains("heartbeat.port: the thread udp cannot be started"), "{problem}");
        assert_eq!(daemon.config, before);
        assert!(daemon.services.reloads.refused());
        assert!(daemon.services.monitor.view("web2").is_none());
        assert_eq!(daemon.services.notifier.get().channels().len(), 1);
        assert!(daemon.http_server.address().ip().to_string() == "127.0.0.1");
        assert!(status(&daemon).contains(" 200 "), "no token is asked for");

        lock(&daemon.threads.refused).clear();
        applied(&mut daemon);
        assert_eq!(daemon.config.hosts.len(), 2);
        assert!(!daemon.services.reloads.refused());
        assert!(daemon.services.monitor.view("web2").is_some());
        assert_eq!(daemon.services.notifier.get().channels().len(), 2);
        assert!(daemon.http_server.address().ip().to_string() == "127.0.0.2");
        assert!(status(&daemon).contains(" 401 "), "a token is asked for");
        assert!(daemon.stop());
    }

    fn reload(daemon: &mut RunningDaemon) -> ReloadResult {
        let result = daemon.apply_file();
        daemon.services.reloads.conclude(result)
    }

    fn applied(daemon: &mut RunningDaemon) -> (Vec<String>, String) {
        match reload(daemon) {
            ReloadResult::Applied { changes, warnings } => (changes, warnings.to_string()),
            refused => panic!("{refused:?}"),
        }
    }

    #[test]
    fn a_reload_that_could_not_start_the_agent_said_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = start(&directory, BEFORE);
        let poll = "receiver: {port: 0, poll_url: 'http://127.0.0.2:1'}";
        write(
            &directory,
            &(BEFORE.replace("receiver: {port: 0}", poll) + "agent: {enabled: true, host: web1}\n"),
        );
        lock(&daemon.threads.refused).extend(["agent", "poll"]);
        let (changes, warnings) = applied(&mut daemon);
        assert!(changes.contains(&"agent: changed".to_owned()), "{changes:?}");
        for missing in ["agent: this machine is not watched", "receiver.poll_url: is not polled"] {
            assert!(warnings.contains(missing), "{warnings}");
        }

        lock(&daemon.threads.refused).clear();
        let (_, warnings) = applied(&mut daemon);
        assert!(!warnings.contains("cannot be started"), "{warnings}");
        assert!(daemon.stop());
    }
}
