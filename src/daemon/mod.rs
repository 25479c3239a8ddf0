//! The daemon: opens everything, starts the threads, stops them in order.

use std::fmt;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::agent::machine;
use crate::backup::pipeline::Pipelines;
use crate::backup::repo_check;
use crate::clock::Now;
use crate::config::Config;
use crate::event::Incident;
use crate::heartbeat::fleet::{Fleet, Mark, Row};
use crate::heartbeat::listener;
use crate::heartbeat::watch::{self, Watch};
use crate::http::HttpServer;
use crate::notify::courier::{Courier, Order};
use crate::notify::direct::Notifier;
use crate::problem::Problems;
use crate::store::ChangeSink;
use crate::store::{Opened, Store, Table};
use crate::systemd;
use crate::thread::{AbortOnPanic, Stop, StopSource};

mod agent;
mod changes;
mod chronicle;
mod dyndns;
mod equip;
mod house;
mod memory;
mod opening;
mod polling;
mod ports;
mod reload;
mod signal_check;
mod signs;
mod telling;
mod watchdog;

use self::agent::Agent;
use self::equip::{equipment, pipeline, rules};
use self::house::Rooms;
use self::polling::Polling;
use self::ports::{Ear, access, address, bind_tcp};
use self::reload::Reloads;
use self::signs::Signs;
use self::telling::Seats;
use self::watchdog::Pulses;
use crate::thread::ProgressCounter;

/// Orders that wait for the disk, and deliveries that wait for their channel: beyond either, what
/// hosts have to tell besides their beats is refused.
const BACKLOG: usize = 10_000;
const QUEUE: usize = 20_000;

/// How long the stop waits for programs that are being killed.
const LAST_PROGRAMS: Duration = Duration::from_secs(2);

/// Why the daemon did not run.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is refused.
    Configuration(Problems),
    /// Something else; a sentence.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Failure::Configuration(problems) => problems.fmt(f),
            Failure::Other(why) => f.write_str(why),
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Other(why)
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub fn run(config_file: &Path) -> Result<(), Failure> {
    memory::share();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|why| format!("the signals cannot be received: {why}"))?;
    let config = Config::load(config_file).map_err(Failure::Configuration)?;
    for problem in &config.warnings.0 {
        warn!("{problem}");
    }
    let mut daemon = Daemon::start(config)?;
    systemd::tell("READY=1");
    for signal in signals.forever() {
        if signal == SIGHUP {
            daemon.reload();
            continue;
        }
        info!("stopping");
        systemd::tell("STOPPING=1");
        break;
    }
    if daemon.stop() {
        return Ok(());
    }
    Err(Failure::Other("stopped, and not all of the state is on disk".into()))
}

struct Daemon {
    /// The one in use.
    config: Config,
    rooms: Arc<Rooms>,
    agent: Agent,
    courier_thread: thread::JoinHandle<bool>,
    ear: Ear,
    web: HttpServer,
    polling: Polling,
    stopper: StopSource,
}

/// What is known when the ports are open and before a thread runs.
struct Ground {
    store: Store,
    opened: Opened,
    mark: Option<Mark>,
    /// People were told that the Alertmanager that is asked does not answer.
    alertmanager_silent: bool,
    kernel_boot: String,
    now: Now,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Ground {
    fn prepare(config: &Config) -> Result<Ground, Failure> {
        let now = Now::read();
        let (store, opened) = Store::open(&config.state_dir, now)
            .map_err(|held| format!("state_dir: {}", held.why))?;
        let udp = listener::bind(&config.heartbeat)?;
        let tcp = bind_tcp(&config.receiver.host, config.receiver.port, false)?;
        let mark = store.get(Table::Meta, watch::MARK);
        let troubles = store.rows(Table::Troubles);
        let alertmanager_silent =
            troubles.iter().any(|(key, _)| *key == Incident::Alertmanager.key());
        let kernel_boot = machine::boot_id().unwrap_or_default();
        Ok(Ground { store, opened, mark, alertmanager_silent, kernel_boot, now, udp, tcp })
    }
}

impl Daemon {
    fn start(config: Config) -> Result<Daemon, Failure> {
        let ground = Ground::prepare(&config)?;
        let (courier, desk) = Courier::new();
        let (stopper, stop) = Stop::channel();
        let sink = sink(&courier);
        let watch = Arc::new(take_over(&config, &ground, &courier, Arc::clone(&sink)));
        let waiting = ground.store.rows(Table::Pipelines);
        let pipelines =
            Pipelines::resume(waiting, pipeline(&config), Arc::clone(&sink), stop.clone());
        let keeper =
            dyndns::keeper(&config, &ground.store, &courier, Arc::clone(&sink), ground.now);
        let chronicle = Arc::new(chronicle::open(&watch, &courier, config.history.clone()));
        let rooms = Arc::new(Rooms {
            keeper: Arc::clone(&keeper),
            watch: Arc::clone(&watch),
            courier: courier.clone(),
            chronicle: Arc::clone(&chronicle),
            notifier: Mutex::new(Arc::new(Notifier::new(&config))),
            sending: Seats::default(),
            pipelines: Arc::clone(&pipelines),
            signs: Mutex::new(Arc::new(Signs::of(&config))),
            reloads: Reloads::new(&config, ground.now),
        });
        let Ground { store, opened, mark, alertmanager_silent, kernel_boot, now, udp, tcp } =
            ground;
        let (udp_name, tcp_name) = (address(udp.local_addr()), address(tcp.local_addr()));
        let (hosts, alerts, names) =
            (Arc::clone(&watch), Arc::clone(&pipelines), Arc::clone(&keeper));
        let every_row = move || [hosts.every_row(), alerts.every_row(), names.every_row()].concat();
        let courier_thread = desk
            .open(store, equipment(&config), Box::new(every_row), |then| {
                translate(then, mark.as_ref(), &kernel_boot, now)
            })
            .map_err(|why| format!("the courier cannot be started: {why}"))?;
        opening::report(&courier, opened, now);
        signal_check::begin(&config);
        dyndns::begin(&keeper, &watch, &stop)?;
        let pulses = Pulses::default();
        let ear = Ear::open(udp, &watch, pulses.udp.clone())?;
        keep_time(&watch, pipelines, pulses.deadlines.clone())?;
        chronicle::start(&chronicle, &stop)?;
        let polling = Polling::start(&config, alertmanager_silent, &rooms, sink)?;
        let agent = Agent::new(Arc::clone(&watch));
        agent.reconfigure(config.agent.as_ref())?;
        let house: Arc<Rooms> = Arc::clone(&rooms);
        let web = HttpServer::start(tcp, house, access(&config), &config.state_dir)
            .map_err(|why| format!("the HTTP side cannot be started: {why}"))?;
        watchdog::start(pulses, &rooms, web.probe(), &stop)?;
        opening::announce(&config, watch.count(), &udp_name, &tcp_name);
        Ok(Daemon { config, rooms, agent, courier_thread, ear, web, polling, stopper })
    }

    /// No new work, then one last attempt each, then everything on disk; false when it is not.
    fn stop(self) -> bool {
        self.rooms.reloads.close();
        self.web.stop();
        drop((self.stopper, self.polling));
        self.agent.stop();
        self.rooms.watch.close();
        self.rooms.keeper.close();
        self.rooms.chronicle.close(Now::read());
        self.rooms.pipelines.close();
        self.ear.close();
        self.rooms.courier.order(Order::Stop);
        let stored = self.courier_thread.join().unwrap_or(false);
        repo_check::wait_for_end(LAST_PROGRAMS);
        info!("stopped");
        stored
    }
}

/// The hosts as the store knew them, under the present configuration.
fn take_over(config: &Config, ground: &Ground, courier: &Courier, sink: ChangeSink) -> Watch {
    let rows = ground.store.read::<Row>(Table::Hosts);
    let fleet =
        Fleet::restore(rules(config), rows, ground.mark.clone(), ground.now, &ground.kernel_boot);
    let backlog = courier.clone();
    let overloaded = Box::new(move || backlog.backlog() > BACKLOG || backlog.queued() > QUEUE);
    Watch::new(fleet, ground.kernel_boot.clone(), sink, overloaded)
}

/// Where the features leave what they established.
fn sink(courier: &Courier) -> ChangeSink {
    let orders = courier.clone();
    Arc::new(move |effect| orders.order(Order::Accept(effect)))
}

fn keep_time(
    watch: &Arc<Watch>,
    pipelines: Arc<Pipelines>,
    pulse: ProgressCounter,
) -> Result<(), Failure> {
    let timing = Arc::clone(watch);
    spawn("deadlines", move || {
        timing.keep_time(|| {
            pulse.increment();
            pipelines.start_waiting();
        });
    })
}

/// A thread whose death ends the process.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let guarded = move || {
        let _vital = AbortOnPanic;
        work();
    };
    thread::Builder::new()
        .name(name.into())
        .stack_size(256 * 1024)
        .spawn(guarded)
        .map(drop)
        .map_err(|why| Failure::Other(format!("the thread {name} cannot be started: {why}")))
}

/// A time of an earlier run on this boot's clock: how long ago it was is what counts. Where that
/// is beyond belief, a clock was wrong, and it counts as now: late is better than never.
fn translate(then: Now, mark: Option<&Mark>, kernel_boot: &str, now: Now) -> Now {
    match mark {
        Some(mark) if mark.kernel_boot == kernel_boot && then.mono <= now.mono => then,
        _ => {
            let age = now.wall.since(then.wall);
            let believed = if age > LONGEST_BELIEVED { Duration::ZERO } else { age };
            Now { mono: now.mono - believed, wall: then.wall }
        }
    }
}

const LONGEST_BELIEVED: Duration = Duration::from_secs(48 * 3600);
