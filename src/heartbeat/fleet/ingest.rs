//! One datagram applied to the fleet: what it must bring to be believed, and what it changes. Pure.

use std::net::IpAddr;
use std::num::NonZeroI64;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::event::{Event, EventKind, RefusedBeats};
use crate::heartbeat::auth::{
    self, DEFAULT_CONNECTION_NAMES, HostKeys, SignedTime, TimeProof, default_connection_name,
};
use crate::heartbeat::datagram::{Datagram, DatagramKind, ReceivedDatagram, Rejection};
use crate::heartbeat::encode;
use crate::heartbeat::event_limits::{LimitedEvent, Load};
use crate::heartbeat::fleet::{Fleet, Ingested, KeyUsage};
use crate::heartbeat::host::{ConnectionTimeout, Host, MAX_CONNECTIONS};
use crate::heartbeat::job::FailedJob;
use crate::heartbeat::metric::{self, MetricSource};
use crate::heartbeat::settings::{Expectation, Profile};
use crate::view::HostState;

/// A datagram, and the host and connection that it belongs to, as far as they are known.
pub(super) struct IncomingDatagram<'a> {
    pub datagram: &'a Datagram<'a>,
    pub from: IpAddr,
    pub connection_name: &'a str,
    pub host: Option<u32>,
    /// What a host that is not known has by a pattern.
    pub pattern: Option<Arc<Profile>>,
    pub connection_index: Option<usize>,
    /// The receiver that brought it, where there are several.
    pub receiver: Option<u8>,
    /// What waits already.
    pub load: Load,
    pub now: Now,
}

/// What the signature of a datagram proves.
#[derive(Clone, Copy)]
pub(super) struct Signed {
    /// When it was signed, in microseconds since 1970.
    pub time: i64,
    /// What the clock of its host is ahead of our monotonic one, as far as that is known.
    pub clock_offset: Option<i64>,
    pub key_id: u32,
}

impl Fleet {
    /// Parses a datagram and ingests it.
    ///
    /// # Errors
    /// Why it is rejected.
    pub fn ingest(&mut self, bytes: &[u8], from: IpAddr, now: Now) -> Result<Ingested, Rejection> {
        self.ingest_parsed(&ReceivedDatagram::parse(bytes)?, from, Load::Free, now)
    }

    /// Ingests a datagram from the network.
    ///
    /// A host that is known to have a key is never believed without a signature, and a signature
    /// that no key is known for is not believed either: the sender thinks that it is checked.
    ///
    /// Under `load` only beats are taken, and what these cause may be put off ([`Load`]).
    ///
    /// # Errors
    /// Why it is rejected.
    pub fn ingest_parsed(
        &mut self,
        received: &ReceivedDatagram,
        from: IpAddr,
        load: Load,
        now: Now,
    ) -> Result<Ingested, Rejection> {
        let datagram = &received.datagram;
        let receiver = self.blindness.own();
        let incoming = IncomingDatagram { load, receiver, ..self.locate(datagram, from, now) };
        let signed = match self.authenticate(received, &incoming) {
            Err(Rejection::Replay) if self.is_copy(&incoming) => {
                return Ok(self.ingest_copy(received, &incoming));
            }
            signed => signed?,
        };
        if self.is_unsigned_copy(received, &incoming) {
            return Ok(self.ingest_copy(received, &incoming));
        }
        self.ingest_verified(received, &incoming, signed)
    }

    /// Ingests a datagram whose signature and time were checked.
    pub(super) fn ingest_verified(
        &mut self,
        received: &ReceivedDatagram,
        incoming: &IncomingDatagram,
        signed: Option<Signed>,
    ) -> Result<Ingested, Rejection> {
        let (datagram, now) = (incoming.datagram, incoming.now);
        if datagram.silence.is_some_and(|length| length > self.common.max_silence) {
            return Err(Rejection::TooLongSilence);
        }
        self.admit(incoming)?;
        let proven = signed.is_some_and(|signed| self.proves_address(incoming, signed.time));
        let before = self.deadlines.next();
        let (host, index) = self.find_or_create(incoming)?;
        let is_said = matches!(datagram.event, DatagramKind::Message | DatagramKind::Silence);
        if is_said && !self.may(host, LimitedEvent::Message, now) {
            return Err(Rejection::TooManyMessages);
        }
        if let Some(receiver) = incoming.receiver {
            self.hosts[host as usize].note_receiver(index, receiver, &self.common, now);
        }
        let mut key_usage = None;
        if let Some(Signed { time, clock_offset, key_id }) = signed {
            key_usage = self.record_key(host, index, key_id);
            let host = &mut self.hosts[host as usize];
            host.connections[index].last_signed_at = time;
            host.connections[index].clock_offset = clock_offset.and_then(NonZeroI64::new);
            // It must not be believed again after a crash.
            host.must_store_now |= datagram.event != DatagramKind::Beat;
        }
        self.note_news(received, incoming);
        let mut ingested = Ingested { key_usage, ..self.apply(host, index, incoming) };
        if datagram.ack {
            ingested.ack = self.ack(received, host, signed.map(|signed| signed.key_id), now);
        }
        ingested.rearm = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        if !self.refusals.is_empty() {
            self.refusals.accepted(&datagram.host, now);
        }
        if proven {
            let connection = &self.hosts[host as usize].connections[index];
            ingested.proven_address = Some((host, connection.name.clone()));
        }
        Ok(ingested)
    }

    /// The answer to a datagram that was signed with that key: a sender that still has the previous one
    /// must be able to check it.
    pub(super) fn ack(
        &self,
        received: &ReceivedDatagram,
        host: u32,
        key_id: Option<u32>,
        now: Now,
    ) -> Option<Vec<u8>> {
        let key = key_id.and_then(|id| self.keys(Some(host))?.by_id(id));
        let time = received.datagram.time.as_ref().map(|time| &*time.text);
        encode::ack(time, now.wall, key, received.length)
    }

    /// A datagram under that name was refused. It changes nothing; what is to be logged of it.
    pub fn on_refused(
        &mut self,
        host: &str,
        from: IpAddr,
        rejection: Rejection,
        now: Now,
    ) -> Option<RefusedBeats> {
        let why = rejection.of_silenced_host()?;
        let host = &self.hosts[*self.by_name.get(host)? as usize];
        let is_heard = host.state == HostState::Up;
        if !host.profile.configured {
            return None;
        }
        self.refusals.add(&host.name, (from, why), is_heard, now)
    }

    /// Looks up the host and the connection of a datagram.
    pub(super) fn locate<'a>(
        &self,
        datagram: &'a Datagram<'a>,
        from: IpAddr,
        now: Now,
    ) -> IncomingDatagram<'a> {
        let host = self.by_name.get(&*datagram.host).copied();
        let pattern = match host {
            Some(_) => None,
            None => self.patterns.profile(&datagram.host).cloned(),
        };
        let connection_name =
            datagram.connection.as_deref().unwrap_or(default_connection_name(from));
        let connection_index =
            host.and_then(|host| self.hosts[host as usize].connection_index(connection_name));
        IncomingDatagram {
            datagram,
            from,
            connection_name,
            host,
            pattern,
            connection_index,
            receiver: None,
            load: Load::Free,
            now,
        }
    }

    /// Whether a datagram signed at `time` proves that its host is where it came from, where a name
    /// in the DNS follows that.
    ///
    /// One over a connection without a name must be later than all before it of either address
    /// family: an attacker that overhears a datagram could send it again over the other one, where
    /// it is new.
    fn proves_address(&self, incoming: &IncomingDatagram, time: i64) -> bool {
        let Some(host) = incoming.host.map(|host| &self.hosts[host as usize]) else {
            return false;
        };
        let newer = |index: usize| host.connections[index].last_signed_at < time;
        let mut unnamed =
            DEFAULT_CONNECTION_NAMES.iter().filter_map(|name| host.connection_index(name));
        host.profile.dyndns
            && !self.addresses.predates_start(time, incoming.now)
            && (incoming.datagram.connection.is_some() || unnamed.all(newer))
    }

    /// The keys of a host, its own or the common ones.
    fn keys(&self, host: Option<u32>) -> Option<&HostKeys> {
        let own = host.and_then(|host| self.hosts[host as usize].profile.keys.as_ref());
        own.or(self.common.keys.as_ref())
    }

    /// Records the key that a connection signs with; some when that is the previous one, or no
    /// longer is.
    fn record_key(&mut self, host: u32, index: usize, key_id: u32) -> Option<KeyUsage> {
        let connection = &mut self.hosts[host as usize].connections[index];
        let before = std::mem::replace(&mut connection.key_id, key_id);
        let keys = self.keys(Some(host))?;
        let previous = keys.is_previous(key_id);
        let is_news = previous || (key_id != before && keys.is_previous(before));
        let host = &self.hosts[host as usize];
        is_news.then(|| KeyUsage {
            host: host.name.as_ref().into(),
            connection: host.connections[index].name.as_ref().into(),
            previous,
        })
    }

    /// Checks the signature and the time of a datagram; none when it needs no signature.
    pub(super) fn authenticate(
        &mut self,
        received: &ReceivedDatagram,
        incoming: &IncomingDatagram,
    ) -> Result<Option<Signed>, Rejection> {
        let is_unknown = incoming.host.is_none() && incoming.pattern.is_none();
        if is_unknown && self.common.max_unknown_hosts.is_none() {
            return Err(Rejection::UnknownHost);
        }
        let of_pattern = incoming.pattern.as_ref().and_then(|profile| profile.keys.as_ref());
        let keys = of_pattern.or_else(|| self.keys(incoming.host));
        let Some((key_id, time)) = auth::check_signature(received, keys)? else { return Ok(None) };
        let (last, now) = (self.last_signed_time(incoming), incoming.now);
        let signed_time = SignedTime { time, last, offset: self.clock_offset(incoming) };
        match self.clock_check.check_freshness(signed_time, self.common.clock_skew, now) {
            Ok(freshness) => {
                if freshness == TimeProof::Agrees {
                    self.clock_check.record_agreement(now);
                }
                let clock_offset = auth::clock_offset(signed_time, freshness, now);
                Ok(Some(Signed { time, clock_offset, key_id }))
            }
            Err(Rejection::Stale) if last.is_none_or(|last| time > last) => {
                self.on_clock_difference(incoming, time);
                Err(Rejection::Stale)
            }
            Err(rejection) => Err(rejection),
        }
    }

    /// What the clock of the host is ahead of our monotonic one, by this connection, or by another of
    /// its connections where this one is new.
    fn clock_offset(&self, incoming: &IncomingDatagram) -> Option<i64> {
        let connections = &self.hosts[incoming.host? as usize].connections;
        let own = incoming.connection_index.and_then(|index| connections[index].clock_offset);
        let all = connections.iter().filter_map(|connection| connection.clock_offset);
        own.or_else(|| all.max()).map(NonZeroI64::get)
    }

    /// The time that a signed datagram must be later than: the last one of its connection.
    ///
    /// A connection without a name is named by the sender's address, and that is not signed: as
    /// long as it is not known, the datagram must be later than all that came from the other kind
    /// of address. Else an attacker that overhears one could send it again from there and make up a
    /// connection that is overdue soon after. When both are known each keeps its own order, since a
    /// host may send the same beat from both addresses, and one of them be slower.
    fn last_signed_time(&self, incoming: &IncomingDatagram) -> Option<i64> {
        let host = &self.hosts[incoming.host? as usize];
        match incoming.connection_index {
            Some(index) => Some(host.connections[index].last_signed_at),
            None if incoming.datagram.connection.is_some() => None,
            None => {
                let others =
                    DEFAULT_CONNECTION_NAMES.iter().filter_map(|name| host.connection_index(name));
                others.map(|index| host.connections[index].last_signed_at).max()
            }
        }
    }

    /// A signed datagram, newer than those before it, is rejected because its clock or ours is wrong:
    /// that is remembered, and the deadline of its connection extended.
    fn on_clock_difference(&mut self, incoming: &IncomingDatagram, time: i64) {
        let Some(host_index) = incoming.host else { return };
        let index = incoming.connection_index;
        self.clock_check.record_difference(
            (host_index, index.map(|index| index as u8)),
            time,
            incoming.now,
        );
        let Some(index) = index else { return };
        let host = &mut self.hosts[host_index as usize];
        let connection = &mut host.connections[index];
        let last_extended = connection.extension.map(|extension| extension.from);
        let expectation = connection.expectation(&host.profile, &self.common);
        let (skew, now) = (self.common.clock_skew, incoming.now);
        if !self.clock_check.record_disagreement(host_index, time, skew, last_extended, now)
            || !connection.extend_once(expectation, now)
        {
            return;
        }
        if last_extended.is_some() {
            // The same datagram must not extend it again and again.
            connection.last_signed_at = time;
        }
        self.mark_dirty(host_index);
    }

    /// What a timeout of that connection is told with.
    pub(super) fn connection_timeout(
        &self,
        host: u32,
        index: usize,
        expectation: Expectation,
    ) -> ConnectionTimeout {
        let since = self.hosts[host as usize].connections[index].last_seen.mono;
        let clock = self.clock_check.difference((host, Some(index as u8)), since);
        ConnectionTimeout { index, expectation, also_down: self.also_down(host), clock }
    }

    /// The indexes of the host and the connection, which are made when they are new.
    pub(super) fn find_or_create(
        &mut self,
        incoming: &IncomingDatagram,
    ) -> Result<(u32, usize), Rejection> {
        let datagram = incoming.datagram;
        let host = match (incoming.host, &incoming.pattern) {
            (Some(host), _) => host,
            (None, Some(profile)) => {
                if !self.has_room_for_pattern_host(incoming.now) {
                    return Err(Rejection::TooManyHosts);
                }
                let new = Host::new((&*datagram.host).into(), profile.clone(), incoming.now);
                let host = self.add_host(Host { must_store_now: true, ..new });
                self.connect_by_pattern(host);
                host
            }
            (None, None) if !self.has_room_for_host(incoming.now) => {
                return Err(Rejection::TooManyHosts);
            }
            (None, None) => {
                let profile = self.unknown_profile.clone();
                self.add_host(Host::new((&*datagram.host).into(), profile, incoming.now))
            }
        };
        let index = match incoming.connection_index {
            Some(index) => index,
            None => self.add_connection(host, incoming)?,
        };
        Ok((host, index))
    }

    /// Refuses what causes an event while too much waits. That is told of configured hosts: of
    /// others no message would be sent.
    fn admit(&mut self, incoming: &IncomingDatagram) -> Result<(), Rejection> {
        let datagram = incoming.datagram;
        if incoming.load == Load::Free || datagram.event == DatagramKind::Beat {
            return Ok(());
        }
        if incoming.load != Load::DiskBusy && self.is_configured(&datagram.host) {
            self.limits.refused_by_outbox(&datagram.host, incoming.now);
        }
        Err(Rejection::Busy)
    }

    /// Takes a token for an event of a host; false, which is told of configured ones, when it has
    /// none.
    fn may(&mut self, host_index: u32, event: LimitedEvent, now: Now) -> bool {
        let host = &self.hosts[host_index as usize];
        let may = self.limits.take(&host.name, event, now);
        if !may && host.profile.configured {
            self.limits.refused(&host.name, now);
        }
        may
    }

    fn add_connection(
        &mut self,
        host: u32,
        incoming: &IncomingDatagram,
    ) -> Result<usize, Rejection> {
        let room = self.room_for(host);
        let entry = &mut self.hosts[host as usize];
        let count = entry.connections.len();
        if count == MAX_CONNECTIONS {
            return Err(Rejection::TooManyConnections);
        }
        if room == 0 && count > 0 {
            self.note_no_room(1, incoming.now);
            return Err(Rejection::TooManyConnections);
        }
        let known = entry.profile.configured;
        let names = if known { &mut self.names } else { &mut self.unknown.names };
        let index = entry.add_connection(names.intern(incoming.connection_name), incoming.now);
        // Here, since what follows may still refuse the datagram.
        self.unknown.recount(entry);
        Ok(index)
    }

    pub(super) fn apply(
        &mut self,
        host_index: u32,
        index: usize,
        incoming: &IncomingDatagram,
    ) -> Ingested {
        let (datagram, now) = (incoming.datagram, incoming.now);
        let has_room = self.room_for(host_index) > 0;
        let host = &self.hosts[host_index as usize];
        let bare = if has_room { None } else { without_new_boot_id(datagram, host) };
        let kept = bare.as_ref().unwrap_or(datagram);
        let beats = matches!(datagram.event, DatagramKind::Beat | DatagramKind::Boot);
        let returns = beats && host.may_return(index, kept, now);
        let put_off = incoming.load == Load::ShareUsed;
        let put_off = returns && (put_off || !self.may(host_index, LimitedEvent::Return, now));
        let host = &mut self.hosts[host_index as usize];
        let state_before = host.state;
        let gap = host.excess_gap(index, &self.common, now);
        let check_missing = beats && host.check_due(index, now);
        let mut ingested = Ingested {
            events: match put_off {
                true => host.put_off_return(index, kept, incoming.from, now),
                false => host.on_datagram(index, kept, incoming.from, &self.common, now),
            },
            ..Ingested::default()
        };
        let mut reschedule = state_before != host.state;
        if let (1.., Some(path)) = datagram.metrics.left_out()
            && !std::mem::replace(&mut host.left_out_logged, true)
        {
            ingested.left_out = Some(path.to_owned());
        }
        reschedule |=
            self.apply_metrics((host_index, index), (gap, check_missing), incoming, &mut ingested);
        self.unknown.recount(&mut self.hosts[host_index as usize]);
        self.schedule_connections(host_index);
        if datagram.event == DatagramKind::Shutdown && !ingested.events.is_empty() {
            self.schedule_return(host_index);
            self.schedule_forget(host_index);
        }
        if reschedule {
            self.schedule_metrics(host_index);
            self.update_down_set(host_index);
        }
        // The hot path: nearly always nothing waits.
        self.wake(host_index, now);
        ingested.parents_up = std::mem::take(&mut self.pending.parents_up);
        ingested.not_behind = std::mem::take(&mut self.pending.not_behind);
        self.add_context(&mut ingested.events, host_index, index);
        if self.hosts[host_index as usize].must_store_now {
            self.update_uptime(host_index, now);
            ingested.rows.push(self.take_row(host_index));
        } else {
            self.mark_dirty(host_index);
        }
        ingested
    }

    /// Applies the metrics of a beat, or those beside a message, which is no sign of life: they count
    /// only while the host is up. Whether the deadlines of the host's metrics have to be scheduled again.
    fn apply_metrics(
        &mut self,
        (host_index, index): (u32, usize),
        (gap, check_missing): (Duration, bool),
        incoming: &IncomingDatagram,
        ingested: &mut Ingested,
    ) -> bool {
        let (datagram, now) = (incoming.datagram, incoming.now);
        let host = &mut self.hosts[host_index as usize];
        let (has_some, has_new) = (!host.metrics.is_empty(), !datagram.metrics.is_empty());
        match datagram.event {
            DatagramKind::Beat | DatagramKind::Boot if has_some || has_new => {
                host.extend_metrics(index, gap);
                self.ingest_metrics(host_index, index, check_missing, incoming, ingested)
            }
            DatagramKind::Message if has_new && host.state == HostState::Up => {
                let job = FailedJob::of(datagram, &host.metrics);
                let reschedule = self.ingest_metrics(host_index, index, false, incoming, ingested);
                let Some(job) = job else { return reschedule };
                let host = &mut self.hosts[host_index as usize];
                let reminders = self.common.renotify.delay(0).is_some();
                let events = &mut ingested.events;
                job.tell_once(&host.name, &mut host.metrics, events, (reminders, now));
                host.must_store_now = true;
                true
            }
            _ => false,
        }
    }

    /// How long events may wait when they come out of a hold: for what is not heard the time within
    /// which the next beat must come, for a metric one interval. And what was refused of what is not
    /// heard.
    pub(super) fn add_context(&self, events: &mut [Event], host_index: u32, index: usize) {
        let Some(host) = self.hosts.get(host_index as usize) else { return };
        let Some(connection) = host.connections.get(index) else { return };
        let expectation = connection.expectation(&host.profile, &self.common);
        for event in events {
            let is_silent =
                matches!(event.kind, EventKind::Overdue { .. } | EventKind::NotBack { .. });
            event.refused = self.refusals.of(&host.name).filter(|_| is_silent);
            event.patience = match event.kind {
                EventKind::Threshold { .. } | EventKind::Missing { .. } => expectation.interval,
                EventKind::Overdue { .. }
                | EventKind::Shutdown { .. }
                | EventKind::NotBack { .. } => expectation.timeout(),
                _ => Duration::ZERO,
            };
        }
    }

    /// Ingests the metrics of a beat, and checks for missing ones when that is due. Whether the
    /// deadlines of the host's metrics have to be scheduled again.
    fn ingest_metrics(
        &mut self,
        host_index: u32,
        index: usize,
        check_missing: bool,
        incoming: &IncomingDatagram,
        ingested: &mut Ingested,
    ) -> bool {
        let (datagram, now) = (incoming.datagram, incoming.now);
        let (room, mut refused) = (self.room_for(host_index), 0);
        let host = &mut self.hosts[host_index as usize];
        let mut reschedule = false;
        if !datagram.metrics.is_empty() {
            if check_missing {
                host.adopt_metrics(index, now);
            }
            let known = host.profile.configured;
            let (name, profile) = (&host.name, &host.profile);
            let source = MetricSource { host: name, profile, connection: index, room };
            let names = if known { &mut self.names } else { &mut self.unknown.names };
            let (metrics, limits) = (&mut host.metrics, &mut self.limits);
            let overloaded = incoming.load == Load::ShareUsed;
            let mut may_recover =
                || !overloaded && limits.take(source.host, LimitedEvent::Recovery, now);
            let changes =
                metric::ingest(metrics, &source, &datagram.metrics, names, &mut may_recover, now);
            if changes.put_off && !overloaded && known {
                limits.refused(source.host, now);
            }
            refused = changes.refused;
            reschedule |= changes.reindexed || !changes.events.is_empty();
            host.must_store_now |=
                !changes.events.is_empty() || !changes.closed_incidents.is_empty();
            ingested.events.extend(changes.events);
            ingested.closed_incidents = changes.closed_incidents;
        }
        if check_missing {
            let missing = host.check_missing(index, &self.common, now);
            reschedule |= missing.reindexed;
            host.must_store_now |=
                !missing.events.is_empty() || !missing.closed_incidents.is_empty();
            ingested.events.extend(missing.events);
            ingested.closed_incidents.extend(missing.closed_incidents);
        }
        self.note_no_room(refused, now);
        reschedule
    }
}

/// The datagram without its `boot_id`, where that is one that the host has not sent yet.
fn without_new_boot_id<'a>(datagram: &Datagram<'a>, host: &Host) -> Option<Datagram<'a>> {
    let id = datagram.boot_id.as_deref()?;
    let is_known = host.boot_ids.as_deref().is_some_and(|boots| boots.is_known(id));
    let bare = || Datagram { boot_id: None, metrics: Default::default(), ..datagram.clone() };
    (!is_known).then(bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Mono, Wall};
    use crate::event::{CalmEvent, EventId};
    use crate::heartbeat::datagram;
    use crate::heartbeat::encode::{OutgoingDatagram, sign, signing_key};
    use crate::heartbeat::settings::{HostSettings, UnknownHosts};
    use crate::heartbeat::test_fleet::{BEGIN, DAY, HERE, HOUR, MINUTE, SECOND, TestFleet, config};
    use crate::secret::Secret;
    use std::time::Duration;

    const BEAT: &str = r#"{"host":"web1"}"#;

    #[test]
    fn a_host_silences_itself_for_as_long_as_it_may() {
        let mut config = config();
        config.max_silence = Duration::from_secs(3600);
        let mut test = TestFleet::with(config);
        let silence = |seconds: &str| {
            format!(r#"{{"host":"web1","event":"silence","message":"kernel\nupdate"{seconds}}}"#)
        };
        test.beat("web1").wait(SECOND);
        let asked = test.try_ingest(silence(r#","seconds":1200"#).as_bytes()).unwrap();
        let [Event { kind: EventKind::Calm(CalmEvent::Silenced(notice)), .. }] =
            asked.events.as_slice()
        else {
            panic!("{asked:?}")
        };
        assert_eq!((notice.scope.as_str(), notice.by_host), ("web1", true));
        assert_eq!(notice.length, Duration::from_secs(1200));
        assert_eq!(notice.comment.as_deref(), Some("kernel update"));
        assert!(test.try_ingest(silence(r#","seconds":0"#).as_bytes()).is_ok());
        assert!(test.try_ingest(silence(r#","seconds":3600"#).as_bytes()).is_ok());
        let long = test.try_ingest(silence(r#","seconds":3600.5"#).as_bytes());
        assert_eq!(long.unwrap_err().name(), "too_long_silence");
        for seconds in ["", r#","seconds":-1"#, r#","seconds":"x""#, r#","seconds":1e99"#] {
            let refused = test.try_ingest(silence(seconds).as_bytes());
            assert_eq!(refused.unwrap_err().name(), "bad_field", "{seconds}");
        }
        assert!(test.try_ingest(br#"{"host":"web1","seconds":"x"}"#).is_ok(), "not a silence");
        let mut test = TestFleet::new();
        assert!(test.try_ingest(silence(r#","seconds":1"#).as_bytes()).is_err(), "none is allowed");
        assert!(test.try_ingest(silence(r#","seconds":0"#).as_bytes()).is_ok(), "but to end one");
    }

    #[test]
    fn a_host_filled_the_history_with_wishes_for_silences() {
        let mut config = config();
        config.max_silence = Duration::from_secs(3600);
        let mut test = TestFleet::with(config);
        test.beat("web1");
        let mut ask = |seconds: u32| {
            let text = format!(r#"{{"host":"web1","event":"silence","seconds":{seconds}}}"#);
            test.try_ingest(text.as_bytes()).map(|_| ())
        };
        assert!((0..60).all(|number| ask(number).is_ok()));
        assert_eq!(ask(600), Err(Rejection::TooManyMessages), "not acknowledged: it asks again");
    }

    #[test]
    fn a_silence_is_believed_as_every_datagram_and_is_no_sign_of_life() {
        let mut config = config();
        config.max_silence = Duration::from_secs(3600);
        config.settings.key = Some(Secret::new("k"));
        let mut test = TestFleet::with(config);
        let time = BEGIN.wall.0 / 1000;
        let json = |time: i64| {
            format!(r#"{{"host":"web1","event":"silence","seconds":60,"ack":true,"time":{time}}}"#)
        };
        let unsigned = test.try_ingest(json(time).as_bytes());
        assert_eq!(unsigned.unwrap_err(), Rejection::Unsigned);
        let signed = sign(&signing_key(&Secret::new("k")), json(time).as_bytes());
        let asked = test.try_ingest(&signed).unwrap();
        assert_eq!(asked.events.len(), 1);
        assert!(asked.ack.is_some() && !asked.rows.is_empty(), "stored, then acknowledged");
        assert_eq!(test.try_ingest(&signed).unwrap_err(), Rejection::Replay);
        assert_eq!(test.fleet.view("web1").unwrap().state, crate::view::HostState::New);
    }

    #[test]
    fn events_say_how_long_they_may_wait_when_they_come_out_of_a_hold() {
        let mut test = TestFleet::new();
        test.ingest(r#"{"host":"web1","interval":60,"metrics":{"m":1}}"#).wait(DAY);
        let patience = |test: &TestFleet, kind: EventKind| {
            let mut events = [Event::new(test.now.wall, kind)];
            test.fleet.add_context(&mut events, 0, 0);
            events[0].patience.as_secs()
        };
        let host = || test.fleet.view("web1").unwrap().name;
        let shutdown = EventKind::Shutdown { host: host(), connection: "ipv4".into() };
        let said = EventKind::HostMessage { host: host(), text: "x".into() };
        assert_eq!(patience(&test, shutdown), 180, "the interval and twice that");
        assert_eq!(patience(&test, said), 0);
    }

    #[test]
    fn connections_are_named_by_the_address_of_the_sender() {
        for (address, name) in
            [("10.1.2.3", "ipv4"), ("::ffff:10.1.2.3", "ipv4"), ("fe80::1", "ipv6")]
        {
            let mut test = TestFleet::new();
            let from = address.parse().unwrap();
            test.fleet.ingest(BEAT.as_bytes(), from, test.now).unwrap();
            assert_eq!(test.fleet.view("web1").unwrap().connections[0].name, name);
        }
    }

    #[test]
    fn unknown_hosts_are_ignored_or_accepted_up_to_a_number() {
        let mut test = TestFleet::new();
        assert_eq!(test.try_ingest(br#"{"host":"x"}"#), Err(Rejection::UnknownHost));
        let mut config = config();
        config.settings.unknown_hosts = UnknownHosts::Accept;
        config.settings.max_unknown_hosts = 2;
        let mut test = TestFleet::with(config);
        test.beat("x").beat("y").beat("x");
        assert_eq!(test.try_ingest(br#"{"host":"z"}"#), Err(Rejection::TooManyHosts));
        test.beat("web1").restart_after(SECOND).beat("x").beat("y");
        assert_eq!(test.try_ingest(br#"{"host":"z"}"#), Err(Rejection::TooManyHosts));
    }

    #[test]
    fn a_host_has_at_most_sixteen_connections() {
        let mut test = TestFleet::new();
        for n in 0..16 {
            test.beat_over("web1", &format!("c{n}"));
        }
        assert_eq!(test.try_ingest(BEAT.as_bytes()), Err(Rejection::TooManyConnections));
        test.beat_over("web1", "c3");
    }

    fn signed(secret: &str, time: f64) -> Vec<u8> {
        sign(
            &signing_key(&Secret::new(secret)),
            format!(r#"{{"host":"web1","time":{time}}}"#).as_bytes(),
        )
    }

    #[test]
    fn with_a_key_only_fresh_signed_datagrams_are_believed() {
        let mut config = config();
        config.settings.key = Some(Secret::new("common"));
        let mut test = TestFleet::with(config.clone());
        let now = BEGIN.wall.0 as f64 / 1000.0;
        let unsigned = format!(r#"{{"host":"web1","time":{now}}}"#);
        let timeless = sign(&signing_key(&Secret::new("common")), BEAT.as_bytes());
        let cases: [(Vec<u8>, Result<(), Rejection>); 9] = [
            (unsigned.into_bytes(), Err(Rejection::Unsigned)),
            (timeless, Err(Rejection::BadField(datagram::TIME_WANTED))),
            (signed("wrong", now), Err(Rejection::BadSignature)),
            (signed("common", now + 301.0), Err(Rejection::Stale)),
            (signed("common", now - 301.0), Err(Rejection::Stale)),
            (signed("common", now), Ok(())),
            (signed("common", now), Err(Rejection::Replay)),
            (signed("common", now - 0.001), Err(Rejection::Replay)),
            (signed("common", now + 0.001), Ok(())),
        ];
        for (bytes, expected) in cases {
            assert_eq!(test.try_ingest(&bytes).map(drop), expected);
        }
        test.restart_after(SECOND);
        assert_eq!(
            test.try_ingest(&signed("common", now)),
            Err(Rejection::Replay),
            "after restart"
        );

        config.hosts.get_mut("web1").unwrap().key = Some(Secret::new("own"));
        let mut test = TestFleet::with(config);
        assert_eq!(test.try_ingest(&signed("common", now)), Err(Rejection::BadSignature));
        assert!(test.try_ingest(&signed("own", now)).is_ok());
        assert_eq!(TestFleet::new().try_ingest(&signed("own", now)), Err(Rejection::BadSignature));
    }

    #[test]
    fn a_time_from_a_wrong_clock_does_not_shut_a_host_out() {
        let mut config = config();
        config.settings.key = Some(Secret::new("k"));
        let mut test = TestFleet::with(config);
        let right = test.now;
        test.now.wall = right.wall + 365 * DAY;
        test.try_ingest(&signed("k", test.now.wall.0 as f64 / 1000.0)).unwrap();
        test.now = right.later(SECOND);
        test.try_ingest(&signed("k", test.now.wall.0 as f64 / 1000.0)).unwrap();
    }

    #[test]
    fn an_answer_is_given_when_asked_for_and_signed_like_the_request() {
        let mut config = config();
        config.settings.key = Some(Secret::new("k"));
        let beat = OutgoingDatagram {
            host: "web1".into(),
            time: Some(BEGIN.wall),
            ack: true,
            ..OutgoingDatagram::default()
        };
        let json = beat.json();
        let request = sign(&signing_key(&Secret::new("k")), &json);
        let ack = TestFleet::with(config).try_ingest(&request).unwrap().ack.unwrap();
        assert!(ack.len() <= request.len());
        assert!(ack.ends_with(br#" {"ack":1795291928.0,"now":1795291928}"#), "{ack:?}");
        let ack = TestFleet::new().try_ingest(&json).unwrap().ack.unwrap();
        assert_eq!(ack, br#"{"ack":1795291928.0,"now":1795291928}"#);
        assert_eq!(TestFleet::new().try_ingest(BEAT.as_bytes()).unwrap().ack, None);
    }

    #[test]
    fn nobody_could_tell_why_a_host_with_a_wrong_key_was_silent() {
        let mut test = with_key();
        let wrong = |after: Duration| {
            let time = (BEGIN.wall + after).0 as f64 / 1000.0;
            signed("another", time)
        };
        let refuse = |test: &mut TestFleet, bytes: &[u8], why: Rejection| {
            assert_eq!(test.try_ingest(bytes), Err(why));
            test.fleet.on_refused("web1", HERE, why, test.now)
        };
        test.try_ingest(&sent("web1", Duration::ZERO, "")).unwrap();
        let mut logged = Vec::new();
        for _ in 0..4 {
            test.wait(10 * SECOND);
            let bytes = wrong(test.now.wall.since(BEGIN.wall));
            logged.extend(refuse(&mut test, &bytes, Rejection::BadSignature));
        }
        assert_eq!(logged.len(), 1, "once: {logged:?}");
        let refused = |count: u32, since: Duration| {
            format!(
                "beats that say they are web1 come from 127.0.0.1 and are refused: bad signature, \
                 {count} times since {}",
                (BEGIN.wall + since).local()
            )
        };
        let event = test.wait(SECOND).take_events().pop().unwrap();
        let details = event.message(EventId(1)).details;
        let detail = ("refused".to_owned(), refused(3, 10 * SECOND));
        assert!(details.contains(&detail), "those until then: {details:?}");
        let view = |test: &TestFleet| test.fleet.view("web1").unwrap().refused;
        assert_eq!(view(&test).unwrap().text, refused(4, 10 * SECOND));
        // A reload counts anew, and one that is believed ends it.
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(view(&test), None);
        assert!(refuse(&mut test, &wrong(50 * SECOND), Rejection::BadSignature).is_some());
        test.try_ingest(&sent("web1", 51 * SECOND, "")).unwrap();
        assert_eq!(view(&test), None);
        assert_eq!(test.fleet.on_refused("web2", HERE, Rejection::Unsigned, test.now), None);
        assert!(test.fleet.on_refused("web1", HERE, Rejection::Busy, test.now).is_none());
    }

    #[test]
    fn a_host_that_was_never_heard_may_be_refused_all_the_time() {
        let mut test = with_key();
        for _ in 0..30 {
            test.wait(HOUR);
            let unsigned = test.fleet.on_refused("web1", HERE, Rejection::Unsigned, test.now);
            assert_eq!(unsigned.is_some(), test.now == BEGIN.later(HOUR));
        }
        let event = test.take_events().pop().unwrap();
        assert!(event.refused.unwrap().to_string().contains("not signed"));
    }

    fn with_key() -> TestFleet {
        let mut config = config();
        config.settings.key = Some(Secret::new("k"));
        TestFleet::with(config)
    }

    /// A signed datagram of `host`, sent so much after the beginning.
    fn sent(host: &str, after: Duration, fields: &str) -> Vec<u8> {
        let time = (BEGIN.wall + after).0 as f64 / 1000.0;
        let json = format!(r#"{{"host":"{host}","time":{time}{fields}}}"#);
        sign(&signing_key(&Secret::new("k")), json.as_bytes())
    }

    #[test]
    fn a_signed_message_was_believed_again_after_a_crash() {
        for event in ["boot", "shutdown", "message"] {
            let mut test = with_key();
            let said = format!(r#","event":"{event}","message":"disk on fire""#);
            let mut stored = test.try_ingest(&sent("web1", Duration::ZERO, "")).unwrap().rows;
            let last_alive = test.last_alive();
            test.try_ingest(&sent("web1", SECOND, &said)).unwrap();
            stored.extend(test.try_ingest(&sent("web1", 2 * SECOND, &said)).unwrap().rows);
            test.now = test.now.later(3 * SECOND);
            test.start(stored.split_off(stored.len() - 1), Some(last_alive));
            let again = test.try_ingest(&sent("web1", 2 * SECOND, &said));
            assert_eq!(again, Err(Rejection::Replay), "{event}");
        }
    }

    #[test]
    fn a_replay_over_the_other_family_did_make_a_connection() {
        let six: IpAddr = "2001:db8::666".parse().unwrap();
        let mut test = with_key();
        test.try_ingest(&sent("web1", SECOND, "")).unwrap();
        for after in [Duration::ZERO, SECOND] {
            let replayed = test.fleet.ingest(&sent("web1", after, ""), six, test.now);
            assert_eq!(replayed, Err(Rejection::Replay));
        }
        test.fleet.ingest(&sent("web1", 2 * SECOND, ""), six, test.now).unwrap();
        test.try_ingest(&sent("web1", 3 * SECOND, "")).unwrap();
        let dual = test.fleet.ingest(&sent("web1", 3 * SECOND, ""), six, test.now);
        assert!(dual.is_ok(), "both ways are known: each keeps its own order");
        let again = test.fleet.ingest(&sent("web1", 3 * SECOND, ""), six, test.now);
        assert_eq!(again, Err(Rejection::Replay));
        let named = sent("web1", SECOND, r#","connection":"vpn""#);
        assert!(test.fleet.ingest(&named, six, test.now).is_ok(), "a name is signed");
    }

    #[test]
    fn a_clock_of_ours_that_was_not_set_or_went_back_did_silence_every_signed_host() {
        let hour_behind = Wall(BEGIN.wall.0 - 3_600_000);
        for wrong in [Wall(5_000), hour_behind] {
            let mut test = with_key();
            test.try_ingest(&sent("web1", Duration::ZERO, "")).unwrap();
            let (rows, last_alive) = (test.rows(), test.last_alive());
            test.kernel = "kernel-2".into();
            test.now = Now { mono: Mono(5_000), wall: wrong };
            test.start(rows, Some(last_alive));
            for n in 1..20 {
                test.wait(10 * SECOND);
                test.try_ingest(&sent("web1", n * 10 * SECOND, "")).unwrap();
                let again = test.try_ingest(&sent("web1", n * 10 * SECOND, ""));
                assert_eq!(again, Err(Rejection::Replay));
            }
            test.now.wall = BEGIN.wall + 200 * SECOND;
            test.try_ingest(&sent("web1", 200 * SECOND, "")).unwrap();
            let late = test.try_ingest(&sent("web1", DAY, ""));
            assert_eq!(late, Err(Rejection::Stale), "the clock is right again");
            assert!(test.titles().is_empty());
        }
    }

    #[test]
    fn a_clock_that_a_host_agrees_with_is_right_whatever_the_last_start_says() {
        let mut test = with_key();
        test.now.wall = BEGIN.wall + 365 * DAY;
        let (rows, last_alive) = (test.rows(), test.last_alive());
        test.now = BEGIN.later(SECOND);
        test.start(rows, Some(last_alive));
        test.try_ingest(&sent("web1", SECOND, "")).unwrap();
        assert_eq!(test.try_ingest(&sent("web1", DAY, "")), Err(Rejection::Stale));
    }

    /// Signed hosts beat for ten minutes while our clock is off by `ours`; the events.
    fn ten_minutes(test: &mut TestFleet, hosts: &[&str], ours: Duration) -> Vec<String> {
        for n in 1..=60 {
            test.wait(10 * SECOND);
            test.now.wall = BEGIN.wall + ours + n * 10 * SECOND;
            for host in hosts {
                let _ = test.try_ingest(&sent(host, n * 10 * SECOND, ""));
            }
        }
        test.titles_with_level()
    }

    const HOUR_MILLIS: i64 = 3_600_000;

    /// Signed hosts that beat every ten seconds, by a clock that nothing moves; all that they sent can
    /// be sent again.
    struct Recorded {
        test: TestFleet,
        hosts: Vec<String>,
        recorded: Vec<Vec<u8>>,
        elapsed: Duration,
    }

    impl Recorded {
        fn new(count: usize) -> Recorded {
            let mut config = config();
            config.settings.key = Some(Secret::new("k"));
            let hosts: Vec<String> = (1..=count).map(|n| format!("web{n}")).collect();
            for name in &hosts {
                config.hosts.insert(name.clone(), config.hosts["web1"].clone());
            }
            let test = TestFleet::with(config);
            Recorded { test, hosts, recorded: Vec::new(), elapsed: Duration::ZERO }
        }

        fn pass(&mut self, time: Duration) {
            self.test.wait(time);
            self.elapsed += time;
        }

        fn beat(&mut self, beats: u32) -> &mut Recorded {
            for _ in 0..beats {
                for host in &self.hosts {
                    let bytes = sent(host, self.elapsed, "");
                    self.test.try_ingest(&bytes).unwrap_or_else(|why| {
                        panic!("{why} after {:?} of {}", self.elapsed, self.hosts.len())
                    });
                    self.recorded.push(bytes);
                }
                self.pass(10 * SECOND);
            }
            self
        }

        /// Nothing that was accepted is accepted again.
        fn replay(&mut self) -> &mut Recorded {
            for bytes in &self.recorded {
                assert!(self.test.try_ingest(bytes).is_err(), "at {:?}", self.test.now);
            }
            self
        }

        /// Our wall clock is set by so many milliseconds.
        fn set(&mut self, by: i64) -> &mut Recorded {
            self.test.now.wall.0 += by;
            self
        }

        /// The daemon is away, and our wall clock is set meanwhile.
        fn restart(&mut self, by: i64) -> &mut Recorded {
            let (rows, last_alive) = (self.test.rows(), self.test.last_alive());
            self.elapsed += 5 * SECOND;
            self.test.now = self.test.now.later(5 * SECOND);
            self.set(by);
            self.test.start(rows, Some(last_alive));
            self
        }

        fn nobody_is_overdue(&mut self) {
            assert_eq!(self.test.titles(), [""; 0]);
        }
    }

    #[test]
    fn a_clock_of_ours_that_was_set_by_an_hour_did_silence_one_signed_host_or_two() {
        for count in 1..=3 {
            for by in [
                HOUR_MILLIS,
                -HOUR_MILLIS,
                400_000,
                -400_000,
                30 * 24 * HOUR_MILLIS,
                -30 * 24 * HOUR_MILLIS,
            ] {
                let mut hosts = Recorded::new(count);
                hosts.beat(30).set(by).replay().beat(400).replay();
                // Twice, and back at last.
                hosts.set(by).beat(400).replay().set(-2 * by).beat(30).replay();
                hosts.nobody_is_overdue();
                // Right after the first beat, and while the daemon was away.
                let mut hosts = Recorded::new(count);
                hosts.beat(1).set(by).beat(30).restart(-by).beat(30).replay();
                hosts.restart(by).beat(400).replay().restart(0).beat(30).replay();
                hosts.nobody_is_overdue();
                // It is no reason to believe who is silent.
                hosts.pass(MINUTE);
                hosts.replay();
                assert_eq!(hosts.test.titles().len(), count, "{count} {by}");
            }
        }
    }

    #[test]
    fn a_clock_of_ours_that_drifts_away_silences_nobody() {
        for by in [500, -500, 9_000, -9_000] {
            let mut hosts = Recorded::new(1);
            for _ in 0..1500 {
                hosts.beat(1).set(by);
            }
            hosts.replay().nobody_is_overdue();
        }
    }

    #[test]
    fn what_was_recorded_was_believed_once_more_when_our_clock_was_set_back() {
        let mut hosts = Recorded::new(2);
        hosts.beat(360);
        // The host dies; an hour ago it did not.
        hosts.set(-HOUR_MILLIS);
        let recorded = std::mem::take(&mut hosts.recorded);
        for bytes in recorded.chunks(2) {
            for one in bytes {
                assert_eq!(hosts.test.try_ingest(one), Err(Rejection::Replay));
            }
            hosts.pass(10 * SECOND);
        }
        assert_eq!(hosts.test.titles().len(), 2);
    }

    #[test]
    fn what_is_held_up_a_little_longer_each_time_is_not_fresh_for_ever() {
        let mut hosts = Recorded::new(1);
        hosts.beat(10).set(HOUR_MILLIS);
        // An attacker that sits in between takes all for itself, and lets one through now and then.
        let held: Vec<Vec<u8>> =
            (0..400).map(|n| sent("web1", hosts.elapsed + n * 10 * SECOND, "")).collect();
        let mut believed = 0;
        for bytes in &held {
            hosts.pass(20 * SECOND);
            believed += usize::from(hosts.test.try_ingest(bytes).is_ok());
        }
        assert!((20..=32).contains(&believed), "for the skew of five minutes: {believed}");
        assert_eq!(hosts.test.titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_host_that_was_set_back_together_with_us_is_let_in_when_it_is_past_its_last_time() {
        let by = Duration::from_secs(3600);
        let mut hosts = Recorded::new(1);
        hosts.beat(30).set(-HOUR_MILLIS);
        let behind = |hosts: &Recorded| sent("web1", hosts.elapsed, "");
        hosts.elapsed = Duration::ZERO;
        // Its times are those of the past five minutes, which were accepted.
        let again = hosts.test.try_ingest(&behind(&hosts));
        assert_eq!(again, Err(Rejection::Replay));
        // Ours shows an hour less, and so does its: what it said then was never heard.
        let hour_behind = |after: Duration| {
            let time = (BEGIN.wall.0 + after.as_millis() as i64 - HOUR_MILLIS) as f64 / 1000.0;
            let json = format!(r#"{{"host":"web1","time":{time}}}"#);
            sign(&signing_key(&Secret::new("k")), json.as_bytes())
        };
        let early = 310 * SECOND;
        assert_eq!(hosts.test.try_ingest(&hour_behind(early)), Err(Rejection::Replay));
        hosts.test.wait(by);
        assert!(hosts.test.try_ingest(&hour_behind(early + by)).is_ok());
        // By more than a day: whoever was let in by a wrong clock is not locked out for a year.
        let mut hosts = Recorded::new(1);
        hosts.beat(30).set(-30 * 24 * HOUR_MILLIS);
        let month_behind = (BEGIN.wall.0 + 300_000) / 1000 - 30 * 24 * 3600;
        let json = format!(r#"{{"host":"web1","time":{month_behind}}}"#);
        let bytes = sign(&signing_key(&Secret::new("k")), json.as_bytes());
        assert!(hosts.test.try_ingest(&bytes).is_ok());
    }

    fn clock_details(test: &mut TestFleet) -> Vec<(String, Option<String>)> {
        let told = |event: &crate::event::Event| {
            let message = event.message(crate::event::EventId(1));
            let detail = message.details.into_iter().find(|(label, _)| label == "clock");
            (message.title, detail.map(|(_, text)| text))
        };
        test.take_events().iter().map(told).collect()
    }

    #[test]
    fn whose_clock_is_wrong_cannot_be_known_after_a_boot_and_is_said() {
        for (by, words) in [
            (HOUR_MILLIS, "its datagrams come, but its clock and ours differ by 1 h"),
            (400_000, "its datagrams come, but its clock and ours differ by 6 min 40 s"),
        ] {
            let mut hosts = Recorded::new(1);
            hosts.beat(30);
            let (rows, last_alive) = (hosts.test.rows(), hosts.test.last_alive());
            hosts.test.kernel = "kernel-2".into();
            hosts.test.now = Now { mono: Mono(5_000), wall: hosts.test.now.wall };
            hosts.set(by);
            hosts.test.start(rows, Some(last_alive));
            for _ in 0..30 {
                let bytes = sent("web1", hosts.elapsed, "");
                assert_eq!(hosts.test.try_ingest(&bytes), Err(Rejection::Stale));
                // An echo takes nothing off the difference.
                hosts.pass(10 * SECOND);
                hosts.test.try_ingest(&bytes).unwrap_err();
            }
            let told = clock_details(&mut hosts.test);
            assert_eq!(told, [("web1 ipv4 overdue".to_owned(), Some(words.to_owned()))]);
            // Once it is set, all is well.
            hosts.set(-by).beat(30).replay();
            assert_eq!(clock_details(&mut hosts.test), [("web1 ipv4 is back".to_owned(), None)]);
        }
    }

    #[test]
    fn three_hosts_know_better_than_a_machine_that_booted_with_a_wrong_clock() {
        let mut hosts = Recorded::new(3);
        hosts.beat(30);
        let (rows, last_alive) = (hosts.test.rows(), hosts.test.last_alive());
        hosts.test.kernel = "kernel-2".into();
        hosts.test.now = Now { mono: Mono(5_000), wall: hosts.test.now.wall };
        hosts.set(HOUR_MILLIS).test.start(rows, Some(last_alive));
        for _ in 0..60 {
            for host in ["web1", "web2", "web3"] {
                let _ = hosts.test.try_ingest(&sent(host, hosts.elapsed, ""));
            }
            hosts.pass(10 * SECOND);
        }
        hosts.nobody_is_overdue();
        hosts.replay().pass(2 * MINUTE);
        assert_eq!(hosts.test.titles().len(), 3, "they have fallen silent");
    }

    #[test]
    fn a_host_whose_clock_is_wrong_from_the_start_was_never_heard_without_a_word_about_it() {
        let mut hosts = Recorded::new(1);
        for _ in 0..24 * 60 {
            let bytes = sent("web1", hosts.elapsed + 2 * Duration::from_secs(3600), "");
            assert_eq!(hosts.test.try_ingest(&bytes), Err(Rejection::Stale));
            hosts.pass(MINUTE);
        }
        let words = "its datagrams come, but its clock and ours differ by 2 h".to_owned();
        let told = clock_details(&mut hosts.test);
        assert_eq!(told, [("web1 was never heard".to_owned(), Some(words))]);
    }

    #[test]
    fn an_overdue_host_that_sends_nothing_is_not_said_to_have_a_wrong_clock() {
        let mut hosts = Recorded::new(1);
        // Its clock was wrong for a while, before it was set and it fell silent.
        hosts.beat(3);
        hosts.test.try_ingest(&sent("web1", DAY, "")).unwrap_err();
        hosts.beat(3).pass(MINUTE);
        assert_eq!(clock_details(&mut hosts.test), [("web1 ipv4 overdue".to_owned(), None)]);
    }

    fn four_hosts() -> TestFleet {
        let mut config = config();
        config.settings.key = Some(Secret::new("k"));
        for name in ["web2", "web3", "web4"] {
            config.hosts.insert(name.into(), config.hosts["web1"].clone());
        }
        let mut test = TestFleet::with(config);
        for name in ["web1", "web2", "web3", "web4"] {
            test.try_ingest(&sent(name, Duration::ZERO, "")).unwrap();
        }
        test
    }

    #[test]
    fn a_clock_of_ours_that_jumped_did_silence_every_signed_host() {
        let all = ["web1", "web2", "web3", "web4"];
        let mut test = four_hosts();
        assert!(ten_minutes(&mut test, &all, 365 * DAY).is_empty());
        for _ in 0..4 {
            test.wait(10 * SECOND);
            for host in all {
                test.try_ingest(&sent(host, 600 * SECOND, "")).unwrap_err();
            }
        }
        assert_eq!(
            test.titles_with_level().len(),
            4,
            "they have fallen silent, whoever repeats their beats"
        );

        let told = ten_minutes(&mut four_hosts(), &all[1..], 365 * DAY);
        assert_eq!(told, ["critical web1 ipv4 overdue"], "who does not speak is not excused");
    }

    #[test]
    fn clocks_of_hosts_that_are_wrong_excuse_nobody() {
        for (wrong, told) in [(&["web1", "web2", "web3"][..], 4), (&["web1", "web2"][..], 4)] {
            let mut test = four_hosts();
            for n in 1..=60 {
                test.wait(10 * SECOND);
                for host in wrong {
                    let _ = test.try_ingest(&sent(host, DAY + n * 10 * SECOND, ""));
                }
                if wrong.len() == 3 {
                    let _ = test.try_ingest(&sent("web4", n * 10 * SECOND, ""));
                }
            }
            let events = test.titles_with_level();
            let expected = if wrong.len() == 3 { told - 1 } else { told };
            assert_eq!(events.len(), expected, "{events:?}");
        }
    }

    /// web1 beats, its key and the one before it as in the configuration.
    fn keyed(key: &str, previous: Option<&str>) -> TestFleet {
        let mut config = config();
        let host = config.hosts.get_mut("web1").unwrap();
        host.key = Some(Secret::new(key));
        host.previous_key = previous.map(Secret::new);
        TestFleet::with(config)
    }

    fn signed_beat(test: &mut TestFleet, with: &str) -> Result<Ingested, Rejection> {
        test.now = test.now.later(SECOND);
        let time = test.now.wall.0 as f64 / 1000.0;
        let json = format!(r#"{{"host":"web1","time":{time},"ack":true}}"#);
        test.try_ingest(&sign(&signing_key(&Secret::new(with)), json.as_bytes()))
    }

    #[test]
    fn while_a_key_is_changed_both_are_believed_and_answered_under_their_own() {
        let mut test = keyed("new", Some("old"));
        for (with, previous) in [("old", true), ("new", false), ("old", true)] {
            let ingested = signed_beat(&mut test, with).unwrap();
            let (signature, json) = datagram::split(ingested.ack.as_deref().unwrap());
            assert!(
                encode::verify(&signing_key(&Secret::new(with)), json, &signature.unwrap()),
                "{with}"
            );
            assert_eq!(ingested.key_usage.map(|key| key.previous), Some(previous), "{with}");
            let view = test.fleet.view("web1").unwrap();
            assert_eq!(view.connections[0].old_key, previous, "{with}");
        }
        assert_eq!(signed_beat(&mut test, "older"), Err(Rejection::BadSignature));
        assert_eq!(
            signed_beat(&mut test, "new").unwrap().key_usage.map(|key| key.previous),
            Some(false)
        );
        assert_eq!(signed_beat(&mut test, "new").unwrap().key_usage, None, "no more news");
    }

    #[test]
    fn no_datagram_is_believed_twice_because_there_are_two_keys() {
        let mut test = keyed("new", Some("old"));
        let time = test.now.wall.0 as f64 / 1000.0;
        let json = format!(r#"{{"host":"web1","time":{time}}}"#);
        for (with, ingested) in [("old", true), ("old", false), ("new", false)] {
            let bytes = sign(&signing_key(&Secret::new(with)), json.as_bytes());
            assert_eq!(test.try_ingest(&bytes).is_ok(), ingested, "{with}");
        }
        assert!(signed_beat(&mut test, "new").is_ok());
        let bytes = sign(&signing_key(&Secret::new("old")), json.as_bytes());
        assert_eq!(test.try_ingest(&bytes), Err(Rejection::Replay));
    }

    #[test]
    fn a_key_that_becomes_the_previous_one_is_known_to_be_in_use() {
        for reload in [true, false] {
            let mut test = keyed("one", None);
            assert_eq!(signed_beat(&mut test, "one").unwrap().key_usage, None);
            assert!(!test.fleet.view("web1").unwrap().connections[0].old_key);
            test.config = keyed("two", Some("one")).config;
            if reload {
                test.fleet.reconfigure(test.config.clone(), test.now);
            } else {
                test.restart_after(SECOND);
            }
            assert!(
                test.fleet.view("web1").unwrap().connections[0].old_key,
                "before its next beat"
            );
            test.config = keyed("two", None).config;
            test.fleet.reconfigure(test.config.clone(), test.now);
            assert_eq!(signed_beat(&mut test, "one"), Err(Rejection::BadSignature));
            assert!(!test.fleet.view("web1").unwrap().connections[0].old_key);
        }
    }

    #[test]
    fn a_common_key_is_changed_likewise_and_gives_way_to_an_own_one() {
        let mut test = TestFleet::new();
        test.config.settings.key = Some(Secret::new("new"));
        test.config.settings.previous_key = Some(Secret::new("old"));
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert!(signed_beat(&mut test, "old").unwrap().key_usage.unwrap().previous);
        // From the common key to one of its own: the common one is the previous one.
        let host = test.config.hosts.get_mut("web1").unwrap();
        (host.key, host.previous_key) = (Some(Secret::new("own")), Some(Secret::new("new")));
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert!(signed_beat(&mut test, "new").unwrap().key_usage.unwrap().previous);
        assert!(!signed_beat(&mut test, "own").unwrap().key_usage.unwrap().previous);
        assert_eq!(signed_beat(&mut test, "old"), Err(Rejection::BadSignature));
    }

    /// A signed datagram that names what there is to name, sent so many seconds after the
    /// beginning.
    fn followed(host: &str, more: &str, after: i64) -> Vec<u8> {
        let time = (BEGIN.wall.0 / 1000) + after;
        let json = format!(r#"{{"host":"{host}","time":{time}{more}}}"#);
        sign(&signing_key(&Secret::new("k")), json.as_bytes())
    }

    fn following() -> TestFleet {
        let mut config = config();
        config.settings.key = Some(Secret::new("k"));
        config.hosts.get_mut("web1").unwrap().dyndns = true;
        let web2 = config.hosts["web1"].clone();
        config.hosts.insert("web2".into(), HostSettings { dyndns: false, ..web2 });
        TestFleet::with(config)
    }

    /// The connection and the address that are reported after an accepted datagram.
    fn told(test: &mut TestFleet, bytes: &[u8], from: &str) -> Option<String> {
        let from = from.parse().unwrap();
        let path = test.fleet.ingest(bytes, from, test.now).unwrap().proven_address?;
        let moved = test.fleet.track_address(&path, from)?;
        Some(format!("{} {} {}", moved.host, moved.connection, moved.address))
    }

    #[test]
    fn only_a_new_address_of_a_host_that_is_followed_is_told() {
        let mut test = following();
        for (bytes, from, expected) in [
            (followed("web1", "", 1), "1.1.1.1", Some("web1 ipv4 1.1.1.1")),
            (followed("web1", "", 2), "1.1.1.1", None),
            (followed("web1", "", 3), "::ffff:1.1.1.1", None),
            (followed("web1", "", 4), "2a00::1", Some("web1 ipv6 2a00::1")),
            (followed("web1", "", 5), "1.1.1.2", Some("web1 ipv4 1.1.1.2")),
            (followed("web1", r#","connection":"vpn""#, 6), "1.1.1.9", Some("web1 vpn 1.1.1.9")),
            (followed("web2", "", 7), "1.1.1.1", None),
        ] {
            assert_eq!(told(&mut test, &bytes, from).as_deref(), expected, "{from}");
        }
        let config = test.config.clone();
        test.fleet.reconfigure(config, test.now);
        let again = told(&mut test, &followed("web1", "", 8), "1.1.1.2");
        assert_eq!(again.as_deref(), Some("web1 ipv4 1.1.1.2"), "after a reload all is told anew");
    }

    #[test]
    fn a_datagram_that_was_overheard_moved_the_name_of_its_host() {
        let mut test = following();
        let first = followed("web1", "", 2);
        assert!(told(&mut test, &followed("web1", "", 1), "2a00::1").is_some());
        assert!(told(&mut test, &first, "1.1.1.1").is_some());
        // It is new over the other family, and beats there; it proves nothing.
        assert_eq!(told(&mut test, &first, "2a00::66"), None);
        let second = test.fleet.ingest(&first, "1.1.1.66".parse().unwrap(), test.now);
        assert_eq!(second.unwrap_err(), Rejection::Replay);
        // What came before a crash and was not stored yet is believed again, but moves nothing.
        let mut restarted = following();
        restarted.now = BEGIN.later(60 * SECOND);
        restarted.start(Vec::new(), None);
        assert_eq!(told(&mut restarted, &followed("web1", "", 50), "1.1.1.66"), None);
        assert!(told(&mut restarted, &followed("web1", "", 61), "1.1.1.1").is_some());
    }

    #[test]
    fn what_is_not_signed_tells_no_address() {
        let mut config = config();
        config.hosts.get_mut("web1").unwrap().dyndns = true;
        let mut test = TestFleet::with(config);
        assert_eq!(told(&mut test, BEAT.as_bytes(), "1.1.1.1"), None);
    }
}
