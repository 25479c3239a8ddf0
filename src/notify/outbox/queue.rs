//! One channel's queue: which delivery is next, when, and how healthy the channel is. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::delivery::{Backlog, Delivery, DeliveryId, QueueSettings, QueueStatus};
use super::jitter::Jitter;
use super::recipients::{Recipient, RecipientStates, Standing};
use crate::clock::{Mono, Now, Wall};
use crate::event::{GiveUpCause, Level, Subject};
use crate::notify::channel::RetryPolicy;
use crate::token_bucket::TokenBucket;

/// A channel that refuses everything is probed after this time, then less and less often.
const FIRST_PROBE: Duration = Duration::from_secs(15 * 60);
const MAX_PROBE: Duration = Duration::from_secs(6 * 3600);
/// After this many failed attempts, each further failure lets one other delivery pass: a message
/// that the provider cannot process must not block the queue, and an outage must not move what is
/// critical to its end.
pub const FAILURES_BEFORE_SKIP: u32 = 4;

/// What keeps its order: the messages about one subject to one recipient.
type SubjectKey = (Subject, Recipient);

/// The order of the queue: subjects with a critical delivery first (`false` sorts before `true`),
/// then the older head.
type Priority = (bool, DeliveryId);

#[derive(Debug, Default)]
struct SubjectQueue {
    ids: VecDeque<DeliveryId>,
    critical: BTreeSet<DeliveryId>,
    priority: Option<Priority>,
    /// It is not attempted before this.
    not_before: Option<Mono>,
}

/// A change of a channel's health that is to be reported.
#[derive(Debug, PartialEq, Eq)]
pub enum HealthChange {
    /// It has failed for a while, or refuses everything.
    Failing { why: String },
    /// It was reported as failing, and works again.
    Recovered { failed_for: Duration },
}

/// How long something waits because of what was said about one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientPause {
    /// From now on.
    pub delay: Duration,
    /// The whole channel waits, and not this recipient alone.
    pub is_channel: bool,
}

/// The queue of one channel, in which only the head of each subject can be attempted:
///
/// ```text
///  subject web1  [critical] [recovery]  --head--+   by priority
///  subject web2  [warning] [warning]    --head--+--------------> in flight: at most one
///  subject db    [warning]              --head--+      |
///                                                      | waits for not_before and the rate limit
/// ```
///
/// Its channel's health, by the end of each attempt:
///
/// ```text
///  works ---- unreachable ----> failing
///    |                           |  ^
///    |        channel refused    v  | unreachable
///    +------------------------> refused
///  any answer to a message (delivered, or this message refused) leads back to works
///
///  works:    attempts at the rate limit
///  failing:  exponential backoff; reported once after ten minutes
///  refused:  the oldest delivery is a probe after 15 min ... 6 h, each time for another recipient;
///            reported at once
/// ```
///
/// What is said about one of several recipients holds up that one, with the same delays, and becomes
/// the channel's when the same is said about all.
#[derive(Debug)]
pub struct ChannelQueue {
    settings: QueueSettings,
    subjects: BTreeMap<SubjectKey, SubjectQueue>,
    heads: BTreeMap<Priority, SubjectKey>,
    all: BTreeSet<DeliveryId>,
    in_flight: Option<DeliveryId>,
    /// A reload replaced the settings that the attempt in flight is made with.
    in_flight_outdated: bool,
    recipients: RecipientStates,
    rate_limit: TokenBucket,
    jitter: Jitter,
    failure: Option<ChannelFailure>,
    /// How long a failure lasted that has ended but is not yet reported.
    recovered: Option<Duration>,
    not_before: Mono,
    /// Why a backlog built up, until the queue is empty.
    backlog: Option<Backlog>,
    /// How many digests failed in a row.
    failed_digests: u32,
    last_success: Option<Wall>,
    last_failure: Option<(Wall, String)>,
}

#[derive(Debug)]
struct ChannelFailure {
    since: Now,
    failures: u32,
    refused: bool,
    reported: bool,
    why: String,
}

impl ChannelQueue {
    /// An empty queue of a channel that is taken to work.
    pub fn new(settings: QueueSettings, seed: u64, now: Mono) -> ChannelQueue {
        ChannelQueue {
            rate_limit: rate_limit(&settings.retry_policy, now),
            settings,
            subjects: BTreeMap::new(),
            heads: BTreeMap::new(),
            all: BTreeSet::new(),
            in_flight: None,
            in_flight_outdated: false,
            recipients: RecipientStates::default(),
            jitter: Jitter::new(seed),
            failure: None,
            recovered: None,
            not_before: Mono(i64::MIN),
            backlog: None,
            failed_digests: 0,
            last_success: None,
            last_failure: None,
        }
    }

    /// The same queue with new settings. A reload may have repaired the channel: it is tried at
    /// once, also when an attempt with the old ones is still to fail.
    #[must_use]
    pub fn with_settings(mut self, settings: QueueSettings) -> ChannelQueue {
        self.settings = settings;
        self.not_before = Mono(i64::MIN);
        self.recipients.release();
        self.in_flight_outdated = self.in_flight.is_some();
        self
    }

    /// What was configured.
    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// The channel's rate limit, delays and times to give up.
    pub fn retry_policy(&self) -> &RetryPolicy {
        &self.settings.retry_policy
    }

    /// The recipients; one `None` for a channel that is sent to as a whole.
    pub fn recipients(&self) -> &[Option<String>] {
        &self.settings.recipients
    }

    /// Adds a delivery behind the others of its subject.
    pub fn push(&mut self, id: DeliveryId, delivery: &Delivery) {
        self.insert(id, delivery, None);
    }

    /// Adds a delivery before another one of its subject, or behind all of them.
    pub fn insert(&mut self, id: DeliveryId, delivery: &Delivery, before: Option<DeliveryId>) {
        let key = subject_key(delivery);
        let queue = self.subjects.entry(key.clone()).or_default();
        let place = before.and_then(|before| queue.ids.iter().rposition(|other| *other == before));
        queue.ids.insert(place.unwrap_or(queue.ids.len()), id);
        if delivery.message.level == Level::Critical {
            queue.critical.insert(id);
        }
        self.all.insert(id);
        self.update_head(&key);
    }

    /// What waits about the subject of a delivery is not attempted before this; none: as soon as it can.
    /// What waits before this delivery is never held up.
    pub fn gather(&mut self, id: DeliveryId, delivery: &Delivery, until: Option<Mono>) {
        if let Some(queue) = self.subjects.get_mut(&subject_key(delivery))
            && (until.is_none() || queue.ids.front() == Some(&id))
        {
            queue.not_before = until;
        }
    }

    /// Removes a delivery, wherever it is.
    pub fn remove(&mut self, id: DeliveryId, delivery: &Delivery) {
        let key = subject_key(delivery);
        let Some(queue) = self.subjects.get_mut(&key) else { return };
        // Thousands may wait, and mostly the first one goes.
        if let Some(place) = queue.ids.iter().position(|other| *other == id) {
            queue.ids.remove(place);
        }
        queue.critical.remove(&id);
        self.all.remove(&id);
        if self.in_flight == Some(id) {
            self.in_flight = None;
        }
        if self.all.is_empty() {
            self.backlog = None;
            self.failed_digests = 0;
        }
        self.update_head(&key);
        let recipient = &delivery.recipient;
        if self.recipients.has_backlog(recipient)
            && self.waiting_for_recipient(recipient).next().is_none()
        {
            self.recipients.clear_backlog(recipient);
        }
    }

    /// An attempt at a delivery failed: from its attempt number [`FAILURES_BEFORE_SKIP`] on it is
    /// skipped once.
    pub fn record_failed_attempts(&mut self, id: DeliveryId, delivery: &Delivery) {
        if delivery.attempts >= FAILURES_BEFORE_SKIP {
            self.recipients.set_skip_once(&delivery.recipient, id);
        }
    }

    fn update_head(&mut self, key: &SubjectKey) {
        let Some(queue) = self.subjects.get_mut(key) else { return };
        if let Some(priority) = queue.priority.take() {
            self.heads.remove(&priority);
        }
        let Some(head) = queue.ids.front() else {
            self.subjects.remove(key);
            return;
        };
        let priority = (queue.critical.is_empty(), *head);
        queue.priority = Some(priority);
        self.heads.insert(priority, key.clone());
    }

    /// The next delivery, if it may be attempted now.
    pub fn next_ready(&mut self, now: Mono) -> Option<DeliveryId> {
        if self.in_flight.is_some() || now < self.not_before {
            return None;
        }
        let id = self.candidate(now)?;
        if self.rate_limit.has_token(now) {
            return Some(id);
        }
        self.backlog.get_or_insert(Backlog::RateLimited);
        None
    }

    /// An attempt at a delivery starts.
    pub fn start_attempt(&mut self, id: DeliveryId, recipient: &Recipient, now: Mono) {
        self.rate_limit.take(now);
        self.recipients.start_attempt(recipient);
        self.in_flight = Some(id);
        self.in_flight_outdated = false;
    }

    /// Why a backlog for a recipient built up; none without one.
    pub fn backlog(&self, recipient: &Recipient) -> Option<Backlog> {
        let own = self.recipients.has_backlog(recipient).then_some(Backlog::Unreachable);
        own.or(self.backlog)
    }

    /// Whether several messages may become one. While that fails again and again, single ones must get
    /// their chance.
    pub fn takes_digests(&self) -> bool {
        self.failed_digests < FAILURES_BEFORE_SKIP
    }

    /// Whether the channel refuses everything, so that attempts only probe it.
    pub fn is_probing(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.refused)
    }

    /// What waits for a recipient, by subject.
    pub fn waiting_for_recipient(
        &self,
        recipient: &Option<String>,
    ) -> impl Iterator<Item = impl Iterator<Item = &DeliveryId>> {
        let of = move |key: &&SubjectKey| key.1 == *recipient;
        self.subjects.iter().filter(move |(key, _)| of(key)).map(|(_, queue)| queue.ids.iter())
    }

    /// What waits about the same subject for the same recipient as this delivery.
    pub fn waiting_with(
        &self,
        delivery: &Delivery,
    ) -> impl DoubleEndedIterator<Item = &DeliveryId> {
        self.subjects.get(&subject_key(delivery)).into_iter().flat_map(|queue| &queue.ids)
    }

    /// What waits about a subject, for all recipients.
    pub fn waiting_about<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> impl Iterator<Item = &'a DeliveryId> {
        self.subjects
            .range((subject.clone(), None)..)
            .take_while(move |(key, _)| key.0 == *subject)
            .flat_map(|(_, queue)| &queue.ids)
    }

    /// To probe a channel that refuses everything, the oldest delivery for the recipient that was
    /// not tried for the longest time; else the first by priority for a recipient that does not wait.
    fn candidate(&self, now: Mono) -> Option<DeliveryId> {
        if self.is_probing() {
            let heads = self.heads.iter().map(|(priority, key)| (priority.1, &key.1));
            let turn = |(id, recipient): &(DeliveryId, &Recipient)| {
                (self.recipients.last_attempt(recipient), *id)
            };
            return heads.min_by_key(turn).map(|(id, _)| id);
        }
        let mut skipped = None;
        for ((_, id), key) in &self.heads {
            let (id, recipient) = (*id, &key.1);
            if self.not_before(key).is_some_and(|until| now < until) {
                continue;
            }
            if !self.recipients.is_skipped(recipient, id) {
                return Some(id);
            }
            skipped = skipped.or(Some(id));
        }
        skipped
    }

    /// When a subject may be attempted; none: now.
    fn not_before(&self, key: &SubjectKey) -> Option<Mono> {
        self.recipients.not_before(&key.1).max(self.subjects.get(key)?.not_before)
    }

    /// When the next attempt may start; none when nothing waits or one is in flight.
    pub fn next_start(&self, now: Mono) -> Option<Mono> {
        if self.in_flight.is_some() || self.all.is_empty() {
            return None;
        }
        let start = self.not_before.max(self.rate_limit.next_token(now)).max(now);
        if self.is_probing() {
            return Some(start);
        }
        let mut soonest = None;
        for key in self.heads.values() {
            let Some(until) = self.not_before(key) else { return Some(start) };
            soonest = Some(soonest.map_or(until, |known: Mono| known.min(until)));
        }
        Some(soonest.map_or(start, |soonest| soonest.max(start)))
    }

    /// The attempt in flight has ended. Where digests fail again and again but single messages
    /// arrive, both are tried in turn.
    pub fn attempt_ended(&mut self, was_digest: bool, arrived: bool) {
        self.in_flight = None;
        self.failed_digests = match (was_digest, arrived) {
            (true, false) => self.failed_digests + 1,
            (false, true) => self.failed_digests.min(FAILURES_BEFORE_SKIP - 1),
            (true, true) | (false, false) => 0,
        };
    }

    /// The attempt in flight was not made; the next one is not before this.
    pub fn attempt_not_made(&mut self, until: Mono) {
        self.in_flight = None;
        self.not_before = self.not_before.max(until);
    }

    /// The channel answered, so it works: by taking a message, or by refusing that one alone, unless
    /// it refuses all other recipients.
    pub fn on_answer(
        &mut self,
        recipient: &Recipient,
        standing: Standing,
        success: bool,
        now: Now,
    ) {
        self.not_before = Mono(i64::MIN);
        self.recipients.on_answer(recipient, standing);
        if success {
            self.last_success = Some(now.wall);
        }
        if self.is_probing()
            && self.has_several_recipients()
            && self.recipients.all_refused(&self.settings.recipients)
        {
            return;
        }
        if self.failure.is_some() {
            self.recipients.release();
        }
        if let Some(failure) = self.failure.take()
            && failure.reported
        {
            self.recovered = Some(now.mono.since(failure.since.mono));
        }
    }

    /// An attempt failed for a reason that may pass; returns how long the channel pauses.
    pub fn on_unreachable(&mut self, why: &str, after: Option<Duration>, now: Now) -> Duration {
        let failures = self.record_failure(why, false, now);
        let pace = self.settings.retry_policy;
        let backoff = self.backoff(pace.first_delay, pace.max_delay, failures);
        self.pause(after.map_or(backoff, |hint| hint.max(pace.first_delay)), now)
    }

    /// The channel refuses everything; returns how long it pauses.
    pub fn on_refused(&mut self, why: &str, after: Option<Duration>, now: Now) -> Duration {
        let failures = self.record_failure(why, true, now);
        let backoff = self.backoff(FIRST_PROBE, MAX_PROBE, failures);
        self.pause(after.unwrap_or(backoff), now)
    }

    /// Whether what is said about one recipient may be different for another one.
    pub fn has_several_recipients(&self) -> bool {
        self.settings.recipients.len() > 1
    }

    /// The provider defers or refuses one recipient. Returns how long that one waits, or the whole
    /// channel because the provider refuses all of them.
    pub fn on_recipient_failure(
        &mut self,
        recipient: &Recipient,
        standing: Standing,
        why: &str,
        now: Now,
    ) -> RecipientPause {
        let failures = self.recipients.on_failure(recipient, standing, why);
        if self.recipients.all_refused(&self.settings.recipients) {
            return RecipientPause { delay: self.on_refused(why, None, now), is_channel: true };
        }
        if self.recipients.all_fail(&self.settings.recipients) {
            self.record_failure(why, false, now);
        }
        self.last_failure = Some((now.wall, why.to_owned()));
        self.not_before = Mono(i64::MIN);
        let pace = self.settings.retry_policy;
        let (first, longest) = match standing {
            Standing::Refused => (FIRST_PROBE, MAX_PROBE),
            _ => (pace.first_delay, pace.max_delay),
        };
        let delay = self.backoff(first, longest, failures);
        self.recipients.pause(recipient, now.mono + delay);
        RecipientPause { delay, is_channel: false }
    }

    /// A direct message failed, which is no attempt of this queue: shown, without effect on it.
    pub fn record_external_failure(&mut self, why: &str, now: Now) {
        self.last_failure = Some((now.wall, why.to_owned()));
    }

    fn pause(&mut self, delay: Duration, now: Now) -> Duration {
        self.not_before = now.mono + delay;
        delay
    }

    fn record_failure(&mut self, why: &str, refused: bool, now: Now) -> u32 {
        self.last_failure = Some((now.wall, why.to_owned()));
        self.backlog = Some(Backlog::Unreachable);
        let failure = self.failure.get_or_insert_with(|| ChannelFailure {
            since: now,
            failures: 0,
            refused,
            reported: false,
            why: String::new(),
        });
        if failure.refused != refused {
            failure.refused = refused;
            failure.failures = 0;
        }
        failure.failures += 1;
        failure.why = why.to_owned();
        failure.failures
    }

    /// `first`, doubled with each failure up to `longest`, give or take 20 %. None after an attempt
    /// with settings that a reload has replaced: it says nothing about the new ones.
    fn backoff(&mut self, first: Duration, longest: Duration, failures: u32) -> Duration {
        if std::mem::take(&mut self.in_flight_outdated) {
            return Duration::ZERO;
        }
        let doublings = failures.saturating_sub(1).min(16);
        let delay = first.saturating_mul(1 << doublings).min(longest);
        delay.mul_f64(self.jitter.between(0.8, 1.2))
    }

    /// A change that is to be reported now, each once.
    pub fn health_change(&mut self, now: Mono, after: Duration) -> Option<HealthChange> {
        if let Some(failed_for) = self.recovered.take() {
            return Some(HealthChange::Recovered { failed_for });
        }
        let failure = self.failure.as_mut()?;
        let due = failure.refused || now.since(failure.since.mono) >= after;
        if failure.reported || !due {
            return None;
        }
        failure.reported = true;
        Some(HealthChange::Failing { why: failure.why.clone() })
    }

    /// When [`health_change`](Self::health_change) will return something.
    pub fn next_health_change(&self, after: Duration) -> Option<Mono> {
        let failure = self.failure.as_ref().filter(|failure| !failure.reported)?;
        Some(failure.since.mono + after)
    }

    /// Many deliveries came out of a hold at once.
    pub fn on_released(&mut self) {
        self.backlog.get_or_insert(Backlog::HeldBack);
    }

    /// After a restart: a backlog had built up because the channel failed.
    pub fn restore_backlog(&mut self) {
        self.backlog = Some(Backlog::Unreachable);
    }

    /// After a restart: the channel was reported as failing, at `since`.
    pub fn restore_reported_failure(&mut self, since: Option<Wall>, now: Now) {
        let wall = since.unwrap_or(now.wall);
        let since = Now { mono: now.mono - now.wall.since(wall), wall };
        self.record_failure("it failed before the restart", false, since);
        if let Some(failure) = &mut self.failure {
            failure.reported = true;
        }
    }

    /// Whether an attempt is in flight.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// How many deliveries wait or are in flight.
    pub fn waiting(&self) -> usize {
        self.all.len()
    }

    /// The oldest delivery.
    pub fn oldest(&self) -> Option<DeliveryId> {
        self.all.first().copied()
    }

    /// Why the last attempt for a recipient failed; none when that is not known, or it worked.
    pub fn last_failure_for(&self, recipient: &Recipient) -> Option<&str> {
        self.recipients.last_failure(recipient).or_else(|| self.last_failure())
    }

    /// Why the last attempt failed; none when the channel works.
    pub fn last_failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| failure.why.as_str())
    }

    /// Why what waits for a recipient came to its end, and whether that concerns this recipient alone.
    pub fn give_up_cause(&self, delivery: &Delivery) -> (GiveUpCause, bool) {
        let recipient = &delivery.recipient;
        if let Some(failure) = &self.failure {
            let refused = failure.refused;
            let cause =
                if refused { GiveUpCause::ChannelRefused } else { GiveUpCause::Unreachable };
            return (cause, false);
        }
        if self.recipients.last_failure(recipient).is_some() {
            let cause = match self.recipients.standing(recipient) {
                Standing::Refused | Standing::Rejected => GiveUpCause::ChannelRefused,
                Standing::Untried | Standing::Accepted | Standing::Deferred => {
                    GiveUpCause::Unreachable
                }
            };
            return (cause, self.has_several_recipients());
        }
        let was_unreachable = self.backlog == Some(Backlog::Unreachable) || delivery.attempts > 0;
        (if was_unreachable { GiveUpCause::Unreachable } else { GiveUpCause::Late }, false)
    }

    /// For the status; the outbox fills in the name and the age of the oldest delivery.
    pub fn status(&self) -> QueueStatus {
        QueueStatus {
            channel: String::new(),
            waiting: self.waiting(),
            oldest: None,
            failing_since: self.failure.as_ref().map(|failure| failure.since.wall),
            refused: self.failure.as_ref().is_some_and(|failure| failure.refused),
            last_success: self.last_success,
            last_failure: self.last_failure.clone(),
            unacknowledged: 0,
        }
    }
}

fn rate_limit(pace: &RetryPolicy, now: Mono) -> TokenBucket {
    let interval = Duration::from_secs(60) / pace.per_minute.max(1);
    TokenBucket::full(pace.burst, interval, now)
}

fn subject_key(delivery: &Delivery) -> SubjectKey {
    (delivery.message.subject.clone(), delivery.recipient.clone())
}
