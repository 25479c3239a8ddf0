//! Beats that this process made itself: alerts that are heartbeats, and those of its own machine. Pure.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Fleet, Ingested};
use crate::clock::Now;
use crate::heartbeat::blindness::ReceiverSet;
use crate::heartbeat::datagram::{Datagram, Rejection};
use crate::heartbeat::settings::ALERTMANAGER;

/// How long a heartbeat that came as an alert may be resolved: a Prometheus that was restarted fires
/// it again, and its Alertmanager tells so at the next `group_interval` (5 minutes).
const RESOLVED_GRACE: Duration = Duration::from_secs(10 * 60);

impl Fleet {
    /// Ingests a beat that this process made itself, whatever keys there are: an alert that is a
    /// heartbeat, or one of the daemon's own machine.
    ///
    /// # Errors
    /// When the configuration expects none over that connection of the host (any more, or yet), or
    /// the host has too many connections.
    pub fn ingest_internal(
        &mut self,
        datagram: &Datagram,
        now: Now,
    ) -> Result<Ingested, Rejection> {
        let incoming = self.locate(datagram, Ipv4Addr::LOCALHOST.into(), now);
        let profile = incoming.host.map(|host| &self.hosts[host as usize].profile);
        let expectation =
            profile.and_then(|profile| profile.internal_expectation(incoming.connection_name));
        let expectation = expectation.ok_or(Rejection::UnknownHost)?;
        let before = self.deadlines.next();
        let (host, index) = self.find_or_create(&incoming)?;
        let connection = &mut self.hosts[host as usize].connections[index];
        connection.set_expectation(expectation, now);
        // It is this process that hears it, whichever node that is.
        connection.receivers = ReceiverSet::default();
        let mut ingested = self.apply(host, index, &incoming);
        ingested.rearm = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        Ok(ingested)
    }

    /// An alert that is a heartbeat of a host no longer fires: whatever sends it has stopped to hear of
    /// it. It may fire again within a short grace, which outlasts the restart of a Prometheus.
    pub fn resolve_alert_heartbeat(&mut self, host: &str, now: Now) -> Ingested {
        let mut ingested = Ingested::default();
        let Some(host_index) = self.by_name.get(host).copied() else { return ingested };
        let before = self.deadlines.next();
        let host = &mut self.hosts[host_index as usize];
        let Some(index) = host.connection_index(ALERTMANAGER) else { return ingested };
        let connection = &mut host.connections[index];
        let expectation = connection.expectation(&host.profile, &self.common);
        if connection.withdraw_promise(expectation, RESOLVED_GRACE, now) {
            self.schedule_connections(host_index);
            ingested.rows.push(self.take_row(host_index));
            ingested.rearm = self.deadlines.next().is_some_and(|at| before.is_none_or(|b| at < b));
        }
        ingested
    }
}
