//! Decides what a host sends: to each server over each of its connections a beat every interval,
//! metrics over one of them, and a shutdown at the end. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::hmac;

use super::session::{ClockReading, LinkChange, Session};
use super::split;
use crate::agent::collect::Sample;
use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::datagram::{DatagramKind, ShutdownReason};
use crate::heartbeat::encode::OutgoingDatagram;

/// Metrics that take longer to collect follow the beat.
const METRICS_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a shutdown is repeated.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// What every datagram of a host says about its sender.
#[derive(Clone, Debug)]
pub struct HostIdentity {
    /// The host.
    pub host: String,
    /// The kernel's boot id; none where the kernel has none.
    pub boot_id: Option<String>,
    /// What datagrams are signed with.
    pub key: Option<hmac::Key>,
    /// The time between two beats.
    pub interval: Duration,
}

/// One connection to one server.
#[derive(Clone, Debug)]
struct ServerConnection {
    /// The index of the server.
    server: usize,
    connection: String,
    session: Session,
    /// It can be used, or it is to be reported that it cannot.
    present: bool,
    /// The boot was not answered yet.
    boot_pending: bool,
    /// It carries the metrics to its server.
    carries_metrics: bool,
}

/// The rounds of one host over all its connections.
#[derive(Clone, Debug)]
pub struct BeatScheduler {
    identity: HostIdentity,
    links: Vec<ServerConnection>,
    next_round: Mono,
    /// Until when the round waits for metrics; none between rounds.
    metrics_deadline: Option<Mono>,
    /// When the shutdown is no longer repeated; none while the host runs.
    shutdown_deadline: Option<Mono>,
}

impl BeatScheduler {
    /// A scheduler for these connections, each to the server of that index; none of them is used
    /// before [`set_present`](BeatScheduler::set_present). `last_timestamp` is the last one that an
    /// earlier agent of this host used, by its own clock: hbd believes no earlier one.
    pub fn new(
        identity: HostIdentity,
        connections: impl IntoIterator<Item = (usize, String)>,
        last_timestamp: Wall,
        now: Now,
    ) -> BeatScheduler {
        // By the id hbd knows whether it heard of this boot. Without one, each start of the agent
        // would be reported as a boot.
        let boot_pending = identity.boot_id.is_some();
        let link = |(server, connection)| {
            let session = Session::new(identity.interval, last_timestamp);
            ServerConnection {
                server,
                connection,
                session,
                present: false,
                boot_pending,
                carries_metrics: false,
            }
        };
        let links = connections.into_iter().map(link).collect();
        BeatScheduler {
            identity,
            links,
            next_round: now.mono,
            metrics_deadline: None,
            shutdown_deadline: None,
        }
    }

    /// The last timestamp that was used, by the clock that is believed.
    pub fn last_timestamp(&self) -> Wall {
        self.links.iter().map(|link| link.session.last_timestamp()).max().unwrap_or_default()
    }

    /// Whether a connection can be used, or it is to be reported that it cannot. Where the machine
    /// has no route to a server over a connection that is not configured, it is not present.
    pub fn set_present(&mut self, link: usize, present: bool) {
        self.links[link].present = present;
    }

    /// What [`set_present`](BeatScheduler::set_present) said last.
    pub fn is_present(&self, link: usize) -> bool {
        self.links[link].present
    }

    /// The session of a connection.
    pub fn session(&self, link: usize) -> &Session {
        &self.links[link].session
    }

    /// Starts a round if it is time to; whether it did. Metrics are to be collected then, for
    /// [`send_round`](BeatScheduler::send_round).
    pub fn start_round(&mut self, now: Now) -> bool {
        if self.next_round > now.mono || self.shutdown_deadline.is_some() {
            return false;
        }
        // After a sleep of the machine the rounds that were missed are not made up for.
        let next = self.next_round + self.identity.interval;
        self.next_round = if next > now.mono { next } else { now.mono + self.identity.interval };
        self.metrics_deadline = Some(now.mono + METRICS_TIMEOUT.min(self.identity.interval / 4));
        true
    }

    /// Makes the next round due at once: there is a route that was not there before.
    pub fn send_now(&mut self, now: Now) {
        self.next_round = now.mono;
    }

    /// Whether the round has waited for metrics long enough.
    pub fn metrics_overdue(&self, now: Now) -> bool {
        self.metrics_deadline.is_some_and(|deadline| deadline <= now.mono)
    }

    /// Sends the beats of this round with its metrics; or the metrics alone when the beats did not
    /// wait for them.
    pub fn send_round(&mut self, sample: &Sample, uptime: Option<Duration>, now: Now) {
        if self.shutdown_deadline.is_some() {
            return;
        }
        if self.metrics_deadline.take().is_none() {
            return self.send_late_metrics(sample, now);
        }
        for index in 0..self.links.len() {
            let carrier = self.metrics_carrier(self.links[index].server);
            self.links[index].carries_metrics = carrier == Some(index);
        }
        for index in 0..self.links.len() {
            let link = &self.links[index];
            if !link.present {
                continue;
            }
            let boot_id = self.identity.boot_id.clone();
            let first = OutgoingDatagram { uptime, boot_id, ..self.template(index) };
            let beats = if link.carries_metrics {
                let mut all = sample.clone();
                all.metrics.extend(self.connection_metrics(link.server));
                all.metrics.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                let further =
                    OutgoingDatagram { event: DatagramKind::Beat, ..self.template(index) };
                split::beats(&all, &first, &further)
            } else {
                vec![first]
            };
            self.links[index].session.replace(beats, now);
        }
    }

    fn send_late_metrics(&mut self, sample: &Sample, now: Now) {
        for index in 0..self.links.len() {
            let link = &self.links[index];
            if link.present && link.carries_metrics && !sample.metrics.is_empty() {
                let beat = OutgoingDatagram { event: DatagramKind::Beat, ..self.template(index) };
                let beats = split::beats(sample, &beat, &beat);
                self.links[index].session.add(beats, now);
            }
        }
    }

    /// What every datagram of a connection holds.
    fn template(&self, link: usize) -> OutgoingDatagram {
        let link = &self.links[link];
        OutgoingDatagram {
            host: self.identity.host.clone(),
            connection: Some(link.connection.clone()),
            event: if link.boot_pending { DatagramKind::Boot } else { DatagramKind::Beat },
            interval: Some(self.identity.interval),
            ack: true,
            ..OutgoingDatagram::default()
        }
    }

    /// The connection that metrics go over to a server: the first one that answers.
    fn metrics_carrier(&self, server: usize) -> Option<usize> {
        let present = || {
            let of_server =
                |(_, link): &(usize, &ServerConnection)| link.server == server && link.present;
            self.links.iter().enumerate().filter(of_server)
        };
        let answers =
            |link: &ServerConnection| link.session.has_answered() && !link.session.is_failing();
        let answering = present().find(|(_, link)| answers(link));
        let untried = || present().find(|(_, link)| !link.session.is_failing());
        answering.or_else(untried).or_else(|| present().next()).map(|(index, _)| index)
    }

    /// Round-trip time and loss of the connections to a server: each under its name, and the worst
    /// of those that answer under none.
    fn connection_metrics(&self, server: usize) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        let links = || self.links.iter().filter(|link| link.server == server && link.present);
        let any_answers = links().any(|link| !link.session.is_silent());
        for link in links() {
            let stats = link.session.stats();
            let rtt = stats.round_trip().map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3);
            let segment = link.connection.replace('.', "_");
            for (name, value) in [("rtt_ms", rtt), ("loss_percent", stats.loss_percent())] {
                let Some(value) = value else { continue };
                metrics.insert(format!("connection_monitor.{segment}.{name}"), value);
                if !(any_answers && link.session.is_silent()) {
                    let worst =
                        metrics.entry(format!("connection_monitor.{name}")).or_insert(value);
                    *worst = worst.max(value);
                }
            }
        }
        metrics
    }

    /// The datagrams whose time has come, each with the index of its connection.
    pub fn due(&mut self, clock: ClockReading) -> Vec<(usize, Vec<u8>)> {
        let key = self.identity.key.as_ref();
        let mut datagrams = Vec::new();
        for (index, link) in self.links.iter_mut().enumerate() {
            let due = link.session.due(key, clock);
            datagrams.extend(due.into_iter().map(|bytes| (index, bytes)));
        }
        datagrams
    }

    /// Takes in a datagram that came over a connection; a change of that connection.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn ingest(
        &mut self,
        link: usize,
        bytes: &[u8],
        clock: ClockReading,
    ) -> Result<Option<LinkChange>, &'static str> {
        let link = &mut self.links[link];
        let result = link.session.ingest(bytes, self.identity.key.as_ref(), clock)?;
        link.boot_pending &= result.event != Some(DatagramKind::Boot);
        Ok(result.change)
    }

    /// The connections that turn out to be silent, each once.
    pub fn detect_silence(&mut self, now: Now) -> Vec<(usize, LinkChange)> {
        let present = self.links.iter_mut().enumerate().filter(|(_, link)| link.present);
        present
            .filter_map(|(index, link)| Some((index, link.session.detect_silence(now)?)))
            .collect()
    }

    /// Sends a shutdown over all connections, and nothing else from now on.
    pub fn shut_down(
        &mut self,
        reason: Option<ShutdownReason>,
        uptime: Option<Duration>,
        now: Now,
    ) {
        self.metrics_deadline = None;
        self.shutdown_deadline = Some(now.mono + SHUTDOWN_TIMEOUT);
        for index in 0..self.links.len() {
            let boot_id = self.identity.boot_id.clone();
            let beat = OutgoingDatagram {
                event: DatagramKind::Shutdown,
                reason,
                uptime,
                boot_id,
                interval: None,
                ..self.template(index)
            };
            if self.links[index].present {
                self.links[index].session.send_urgently(beat, now);
            }
        }
    }

    /// Whether every server that answers has answered the shutdown, or it was repeated long enough.
    pub fn is_finished(&self, now: Now) -> bool {
        let Some(deadline) = self.shutdown_deadline else {
            return false;
        };
        let present = || self.links.iter().filter(|link| link.present);
        let answers =
            |link: &&ServerConnection| link.session.has_answered() && !link.session.is_silent();
        let all_done = present().all(|link| link.session.is_done());
        let answering_done = present().filter(answers).all(|link| link.session.is_done());
        let any_answers = present().any(|link| answers(&link));
        deadline <= now.mono || all_done || (answering_done && any_answers)
    }

    /// When something has to be done, if no datagram comes before.
    pub fn next_deadline(&self) -> Mono {
        let present = self.links.iter().filter(|link| link.present);
        let sessions = present.filter_map(|link| link.session.next_deadline());
        let round = match self.shutdown_deadline {
            Some(deadline) => deadline,
            None => self.metrics_deadline.unwrap_or(self.next_round),
        };
        sessions.fold(round, Mono::min)
    }
}
