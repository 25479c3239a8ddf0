//! Hosts that leave: those that announce it and are to be back, and connections that are given up.
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use super::Host;
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind, ForgottenConnection, Incident, WatchEvent};
use crate::heartbeat::connection::Connection;
use crate::heartbeat::metric;
use crate::heartbeat::settings::Profile;
use crate::view::HostState;

impl Host {
    /// A beat ends what a goodbye began; the event, when it was reported that it did not come.
    pub(super) fn on_return(&mut self, now: Now) -> Option<Event> {
        let goodbye = self.goodbye.take()?;
        self.must_store_now = true;
        self.stop_announced |= goodbye.reported;
        let gone = now.mono.since(goodbye.at.mono);
        let kind = EventKind::Returned { host: self.name.as_ref().into(), gone };
        goodbye.reported.then(|| Event::new(now.wall, kind))
    }

    /// When it is to be back after its goodbye; none when that is not expected, or was reported.
    pub fn return_deadline(&self) -> Option<Mono> {
        let goodbye = self.goodbye.as_deref().filter(|goodbye| !goodbye.reported)?;
        Some(goodbye.at.mono + self.profile.back_within(goodbye.reason)?)
    }

    /// It is not back in time.
    pub fn on_not_back(&mut self, now: Now) -> Option<Event> {
        let goodbye = self.goodbye.as_deref_mut()?;
        goodbye.reported = true;
        let goodbye = *goodbye;
        self.must_store_now = true;
        // From now on it is down, and no longer away as it had said.
        for connection in &mut self.connections {
            if connection.state == HostState::Shutdown {
                connection.set_state(HostState::Overdue, now);
            }
        }
        self.update_state(now);
        let kind = EventKind::NotBack {
            host: self.name.as_ref().into(),
            since: goodbye.at.wall,
            within: self.profile.back_within(goodbye.reason)?,
        };
        Some(Event::new(now.wall, kind))
    }

    /// Forgets a connection; the event, and what is closed without one. `silent_for` is none when an
    /// operator said so.
    pub fn forget_connection(
        &mut self,
        index: usize,
        silent_for: Option<Duration>,
        now: Now,
    ) -> (Vec<Event>, Vec<Incident>) {
        let mut events: Vec<Event> = self.drop_untold(index).into_iter().collect();
        let (name, last_seen) =
            (self.connections[index].name.clone(), self.connections[index].last_seen.wall);
        let mut closes: Vec<Incident> = self.remove_connection(index, now).into_iter().collect();
        let was_last = self.connections.is_empty();
        if was_last {
            closes.extend(self.open_incidents());
            self.metrics.clear();
            (self.goodbye, self.never_seen_reported, self.forgotten) = (None, false, true);
        }
        self.clear_connection_schedule();
        if closes.is_empty() && silent_for.is_none() {
            return (events, closes);
        }
        let name = name.as_ref().into();
        let connection = ForgottenConnection { name, last_seen, silent_for, was_last, closes };
        let kind = EventKind::Forgotten { host: self.name.as_ref().into(), connection };
        events.push(Event::new(now.wall, kind));
        (events, Vec::new())
    }

    /// A configuration, of which `profile` is its part, has it followed no longer: the event for those
    /// who were told that something is wrong with it; none when nothing is. `closed` is what ends with
    /// its rules; nobody was told yet of the connections that are `untold`. Where that is none, it was not
    /// watched before, and nobody was told of anything but its metrics.
    pub fn on_unwatched(
        &self,
        profile: &Profile,
        closed: &[Incident],
        untold: Option<&[Arc<str>]>,
        now: Now,
    ) -> Option<Event> {
        if profile.watch {
            return None;
        }
        let removed = !profile.configured;
        // Metrics are told of whether it is watched or not.
        let ends = |incident: &Incident| match incident {
            Incident::Metric { .. } => removed,
            Incident::Connection { connection, .. } => {
                untold.is_some_and(|untold| !untold.iter().any(|untold| **untold == **connection))
            }
            _ => untold.is_some(),
        };
        let all = self.open_incidents().into_iter().chain(closed.iter().cloned());
        let closes: Vec<Incident> = all.filter(ends).collect();
        let host = self.name.as_ref().into();
        let any = !closes.is_empty();
        any.then(|| Event::new(now.wall, WatchEvent::NoLonger { host, removed, closes }))
    }

    /// Whether something is wrong with it.
    pub fn has_open_incident(&self) -> bool {
        self.connections.iter().any(Connection::has_open_incident)
            || self.never_seen_reported
            || self.goodbye.as_deref().is_some_and(|goodbye| goodbye.reported)
            || self.metrics.iter().any(|metric| metric.alert().is_some())
    }

    /// Whether it is not listed in the configuration, and nothing is known of it.
    pub fn is_without_trace(&self) -> bool {
        let is_listed = self.profile.configured && self.profile.pattern.is_none();
        !is_listed && self.connections.is_empty()
    }

    /// It has no entry in the heap of deadlines, nor in the list of dirty hosts.
    pub fn clear_schedule(&mut self) {
        self.in_dirty_list = false;
        self.clear_connection_schedule();
        metric::clear_schedule(&mut self.metrics);
    }

    /// None of its connections has an entry in the heap of deadlines.
    pub(super) fn clear_connection_schedule(&mut self) {
        for connection in &mut self.connections {
            connection.scheduled_at = Mono(i64::MAX);
        }
    }

    /// When the first of its connections that are down is to be forgotten, and which that is.
    pub fn next_forgotten(&self, after: Duration) -> Option<(Mono, usize)> {
        let down = |connection: &Connection| {
            matches!(connection.state, HostState::Overdue | HostState::Shutdown)
                && !connection.is_internal()
        };
        let all = self.connections.iter().enumerate().filter(|(_, connection)| down(connection));
        all.map(|(index, connection)| (connection.last_seen.mono + after, index)).min()
    }
}
