//! A host that speaks: to each server over each of its connections, a beat every interval, metrics
//! over one of them, and goodbye at the end. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::hmac;

use super::line::{Line, News, Tick};
use super::parts;
use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::datagram::DatagramKind;
use crate::heartbeat::encode::OutgoingDatagram;

/// Metrics that take longer to collect follow the beat.
const GATHER: Duration = Duration::from_millis(100);
/// How long a goodbye is repeated.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// Who speaks, and how often.
#[derive(Clone, Debug)]
pub struct Voice {
    /// The host.
    pub host: String,
    /// The kernel's boot id; none where there is none to be had.
    pub boot_id: Option<String>,
    /// What datagrams are signed with.
    pub key: Option<hmac::Key>,
    /// The time between two beats.
    pub interval: Duration,
}

/// One connection to one server.
#[derive(Clone, Debug)]
struct Path {
    server: usize,
    connection: String,
    line: Line,
    /// It can be used, or somebody wants to hear that it cannot.
    present: bool,
    /// The boot was not answered yet.
    boots: bool,
    /// It carries the metrics to its server.
    carries: bool,
}

/// A host that speaks.
#[derive(Clone, Debug)]
pub struct Speaker {
    voice: Voice,
    paths: Vec<Path>,
    next_round: Mono,
    /// Until when metrics are waited for.
    gathering: Option<Mono>,
    /// When it stops to say goodbye.
    farewell: Option<Mono>,
}

impl Speaker {
    /// Speaks over these connections, each to the server of that number; none of them can be used
    /// before [`set_present`](Speaker::set_present). `told` is the last time that an agent of this
    /// host told before, by its own clock: hbd believes no earlier one.
    pub fn new(
        voice: Voice,
        connections: impl IntoIterator<Item = (usize, String)>,
        told: Wall,
        now: Now,
    ) -> Speaker {
        // By the id hbd knows whether it heard of this boot. Without one, each start of the agent
        // would be told as a boot.
        let boots = voice.boot_id.is_some();
        let path = |(server, connection)| {
            let line = Line::new(voice.interval, told);
            Path { server, connection, line, present: false, boots, carries: false }
        };
        let paths = connections.into_iter().map(path).collect();
        Speaker { voice, paths, next_round: now.mono, gathering: None, farewell: None }
    }

    /// The last time that was told, by the clock that is believed.
    pub fn told(&self) -> Wall {
        self.paths.iter().map(|path| path.line.told()).max().unwrap_or_default()
    }

    /// Whether a connection can be used, or its trouble is to be reported. Where the machine has
    /// no way to a server over a connection that nobody asked for, it is not there.
    pub fn set_present(&mut self, path: usize, present: bool) {
        self.paths[path].present = present;
    }

    /// Whether it is there.
    pub fn is_present(&self, path: usize) -> bool {
        self.paths[path].present
    }

    /// The line of a connection.
    pub fn line(&self, path: usize) -> &Line {
        &self.paths[path].line
    }

    /// Whether it is time for the next beat: metrics are to be collected then, for
    /// [`speak`](Speaker::speak).
    pub fn begins(&mut self, now: Now) -> bool {
        if self.next_round > now.mono || self.farewell.is_some() {
            return false;
        }
        // Who slept does not make up for what it missed.
        let next = self.next_round + self.voice.interval;
        self.next_round = if next > now.mono { next } else { now.mono + self.voice.interval };
        self.gathering = Some(now.mono + GATHER.min(self.voice.interval / 4));
        true
    }

    /// The next beat is due at once: there is a way that was not there before.
    pub fn hasten(&mut self, now: Now) {
        self.next_round = now.mono;
    }

    /// Whether metrics were waited for long enough.
    pub fn gathered(&self, now: Now) -> bool {
        self.gathering.is_some_and(|until| until <= now.mono)
    }

    /// Takes the metrics of this round: they go with the beat, or after it when it was not kept
    /// waiting for them.
    pub fn speak(&mut self, metrics: &[(String, f64)], uptime: Option<Duration>, now: Now) {
        if self.farewell.is_some() {
            return;
        }
        if self.gathering.take().is_none() {
            return self.speak_late(metrics, now);
        }
        for path in 0..self.paths.len() {
            self.paths[path].carries = self.carrier(self.paths[path].server) == Some(path);
        }
        for at in 0..self.paths.len() {
            let path = &self.paths[at];
            if !path.present {
                continue;
            }
            let first =
                OutgoingDatagram { uptime, boot_id: self.voice.boot_id.clone(), ..self.beat(at) };
            let beats = if path.carries {
                let mut all = metrics.to_vec();
                all.extend(self.connection_metrics(path.server));
                all.sort_by(|a, b| a.0.cmp(&b.0));
                let further = OutgoingDatagram { event: DatagramKind::Beat, ..self.beat(at) };
                parts::beats(&all, &first, &further)
            } else {
                vec![first]
            };
            self.paths[at].line.say(beats, now);
        }
    }

    fn speak_late(&mut self, metrics: &[(String, f64)], now: Now) {
        for at in 0..self.paths.len() {
            if self.paths[at].present && self.paths[at].carries && !metrics.is_empty() {
                let beat = OutgoingDatagram { event: DatagramKind::Beat, ..self.beat(at) };
                let beats = parts::beats(metrics, &beat, &beat);
                self.paths[at].line.add(beats, now);
            }
        }
    }

    /// What every datagram of a connection holds.
    fn beat(&self, path: usize) -> OutgoingDatagram {
        let path = &self.paths[path];
        OutgoingDatagram {
            host: self.voice.host.clone(),
            connection: Some(path.connection.clone()),
            event: if path.boots { DatagramKind::Boot } else { DatagramKind::Beat },
            interval: Some(self.voice.interval),
            ack: true,
            ..OutgoingDatagram::default()
        }
    }

    /// The connection that metrics go over to a server: the first one that answers.
    fn carrier(&self, server: usize) -> Option<usize> {
        let present = || {
            let of_server = |path: &(usize, &Path)| path.1.server == server && path.1.present;
            self.paths.iter().enumerate().filter(of_server)
        };
        let answers = present().find(|(_, path)| path.line.is_known() && !path.line.fails());
        let hopeful = || present().find(|(_, path)| !path.line.fails());
        answers.or_else(hopeful).or_else(|| present().next()).map(|(at, _)| at)
    }

    /// How the connections to a server are: each under its name, and the worst of those that
    /// answer under none.
    fn connection_metrics(&self, server: usize) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        let paths = || self.paths.iter().filter(|path| path.server == server && path.present);
        let any_answers = paths().any(|path| !path.line.is_silent());
        for path in paths() {
            let quality = path.line.quality();
            let rtt = quality.round_trip().map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3);
            let segment = path.connection.replace('.', "_");
            for (name, value) in [("rtt_ms", rtt), ("loss_percent", quality.loss_percent())] {
                let Some(value) = value else { continue };
                metrics.insert(format!("connection_monitor.{segment}.{name}"), value);
                if !(any_answers && path.line.is_silent()) {
                    let worst =
                        metrics.entry(format!("connection_monitor.{name}")).or_insert(value);
                    *worst = worst.max(value);
                }
            }
        }
        metrics
    }

    /// The datagrams whose time has come, each with its connection.
    pub fn due(&mut self, tick: Tick) -> Vec<(usize, Vec<u8>)> {
        let key = self.voice.key.as_ref();
        let mut datagrams = Vec::new();
        for (at, path) in self.paths.iter_mut().enumerate() {
            datagrams.extend(path.line.due(key, tick).into_iter().map(|bytes| (at, bytes)));
        }
        datagrams
    }

    /// Takes what came over a connection; news of it.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn hear(
        &mut self,
        path: usize,
        bytes: &[u8],
        tick: Tick,
    ) -> Result<Option<News>, &'static str> {
        let path = &mut self.paths[path];
        let answered = path.line.hear(bytes, self.voice.key.as_ref(), tick)?;
        path.boots &= answered.event != Some(DatagramKind::Boot);
        Ok(answered.news)
    }

    /// Which connections turn out to be silent, each once.
    pub fn news(&mut self, now: Now) -> Vec<(usize, News)> {
        let present = self.paths.iter_mut().enumerate().filter(|(_, path)| path.present);
        present.filter_map(|(at, path)| Some((at, path.line.news(now)?))).collect()
    }

    /// Says goodbye over all connections, and nothing else any more.
    pub fn goodbye(&mut self, uptime: Option<Duration>, now: Now) {
        self.gathering = None;
        self.farewell = Some(now.mono + FAREWELL);
        for at in 0..self.paths.len() {
            let boot_id = self.voice.boot_id.clone();
            let beat = OutgoingDatagram {
                event: DatagramKind::Shutdown,
                uptime,
                boot_id,
                interval: None,
                ..self.beat(at)
            };
            if self.paths[at].present {
                self.paths[at].line.hurry(beat, now);
            }
        }
    }

    /// Whether goodbye was said to everybody who listens, or long enough.
    pub fn is_over(&self, now: Now) -> bool {
        let Some(end) = self.farewell else {
            return false;
        };
        let present = || self.paths.iter().filter(|path| path.present);
        let heard = |path: &&Path| path.line.is_known() && !path.line.is_silent();
        let everybody = present().all(|path| path.line.is_done());
        let listeners = present().filter(heard).all(|path| path.line.is_done());
        end <= now.mono || everybody || (listeners && present().any(|path| heard(&path)))
    }

    /// When something has to be done, if nothing is heard before.
    pub fn next(&self) -> Mono {
        let lines = self.paths.iter().filter(|path| path.present);
        let lines = lines.filter_map(|path| path.line.next());
        let rounds = match self.farewell {
            Some(end) => Some(end),
            None => self.gathering.or(Some(self.next_round)),
        };
        lines.chain(rounds).min().unwrap_or(self.next_round)
    }
}
