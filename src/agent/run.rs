//! `hbc run`: beats until it is told to stop. One thread waits and speaks; names and metrics have
//! threads of their own, because asking for them may take any time.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{error, info, warn};

use super::beat::line::{News, Tick};
use super::beat::speaker::{Speaker, Voice};
use super::ear::{Ear, Waker};
use super::gather::{Collect, Gatherer};
use super::keepsake::Keepsake;
use super::machine;
use super::names::Name;
use super::path::Path;
use super::settings::{Overrides, Settings};
use super::signals::{Signals, Wish};
use super::slim;
use crate::clock::{Mono, Now, words};
use crate::heartbeat::datagram::MAX_BYTES;
use crate::heartbeat::encode;
use crate::problem::Problems;
use crate::systemd;

/// Why it did not run.
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

/// Speaks until SIGTERM, SIGINT or SIGUSR1. `collect` gives what collects the metrics that the
/// settings ask for.
///
/// # Errors
/// When it cannot start, or cannot wait any more.
pub fn run(
    overrides: &Overrides,
    collect: &dyn Fn(&Settings) -> Option<Collect>,
) -> Result<(), Failure> {
    slim::share_arena();
    let mut ear = Ear::new().map_err(|why| format!("nothing can be waited for: {why}"))?;
    let signals = Signals::new(&ear.waker())
        .map_err(|why| format!("the signals cannot be received: {why}"))?;
    let mut settings = load(overrides).map_err(Failure::Configuration)?;
    let directory = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    let keepsake = Keepsake::open(directory);
    let mut agent = Agent::new(&settings, collect(&settings), &ear.waker(), keepsake)?;
    systemd::tell("READY=1");
    slim::give_back();
    while agent.run(&mut ear, &signals)? == Wish::Reload {
        match load(overrides) {
            Ok(new) if new == settings => info!("the configuration is as it was"),
            Ok(new) => {
                agent = Agent::new(&new, collect(&new), &ear.waker(), agent.keepsake)?;
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

fn load(overrides: &Overrides) -> Result<Settings, Problems> {
    let (settings, warnings) = Settings::load(overrides, &|name| std::env::var(name).ok())?;
    for problem in &warnings.0 {
        warn!("{problem}");
    }
    Ok(settings)
}

/// How often a way is looked for where there is none.
const LOOK: Duration = Duration::from_secs(30);
/// A server that cannot be reached at all is reported after so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many datagrams are read from a socket before others have their turn.
const AT_ONCE: usize = 64;

/// A host that speaks, with all that it needs for that.
pub struct Agent {
    speaker: Speaker,
    paths: Vec<Path>,
    names: Vec<Name>,
    groups: Vec<Group>,
    gatherer: Option<Gatherer>,
    /// When a way is looked for next.
    look: Mono,
    interval: Duration,
    watchdog: Option<systemd::Watchdog>,
    keepsake: Keepsake,
}

/// A server, as far as there may be no way to it.
#[derive(Debug, Default)]
struct Group {
    /// Since when none of its connections is there.
    lost: Option<Mono>,
    /// That was reported.
    told: bool,
}

impl Agent {
    /// Gets ready to speak as `settings` say, with the metrics that `collect` gives, and later times
    /// than are kept.
    ///
    /// # Errors
    /// What the machine lacks for it.
    pub fn new(
        settings: &Settings,
        collect: Option<Collect>,
        waker: &Waker,
        keepsake: Keepsake,
    ) -> Result<Agent, String> {
        let now = Now::read();
        let host = settings.host.clone().map_or_else(machine::hostname, Ok)?;
        let voice = Voice {
            host,
            boot_id: machine::boot_id().ok(),
            key: settings.key.as_ref().map(encode::signing_key),
            interval: settings.interval,
        };
        let paths = Path::all(settings);
        let mut names: Vec<Name> = Vec::new();
        for path in &paths {
            if !names.iter().any(|name| *name.server() == path.server) {
                names.push(Name::start(path.server.clone(), waker.clone(), now)?);
            }
        }
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        let every = words(settings.interval);
        info!("{} beats every {every} to {}", voice.host, servers.join(", "));
        let connections = paths.iter().map(|path| (path.group, path.connection.clone()));
        Ok(Agent {
            speaker: Speaker::new(voice, connections, keepsake.told(), now),
            paths,
            names,
            groups: settings.servers.iter().map(|_| Group::default()).collect(),
            gatherer: collect.map(|collect| Gatherer::start(collect, waker.clone())).transpose()?,
            look: now.mono,
            interval: settings.interval,
            watchdog: systemd::Watchdog::wanted(now.mono),
            keepsake,
        })
    }

    /// Speaks until `signals` want something else; what they want. Goodbye is said by then.
    ///
    /// # Errors
    /// When it cannot wait any more.
    pub fn run(&mut self, ear: &mut Ear, signals: &Signals) -> Result<Wish, String> {
        let mut wish = None;
        loop {
            let now = Now::read();
            if wish.is_none() {
                wish = signals.take();
                match wish {
                    Some(Wish::Goodbye) => self.speaker.goodbye(machine::uptime().ok(), now),
                    Some(other) => return Ok(other),
                    None => {}
                }
            }
            if self.speaker.is_over(now) {
                return Ok(Wish::Goodbye);
            }
            self.work(now);
            self.wait(ear).map_err(|why| format!("nothing can be waited for: {why}"))?;
        }
    }

    /// Does everything whose time has come.
    fn work(&mut self, now: Now) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(now.mono);
        }
        self.learn(now);
        if self.speaker.begins(now) {
            for (at, path) in self.paths.iter_mut().enumerate() {
                path.renew(self.speaker.line(at));
            }
            self.open(now);
            match &mut self.gatherer {
                Some(gatherer) => gatherer.ask(now),
                None => self.speaker.speak(&[], machine::uptime().ok(), now),
            }
        } else if self.look <= now.mono {
            self.open_more(now);
        }
        if let Some(metrics) = self.gatherer.as_mut().and_then(Gatherer::take) {
            self.speaker.speak(&metrics, machine::uptime().ok(), now);
        } else if self.speaker.gathered(now) {
            self.speaker.speak(&[], machine::uptime().ok(), now);
        }
        for (at, news) in self.speaker.news(now) {
            self.paths[at].report(&news, self.speaker.line(at).is_known());
        }
        for (at, bytes) in self.speaker.due(Tick { now: Now::read(), at: Instant::now() }) {
            self.paths[at].send(&bytes);
        }
        self.keepsake.keep(self.speaker.told());
    }

    /// Takes over what was found out about names, and asks again where that is due.
    fn learn(&mut self, now: Now) {
        let mut news = false;
        for at in 0..self.names.len() {
            let found = self.names[at].found(now);
            let name = &mut self.names[at];
            let mine = |path: &&mut Path| path.server == *name.server();
            let paths = self.paths.iter_mut().filter(mine);
            match found {
                Some(Ok(addresses)) => {
                    paths.for_each(|path| path.aim.learn(&addresses));
                    news = true;
                }
                Some(Err(why)) => {
                    let unknown = paths.filter(|path| path.aim.is_empty());
                    unknown.for_each(|path| path.doubt = Some(why.clone()));
                }
                None => {}
            }
            let doubted = doubted(&self.paths, &self.speaker, name);
            if !doubted {
                name.is_good();
            }
            name.ask(doubted, now);
        }
        if news {
            self.open_more(now);
        }
    }

    /// Opens what can be opened now, and speaks at once where that is news.
    fn open_more(&mut self, now: Now) {
        if self.open(now) {
            self.speaker.hasten(now);
        }
    }

    /// Opens what can be opened now; whether anything was.
    fn open(&mut self, now: Now) -> bool {
        self.look = now.mono + LOOK.min(self.interval);
        let mut opened = false;
        for (at, path) in self.paths.iter_mut().enumerate() {
            opened |= path.open();
            // Who answered once, or was named, has to explain itself.
            let counts = path.named || self.speaker.line(at).is_known();
            self.speaker.set_present(at, counts || path.socket().is_some());
        }
        for group in 0..self.groups.len() {
            self.look_at(group, now);
        }
        opened
    }

    /// Reports a server that there is no way to at all, and its return, once.
    fn look_at(&mut self, group: usize, now: Now) {
        let all: Vec<usize> =
            (0..self.paths.len()).filter(|at| self.paths[*at].group == group).collect();
        let server = &self.paths[all[0]].server;
        let state = &mut self.groups[group];
        if all.iter().any(|at| self.speaker.is_present(*at)) {
            if std::mem::take(state).told {
                info!("{server}: there is a way to it now");
            }
            return;
        }
        let lost = *state.lost.get_or_insert(now.mono);
        if now.mono.since(lost) >= PATIENCE && !std::mem::replace(&mut state.told, true) {
            let why = all.iter().find_map(|at| self.paths[*at].doubt.as_deref());
            let why = why.unwrap_or("its name is being looked for, and nobody answers");
            warn!("{server}: {why}; trying on");
        }
    }

    /// Waits until something comes or is due, and takes in what came.
    fn wait(&mut self, ear: &mut Ear) -> std::io::Result<()> {
        let names = self.names.iter().filter_map(Name::next);
        let watchdog = self.watchdog.as_ref().map(systemd::Watchdog::next);
        let moments = names.chain(watchdog).chain([self.look, self.speaker.next()]);
        let until = moments.min().unwrap_or(self.look);
        let open = |at: &usize| self.paths[*at].socket().is_some();
        let places: Vec<usize> = (0..self.paths.len()).filter(open).collect();
        let sockets: Vec<_> = places
            .iter()
            .filter_map(|at| self.paths[*at].socket())
            .map(AsRawFd::as_raw_fd)
            .collect();
        for place in ear.wait(until, &sockets)? {
            self.hear(places[place]);
        }
        Ok(())
    }

    fn hear(&mut self, at: usize) {
        let mut buffer = [0; MAX_BYTES];
        for _ in 0..AT_ONCE {
            let Some(bytes) = self.paths[at].receive(&mut buffer) else { return };
            let tick = Tick { now: Now::read(), at: Instant::now() };
            let known = self.speaker.line(at).is_known();
            match self.speaker.hear(at, bytes, tick) {
                Ok(news) => {
                    let path = &mut self.paths[at];
                    path.doubt = None;
                    match news {
                        Some(news) => path.report(&news, true),
                        None if !known => info!("{} answers", path.label()),
                        None => {}
                    }
                    if !known {
                        // The way is found, and the first beat went all of it.
                        slim::give_back();
                    }
                }
                Err(why) => self.paths[at].doubt = Some(why.into()),
            }
        }
    }
}

/// Whether a server may be elsewhere by now: none of its connections answers, or one of them has
/// just ceased to.
fn doubted(paths: &[Path], speaker: &Speaker, name: &Name) -> bool {
    let mine = |at: &usize| paths[*at].server == *name.server() && speaker.is_present(*at);
    let lines = || (0..paths.len()).filter(mine).map(|at| speaker.line(at));
    lines().all(|line| line.fails())
        || lines().any(|line| line.fails() && line.is_known() && !line.is_silent())
}

impl Path {
    fn report(&self, news: &News, known: bool) {
        let label = self.label();
        match news {
            News::Silent(time) => {
                let why = self.doubt.as_deref().unwrap_or(if known {
                    "nothing comes back"
                } else {
                    "is hbd listening there, does it know this host, do key and clock agree?"
                });
                warn!("{label} has not answered for {}: {why}", words(*time));
            }
            News::Answers(time) => info!("{label} answers again, after {}", words(*time)),
        }
    }
}
