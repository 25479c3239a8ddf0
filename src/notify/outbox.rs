//! The outbox: which deliveries wait, whose turn it is, what an attempt's end means. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::channel::{Delivered, Failure, Pace};
use super::line::{Line, Report};
use super::route::Routes;
use crate::clock::{Mono, Now, Wall, words};
use crate::event::{Event, EventId, Fact, Level, Message, Subject, Trouble};
use crate::store::{Table, Write};

/// A channel that has been failing for so long is reported through others.
const REPORT_AFTER: Duration = Duration::from_secs(600);
/// How often waiting deliveries are looked through for expired ones.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);
/// A channel is told of the end of at most so many events of one trouble.
const EVENTS_KEPT: usize = 16;

/// The number of a delivery, rising: their order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DeliveryId(pub u64);

impl DeliveryId {
    /// As the key of a row: it sorts as the number does.
    pub fn key(self) -> String {
        format!("{:020}", self.0)
    }
}

/// One message on its way to one channel, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// To which channel.
    pub channel: String,
    /// To which of its recipients, where each is sent to on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// What to say.
    pub message: Arc<Message>,
    /// When it was accepted.
    pub accepted: Now,
    /// How many attempts have begun.
    #[serde(default)]
    pub attempts: u32,
    /// Whether one is under way: after a crash, its outcome is unknown.
    #[serde(default)]
    pub in_flight: bool,
    /// An earlier attempt may have arrived.
    #[serde(default)]
    pub possible_repeat: bool,
    /// Its full form was refused: short and plain from now on.
    #[serde(default)]
    pub plain: bool,
    /// The trouble that it tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Trouble>,
    /// The events whose trouble it ends, as this channel was told of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<EventId>,
    /// What the channel hangs its thread on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

/// An open trouble and who was told of it, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    trouble: Trouble,
    given: BTreeMap<String, Given>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Given {
    /// Whether any of its messages arrived.
    #[serde(default)]
    delivered: bool,
    /// How many of its messages wait.
    #[serde(default)]
    queued: u32,
    #[serde(default)]
    events: Vec<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thread: Option<String>,
}

/// An attempt to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Of which delivery.
    pub id: DeliveryId,
    /// The delivery as it stands.
    pub delivery: Delivery,
}

/// What became of a delivery, for the log and the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Delivered,
    /// It is tried again at that time at the earliest.
    Waits { why: String, delay: Duration, may_have_arrived: bool },
    /// The channel takes nothing at all; its queue waits.
    ChannelRefused { why: String, delay: Duration },
    /// It will never arrive.
    Dropped { why: String },
}

/// One line of the history: what was sent to whom, and how that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The event.
    pub event: EventId,
    /// The channel.
    pub channel: String,
    /// Which of its recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// What it was about.
    pub subject: Subject,
    /// How much it mattered.
    pub level: Level,
    /// What it said.
    pub title: String,
    /// When it was accepted.
    pub accepted: Wall,
    /// When it ended.
    pub finished: Wall,
    /// After how many attempts.
    pub attempts: u32,
    /// Whether it arrived; else [`why`](Self::why) it did not.
    pub delivered: bool,
    /// Why it did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What the outbox has to be told of a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct LineSettings {
    /// How fast and how long.
    pub pace: Pace,
    /// Its recipients; one `None` for a channel that is sent to as a whole.
    pub recipients: Vec<Option<String>>,
}

/// How a channel stands, for the status and the metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineView {
    /// Its name.
    pub channel: String,
    /// How many deliveries wait or are under way.
    pub waiting: usize,
    /// How long the oldest of them has been waiting.
    pub oldest: Option<Duration>,
    /// Since when it fails; none when it works as far as is known.
    pub failing_since: Option<Wall>,
    /// Whether it takes nothing until somebody mends it.
    pub refused: bool,
    /// The last success.
    pub last_success: Option<Wall>,
    /// The last failure and when it was.
    pub last_failure: Option<(Wall, String)>,
}

/// Deliveries by channel, and the troubles that they told of.
#[derive(Debug, Default)]
pub struct Outbox {
    deliveries: BTreeMap<DeliveryId, Delivery>,
    lines: BTreeMap<String, Line>,
    troubles: BTreeMap<Trouble, Open>,
    last_id: DeliveryId,
    next_expiry_check: Mono,
    writes: Vec<Write>,
}

impl Outbox {
    /// An empty one with these channels. `seed` varies the jitter.
    pub fn new(settings: BTreeMap<String, LineSettings>, seed: u64, now: Now) -> Outbox {
        let mut outbox = Outbox { next_expiry_check: now.mono + EXPIRY_CHECK, ..Outbox::default() };
        outbox.reconfigure(settings, seed, now);
        outbox
    }

    /// Takes over what the store kept, its times already translated to this boot's clock. What
    /// was under way when the daemon died may have arrived.
    pub fn restore(&mut self, deliveries: Vec<(String, Delivery)>, troubles: Vec<Open>, now: Now) {
        for mut open in troubles {
            if let Trouble::Channel { channel } = &open.trouble
                && let Some(line) = self.lines.get_mut(channel)
            {
                line.was_reported(now);
            }
            open.given.values_mut().for_each(|given| given.queued = 0);
            self.troubles.insert(open.trouble.clone(), open);
        }
        for (key, mut delivery) in deliveries {
            let Ok(number) = key.parse() else { continue };
            let id = DeliveryId(number);
            self.last_id = self.last_id.max(id);
            if delivery.in_flight {
                delivery.in_flight = false;
                delivery.possible_repeat = true;
                self.writes.push(Write::put(Table::Outbox, id.key(), &delivery));
            }
            self.count_queued(&delivery);
            self.enqueue(id, delivery, now);
        }
    }

    fn count_queued(&mut self, delivery: &Delivery) {
        let Some(trouble) = &delivery.opens else { return };
        let Some(open) = self.troubles.get_mut(trouble) else { return };
        if let Some(given) = open.given.get_mut(&delivery.channel) {
            given.queued += 1;
        }
    }

    /// Takes over a new configuration. Deliveries to channels that are gone are dropped, and told.
    pub fn reconfigure(
        &mut self,
        settings: BTreeMap<String, LineSettings>,
        seed: u64,
        now: Now,
    ) -> Vec<(Fate, Record)> {
        let mut old = std::mem::take(&mut self.lines);
        for (index, (name, settings)) in settings.into_iter().enumerate() {
            let line = match old.remove(&name) {
                Some(line) => line.with_settings(settings),
                None => Line::new(settings, seed.wrapping_add(index as u64), now.mono),
            };
            self.lines.insert(name, line);
        }
        let orphans: Vec<_> = self
            .deliveries
            .iter()
            .filter(|(_, delivery)| !self.lines.contains_key(&delivery.channel))
            .map(|(id, _)| *id)
            .collect();
        orphans
            .into_iter()
            .filter_map(|id| self.drop_delivery(id, "its channel is no longer configured", now))
            .collect()
    }

    fn enqueue(&mut self, id: DeliveryId, delivery: Delivery, now: Now) {
        let Some(line) = self.lines.get_mut(&delivery.channel) else {
            self.deliveries.insert(id, delivery);
            self.drop_delivery(id, "its channel is no longer configured", now);
            return;
        };
        line.push(id, &delivery);
        self.deliveries.insert(id, delivery);
    }

    /// Turns an event into deliveries, one per channel and recipient; says how many.
    pub fn accept(&mut self, event: &Event, id: EventId, routes: &Routes, now: Now) -> usize {
        let message = Arc::new(event.message(id));
        let opens = event.opens();
        let mut targets: BTreeMap<String, Given> = routes
            .targets(event)
            .into_iter()
            .map(|name| {
                let thread = opens.as_ref().and_then(|trouble| self.thread_of(trouble, &name));
                (name, Given { thread, ..Given::default() })
            })
            .collect();
        for trouble in event.closes() {
            for (name, given) in self.close(&trouble) {
                let target = targets.entry(name).or_default();
                target.events.extend(given.events);
                target.thread = target.thread.take().or(given.thread);
            }
        }
        let mut count = 0;
        for (name, ended) in targets {
            count += self.post(&name, &message, opens.as_ref(), &ended, now);
        }
        count
    }

    fn thread_of(&self, trouble: &Trouble, channel: &str) -> Option<String> {
        self.troubles.get(trouble)?.given.get(channel)?.thread.clone()
    }

    fn close(&mut self, trouble: &Trouble) -> BTreeMap<String, Given> {
        let Some(open) = self.troubles.remove(trouble) else { return BTreeMap::new() };
        self.writes.push(Write::remove(Table::Troubles, trouble.to_string()));
        open.given
    }

    /// Queues a message for every recipient of a channel.
    fn post(
        &mut self,
        channel: &str,
        message: &Arc<Message>,
        opens: Option<&Trouble>,
        ended: &Given,
        now: Now,
    ) -> usize {
        let Some(line) = self.lines.get(channel) else { return 0 };
        let recipients = line.recipients().to_vec();
        for recipient in &recipients {
            let delivery = Delivery {
                channel: channel.to_owned(),
                recipient: recipient.clone(),
                message: Arc::clone(message),
                accepted: now,
                attempts: 0,
                in_flight: false,
                possible_repeat: false,
                plain: false,
                opens: opens.cloned(),
                ends: ended.events.clone(),
                thread: ended.thread.clone(),
            };
            let id = self.next_id(now.wall);
            self.writes.push(Write::put(Table::Outbox, id.key(), &delivery));
            self.enqueue(id, delivery, now);
        }
        if let Some(trouble) = opens {
            let given = self.given(trouble, channel);
            given.queued += u32::try_from(recipients.len()).unwrap_or(u32::MAX);
            given.events.push(message.event);
            if given.events.len() > EVENTS_KEPT {
                given.events.remove(0);
            }
            self.keep_trouble(trouble);
        }
        recipients.len()
    }

    /// Made of the time, so that it stays unique when the store was lost.
    fn next_id(&mut self, now: Wall) -> DeliveryId {
        self.last_id = DeliveryId(EventId(self.last_id.0).next(now).0);
        self.last_id
    }

    fn given(&mut self, trouble: &Trouble, channel: &str) -> &mut Given {
        let open = self
            .troubles
            .entry(trouble.clone())
            .or_insert_with(|| Open { trouble: trouble.clone(), given: BTreeMap::new() });
        open.given.entry(channel.to_owned()).or_default()
    }

    fn keep_trouble(&mut self, trouble: &Trouble) {
        if let Some(open) = self.troubles.get(trouble) {
            self.writes.push(Write::put(Table::Troubles, trouble.to_string(), open));
        }
    }

    /// Ends a trouble of which nothing is known any more (a rule or host that was removed),
    /// without a word to anybody.
    pub fn forget(&mut self, trouble: &Trouble) {
        self.close(trouble);
    }

    /// Every attempt whose turn it is now: one per channel, marked as under way.
    pub fn start(&mut self, now: Now) -> Vec<Job> {
        let mut jobs = Vec::new();
        for line in self.lines.values_mut() {
            let Some(id) = line.start(now.mono) else { continue };
            let delivery =
                self.deliveries.get_mut(&id).expect("a line knows queued deliveries only");
            delivery.attempts += 1;
            delivery.in_flight = true;
            self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
            jobs.push(Job { id, delivery: delivery.clone() });
        }
        jobs
    }

    /// Takes note of how an attempt ended. None when the delivery is no longer known.
    pub fn finish(
        &mut self,
        id: DeliveryId,
        result: Result<Delivered, Failure>,
        now: Now,
    ) -> Option<(Fate, Record)> {
        let delivery = self.deliveries.get_mut(&id)?;
        delivery.in_flight = false;
        let channel = delivery.channel.clone();
        if let Some(line) = self.lines.get_mut(&channel) {
            line.attempt_ended();
        }
        match result {
            Ok(delivered) => self.delivered(id, delivered, now),
            Err(Failure::Unreachable { why, after }) => self.retry(id, why, after, false, now),
            Err(Failure::Unknown(why)) => self.retry(id, why, None, true, now),
            Err(Failure::ChannelRefused { why, after }) => self.refused(id, why, after, now),
            Err(Failure::MessageRefused(why)) => {
                self.line_mut(&channel)?.works(now, false);
                self.drop_delivery(id, &why, now)
            }
            Err(Failure::FormRefused(why)) => self.form_refused(id, why, now),
        }
    }

    fn line_mut(&mut self, channel: &str) -> Option<&mut Line> {
        self.lines.get_mut(channel)
    }

    fn delivered(&mut self, id: DeliveryId, done: Delivered, now: Now) -> Option<(Fate, Record)> {
        let delivery = self.take(id)?;
        self.line_mut(&delivery.channel)?.works(now, true);
        if let Some(root) = &done.thread {
            self.hang_on(&delivery, root);
        }
        if let Some(trouble) = &delivery.opens
            && let Some(open) = self.troubles.get_mut(trouble)
            && let Some(given) = open.given.get_mut(&delivery.channel)
        {
            given.queued = given.queued.saturating_sub(1);
            given.delivered = true;
            if given.thread.is_none() {
                given.thread = done.thread;
            }
            self.keep_trouble(trouble);
        }
        Some(self.recorded(id, &delivery, Fate::Delivered, now))
    }

    /// Lets what waits for the same thread hang on the message that began it.
    fn hang_on(&mut self, first: &Delivery, root: &str) {
        let same = |delivery: &Delivery| {
            delivery.channel == first.channel
                && delivery.message.thread == first.message.thread
                && delivery.thread.is_none()
        };
        let waiting: Vec<DeliveryId> =
            self.deliveries.iter().filter(|(_, other)| same(other)).map(|(id, _)| *id).collect();
        for id in waiting {
            self.amend(id, |delivery| delivery.thread = Some(root.to_owned()));
        }
    }

    fn retry(
        &mut self,
        id: DeliveryId,
        why: String,
        after: Option<Duration>,
        may_have_arrived: bool,
        now: Now,
    ) -> Option<(Fate, Record)> {
        self.amend(id, |delivery| delivery.possible_repeat |= may_have_arrived);
        let delivery = self.deliveries.get(&id)?;
        let line = self.lines.get_mut(&delivery.channel)?;
        let delay = line.fails(&why, after, now);
        line.rerank(id, delivery);
        let fate = Fate::Waits { why: why.clone(), delay, may_have_arrived };
        Some((fate, record(delivery, now, Some(why))))
    }

    fn refused(
        &mut self,
        id: DeliveryId,
        why: String,
        after: Option<Duration>,
        now: Now,
    ) -> Option<(Fate, Record)> {
        self.amend(id, |_| ());
        let delivery = self.deliveries.get(&id)?;
        let line = self.lines.get_mut(&delivery.channel)?;
        let delay = line.is_refused(&why, after, now);
        line.rerank(id, delivery);
        let fate = Fate::ChannelRefused { why: why.clone(), delay };
        Some((fate, record(delivery, now, Some(why))))
    }

    fn form_refused(&mut self, id: DeliveryId, why: String, now: Now) -> Option<(Fate, Record)> {
        let delivery = self.deliveries.get(&id)?;
        let channel = delivery.channel.clone();
        let again = !delivery.plain;
        self.line_mut(&channel)?.works(now, false);
        if !again {
            return self.drop_delivery(id, &why, now);
        }
        self.amend(id, |delivery| delivery.plain = true);
        let delivery = self.deliveries.get(&id)?;
        self.lines.get_mut(&channel)?.rerank(id, delivery);
        let fate = Fate::Waits { why: why.clone(), delay: Duration::ZERO, may_have_arrived: false };
        Some((fate, record(delivery, now, Some(why))))
    }

    fn amend(&mut self, id: DeliveryId, change: impl FnOnce(&mut Delivery)) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            change(delivery);
            self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
        }
    }

    fn take(&mut self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&id)?;
        if let Some(line) = self.lines.get_mut(&delivery.channel) {
            line.remove(id, &delivery);
        }
        self.writes.push(Write::remove(Table::Outbox, id.key()));
        Some(delivery)
    }

    fn drop_delivery(&mut self, id: DeliveryId, why: &str, now: Now) -> Option<(Fate, Record)> {
        let delivery = self.take(id)?;
        if let Some(trouble) = &delivery.opens
            && let Some(open) = self.troubles.get_mut(trouble)
            && let Some(given) = open.given.get_mut(&delivery.channel)
        {
            given.queued = given.queued.saturating_sub(1);
            if given.queued == 0 && !given.delivered {
                // It never heard of the trouble, so it will not hear of its end either.
                open.given.remove(&delivery.channel);
            }
            self.keep_trouble(trouble);
        }
        Some(self.recorded(id, &delivery, Fate::Dropped { why: why.to_owned() }, now))
    }

    fn recorded(
        &mut self,
        id: DeliveryId,
        delivery: &Delivery,
        fate: Fate,
        now: Now,
    ) -> (Fate, Record) {
        let why = match &fate {
            Fate::Dropped { why } => Some(why.clone()),
            Fate::Delivered | Fate::Waits { .. } | Fate::ChannelRefused { .. } => None,
        };
        let record = record(delivery, now, why);
        self.writes.push(Write::put(Table::History, id.key(), &record));
        (fate, record)
    }

    /// Drops what has waited for too long; every half minute at most.
    pub fn expire(&mut self, now: Now) -> Vec<(Fate, Record)> {
        if now.mono < self.next_expiry_check {
            return Vec::new();
        }
        self.next_expiry_check = now.mono + EXPIRY_CHECK;
        let mut expired = Vec::new();
        for (id, delivery) in &self.deliveries {
            let Some(line) = self.lines.get(&delivery.channel) else { continue };
            let limit = line.pace().give_up(delivery.message.level);
            if !delivery.in_flight && now.mono.since(delivery.accepted.mono) >= limit {
                expired.push((*id, limit));
            }
        }
        let mut fates = Vec::new();
        for (id, limit) in expired {
            let channel = self.deliveries.get(&id).map(|delivery| delivery.channel.clone());
            let last = channel.and_then(|name| self.lines.get(&name)?.last_failure());
            let mut why = format!("given up after {}", words(limit));
            if let Some(last) = last {
                why.push_str(&format!("; the last attempt: {last}"));
            }
            fates.extend(self.drop_delivery(id, &why, now));
        }
        fates
    }

    /// Channels that have been failing for long enough to be reported, and those that recovered.
    pub fn reports(&mut self, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, line) in &mut self.lines {
            let fact = match line.report(now.mono, REPORT_AFTER) {
                None => continue,
                Some(Report::Fails { why }) => {
                    Fact::ChannelFails { channel: name.clone(), why, waiting: line.waiting() }
                }
                Some(Report::Delivers { failed_for }) => {
                    Fact::ChannelDelivers { channel: name.clone(), failed_for }
                }
            };
            let level =
                if let Fact::ChannelFails { .. } = fact { Level::Warning } else { Level::Ok };
            events.push(Event { at: now.wall, level, fact });
        }
        events
    }

    /// When something is to be done next without anything happening from outside.
    pub fn next_wake(&self, now: Now) -> Option<Mono> {
        let turn = self.lines.values().filter_map(|line| line.next_start(now.mono)).min();
        let report = self.lines.values().filter_map(|line| line.next_report(REPORT_AFTER)).min();
        let expiry = (!self.deliveries.is_empty()).then_some(self.next_expiry_check);
        [turn, report, expiry].into_iter().flatten().min()
    }

    /// Whether an attempt is under way.
    pub fn is_busy(&self) -> bool {
        self.lines.values().any(Line::is_busy)
    }

    /// How many deliveries wait or are under way.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// How every channel stands.
    pub fn views(&self, now: Now) -> Vec<LineView> {
        self.lines
            .iter()
            .map(|(name, line)| {
                let oldest = line.oldest().and_then(|id| self.deliveries.get(&id));
                LineView {
                    channel: name.clone(),
                    oldest: oldest.map(|delivery| now.mono.since(delivery.accepted.mono)),
                    ..line.view()
                }
            })
            .collect()
    }

    /// The deliveries that wait or are under way, the newest first, from before that one on.
    pub fn newest(
        &self,
        before: Option<DeliveryId>,
    ) -> impl Iterator<Item = (DeliveryId, &Delivery)> {
        let before = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.deliveries.range((Bound::Unbounded, before)).rev().map(|(id, one)| (*id, one))
    }

    /// Why a channel does not deliver, while it does not.
    pub fn trouble_of(&self, channel: &str) -> Option<&str> {
        self.lines.get(channel)?.last_failure()
    }

    /// Puts into the history what was sent without the outbox. What arrived shows that the channel
    /// works: who has mended one and tries it need not wait for the next probe.
    pub fn note(&mut self, record: &Record, now: Now) {
        if let Some(line) = self.lines.get_mut(&record.channel) {
            match &record.why {
                None => line.works(now, true),
                Some(why) => line.failed_elsewhere(why, now),
            }
        }
        let id = self.next_id(now.wall);
        self.writes.push(Write::put(Table::History, id.key(), record));
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// Every row, for a store that lost its own.
    pub fn all_writes(&self) -> Vec<Write> {
        let deliveries = self
            .deliveries
            .iter()
            .map(|(id, delivery)| Write::put(Table::Outbox, id.key(), delivery));
        let troubles = self
            .troubles
            .iter()
            .map(|(trouble, open)| Write::put(Table::Troubles, trouble.to_string(), open));
        deliveries.chain(troubles).collect()
    }
}

fn record(delivery: &Delivery, now: Now, why: Option<String>) -> Record {
    Record {
        event: delivery.message.event,
        channel: delivery.channel.clone(),
        recipient: delivery.recipient.clone(),
        subject: delivery.message.subject.clone(),
        level: delivery.message.level,
        title: delivery.message.title.clone(),
        accepted: delivery.accepted.wall,
        finished: now.wall,
        attempts: delivery.attempts,
        delivered: why.is_none(),
        why,
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
