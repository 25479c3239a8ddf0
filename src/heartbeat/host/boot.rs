//! Which beats of a host show that it booted, and which that two machines beat under its name. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Host, LastBoot};
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind};
use crate::heartbeat::boots::BootIds;
use crate::heartbeat::connection::Connection;
use crate::heartbeat::datagram::{Datagram, DatagramKind};
use crate::heartbeat::settings::SharedSettings;
use crate::view::HostState;

/// Within this time a second boot without a `boot_id` is the same boot, sent over another connection
/// or repeated.
const BOOT_DEDUP: Duration = Duration::from_secs(120);

/// A machine that has been up for longer, in seconds, has not just booted.
const MAX_UPTIME_OF_NEW_BOOT: f64 = 600.0;
/// How much longer than the silence of its host a machine must have been up to be another one.
const UPTIME_SLACK: Duration = Duration::from_secs(60);

/// What a beat showed is told later, by another beat.
#[derive(Debug)]
pub struct PutOff {
    /// When the first of these beats came.
    at: Mono,
    /// For how long nothing had been heard of the host then.
    silence: Option<Duration>,
    /// The connections that are back, and how long each was silent.
    gone: Vec<(Arc<str>, Duration)>,
}

impl Host {
    /// Whether a beat may show that the host booted, or that a connection is back.
    pub fn may_return(&self, index: usize, datagram: &Datagram, now: Now) -> bool {
        let recent = self.recent_boot(now).is_some();
        let may_have_booted = match (datagram.boot_id.as_deref(), self.boot_ids.as_deref()) {
            (Some(id), Some(ids)) => !ids.is_known(id),
            // The first id of a host that beats is no boot.
            (Some(_), None) => datagram.event == DatagramKind::Boot,
            (None, _) => datagram.event == DatagramKind::Boot && !recent,
        };
        may_have_booted || self.connections[index].has_open_incident()
    }

    /// Applies a beat without the boot, or the return of its connection, that it shows: the next one
    /// shows it, too. Until then a connection that is down stays so.
    pub fn put_off_return(
        &mut self,
        index: usize,
        datagram: &Datagram,
        from: IpAddr,
        now: Now,
    ) -> Vec<Event> {
        self.note_put_off(index, now);
        let connection = &mut self.connections[index];
        connection.address = Some(from);
        connection.promise(datagram.interval);
        if connection.has_open_incident() {
            connection.last_seen = now;
            // It has as long as from here on to be back.
            self.goodbye.iter_mut().for_each(|goodbye| goodbye.at = now);
        } else {
            self.must_store_now |= connection.mark_up(now);
            self.update_state(now);
        }
        Vec::new()
    }

    fn note_put_off(&mut self, index: usize, now: Now) {
        let connection = &self.connections[index];
        let of = |put_off: &PutOff| put_off.gone.iter().any(|(name, _)| *name == connection.name);
        let is_noted = self.put_off.as_deref().is_some_and(of);
        let gone = (connection.has_open_incident() && !is_noted)
            .then(|| (Arc::clone(&connection.name), now.mono.since(connection.last_seen.mono)));
        let silence = self.shortest_silence(now);
        let new = || Box::new(PutOff { at: now.mono, silence, gone: Vec::new() });
        self.put_off.get_or_insert_with(new).gone.extend(gone);
    }

    /// The return of a connection is told.
    pub(super) fn forget_put_off(&mut self, index: usize) {
        let name = &self.connections[index].name;
        if let Some(put_off) = &mut self.put_off {
            put_off.gone.retain(|(other, _)| other != name);
        }
        self.put_off.take_if(|put_off| put_off.gone.is_empty());
    }

    /// For how long a connection was silent before it came back.
    pub(super) fn silence_of(&self, connection: &Connection, now: Now) -> Duration {
        let put_off = self.put_off.iter().flat_map(|put_off| &put_off.gone);
        let mut known = put_off.filter(|(name, _)| *name == connection.name).map(|(_, gone)| *gone);
        known.next().unwrap_or(now.mono.since(connection.last_seen.mono))
    }

    /// For how long nothing was heard of the host; none when nothing ever was.
    fn shortest_silence(&self, now: Now) -> Option<Duration> {
        let seen = self.connections.iter().filter(|connection| connection.state != HostState::New);
        seen.map(|connection| now.mono.since(connection.last_seen.mono)).min()
    }

    /// The same as of the beat that showed what is to be told now, and how long ago that was.
    fn silence_before(&self, now: Now) -> (Option<Duration>, Duration) {
        match &self.put_off {
            Some(put_off) => (put_off.silence, now.mono.since(put_off.at)),
            None => (self.shortest_silence(now), Duration::ZERO),
        }
    }

    fn recent_boot(&self, now: Now) -> Option<LastBoot> {
        self.last_boot.filter(|boot| now.mono.since(boot.at) < BOOT_DEDUP)
    }

    /// Whether a beat shows a boot that was not reported yet; records its id.
    pub(super) fn is_new_boot(&mut self, datagram: &Datagram, now: Now) -> bool {
        let says_boot = datagram.event == DatagramKind::Boot;
        let recent = self.recent_boot(now);
        let Some(id) = datagram.boot_id.as_deref() else {
            return says_boot && recent.is_none();
        };
        // The first id of a host that beats is no boot: it only began to send ids. Neither is that
        // of an agent that is started long after its machine was, nor that of another machine.
        let just = datagram.uptime.is_none_or(|uptime| uptime < MAX_UPTIME_OF_NEW_BOOT);
        let new = match &mut self.boot_ids {
            Some(ids) if ids.is_known(id) => return false,
            Some(ids) => {
                ids.boot(id, now.mono);
                says_boot || !self.was_up_meanwhile(datagram, now)
            }
            None => {
                self.boot_ids = Some(Box::new(BootIds::new(id)));
                says_boot && just
            }
        };
        let was_reported = recent.is_some_and(|boot| !boot.has_id);
        self.last_boot.iter_mut().for_each(|boot| boot.has_id = true);
        self.must_store_now = true;
        new && !was_reported
    }

    /// Whether a machine was up already when the host was heard last: then it is another one.
    fn was_up_meanwhile(&self, datagram: &Datagram, now: Now) -> bool {
        let (silence, put_off_for) = self.silence_before(now);
        let uptime = datagram.uptime.zip(silence);
        uptime.is_some_and(|(uptime, silence)| {
            uptime > (silence + put_off_for + UPTIME_SLACK).as_secs_f64()
        })
    }

    /// That two machines beat under this name, when a beat shows it for the first time.
    pub(super) fn second_machine(
        &mut self,
        datagram: &Datagram,
        from: IpAddr,
        now: Now,
    ) -> Option<Event> {
        let ids = self.boot_ids.as_mut()?;
        let addresses = ids.hear(datagram.boot_id.as_deref()?, from, now.mono)?;
        self.must_store_now = true;
        let kind = EventKind::TwoMachines {
            host: self.name.as_ref().into(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        Some(Event::new(now.wall, kind))
    }

    pub(super) fn on_boot(&mut self, datagram: &Datagram, now: Now) -> Event {
        let known = self.was_seen();
        let was_shut_down = |c: &Connection| c.state == HostState::Shutdown && !c.recovery_presumed;
        let announced = !known || self.stop_announced || self.connections.iter().any(was_shut_down);
        let returned = self.connections.iter().filter(|connection| connection.has_open_incident());
        let kind = EventKind::Booted {
            host: self.name.as_ref().into(),
            announced,
            returned: returned.map(|connection| connection.name.as_ref().into()).collect(),
            gone: self.silence_before(now).0,
        };
        self.last_boot = Some(LastBoot { at: now.mono, has_id: datagram.boot_id.is_some() });
        self.must_store_now = true;
        Event::new(now.wall, kind)
    }

    /// The boot closed the incidents of the other connections: they have to beat in time.
    pub(super) fn presume_others_recovered(
        &mut self,
        index: usize,
        common: &SharedSettings,
        now: Now,
    ) {
        let profile = self.profile.clone();
        for (other, connection) in self.connections.iter_mut().enumerate() {
            if other != index && connection.has_open_incident() {
                connection.presume_recovered(connection.expectation(&profile, common), now);
            }
        }
    }
}
