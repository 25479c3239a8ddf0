//! What is wrong at present, who was told of it, and who has taken note. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::delivery::Delivery;
use crate::clock::Wall;
use crate::event::{EventId, Incident, Level, Message};
use crate::store::{Table, Write};

/// A channel is told of the end of at most so many events of one trouble.
const EVENTS_KEPT: usize = 16;

/// Somebody has seen it: no more reminders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// When.
    pub at: Wall,
    /// Through which channel.
    pub channel: String,
    /// On which device, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// An open trouble and who was told of it, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    trouble: Incident,
    /// The event that began it.
    #[serde(default)]
    first: EventId,
    #[serde(default)]
    since: Option<Wall>,
    /// Its level at present.
    #[serde(default)]
    level: Option<Level>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acknowledged: Option<Acknowledged>,
    given: BTreeMap<String, Given>,
}

/// What one channel was told of one trouble.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// Whether any of its messages arrived.
    #[serde(default)]
    pub delivered: bool,
    /// How many of its messages wait.
    #[serde(default)]
    queued: u32,
    /// Its latest events.
    #[serde(default)]
    pub events: Vec<EventId>,
    /// Messages that arrived and told of it among others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    within: Vec<EventId>,
    /// What later messages hang on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

impl Open {
    fn view(&self) -> AlertView {
        AlertView {
            trouble: self.trouble.clone(),
            level: self.level,
            since: self.since,
            channels: self.given.keys().cloned().collect(),
            acknowledged: self.acknowledged.clone(),
        }
    }

    /// Whether the fleet knows of it.
    fn is_of_a_host(&self) -> bool {
        match self.trouble {
            Incident::Connection { .. } | Incident::NeverSeen { .. } | Incident::Metric { .. } => {
                true
            }
            Incident::Backup { .. }
            | Incident::Alertmanager
            | Incident::Channel { .. }
            | Incident::Dyndns { .. }
            | Incident::Store => false,
        }
    }
}

/// An open trouble, for the status.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertView {
    /// What is wrong.
    pub trouble: Incident,
    /// How bad it is.
    pub level: Option<Level>,
    /// Since when it is told.
    pub since: Option<Wall>,
    /// The channels that were told or will be.
    pub channels: Vec<String>,
    /// Who has taken note.
    pub acknowledged: Option<Acknowledged>,
}

/// Every open trouble.
#[derive(Debug, Default)]
pub struct Troubles {
    open: BTreeMap<Incident, Open>,
    /// In how many open troubles a message that told of several is listed.
    shared: BTreeMap<EventId, usize>,
    writes: Vec<Write>,
}

impl Troubles {
    /// Takes over what the store kept; what waits is counted anew.
    pub fn restore(&mut self, mut open: Open) {
        for given in open.given.values_mut() {
            given.queued = 0;
            for event in &given.within {
                *self.shared.entry(*event).or_default() += 1;
            }
        }
        self.open.insert(open.trouble.clone(), open);
    }

    /// A delivery that waits from before the start.
    pub fn count(&mut self, delivery: &Delivery) {
        if let Some((_, given)) = self.of(delivery) {
            given.queued += 1;
        }
    }

    /// What `delivery` tells of, if that is not over since; one that began anew is another one.
    fn of(&mut self, delivery: &Delivery) -> Option<(&Incident, &mut Given)> {
        let trouble = delivery.opens.as_ref()?;
        let open = self.open.get_mut(trouble)?;
        if delivery.message.event < open.first {
            return None;
        }
        Some((&open.trouble, open.given.get_mut(&delivery.channel)?))
    }

    /// Whether the trouble that `delivery` tells of goes on.
    pub fn goes_on(&mut self, delivery: &Delivery) -> bool {
        self.of(delivery).is_some()
    }

    /// What the channel's messages about a trouble hang on.
    pub fn thread_of(&self, trouble: &Incident, channel: &str) -> Option<String> {
        self.open.get(trouble)?.given.get(channel)?.thread.clone()
    }

    /// The channels that were told of a trouble or will be.
    pub fn told(&self, trouble: &Incident) -> Vec<String> {
        let given = self.open.get(trouble).map(|open| open.given.keys().cloned().collect());
        given.unwrap_or_default()
    }

    /// Notes that `channel` will be told so many times.
    pub fn tell(&mut self, trouble: &Incident, channel: &str, message: &Message, times: usize) {
        let open = self.open.entry(trouble.clone()).or_insert_with(|| Open {
            trouble: trouble.clone(),
            first: message.event,
            since: Some(message.at),
            level: None,
            acknowledged: None,
            given: BTreeMap::new(),
        });
        if open.level.is_some_and(|level| message.level > level) {
            open.acknowledged = None;
        }
        open.level = Some(message.level);
        let given = open.given.entry(channel.to_owned()).or_default();
        given.queued += u32::try_from(times).unwrap_or(u32::MAX);
        given.events.push(message.event);
        if given.events.len() > EVENTS_KEPT {
            given.events.remove(0);
        }
        self.keep(trouble);
    }

    /// A message that told of `delivery` arrived. `within` is its number when it told of others too.
    pub fn delivered(
        &mut self,
        delivery: &Delivery,
        within: Option<EventId>,
        thread: Option<String>,
    ) {
        let Some((trouble, given)) = self.of(delivery) else { return };
        let trouble = trouble.clone();
        given.queued = given.queued.saturating_sub(1);
        given.delivered = true;
        if given.thread.is_none() {
            given.thread = thread;
        }
        let mut gone = None;
        if let Some(event) = within.filter(|event| !given.within.contains(event)) {
            given.within.push(event);
            gone = (given.within.len() > EVENTS_KEPT).then(|| given.within.remove(0));
            *self.shared.entry(event).or_default() += 1;
        }
        if let Some(event) = gone {
            self.is_last_of(event);
        }
        self.keep(&trouble);
    }

    /// `delivery` will not arrive. Whoever surely never heard of a trouble will not hear of its end
    /// either.
    pub fn dropped(&mut self, delivery: &Delivery) {
        let Some((trouble, given)) = self.of(delivery) else { return };
        let trouble = trouble.clone();
        given.queued = given.queued.saturating_sub(1);
        given.delivered |= delivery.possible_repeat;
        let unheard = given.queued == 0 && !given.delivered;
        if unheard && let Some(open) = self.open.get_mut(&trouble) {
            open.given.remove(&delivery.channel);
        }
        self.keep(&trouble);
    }

    /// Ends a trouble; says who was given it. A message that told of others too ends with the last.
    pub fn close(&mut self, trouble: &Incident) -> BTreeMap<String, Given> {
        let Some(mut open) = self.open.remove(trouble) else { return BTreeMap::new() };
        self.writes.push(Write::remove(Table::Troubles, trouble.key()));
        for given in open.given.values_mut() {
            for event in std::mem::take(&mut given.within) {
                if self.is_last_of(event) {
                    given.events.push(event);
                }
            }
        }
        open.given
    }

    fn is_last_of(&mut self, event: EventId) -> bool {
        let Some(count) = self.shared.get_mut(&event) else { return true };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.shared.remove(&event);
        }
        last
    }

    /// Whether a message that told of several is listed in any that goes on.
    pub fn is_listed(&self, event: EventId) -> bool {
        self.shared.contains_key(&event)
    }

    /// Somebody has taken note of a trouble; true when nobody had before.
    pub fn acknowledge(&mut self, trouble: &Incident, by: &Acknowledged) -> bool {
        let Some(open) = self.open.get_mut(trouble) else { return false };
        if open.acknowledged.is_some() {
            return false;
        }
        open.acknowledged = Some(by.clone());
        self.keep(trouble);
        true
    }

    /// Who has taken note of a trouble, unless it rises to `level` now.
    pub fn acknowledged(&self, trouble: &Incident, level: Level) -> Option<&Acknowledged> {
        let open = self.open.get(trouble)?;
        let rises = open.level.is_some_and(|known| level > known);
        open.acknowledged.as_ref().filter(|_| !rises)
    }

    /// Since when each channel is open as failing.
    pub fn failing_channels(&self) -> Vec<(String, Option<Wall>)> {
        let of = |open: &Open| match &open.trouble {
            Incident::Channel { channel } => Some((channel.clone(), open.since)),
            Incident::Connection { .. }
            | Incident::NeverSeen { .. }
            | Incident::Metric { .. }
            | Incident::Backup { .. }
            | Incident::Alertmanager
            | Incident::Dyndns { .. }
            | Incident::Store => None,
        };
        self.open.values().filter_map(of).collect()
    }

    /// Every open trouble, for the status.
    pub fn views(&self) -> impl Iterator<Item = AlertView> {
        self.open.values().map(Open::view)
    }

    /// Those that the hosts themselves do not show.
    pub fn of_no_host(&self) -> impl Iterator<Item = AlertView> {
        self.open.values().filter(|open| !open.is_of_a_host()).map(Open::view)
    }

    /// One of them, if it is open.
    pub fn view(&self, trouble: &Incident) -> Option<AlertView> {
        self.open.get(trouble).map(Open::view)
    }

    fn keep(&mut self, trouble: &Incident) {
        if let Some(open) = self.open.get(trouble) {
            self.writes.push(Write::put(Table::Troubles, trouble.key(), open));
        }
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Write> + '_ {
        self.open.iter().map(|(trouble, open)| Write::put(Table::Troubles, trouble.key(), open))
    }
}
