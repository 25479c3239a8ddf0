//! One channel's line: whose turn it is, and how the channel stands. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::delivery::{Cause, Delivery, DeliveryId, LineSettings, LineView};
use crate::clock::{Mono, Now, Wall};
use crate::event::{Level, Subject};
use crate::notify::channel::Pace;
use crate::token_bucket::TokenBucket;

/// A channel that refuses us is probed after this time, then less and less often.
const FIRST_PROBE: Duration = Duration::from_secs(15 * 60);
const LONGEST_PROBE: Duration = Duration::from_secs(6 * 3600);
/// A delivery that failed so often steps aside for one other after each further failure: a message
/// that a provider chokes on must not hold up all, and an outage must not push what is critical
/// behind everything.
pub const PATIENCE: u32 = 4;

/// What stays in sequence: what one recipient hears about one subject.
type Sequence = (Subject, Option<String>);

/// Who goes first: critical, then older.
type Turn = (bool, DeliveryId);

#[derive(Debug, Default)]
struct Queue {
    ids: VecDeque<DeliveryId>,
    critical: BTreeSet<DeliveryId>,
    turn: Option<Turn>,
}

/// What is to be told about a channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// It has been failing for a while, or refuses us.
    Fails { why: String },
    /// It was reported as failing, and delivers again.
    Delivers { failed_for: Duration },
}

/// One channel's line.
#[derive(Debug)]
pub struct Line {
    settings: LineSettings,
    queues: BTreeMap<Sequence, Queue>,
    turns: BTreeMap<Turn, Sequence>,
    all: BTreeSet<DeliveryId>,
    in_flight: Option<DeliveryId>,
    /// It has failed so often that another may go before it, once.
    aside: Option<DeliveryId>,
    rate_limit: TokenBucket,
    jitter: Jitter,
    trouble: Option<Failing>,
    /// Ended, but not yet told.
    recovered: Option<Duration>,
    not_before: Mono,
    /// Why its queue built up, until it is empty.
    held_up: Option<Cause>,
    /// How often in sequence a message that told of several failed.
    failed_bundles: u32,
    last_success: Option<Wall>,
    last_failure: Option<(Wall, String)>,
}

#[derive(Debug)]
struct Failing {
    since: Now,
    failures: u32,
    refused: bool,
    reported: bool,
    why: String,
}

impl Line {
    /// An empty line of a channel that is taken to work.
    pub fn new(settings: LineSettings, seed: u64, now: Mono) -> Line {
        Line {
            rate_limit: rate_limit(&settings.pace, now),
            settings,
            queues: BTreeMap::new(),
            turns: BTreeMap::new(),
            all: BTreeSet::new(),
            in_flight: None,
            aside: None,
            jitter: Jitter::new(seed),
            trouble: None,
            recovered: None,
            not_before: Mono(i64::MIN),
            held_up: None,
            failed_bundles: 0,
            last_success: None,
            last_failure: None,
        }
    }

    /// The same line under a new configuration: it may have been mended, so it is tried at once.
    #[must_use]
    pub fn with_settings(mut self, settings: LineSettings) -> Line {
        self.settings = settings;
        self.not_before = Mono(i64::MIN);
        self
    }

    /// How fast and how long.
    pub fn pace(&self) -> &Pace {
        &self.settings.pace
    }

    /// To whom.
    pub fn recipients(&self) -> &[Option<String>] {
        &self.settings.recipients
    }

    /// Puts a delivery at the end of its sequence.
    pub fn push(&mut self, id: DeliveryId, delivery: &Delivery) {
        let sequence = sequence(delivery);
        let queue = self.queues.entry(sequence.clone()).or_default();
        queue.ids.push_back(id);
        if delivery.message.level == Level::Critical {
            queue.critical.insert(id);
        }
        self.all.insert(id);
        self.place(&sequence);
    }

    /// Takes a delivery out, wherever it stands.
    pub fn remove(&mut self, id: DeliveryId, delivery: &Delivery) {
        let sequence = sequence(delivery);
        let Some(queue) = self.queues.get_mut(&sequence) else { return };
        queue.ids.retain(|other| *other != id);
        queue.critical.remove(&id);
        self.all.remove(&id);
        if self.in_flight == Some(id) {
            self.in_flight = None;
        }
        if self.all.is_empty() {
            self.held_up = None;
            self.failed_bundles = 0;
        }
        self.place(&sequence);
    }

    /// A delivery has failed so many attempts, and may have to step aside once.
    pub fn failed(&mut self, id: DeliveryId, attempts: u32) {
        if attempts >= PATIENCE {
            self.aside = Some(id);
        }
    }

    fn place(&mut self, sequence: &Sequence) {
        let Some(queue) = self.queues.get_mut(sequence) else { return };
        if let Some(turn) = queue.turn.take() {
            self.turns.remove(&turn);
        }
        let Some(head) = queue.ids.front() else {
            self.queues.remove(sequence);
            return;
        };
        let turn = (queue.critical.is_empty(), *head);
        queue.turn = Some(turn);
        self.turns.insert(turn, sequence.clone());
    }

    /// The delivery whose turn it is, if one may be attempted now.
    pub fn ready(&mut self, now: Mono) -> Option<DeliveryId> {
        if self.in_flight.is_some() || now < self.not_before {
            return None;
        }
        let id = self.candidate()?;
        if self.rate_limit.has_token(now) {
            return Some(id);
        }
        self.held_up.get_or_insert(Cause::Rate);
        None
    }

    /// An attempt at a delivery begins.
    pub fn begin(&mut self, id: DeliveryId, now: Mono) {
        self.rate_limit.take(now);
        self.aside = None;
        self.in_flight = Some(id);
    }

    /// Why the queue built up; none where it did not, or where only single messages get through:
    /// one that the provider chokes on must not hold up all.
    pub fn held_up(&self) -> Option<Cause> {
        self.held_up.filter(|_| self.failed_bundles < PATIENCE)
    }

    /// Whether the channel refuses us, so that attempts are only to find out when it no longer does.
    pub fn is_probed(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.refused)
    }

    /// What waits for a recipient, one sequence for each subject.
    pub fn sequences(
        &self,
        recipient: &Option<String>,
    ) -> impl Iterator<Item = impl Iterator<Item = &DeliveryId>> {
        let of = move |sequence: &&Sequence| sequence.1 == *recipient;
        self.queues
            .iter()
            .filter(move |(sequence, _)| of(sequence))
            .map(|(_, queue)| queue.ids.iter())
    }

    /// What waits about the same subject for the same recipient.
    pub fn sequence_of(&self, delivery: &Delivery) -> impl Iterator<Item = &DeliveryId> {
        self.queues.get(&sequence(delivery)).into_iter().flat_map(|queue| &queue.ids)
    }

    /// What waits about a subject, for all recipients.
    pub fn about<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a DeliveryId> {
        self.queues
            .range((subject.clone(), None)..)
            .take_while(move |(sequence, _)| sequence.0 == *subject)
            .flat_map(|(_, queue)| &queue.ids)
    }

    /// A channel that refuses us is probed with the oldest message, else the first in turn goes.
    fn candidate(&self) -> Option<DeliveryId> {
        if self.is_probed() {
            return self.turns.keys().map(|turn| turn.1).min();
        }
        let mut heads = self.turns.keys().map(|turn| turn.1);
        heads.find(|id| self.aside != Some(*id)).or(self.aside.filter(|id| self.all.contains(id)))
    }

    /// When the next attempt may begin; none when nothing waits or one is under way.
    pub fn next_start(&self, now: Mono) -> Option<Mono> {
        if self.in_flight.is_some() || self.all.is_empty() {
            return None;
        }
        Some(self.not_before.max(self.rate_limit.next_token(now)).max(now))
    }

    /// The attempt that was under way is over. Where messages that tell of several fail again and
    /// again and single ones arrive, single ones are tried in between.
    pub fn attempt_ended(&mut self, bundled: bool, arrived: bool) {
        self.in_flight = None;
        self.failed_bundles = match (bundled, arrived) {
            (true, false) => self.failed_bundles + 1,
            (false, true) => self.failed_bundles.min(PATIENCE - 1),
            (true, true) | (false, false) => 0,
        };
    }

    /// The channel answered, so it works: a `success`, or a refusal of that one message.
    pub fn works(&mut self, now: Now, success: bool) {
        self.not_before = Mono(i64::MIN);
        if success {
            self.last_success = Some(now.wall);
        }
        if let Some(trouble) = self.trouble.take()
            && trouble.reported
        {
            self.recovered = Some(now.mono.since(trouble.since.mono));
        }
    }

    /// An attempt failed in a way that may pass; says how long the channel now waits.
    pub fn fails(&mut self, why: &str, after: Option<Duration>, now: Now) -> Duration {
        let failures = self.note_failure(why, false, now);
        let pace = self.settings.pace;
        let backoff = self.backoff(pace.first_delay, pace.longest_delay, failures);
        self.wait(after.map_or(backoff, |hint| hint.max(pace.first_delay)), now)
    }

    /// The channel refuses us altogether; says how long it is left alone.
    pub fn is_refused(&mut self, why: &str, after: Option<Duration>, now: Now) -> Duration {
        let failures = self.note_failure(why, true, now);
        let backoff = self.backoff(FIRST_PROBE, LONGEST_PROBE, failures);
        self.wait(after.unwrap_or(backoff), now)
    }

    /// An attempt that is not of this line failed. It is shown, and changes nothing.
    pub fn failed_elsewhere(&mut self, why: &str, now: Now) {
        self.last_failure = Some((now.wall, why.to_owned()));
    }

    fn wait(&mut self, delay: Duration, now: Now) -> Duration {
        self.not_before = now.mono + delay;
        delay
    }

    fn note_failure(&mut self, why: &str, refused: bool, now: Now) -> u32 {
        self.last_failure = Some((now.wall, why.to_owned()));
        self.held_up = Some(Cause::Unreached);
        let trouble = self.trouble.get_or_insert_with(|| Failing {
            since: now,
            failures: 0,
            refused,
            reported: false,
            why: String::new(),
        });
        if trouble.refused != refused {
            trouble.refused = refused;
            trouble.failures = 0;
        }
        trouble.failures += 1;
        trouble.why = why.to_owned();
        trouble.failures
    }

    /// `first`, doubled with each failure up to `longest`, give or take 20 %.
    fn backoff(&mut self, first: Duration, longest: Duration, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let delay = first.saturating_mul(1 << doublings).min(longest);
        delay.mul_f64(self.jitter.between(0.8, 1.2))
    }

    /// What is to be told about the channel now, each once.
    pub fn report(&mut self, now: Mono, after: Duration) -> Option<Report> {
        if let Some(failed_for) = self.recovered.take() {
            return Some(Report::Delivers { failed_for });
        }
        let trouble = self.trouble.as_mut()?;
        let due = trouble.refused || now.since(trouble.since.mono) >= after;
        if trouble.reported || !due {
            return None;
        }
        trouble.reported = true;
        Some(Report::Fails { why: trouble.why.clone() })
    }

    /// When [`report`](Self::report) will have something to say.
    pub fn next_report(&self, after: Duration) -> Option<Mono> {
        let trouble = self.trouble.as_ref().filter(|trouble| !trouble.reported)?;
        Some(trouble.since.mono + after)
    }

    /// Takes over that the queue built up before a restart because the channel failed.
    pub fn has_failed(&mut self) {
        self.held_up = Some(Cause::Unreached);
    }

    /// Takes over that the channel was reported as failing before a restart, and since when.
    pub fn was_reported(&mut self, since: Option<Wall>, now: Now) {
        let wall = since.unwrap_or(now.wall);
        let since = Now { mono: now.mono - now.wall.since(wall), wall };
        self.note_failure("it failed before the restart", false, since);
        if let Some(trouble) = &mut self.trouble {
            trouble.reported = true;
        }
    }

    /// Whether an attempt is under way.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// How many deliveries wait or are under way.
    pub fn waiting(&self) -> usize {
        self.all.len()
    }

    /// The oldest of them.
    pub fn oldest(&self) -> Option<DeliveryId> {
        self.all.first().copied()
    }

    /// Why the last failed attempt failed, while the channel has not worked since.
    pub fn last_failure(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| trouble.why.as_str())
    }

    /// How it stands; the name and the age of the oldest are filled in by the outbox.
    pub fn view(&self) -> LineView {
        LineView {
            channel: String::new(),
            waiting: self.waiting(),
            oldest: None,
            failing_since: self.trouble.as_ref().map(|trouble| trouble.since.wall),
            refused: self.trouble.as_ref().is_some_and(|trouble| trouble.refused),
            last_success: self.last_success,
            last_failure: self.last_failure.clone(),
            unacknowledged: 0,
        }
    }
}

fn rate_limit(pace: &Pace, now: Mono) -> TokenBucket {
    let interval = Duration::from_secs(60) / pace.per_minute.max(1);
    TokenBucket::full(pace.burst, interval, now)
}

fn sequence(delivery: &Delivery) -> Sequence {
    (delivery.message.subject.clone(), delivery.recipient.clone())
}

/// xorshift64: enough to keep many daemons from knocking at the same moment.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Different for each seed.
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    /// A number between these two.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[allow(clippy::cast_precision_loss, reason = "53 bits are kept")]
        let unit = (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }
}
