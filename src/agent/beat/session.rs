//! One session of a connection with one server: the beats to be sent, the datagrams whose answers are
//! out, round-trip time and loss. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ring::hmac;

use super::timestamp::{ClockSource, TimestampClock};
use crate::agent::ack;
use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::datagram::DatagramKind;
use crate::heartbeat::encode::{self, OutgoingDatagram};

/// A datagram that is not answered within this time counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Beyond this number of open requests the oldest counts as lost.
const MAX_OPEN_REQUESTS: usize = 256;
/// The delay before the first retry, unless twice the round-trip time is longer.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The same for a beat that is urgent.
const URGENT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Retry delays double up to this, or to an eighth of a long interval.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(4);
/// A server that never answered is reported after this time; a silent one gets no retry sooner than
/// this after the last attempt.
const REPORT_AFTER: Duration = Duration::from_secs(10);
/// The shortest grace period of hbd.
const MIN_GRACE: Duration = Duration::from_secs(30);
/// The loss is that of this number of latest requests.
const LOSS_WINDOW: usize = 100;

/// One reading of the clocks, and of a finer one for round-trip times.
#[derive(Clone, Copy, Debug)]
pub struct ClockReading {
    /// The time in milliseconds.
    pub now: Now,
    /// The same moment in nanoseconds.
    pub instant: Instant,
}

/// A change of a session that is worth a log line; each is reported once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// The server has not answered for that long.
    Silent(Duration),
    /// The server answers, after a silence of that long.
    Recovered(Duration),
}

/// A beat that is sent again and again until it is answered.
#[derive(Clone, Debug)]
struct PendingBeat {
    id: u64,
    beat: OutgoingDatagram,
    attempts: u32,
    /// When the next attempt is due.
    due: Mono,
}

/// A datagram whose answer has not come.
#[derive(Clone, Copy, Debug)]
struct OpenRequest {
    /// The id of its [`PendingBeat`].
    beat: u64,
    /// The timestamp in it, by which the answer is recognized.
    time: Wall,
    source: ClockSource,
    sent: Mono,
    sent_instant: Instant,
}

/// The session of one connection with one server.
///
/// ```text
///                 no answer within REPORT_AFTER
///    never  ------------------------------------->  silent
///   answered                                          |  ^
///       |                                      answer |  | no answer within interval and grace,
///       | answer                                      v  | in three rounds
///       +---------------------------------------->  answering
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    interval: Duration,
    pending: Vec<PendingBeat>,
    /// The id of the next pending beat.
    next_id: u64,
    requests: VecDeque<OpenRequest>,
    timestamps: TimestampClock,
    stats: LinkStats,
    /// When the first of the datagrams was sent since the last answer.
    unanswered_since: Option<Mono>,
    /// How often the pending beats were replaced since the last answer.
    unanswered_rounds: u32,
    ever_answered: bool,
    /// [`LinkChange::Silent`] was reported and no answer came since.
    silent: bool,
    /// Retries come faster: the process is about to end.
    urgent: bool,
}

impl Session {
    /// A session with nothing to send, that promises a beat every `interval` and uses later
    /// timestamps than `last_timestamp`.
    pub fn new(interval: Duration, last_timestamp: Wall) -> Session {
        Session {
            interval,
            pending: Vec::new(),
            next_id: 0,
            requests: VecDeque::new(),
            timestamps: TimestampClock::after(last_timestamp),
            stats: LinkStats::default(),
            unanswered_since: None,
            unanswered_rounds: 0,
            ever_answered: false,
            silent: false,
            urgent: false,
        }
    }

    /// The last timestamp of the local clock.
    pub fn last_timestamp(&self) -> Wall {
        self.timestamps.last()
    }

    /// Replaces all pending beats by this one, and retries it fast from now on.
    pub fn send_urgently(&mut self, beat: OutgoingDatagram, now: Now) {
        self.urgent = true;
        self.replace(vec![beat], now);
    }

    /// Starts a round: these beats replace all that are pending.
    pub fn replace(&mut self, beats: Vec<OutgoingDatagram>, now: Now) {
        self.pending.clear();
        self.unanswered_rounds = self.unanswered_rounds.saturating_add(1);
        self.add(beats, now);
    }

    /// Adds beats to those that are pending.
    pub fn add(&mut self, beats: Vec<OutgoingDatagram>, now: Now) {
        for beat in beats {
            self.pending.push(PendingBeat { id: self.next_id, beat, attempts: 0, due: now.mono });
            self.next_id += 1;
        }
    }

    /// The datagrams whose time has come.
    pub fn due(&mut self, key: Option<&hmac::Key>, clock: ClockReading) -> Vec<Vec<u8>> {
        self.expire_requests(clock.now.mono);
        let mut datagrams = Vec::new();
        for index in 0..self.pending.len() {
            if self.pending[index].due <= clock.now.mono {
                datagrams.push(self.attempt(index, key, clock));
            }
        }
        datagrams
    }

    fn attempt(&mut self, index: usize, key: Option<&hmac::Key>, clock: ClockReading) -> Vec<u8> {
        let attempts = self.pending[index].attempts + 1;
        let delay = self.retry_delay(attempts);
        let pending = &mut self.pending[index];
        pending.attempts = attempts;
        pending.due = clock.now.mono + delay;
        let (time, source) = self.timestamps.next(attempts, clock.now);
        pending.beat.time = Some(time);
        let json = pending.beat.json();
        if self.requests.len() == MAX_OPEN_REQUESTS {
            self.requests.pop_front();
            self.stats.record_loss();
        }
        let sent = clock.now.mono;
        let sent_instant = clock.instant;
        self.requests.push_back(OpenRequest { beat: pending.id, time, source, sent, sent_instant });
        self.unanswered_since.get_or_insert(sent);
        match key {
            Some(key) => encode::sign(key, &json),
            None => json,
        }
    }

    /// The delay behind the `attempt`th attempt, from 1.
    fn retry_delay(&self, attempt: u32) -> Duration {
        let first = if self.urgent { URGENT_RETRY_DELAY } else { FIRST_RETRY_DELAY };
        let min = self.stats.round_trip().map_or(first, |rtt| first.max(rtt * 2));
        let max = MAX_RETRY_DELAY.max(self.interval / 8).max(min);
        let delay = (min * 2_u32.pow((attempt - 1).min(10))).min(max);
        if self.silent && !self.urgent { delay.max(REPORT_AFTER) } else { delay }
    }

    /// Takes in a datagram that came from the server.
    ///
    /// # Errors
    /// Why it is no answer to an open request.
    pub fn ingest(
        &mut self,
        bytes: &[u8],
        key: Option<&hmac::Key>,
        clock: ClockReading,
    ) -> Result<AckResult, &'static str> {
        let ack = ack::parse(bytes, key)?;
        self.expire_requests(clock.now.mono);
        let found = self.requests.iter().position(|request| request.time == ack.time);
        let request = found
            .and_then(|index| self.requests.remove(index))
            .ok_or("an answer came to what was not asked, or long ago")?;
        self.stats.record_answer(clock.instant.saturating_duration_since(request.sent_instant));
        self.timestamps.on_answer(request.time, request.source, ack.now, clock.now);
        self.ever_answered = true;
        self.unanswered_rounds = 0;
        let silence = self.unanswered_since.take().filter(|_| self.silent);
        self.silent = false;
        let answered = self.pending.iter().position(|pending| pending.id == request.beat);
        Ok(AckResult {
            event: answered.map(|index| self.pending.remove(index).beat.event),
            change: silence.map(|since| LinkChange::Recovered(clock.now.mono.since(since))),
        })
    }

    fn expire_requests(&mut self, now: Mono) {
        while self.requests.front().is_some_and(|oldest| now.since(oldest.sent) > ANSWER_TIMEOUT) {
            self.requests.pop_front();
            self.stats.record_loss();
        }
    }

    /// [`LinkChange::Silent`], once, as soon as the session is silent.
    ///
    /// A session is silent when it got no answer for longer than hbd waits before it calls a
    /// connection overdue: a few lost datagrams are no news. A server that never answered is
    /// reported sooner: most likely a name or a key is wrong.
    pub fn detect_silence(&mut self, now: Now) -> Option<LinkChange> {
        if self.silent || self.silent_at()? > now.mono {
            return None;
        }
        self.silent = true;
        self.unanswered_since.map(|since| LinkChange::Silent(now.mono.since(since)))
    }

    fn silent_at(&self) -> Option<Mono> {
        let (timeout, rounds) = if self.ever_answered {
            (self.interval + MIN_GRACE.max(self.interval * 2), 3)
        } else {
            (REPORT_AFTER, 1)
        };
        // The time alone proves nothing: the machine may have slept between request and answer.
        let counts = !self.silent && self.unanswered_rounds >= rounds;
        self.unanswered_since.filter(|_| counts).map(|since| since + timeout)
    }

    /// When [`due`](Session::due) or [`detect_silence`](Session::detect_silence) has something to
    /// give, unless an answer comes before; none when there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Mono> {
        let retry = self.pending.iter().map(|pending| pending.due).min();
        retry.into_iter().chain(self.silent_at()).min()
    }

    /// Whether a round ended without any answer: another socket or address may be better.
    pub fn is_failing(&self) -> bool {
        self.unanswered_rounds > 0 && self.unanswered_since.is_some()
    }

    /// Whether [`LinkChange::Silent`] was reported and no answer came since.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether the server ever answered.
    pub fn has_answered(&self) -> bool {
        self.ever_answered
    }

    /// Whether every beat was answered.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// Round-trip time and loss.
    pub fn stats(&self) -> &LinkStats {
        &self.stats
    }
}

/// What an answer changed.
#[derive(Clone, Debug, PartialEq)]
pub struct AckResult {
    /// The event of the beat that it answers, if that was still pending.
    pub event: Option<DatagramKind>,
    /// [`LinkChange::Recovered`] when the session was silent before.
    pub change: Option<LinkChange>,
}

/// Round-trip time and loss of the latest requests.
#[derive(Clone, Debug, Default)]
pub struct LinkStats {
    /// Whether each was answered, the oldest first.
    answered: VecDeque<bool>,
    /// The smoothed round-trip time (RFC 6298, section 2).
    smoothed_rtt: Option<Duration>,
}

impl LinkStats {
    /// A request was answered after `rtt`.
    pub fn record_answer(&mut self, rtt: Duration) {
        self.smoothed_rtt = Some(self.smoothed_rtt.map_or(rtt, |smooth| (smooth * 7 + rtt) / 8));
        self.record(true);
    }

    /// A request was not answered in time: it was lost, or its answer was.
    pub fn record_loss(&mut self) {
        self.record(false);
        if !self.answered.contains(&true) {
            self.smoothed_rtt = None;
        }
    }

    fn record(&mut self, answered: bool) {
        if self.answered.len() == LOSS_WINDOW {
            self.answered.pop_front();
        }
        self.answered.push_back(answered);
    }

    /// The smoothed round-trip time; none when none of the latest requests was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.smoothed_rtt
    }

    /// The share of the latest requests without an answer, in percent; none before the first.
    pub fn loss_percent(&self) -> Option<f64> {
        let lost = self.answered.iter().filter(|answered| !**answered).count();
        (!self.answered.is_empty()).then(|| lost as f64 * 100.0 / self.answered.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_that_of_the_last_hundred() {
        let mut stats = LinkStats::default();
        assert_eq!(stats.loss_percent(), None);
        for n in 0..1000 {
            if n % 5 == 0 {
                stats.record_loss();
            } else {
                stats.record_answer(Duration::from_millis(10));
            }
        }
        assert_eq!(stats.loss_percent(), Some(20.0));
        for _ in 0..LOSS_WINDOW {
            stats.record_answer(Duration::from_millis(10));
        }
        assert_eq!(stats.loss_percent(), Some(0.0));
    }

    #[test]
    fn the_round_trip_time_is_smoothed_and_forgotten_when_nothing_is_answered() {
        let mut stats = LinkStats::default();
        stats.record_answer(Duration::from_millis(80));
        stats.record_answer(Duration::from_millis(160));
        assert_eq!(stats.round_trip(), Some(Duration::from_millis(90)));
        for _ in 0..LOSS_WINDOW {
            stats.record_loss();
        }
        assert_eq!((stats.round_trip(), stats.loss_percent()), (None, Some(100.0)));
    }
}
