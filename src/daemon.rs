//! The daemon: opens everything, starts the threads, stops them in order.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use log::{error, info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::backup::alert::Alert;
use crate::backup::pipeline::Pipelines;
use crate::backup::{poll, repo_check};
use crate::clock::Now;
use crate::config::Config;
use crate::effect::Sink;
use crate::event::Trouble;
use crate::heartbeat::fleet::{Fleet, Mark, Row};
use crate::heartbeat::listener;
use crate::heartbeat::watch::{self, Watch};
use crate::notify::courier::{Courier, Order};
use crate::notify::direct::Notifier;
use crate::problem::Problems;
use crate::secret::Secret;
use crate::stop::{self, Stop, Stopper, Vital};
use crate::store::{Opened, Store, Table};
use crate::systemd;
use crate::web::Web;

mod agent;
mod chronicle;
mod dyndns;
mod equip;
mod house;
mod memory;
mod opening;
mod signal_check;
mod signs;
mod telling;

use self::agent::Agent;
use self::equip::{equipment, pipeline, rules};
use self::house::Rooms;
use self::signs::Signs;
use self::telling::Seats;

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
    let daemon = Daemon::start(config_file, &config)?;
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
    config_file: PathBuf,
    // What listens where is fixed until the next start.
    fixed: Fixed,
    rooms: Arc<Rooms>,
    agent: Agent,
    courier_thread: thread::JoinHandle<bool>,
    udp: Arc<UdpSocket>,
    web: Web,
    stopper: Stopper,
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
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Ground {
    fn prepare(config: &Config) -> Result<Ground, Failure> {
        let now = Now::read();
        let (store, opened) = Store::open(&config.state_dir, now)
            .map_err(|held| format!("state_dir: {}", held.why))?;
        let udp = Arc::new(listener::bind(&config.heartbeat)?);
        let tcp = bind_tcp(&config.receiver.host, config.receiver.port)?;
        let mark = store.get(Table::Meta, watch::MARK);
        let troubles = store.rows(Table::Troubles);
        let alertmanager_silent =
            troubles.iter().any(|(key, _)| *key == Trouble::Alertmanager.key());
        let kernel_boot = kernel_boot();
        Ok(Ground { store, opened, mark, alertmanager_silent, kernel_boot, now, udp, tcp })
    }
}

impl Daemon {
    fn start(config_file: &Path, config: &Config) -> Result<Daemon, Failure> {
        let ground = Ground::prepare(config)?;
        let (courier, desk) = Courier::new();
        let (stopper, stop) = stop::channel();
        let sink = sink(&courier);
        let watch = Arc::new(take_over(config, &ground, &courier, Arc::clone(&sink)));
        let waiting = ground.store.rows(Table::Pipelines);
        let pipelines =
            Pipelines::resume(waiting, pipeline(config), Arc::clone(&sink), stop.clone());
        let keeper = dyndns::keeper(config, &ground.store, &courier, Arc::clone(&sink), ground.now);
        let keeper = Arc::new(keeper);
        let chronicle = Arc::new(chronicle::open(&watch, &courier, config.history.clone()));
        let rooms = Arc::new(Rooms {
            keeper: Arc::clone(&keeper),
            watch: Arc::clone(&watch),
            courier: courier.clone(),
            chronicle: Arc::clone(&chronicle),
            notifier: Mutex::new(Arc::new(Notifier::new(config))),
            sending: Seats::default(),
            pipelines: Arc::clone(&pipelines),
            signs: Mutex::new(Arc::new(Signs::of(config))),
            reload_refused: AtomicBool::new(false),
            loaded: AtomicI64::new(ground.now.wall.0),
        });
        let Ground { store, opened, mark, alertmanager_silent, kernel_boot, now, udp, tcp } =
            ground;
        let (udp_name, tcp_name) = (address(udp.local_addr()), address(tcp.local_addr()));
        let (hosts, alerts, names) =
            (Arc::clone(&watch), Arc::clone(&pipelines), Arc::clone(&keeper));
        let every_row = move || [hosts.every_row(), alerts.every_row(), names.every_row()].concat();
        let courier_thread = desk
            .open(store, equipment(config), Box::new(every_row), |then| {
                translate(then, mark.as_ref(), &kernel_boot, now)
            })
            .map_err(|why| format!("the courier cannot be started: {why}"))?;
        opening::report(&courier, opened, now);
        signal_check::begin(config);
        dyndns::begin(&keeper, &watch, &stop)?;
        start_watching(&watch, pipelines, &udp, &stop)?;
        chronicle::start(&chronicle, &stop)?;
        start_polling(config, alertmanager_silent, &rooms, sink, &stop)?;
        let agent = Agent::new(Arc::clone(&watch));
        agent.reconfigure(config.agent.as_ref())?;
        let token = config.receiver.token.clone();
        let house: Arc<Rooms> = Arc::clone(&rooms);
        let web = Web::start(tcp, house, token, &config.state_dir)
            .map_err(|why| format!("the HTTP side cannot be started: {why}"))?;
        opening::announce(config, watch.count(), &udp_name, &tcp_name);
        Ok(Daemon {
            config_file: config_file.to_owned(),
            fixed: Fixed::of(config),
            rooms,
            agent,
            courier_thread,
            udp,
            web,
            stopper,
        })
    }

    /// Takes over what the configuration file says now; a bad one changes nothing.
    fn reload(&self) {
        let mut config = match Config::load(&self.config_file) {
            Ok(config) => config,
            Err(problems) => {
                problems.0.iter().for_each(|problem| error!("{problem}"));
                error!("the configuration was not reloaded: the old one stays");
                self.rooms.reload_refused.store(true, Ordering::Relaxed);
                return;
            }
        };
        for problem in &config.warnings.0 {
            warn!("{problem}");
        }
        if Fixed::of(&config) != self.fixed {
            warn!(
                "other addresses, ports, poll_url, state_dir or receiver.token are taken up at the next start only"
            );
        }
        // What a sign of life promises is what is done, not what the file says since.
        let receiver = &mut config.receiver;
        (receiver.poll_url, receiver.poll_interval) = self.fixed.poll.clone();
        // In this order: what the new rules find must go by the new routes.
        self.rooms.courier.order(Order::Reconfigure(equipment(&config)));
        signal_check::begin(&config);
        self.rooms.keeper.reconfigure(config.dyndns.clone());
        self.rooms.watch.reconfigure(rules(&config));
        if let Err(Failure::Other(why)) = self.agent.reconfigure(config.agent.as_ref()) {
            error!("this machine is not watched: {why}");
        }
        self.rooms.pipelines.reconfigure(pipeline(&config));
        self.rooms.chronicle.reconfigure(config.history.clone());
        self.rooms.replace_signs(Signs::of(&config));
        self.rooms.replace_notifier(Notifier::new(&config));
        self.rooms.reload_refused.store(false, Ordering::Relaxed);
        self.rooms.loaded.store(Now::read().wall.0, Ordering::Relaxed);
        info!("the configuration was reloaded: {} hosts", self.rooms.watch.count());
    }

    /// No new work, then one last attempt each, then everything on disk; false when it is not.
    fn stop(self) -> bool {
        self.web.stop();
        drop(self.stopper);
        self.agent.stop();
        self.rooms.watch.close();
        self.rooms.keeper.close();
        self.rooms.chronicle.close(Now::read());
        self.rooms.pipelines.close();
        listener::wake(&self.udp);
        self.rooms.courier.order(Order::Stop);
        let stored = self.courier_thread.join().unwrap_or(false);
        repo_check::wait_for_end(LAST_PROGRAMS);
        info!("stopped");
        stored
    }
}

/// What a reload does not change.
#[derive(PartialEq)]
struct Fixed {
    udp: (String, u16),
    tcp: (String, u16),
    token: Option<Secret>,
    poll: (Option<String>, Duration),
    state_dir: PathBuf,
}

impl Fixed {
    fn of(config: &Config) -> Fixed {
        Fixed {
            udp: (config.heartbeat.host.clone(), config.heartbeat.port),
            tcp: (config.receiver.host.clone(), config.receiver.port),
            token: config.receiver.token.clone(),
            poll: (config.receiver.poll_url.clone(), config.receiver.poll_interval),
            state_dir: config.state_dir.clone(),
        }
    }
}

/// The hosts as the store knew them, under the present configuration.
fn take_over(config: &Config, ground: &Ground, courier: &Courier, sink: Sink) -> Watch {
    let rows = ground.store.read::<Row>(Table::Hosts);
    let fleet =
        Fleet::restore(rules(config), rows, ground.mark.clone(), ground.now, &ground.kernel_boot);
    let backlog = courier.clone();
    let overloaded = Box::new(move || backlog.backlog() > BACKLOG || backlog.queued() > QUEUE);
    Watch::new(fleet, ground.kernel_boot.clone(), sink, overloaded)
}

/// Where the features leave what they established.
fn sink(courier: &Courier) -> Sink {
    let orders = courier.clone();
    Arc::new(move |effect| orders.order(Order::Accept(effect)))
}

/// Fetches alerts, where the configuration names an Alertmanager.
fn start_polling(
    config: &Config,
    told: bool,
    rooms: &Arc<Rooms>,
    sink: Sink,
    stop: &Stop,
) -> Result<(), Failure> {
    let Some(url) = config.receiver.poll_url.clone() else {
        if told {
            poll::abandon(&sink);
        }
        return Ok(());
    };
    let settings = poll::Settings { url, interval: config.receiver.poll_interval, told };
    let (rooms, stop) = (Arc::clone(rooms), stop.clone());
    spawn("poll", move || {
        let names = || rooms.signs().names().to_vec();
        let beat = |alerts: &[Alert]| rooms.signs().beat(alerts, &rooms.watch);
        let signs = poll::Signs { names: &names, beat: &beat };
        poll::poll(&settings, &rooms.pipelines, signs, &sink, &stop);
    })
}

fn start_watching(
    watch: &Arc<Watch>,
    pipelines: Arc<Pipelines>,
    udp: &Arc<UdpSocket>,
    stop: &Stop,
) -> Result<(), Failure> {
    let (hearing, socket, stop) = (Arc::clone(watch), Arc::clone(udp), stop.clone());
    spawn("udp", move || listener::listen(&socket, &hearing, &stop))?;
    let timing = Arc::clone(watch);
    spawn("deadlines", move || timing.keep_time(|| pipelines.start_waiting()))
}

/// A thread whose death ends the process.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let guarded = move || {
        let _vital = Vital;
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

fn kernel_boot() -> String {
    // random(4): a new one at each boot.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn bind_tcp(host: &str, port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((host, port)).map_err(|why| {
        Failure::Other(match why.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("receiver.port: TCP {host}:{port} is in use by another program")
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("receiver.port: TCP {host}:{port} needs privileges; use a port above 1023")
            }
            _ => format!("receiver.host: TCP {host}:{port} cannot be opened: {why}"),
        })
    })
}

fn address(address: std::io::Result<std::net::SocketAddr>) -> String {
    address.map_or_else(|_| "?".into(), |address| address.to_string())
}
