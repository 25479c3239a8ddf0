//! Open incidents: which channels were notified of each, and whether it is acknowledged. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::acknowledgement::Acknowledgement;
use super::delivery::Delivery;
use super::overdue::OverdueHosts;
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{AlarmState, EventId, Incident, Level, Message};
use crate::notify::calm::rebased_start;
use crate::store::{Table, Write};

/// How many events of one incident a recovery can refer to.
const MAX_EVENTS: usize = 16;

/// An open incident and the channels notified of it, as on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenIncident {
    /// What is wrong.
    #[serde(rename = "trouble")]
    pub incident: Incident,
    /// The event that opened it.
    #[serde(default, rename = "first")]
    pub first_event: EventId,
    /// When that happened.
    #[serde(default)]
    pub since: Option<Wall>,
    /// Its level at present.
    #[serde(default)]
    pub level: Option<Level>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledgement>,
    /// Since when it is critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_since: Option<Wall>,
    /// What was told last: `web1 ipv4 overdue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// When that was, or a reminder was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_told: Option<Now>,
    /// The channels that were notified or will be.
    #[serde(rename = "given")]
    pub channels: BTreeMap<String, NotifiedChannel>,
}

/// What one channel was sent about one incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NotifiedChannel {
    /// Whether any of its messages arrived.
    #[serde(default)]
    pub delivered: bool,
    /// How many of its messages wait.
    #[serde(default)]
    queued: u32,
    /// What it was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<AlarmState>,
    /// Its latest events.
    #[serde(default)]
    pub events: Vec<EventId>,
    /// Digests that arrived and contained it.
    #[serde(default, rename = "within", skip_serializing_if = "Vec::is_empty")]
    in_digests: Vec<EventId>,
    /// What later messages reply to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// It is no longer configured, and others have taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
}

impl OpenIncident {
    /// What was last said about it.
    pub fn title(&self) -> String {
        self.title.clone().unwrap_or_else(|| format!("{} is critical", self.incident))
    }

    /// Whether it is critical, and no person is known to have seen it.
    pub fn is_critical_and_unseen(&self) -> bool {
        self.level == Some(Level::Critical) && self.acknowledged.is_none()
    }

    /// Has an acknowledgement for a time go on for what is left of it on this boot's clock; it ends
    /// where that is not known. Whether it changed.
    pub fn rebase_acknowledgement(&mut self, rebase: impl Fn(Now) -> Now, now: Now) -> bool {
        let Some(by) = &mut self.acknowledged else { return false };
        let Some((from, length)) = by.limit else { return false };
        match rebased_start(from, rebase, now) {
            Some(start) => {
                by.limit = Some((start, length));
                start != from
            }
            None => {
                self.acknowledged = None;
                true
            }
        }
    }

    /// Its acknowledgement, unless the time of that is over.
    pub fn acknowledgement(&self, now: Now) -> Option<&Acknowledgement> {
        self.acknowledged.as_ref().filter(|by| by.lasts(now))
    }

    /// What each channel was told last.
    pub fn told(&self) -> BTreeMap<String, AlarmState> {
        let unknown = AlarmState { level: self.level.unwrap_or(Level::Warning), what: None };
        let channels = self.channels.iter().filter(|(_, given)| !given.handed_over);
        let told = channels
            .map(|(name, given)| (name.clone(), given.told.clone().unwrap_or(unknown.clone())));
        told.insert_all()
    }

    /// The channels that know of it, or will: one whose message was given up is none of them.
    fn knowing(&self) -> impl Iterator<Item = &String> {
        let knows = |(_, given): &(&String, &NotifiedChannel)| {
            !given.handed_over && given.told != Some(AlarmState::UNTOLD)
        };
        self.channels.iter().filter(knows).map(|(name, _)| name)
    }

    /// Those of its channels that are not configured, and that no others have taken over from.
    pub fn gone_channels(
        &self,
        is_configured: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &String> {
        let gone = move |(name, given): &(&String, &NotifiedChannel)| {
            !is_configured(name) && !given.handed_over
        };
        self.channels.iter().filter(gone).map(|(name, _)| name)
    }
}

/// Every open incident.
#[derive(Debug, Default)]
pub struct Incidents {
    open: BTreeMap<Incident, OpenIncident>,
    /// How many open incidents each digest contains.
    digest_uses: BTreeMap<EventId, usize>,
    /// The ends of acknowledgements that were made for a time; some of these may be outdated.
    acknowledged_until: BTreeSet<(Mono, Incident)>,
    overdue: OverdueHosts,
    writes: Vec<Write>,
}

impl Incidents {
    /// Loads what the store has; what waits is counted anew, by [`Self::count_waiting`].
    pub fn restore(&mut self, mut open: OpenIncident) {
        for notified in open.channels.values_mut() {
            notified.queued = 0;
            for event in &notified.in_digests {
                *self.digest_uses.entry(*event).or_default() += 1;
            }
        }
        let end = open.acknowledged.as_ref().and_then(Acknowledgement::end);
        self.acknowledged_until.extend(end.map(|end| (end, open.incident.clone())));
        let incident = open.incident.clone();
        self.open.insert(incident.clone(), open);
        self.update_overdue(&incident);
    }

    /// Counts a delivery that has waited since before the start.
    pub fn count_waiting(&mut self, delivery: &Delivery) {
        if let Some((_, notified)) = self.entry_of(delivery) {
            notified.queued += 1;
        }
    }

    /// The open incident that `delivery` is about; none when that was closed, even if it was opened
    /// again since.
    fn entry_of(&mut self, delivery: &Delivery) -> Option<(&Incident, &mut NotifiedChannel)> {
        let incident = delivery.opens.as_ref()?;
        let open = self.open.get_mut(incident)?;
        if delivery.message.event < open.first_event {
            return None;
        }
        Some((&open.incident, open.channels.get_mut(&delivery.channel)?))
    }

    /// Whether the incident that `delivery` is about is still open.
    pub fn is_open(&mut self, delivery: &Delivery) -> bool {
        self.entry_of(delivery).is_some()
    }

    /// What a channel was sent about an incident.
    fn notified(&self, incident: &Incident, channel: &str) -> Option<&NotifiedChannel> {
        self.open.get(incident)?.channels.get(channel)
    }

    fn notified_mut(&mut self, incident: &Incident, channel: &str) -> Option<&mut NotifiedChannel> {
        self.open.get_mut(incident)?.channels.get_mut(channel)
    }

    /// What a channel's messages about an incident reply to.
    pub fn thread_of(&self, incident: &Incident, channel: &str) -> Option<String> {
        self.notified(incident, channel)?.thread.clone()
    }

    /// The channels that know of an incident that is open, or will.
    pub fn told_of(&self, incident: &Incident) -> BTreeSet<String> {
        self.open.get(incident).into_iter().flat_map(OpenIncident::knowing).cloned().insert_all()
    }

    /// The channels that know that a host is not heard, or will: that one of its connections is overdue
    /// while others beat does not say so.
    pub fn told_of_silence(&self, host: &str) -> BTreeSet<String> {
        let mut channels = self.told_of(&Incident::NotBack { host: host.to_owned() });
        let of_connections = self.connections_of(host).flat_map(|open| {
            let told = open.told();
            open.knowing().filter(move |name| told[*name].says_silent())
        });
        channels.extend(of_connections.cloned());
        channels
    }

    /// Whether a channel was notified of a connection of a host.
    pub fn has_connection_of(&self, host: &str, channel: &str) -> bool {
        self.connections_of(host).any(|open| open.channels.contains_key(channel))
    }

    /// The open incidents of the connections of a host.
    fn connections_of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a OpenIncident> {
        let of_host = move |incident: &Incident| matches!(incident, Incident::Connection { host: of, .. } if of == host);
        let connections = self.open.range(Incident::connection(host, "")..);
        connections.take_while(move |(incident, _)| of_host(incident)).map(|(_, open)| open)
    }

    /// The channels that were notified of an incident or will be.
    pub fn notified_channels(&self, incident: &Incident) -> Vec<String> {
        let notified = self.open.get(incident).map(|open| open.channels.keys().cloned().collect());
        notified.unwrap_or_default()
    }

    /// Records that `times` deliveries to `channel` were queued.
    pub fn record_queued(
        &mut self,
        incident: &Incident,
        channel: &str,
        message: &Message,
        times: usize,
        now: Now,
    ) {
        let open = self.open.entry(incident.clone()).or_insert_with(|| OpenIncident {
            incident: incident.clone(),
            first_event: message.event,
            since: Some(message.at),
            level: None,
            acknowledged: None,
            critical_since: None,
            title: None,
            last_told: None,
            channels: BTreeMap::new(),
        });
        if open.level.is_some_and(|level| message.level > level) {
            open.acknowledged = None;
        }
        open.level = Some(message.level);
        open.title = Some(message.title.clone());
        open.last_told = Some(now);
        let critical = (message.level == Level::Critical).then_some(message.at);
        open.critical_since = critical.map(|at| open.critical_since.unwrap_or(at));
        let notified = open.channels.entry(channel.to_owned()).or_default();
        notified.queued += u32::try_from(times).unwrap_or(u32::MAX);
        notified.events.push(message.event);
        if notified.events.len() > MAX_EVENTS {
            notified.events.remove(0);
        }
        self.store(incident);
    }

    /// Records what the deliveries that were just queued say. A repetition does not say more than what
    /// it repeats.
    pub fn record_told(&mut self, incident: &Incident, channel: &str, state: &AlarmState) {
        let Some(notified) = self.notified_mut(incident, channel) else { return };
        let knows = notified.told.as_ref().is_some_and(|told| told.says_the_same(state));
        if !(knows && state.what.is_none()) {
            notified.told = Some(state.clone());
        }
        self.store(incident);
    }

    /// A message about `delivery` arrived. `in_digest` is its event when that was a digest.
    pub fn record_delivered(
        &mut self,
        delivery: &Delivery,
        in_digest: Option<EventId>,
        thread: Option<String>,
    ) {
        let Some((incident, notified)) = self.entry_of(delivery) else { return };
        let incident = incident.clone();
        notified.queued = notified.queued.saturating_sub(1);
        notified.delivered = true;
        if notified.thread.is_none() {
            notified.thread = thread;
        }
        if let Some(event) = in_digest {
            self.add_digest(&incident, &delivery.channel, event);
        }
        self.store(&incident);
    }

    /// A digest or a notice about an incident arrived.
    fn add_digest(&mut self, incident: &Incident, channel: &str, event: EventId) {
        let notified = self.notified_mut(incident, channel);
        let Some(notified) = notified.filter(|known| !known.in_digests.contains(&event)) else {
            return;
        };
        notified.in_digests.push(event);
        let excess = notified.in_digests.len() > MAX_EVENTS;
        let gone = excess.then(|| notified.in_digests.remove(0));
        *self.digest_uses.entry(event).or_default() += 1;
        if let Some(event) = gone {
            self.release_digest(event);
        }
    }

    /// Whether an incident is open, and `event` is about it: it may have been closed and opened again
    /// since.
    pub fn is_open_since(&self, incident: &Incident, event: EventId) -> bool {
        self.open.get(incident).is_some_and(|open| event >= open.first_event)
    }

    /// A channel hears by a notice that `event`, which is about an incident, was given up; false when
    /// that is over.
    pub fn record_noticed(
        &mut self,
        incident: &Incident,
        event: EventId,
        channel: &str,
        notice: EventId,
    ) -> bool {
        if !self.is_open_since(incident, event) {
            return false;
        }
        if let Some(open) = self.open.get_mut(incident) {
            open.channels.entry(channel.to_owned()).or_default().delivered = true;
        }
        self.add_digest(incident, channel, notice);
        self.store(incident);
        true
    }

    /// What waited for another channel is queued for this one.
    pub fn record_moved(&mut self, delivery: &Delivery) {
        let Some(incident) = delivery.opens.as_ref() else { return };
        if !self.is_open_since(incident, delivery.message.event) {
            return;
        }
        let Some(open) = self.open.get_mut(incident) else { return };
        let notified = open.channels.entry(delivery.channel.clone()).or_default();
        notified.queued += 1;
        if !notified.events.contains(&delivery.message.event) {
            notified.events.push(delivery.message.event);
            notified.events.sort_unstable();
        }
        self.store(incident);
    }

    /// `delivery` will not arrive. A channel that surely has no message of an incident gets none of
    /// its recovery either.
    pub fn record_failed(&mut self, delivery: &Delivery) {
        let Some((incident, notified)) = self.entry_of(delivery) else { return };
        let incident = incident.clone();
        notified.queued = notified.queued.saturating_sub(1);
        notified.delivered |= delivery.possible_repeat;
        let unheard = notified.queued == 0 && !notified.delivered;
        if unheard && let Some(open) = self.open.get_mut(&incident) {
            open.channels.remove(&delivery.channel);
        }
        self.store(&incident);
    }

    /// What a channel was told last of an incident was given up: that is news to it again.
    pub fn forget_told(&mut self, delivery: &Delivery) {
        let event = delivery.message.event;
        let Some((incident, notified)) = self.entry_of(delivery) else { return };
        let may_know = delivery.is_reminder || delivery.possible_repeat;
        if may_know || notified.events.last() != Some(&event) {
            return;
        }
        notified.told = Some(AlarmState::UNTOLD);
        let incident = incident.clone();
        self.store(&incident);
    }

    /// Whether a channel was given an event of an incident, or a later one, or will be.
    pub fn was_given(&self, incident: &Incident, channel: &str, event: EventId) -> bool {
        let notified = self.notified(incident, channel);
        notified.is_some_and(|notified| notified.events.iter().any(|given| *given >= event))
    }

    /// Has `successors` take an incident over from the channels that are not configured. What these
    /// were given counts as given to those. One that is configured again before the end hears of it,
    /// too. Returns the channels that knew nothing of it.
    pub fn hand_over(
        &mut self,
        incident: &Incident,
        successors: &BTreeSet<String>,
        is_configured: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let Some(open) = self.open.get_mut(incident) else { return Vec::new() };
        let (mut given, mut told) = (Vec::new(), None);
        for (name, notified) in &mut open.channels {
            let is_gone = !is_configured(name);
            if is_gone && !notified.handed_over && notified.delivered {
                given.extend(notified.events.iter().copied());
                told = notified.told.clone().or(told);
            }
            if notified.handed_over && !is_gone {
                // Others were told meanwhile.
                notified.told = Some(AlarmState::UNTOLD);
            }
            notified.handed_over = is_gone && !successors.is_empty();
        }
        let mut new = Vec::new();
        for name in successors.iter().filter(|_| !given.is_empty()) {
            if !open.channels.contains_key(name) {
                new.push(name.clone());
            }
            let heir = || NotifiedChannel { told: told.clone(), ..NotifiedChannel::default() };
            let notified = open.channels.entry(name.clone()).or_insert_with(heir);
            notified.delivered = true;
            for event in &given {
                if !notified.events.contains(event) {
                    notified.events.push(*event);
                }
            }
            notified.events.sort_unstable();
            let excess = notified.events.len().saturating_sub(MAX_EVENTS);
            notified.events.drain(..excess);
        }
        self.store(incident);
        new
    }

    /// Closes an incident; returns the notified channels. A digest counts as one of its events when
    /// this was the last open incident in it.
    pub fn close(&mut self, incident: &Incident) -> BTreeMap<String, NotifiedChannel> {
        let Some(mut open) = self.open.remove(incident) else { return BTreeMap::new() };
        self.writes.push(Write::remove(Table::Troubles, incident.key()));
        self.update_overdue(incident);
        for notified in open.channels.values_mut() {
            for event in std::mem::take(&mut notified.in_digests) {
                if self.release_digest(event) {
                    notified.events.push(event);
                }
            }
        }
        open.channels
    }

    fn release_digest(&mut self, event: EventId) -> bool {
        let Some(count) = self.digest_uses.get_mut(&event) else { return true };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.digest_uses.remove(&event);
        }
        last
    }

    /// Whether a digest contains an open incident.
    pub fn is_in_open_incident(&self, event: EventId) -> bool {
        self.digest_uses.contains_key(&event)
    }

    /// Acknowledges an incident, or takes that back, if it is open.
    pub fn set_acknowledged(&mut self, incident: &Incident, by: Option<Acknowledgement>) {
        let Some(open) = self.open.get_mut(incident) else { return };
        let end = by.as_ref().and_then(Acknowledgement::end);
        open.acknowledged = by;
        self.acknowledged_until.extend(end.map(|end| (end, incident.clone())));
        self.store(incident);
    }

    /// Ends acknowledgements whose time is over; how many.
    pub fn expire_acknowledgements(&mut self, now: Now) -> usize {
        let mut count = 0;
        while let Some((end, _)) = self.acknowledged_until.first()
            && *end <= now.mono
        {
            let Some((_, incident)) = self.acknowledged_until.pop_first() else { break };
            let open = self.open.get(&incident).and_then(|open| open.acknowledged.as_ref());
            if open.is_some_and(|by| !by.lasts(now)) {
                self.set_acknowledged(&incident, None);
                count += 1;
            }
        }
        count
    }

    /// Whether a channel was told last of an incident what `state` says.
    pub fn knows(&self, incident: &Incident, channel: &str, state: &AlarmState) -> bool {
        let told = self.notified(incident, channel).and_then(|notified| notified.told.as_ref());
        told.is_some_and(|told| told.says_the_same(state))
    }

    /// Whether a message about an incident arrived on a channel.
    pub fn was_delivered(&self, incident: &Incident, channel: &str) -> bool {
        self.notified(incident, channel).is_some_and(|notified| notified.delivered)
    }

    /// The acknowledgement of an incident, unless it rises to `level` now or its time is over.
    pub fn acknowledged(
        &self,
        incident: &Incident,
        level: Level,
        now: Now,
    ) -> Option<&Acknowledgement> {
        let open = self.open.get(incident)?;
        let rises = open.level.is_some_and(|known| level > known);
        open.acknowledged.as_ref().filter(|by| !rises && by.lasts(now))
    }

    /// When the next acknowledgement ends that was made for a time.
    pub fn next_end_of_acknowledgement(&self) -> Option<Mono> {
        self.acknowledged_until.first().map(|(end, _)| *end)
    }

    /// The channels with an open incident of their own, and since when.
    pub fn failing_channels(&self) -> Vec<(String, Option<Wall>)> {
        let of = |open: &OpenIncident| match &open.incident {
            Incident::Channel { channel } => Some((channel.clone(), open.since)),
            Incident::Connection { .. }
            | Incident::NeverSeen { .. }
            | Incident::NotBack { .. }
            | Incident::Metric { .. }
            | Incident::Backup { .. }
            | Incident::Alertmanager
            | Incident::Dyndns { .. }
            | Incident::Store
            | Incident::Node { .. }
            | Incident::Storm => None,
        };
        self.open.values().filter_map(of).collect()
    }

    /// Every open incident.
    pub fn iter(&self) -> impl Iterator<Item = &OpenIncident> {
        self.open.values()
    }

    /// One of them, if it is open.
    pub fn get(&self, incident: &Incident) -> Option<&OpenIncident> {
        self.open.get(incident)
    }

    /// A reminder of an incident is due now.
    pub fn record_reminded(&mut self, incident: &Incident, now: Now) {
        if let Some(open) = self.open.get_mut(incident) {
            open.last_told = Some(now);
        }
        self.store(incident);
    }

    fn store(&mut self, incident: &Incident) {
        if let Some(open) = self.open.get(incident) {
            self.writes.push(Write::put(Table::Troubles, incident.key(), open));
        }
        self.update_overdue(incident);
    }

    /// Which channels know that the host of an incident is overdue may have changed.
    fn update_overdue(&mut self, incident: &Incident) {
        let Incident::Connection { host, .. } = incident else { return };
        let says_so = |(_, given): &(&String, &NotifiedChannel)| {
            let told = given.told.as_ref().filter(|told| told.level == Level::Critical);
            !given.handed_over && told.and_then(|told| told.what.as_deref()) == Some("overdue")
        };
        let told = self.connections_of(host).flat_map(|open| open.channels.iter().filter(says_so));
        let told = told.map(|(channel, _)| channel.clone()).insert_all();
        self.overdue.update(host, told);
    }

    /// The first of the other hosts that a channel was told are overdue, and how many there are; those
    /// that are `behind` it left out.
    pub fn overdue_beside(
        &self,
        channel: &str,
        host: &str,
        behind: &[String],
    ) -> (Vec<String>, usize) {
        self.overdue.others(channel, host, behind)
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Write> + '_ {
        self.open.iter().map(|(incident, open)| Write::put(Table::Troubles, incident.key(), open))
    }
}
