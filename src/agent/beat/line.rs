//! One connection to one server: what is still to be said over it, what was asked, and whether it
//! answers. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ring::hmac;

use super::quality::Quality;
use super::stamp::{Stamp, Tale};
use crate::agent::ack;
use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::datagram::DatagramKind;
use crate::heartbeat::encode::{self, OutgoingDatagram};

/// An answer that takes longer is none.
const LATE: Duration = Duration::from_secs(5);
/// So many questions are open at most; an older one is taken for lost.
const MOST_OPEN: usize = 256;
/// The first repetition comes after so long, or after twice the round-trip time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The same when there is little time.
const HURRIED_PAUSE: Duration = Duration::from_millis(200);
/// Pauses grow up to this, or to an eighth of a long interval.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// A server that never answered is told of after so long, and one that is silent is asked no more
/// often than that between two beats.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least grace that hbd gives.
const LEAST_GRACE: Duration = Duration::from_secs(30);

/// One reading of the clocks, and of a finer one for round-trip times.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// What time it is.
    pub now: Now,
    /// The same moment, finer.
    pub at: Instant,
}

/// What a line has to report; each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It does not answer, for so long.
    Silent(Duration),
    /// It answers, after it had been silent for so long.
    Answers(Duration),
}

/// Something that is said until it is answered.
#[derive(Clone, Debug)]
struct Letter {
    id: u64,
    beat: OutgoingDatagram,
    attempts: u32,
    due: Mono,
}

/// A datagram whose answer has not come.
#[derive(Clone, Copy, Debug)]
struct Question {
    letter: u64,
    time: Wall,
    tale: Tale,
    sent: Mono,
    at: Instant,
}

/// One connection to one server.
#[derive(Clone, Debug)]
pub struct Line {
    interval: Duration,
    letters: Vec<Letter>,
    /// The id of the next letter.
    id: u64,
    open: VecDeque<Question>,
    stamp: Stamp,
    quality: Quality,
    /// Since when nothing of what was asked was answered.
    unanswered: Option<Mono>,
    /// How often something new was to be said since then.
    rounds: u32,
    /// It ever answered.
    known: bool,
    /// That it is silent was reported.
    silent: bool,
    /// There is little time left.
    hurried: bool,
}

impl Line {
    /// A line over which nothing was said, that promises a beat every `interval` and tells later
    /// times than `told`.
    pub fn new(interval: Duration, told: Wall) -> Line {
        Line {
            interval,
            letters: Vec::new(),
            id: 0,
            open: VecDeque::new(),
            stamp: Stamp::after(told),
            quality: Quality::default(),
            unanswered: None,
            rounds: 0,
            known: false,
            silent: false,
            hurried: false,
        }
    }

    /// The last time that was told.
    pub fn told(&self) -> Wall {
        self.stamp.told()
    }

    /// Has this to say and nothing else, soon.
    pub fn hurry(&mut self, beat: OutgoingDatagram, now: Now) {
        self.hurried = true;
        self.say(vec![beat], now);
    }

    /// Has these to say from now on, and nothing else any more.
    pub fn say(&mut self, beats: Vec<OutgoingDatagram>, now: Now) {
        self.letters.clear();
        self.rounds = self.rounds.saturating_add(1);
        self.add(beats, now);
    }

    /// Has these to say, too.
    pub fn add(&mut self, beats: Vec<OutgoingDatagram>, now: Now) {
        for beat in beats {
            self.letters.push(Letter { id: self.id, beat, attempts: 0, due: now.mono });
            self.id += 1;
        }
    }

    /// The datagrams whose time has come.
    pub fn due(&mut self, key: Option<&hmac::Key>, tick: Tick) -> Vec<Vec<u8>> {
        self.expire(tick.now.mono);
        let mut datagrams = Vec::new();
        for at in 0..self.letters.len() {
            if self.letters[at].due <= tick.now.mono {
                datagrams.push(self.attempt(at, key, tick));
            }
        }
        datagrams
    }

    fn attempt(&mut self, at: usize, key: Option<&hmac::Key>, tick: Tick) -> Vec<u8> {
        let attempts = self.letters[at].attempts + 1;
        let pause = self.pause(attempts);
        let letter = &mut self.letters[at];
        letter.attempts = attempts;
        letter.due = tick.now.mono + pause;
        let (time, tale) = self.stamp.next(attempts, tick.now);
        letter.beat.time = Some(time);
        let json = letter.beat.json();
        if self.open.len() == MOST_OPEN {
            self.open.pop_front();
            self.quality.lost();
        }
        let sent = tick.now.mono;
        self.open.push_back(Question { letter: letter.id, time, tale, sent, at: tick.at });
        self.unanswered.get_or_insert(sent);
        match key {
            Some(key) => encode::sign(key, &json),
            None => json,
        }
    }

    /// How long to wait for the answer to the `attempt`th try, from 1.
    fn pause(&self, attempt: u32) -> Duration {
        let first = if self.hurried { HURRIED_PAUSE } else { FIRST_PAUSE };
        let least = self.quality.round_trip().map_or(first, |rtt| first.max(rtt * 2));
        let most = LONGEST_PAUSE.max(self.interval / 8).max(least);
        let pause = (least * 2_u32.pow((attempt - 1).min(10))).min(most);
        if self.silent && !self.hurried { pause.max(PATIENCE) } else { pause }
    }

    /// Takes what came over this line.
    ///
    /// # Errors
    /// Why it is no answer to anything that was asked.
    pub fn hear(
        &mut self,
        bytes: &[u8],
        key: Option<&hmac::Key>,
        tick: Tick,
    ) -> Result<Answered, &'static str> {
        let ack = ack::read(bytes, key)?;
        self.expire(tick.now.mono);
        let found = self.open.iter().position(|question| question.time == ack.time);
        let question = found
            .and_then(|at| self.open.remove(at))
            .ok_or("an answer came to what was not asked, or long ago")?;
        self.quality.answered(tick.at.saturating_duration_since(question.at));
        self.stamp.answered(question.time, question.tale, ack.now, tick.now);
        self.known = true;
        self.rounds = 0;
        let silence = self.unanswered.take().filter(|_| self.silent);
        self.silent = false;
        let letter = self.letters.iter().position(|letter| letter.id == question.letter);
        Ok(Answered {
            event: letter.map(|at| self.letters.remove(at).beat.event),
            news: silence.map(|since| News::Answers(tick.now.mono.since(since))),
        })
    }

    fn expire(&mut self, now: Mono) {
        while self.open.front().is_some_and(|question| now.since(question.sent) > LATE) {
            self.open.pop_front();
            self.quality.lost();
        }
    }

    /// That it is silent, as soon as that is so.
    ///
    /// Silent is who was asked for longer than hbd waits before it calls a connection overdue: a
    /// few lost datagrams are no news. Who never answered is told of sooner: a name or a key is
    /// wrong, most likely.
    pub fn news(&mut self, now: Now) -> Option<News> {
        if self.silent || self.silent_at()? > now.mono {
            return None;
        }
        self.silent = true;
        self.unanswered.map(|since| News::Silent(now.mono.since(since)))
    }

    fn silent_at(&self) -> Option<Mono> {
        let (patience, rounds) = if self.known {
            (self.interval + LEAST_GRACE.max(self.interval * 2), 3)
        } else {
            (PATIENCE, 1)
        };
        // Who slept between a question and its answer waited for nobody.
        let counts = !self.silent && self.rounds >= rounds;
        self.unanswered.filter(|_| counts).map(|since| since + patience)
    }

    /// When it wants to be looked at.
    pub fn next(&self) -> Option<Mono> {
        let letter = self.letters.iter().map(|letter| letter.due).min();
        letter.into_iter().chain(self.silent_at()).min()
    }

    /// Whether a round ended without any answer: another socket or address may be better.
    pub fn fails(&self) -> bool {
        self.rounds > 0 && self.unanswered.is_some()
    }

    /// Whether it is known to be silent.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether it ever answered.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether everything that was to be said was answered.
    pub fn is_done(&self) -> bool {
        self.letters.is_empty()
    }

    /// How well it carries.
    pub fn quality(&self) -> &Quality {
        &self.quality
    }
}

/// What an answer told.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What it answered, when that was still to be said.
    pub event: Option<DatagramKind>,
    /// That the line answers again.
    pub news: Option<News>,
}
