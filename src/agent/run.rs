//! `hbc run`: beats until it is told to stop. One thread waits and speaks; names and metrics have
//! threads of their own, because asking for them may take any time.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use super::beat::scheduler::{BeatScheduler, HostIdentity};
use super::beat::session::{ClockReading, LinkChange};
use super::endpoint::Endpoint;
use super::host_info;
use super::poll::{Poller, Waker};
use super::resolver::Resolver;
use super::sampler::{CollectFn, Sampler};
use super::settings::{AgentSettings, CliOverrides};
use super::signals::{SignalAction, SignalFlags};
use crate::clock::{Mono, Now, Wall, words};
use crate::heartbeat::datagram::MAX_BYTES;
use crate::heartbeat::wire;
use crate::memory;
use crate::problem::Problems;
use crate::systemd;

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

/// Speaks until SIGTERM, SIGINT or SIGUSR1. `collect` gives what collects the metrics that the
/// settings ask for.
///
/// # Errors
/// When it cannot start, or cannot wait any more.
pub fn run(
    overrides: &CliOverrides,
    collect: &dyn Fn(&AgentSettings) -> Option<CollectFn>,
) -> Result<(), RunError> {
    memory::limit_arenas(ARENAS);
    let mut ear = Poller::new().map_err(|why| format!("nothing can be waited for: {why}"))?;
    let signals = SignalFlags::new(&ear.waker())
        .map_err(|why| format!("the signals cannot be received: {why}"))?;
    let mut settings = load(overrides).map_err(RunError::Configuration)?;
    let directory = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    let keepsake = LastTimestamp::open(directory);
    let mut agent = Agent::new(&settings, collect(&settings), &ear.waker(), keepsake)?;
    systemd::tell("READY=1");
    memory::give_back();
    while agent.run(&mut ear, &signals)? == SignalAction::Reload {
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

fn load(overrides: &CliOverrides) -> Result<AgentSettings, Problems> {
    let (settings, warnings) = AgentSettings::load(overrides, &|name| std::env::var(name).ok())?;
    for problem in &warnings.0 {
        warn!("{problem}");
    }
    Ok(settings)
}

/// All threads share one arena of the allocator: by default each gets one of its own, with pages of
/// its own, for a speed that an agent does not need.
const ARENAS: i32 = 1;

/// How often a way is looked for where there is none.
const LOOK: Duration = Duration::from_secs(30);
/// A server that cannot be reached at all is reported after so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many datagrams are read from a socket before others have their turn.
const AT_ONCE: usize = 64;

/// A host that speaks, with all that it needs for that.
pub struct Agent {
    speaker: BeatScheduler,
    paths: Vec<Endpoint>,
    names: Vec<Resolver>,
    groups: Vec<ServerState>,
    gatherer: Option<Sampler>,
    /// When a way is looked for next.
    look: Mono,
    interval: Duration,
    watchdog: Option<systemd::Watchdog>,
    keepsake: LastTimestamp,
}

/// A server, as far as there may be no way to it.
#[derive(Debug, Default)]
struct ServerState {
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
        settings: &AgentSettings,
        collect: Option<CollectFn>,
        waker: &Waker,
        keepsake: LastTimestamp,
    ) -> Result<Agent, String> {
        let now = Now::read();
        let host = settings.host.clone().map_or_else(host_info::hostname, Ok)?;
        let voice = HostIdentity {
            host,
            boot_id: host_info::boot_id().ok(),
            key: settings.key.as_ref().map(wire::key),
            interval: settings.interval,
        };
        let paths = Endpoint::all(settings);
        let mut names: Vec<Resolver> = Vec::new();
        for path in &paths {
            if !names.iter().any(|name| *name.server() == path.server) {
                names.push(Resolver::start(path.server.clone(), waker.clone(), now)?);
            }
        }
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        let every = words(settings.interval);
        info!("{} beats every {every} to {}", voice.host, servers.join(", "));
        let connections = paths.iter().map(|path| (path.group, path.connection.clone()));
        Ok(Agent {
            speaker: BeatScheduler::new(voice, connections, keepsake.told(), now),
            paths,
            names,
            groups: settings.servers.iter().map(|_| ServerState::default()).collect(),
            gatherer: collect.map(|collect| Sampler::start(collect, waker.clone())).transpose()?,
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
    pub fn run(&mut self, ear: &mut Poller, signals: &SignalFlags) -> Result<SignalAction, String> {
        let mut wish = None;
        loop {
            let now = Now::read();
            if wish.is_none() {
                wish = signals.take();
                match wish {
                    Some(SignalAction::Stop) => self.speaker.goodbye(host_info::uptime().ok(), now),
                    Some(other) => return Ok(other),
                    None => {}
                }
            }
            if self.speaker.is_over(now) {
                return Ok(SignalAction::Stop);
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
                None => self.speaker.speak(&[], host_info::uptime().ok(), now),
            }
        } else if self.look <= now.mono {
            self.open_more(now);
        }
        if let Some(metrics) = self.gatherer.as_mut().and_then(Sampler::take) {
            self.speaker.speak(&metrics, host_info::uptime().ok(), now);
        } else if self.speaker.gathered(now) {
            self.speaker.speak(&[], host_info::uptime().ok(), now);
        }
        for (at, news) in self.speaker.news(now) {
            self.paths[at].report(&news, self.speaker.line(at).is_known());
        }
        for (at, bytes) in self.speaker.due(ClockReading { now: Now::read(), at: Instant::now() }) {
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
            let mine = |path: &&mut Endpoint| path.server == *name.server();
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
    fn wait(&mut self, ear: &mut Poller) -> std::io::Result<()> {
        let names = self.names.iter().filter_map(Resolver::next);
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
            let tick = ClockReading { now: Now::read(), at: Instant::now() };
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
                        memory::give_back();
                    }
                }
                Err(why) => self.paths[at].doubt = Some(why.into()),
            }
        }
    }
}

/// Whether a server may be elsewhere by now: none of its connections answers, or one of them has
/// just ceased to.
fn doubted(paths: &[Endpoint], speaker: &BeatScheduler, name: &Resolver) -> bool {
    let mine = |at: &usize| paths[*at].server == *name.server() && speaker.is_present(*at);
    let lines = || (0..paths.len()).filter(mine).map(|at| speaker.line(at));
    lines().all(|line| line.fails())
        || lines().any(|line| line.fails() && line.is_known() && !line.is_silent())
}

impl Endpoint {
    fn report(&self, news: &LinkChange, known: bool) {
        let label = self.label();
        match news {
            LinkChange::Silent(time) => {
                let why = self.doubt.as_deref().unwrap_or(if known {
                    "nothing comes back"
                } else {
                    "is hbd listening there, does it know this host, do key and clock agree?"
                });
                warn!("{label} has not answered for {}: {why}", words(*time));
            }
            LinkChange::Answers(time) => info!("{label} answers again, after {}", words(*time)),
        }
    }
}

/// Milliseconds since 1970 as text, in `$RUNTIME_DIRECTORY` (systemd.exec(5)): it lies in memory and
/// does not outlive the boot.
pub struct LastTimestamp {
    file: Option<PathBuf>,
    kept: Wall,
}

impl LastTimestamp {
    /// What an earlier agent kept in `directory`; nothing is kept where there is none.
    pub fn open(directory: Option<PathBuf>) -> LastTimestamp {
        let file = directory.map(|directory| directory.join("told"));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let kept = text.and_then(|text| text.trim().parse().ok()).map(Wall).unwrap_or_default();
        LastTimestamp { file, kept }
    }

    /// The last time that was told.
    pub fn told(&self) -> Wall {
        self.kept
    }

    /// Keeps it.
    pub fn keep(&mut self, told: Wall) {
        if told == self.kept {
            return;
        }
        self.kept = told;
        if let Some(file) = &self.file
            && let Err(why) = fs::write(file, told.0.to_string())
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
        assert_eq!(open().told(), Wall(0), "nothing was");
        open().keep(Wall(1_700_000_000_123));
        assert_eq!(open().told(), Wall(1_700_000_000_123));
        fs::write(directory.path().join("told"), "").unwrap();
        assert_eq!(open().told(), Wall(0), "that was cut off");
    }

    #[test]
    fn without_a_place_it_is_known_until_the_end() {
        let mut keepsake = LastTimestamp::open(None);
        keepsake.keep(Wall(5));
        assert_eq!(keepsake.told(), Wall(5));
        let mut keepsake = LastTimestamp::open(Some("/nonexistent".into()));
        keepsake.keep(Wall(5));
        assert_eq!(keepsake.told(), Wall(5));
    }
}
