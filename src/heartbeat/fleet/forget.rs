//! What the fleet gives up: hosts that do not come back after a goodbye, and connections that are not
//! heard any more. Pure.

use std::collections::BTreeSet;

use crate::clock::{Mono, Now};
use crate::event::Event;
use crate::heartbeat::blindness::blind_since;
use crate::heartbeat::fleet::deadlines::{DeadlineEntry, DeadlineKind};
use crate::heartbeat::fleet::{Changes, Fleet};
use crate::heartbeat::host::Host;
use crate::view::HostState;

/// Why a host or a connection cannot be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotForgotten {
    /// There is no host of that name.
    NoHost,
    /// The host has no connection of that name; those that it has.
    NoConnection(Vec<String>),
}

impl Fleet {
    pub(super) fn schedule_return(&mut self, host_index: u32) {
        if let Some(at) = self.hosts[host_index as usize].return_deadline() {
            self.deadlines.push(DeadlineEntry { at, host: host_index, kind: DeadlineKind::Return });
        }
    }

    pub(super) fn schedule_forget(&mut self, host_index: u32) {
        let Some(after) = self.common.forget_after else { return };
        if let Some((at, _)) = self.hosts[host_index as usize].next_forgotten(after) {
            self.deadlines.push(DeadlineEntry { at, host: host_index, kind: DeadlineKind::Forget });
        }
    }

    /// A host that beats again after the daemon was blind has had the time to do so.
    fn may_be_heard_from(&self, host: &Host, now: Mono) -> Mono {
        let periods = self.blindness.periods_of(host.receivers(), now);
        let blind = periods.last().map_or(Mono(i64::MIN), |period| period.to);
        let timeout = host
            .connections
            .iter()
            .map(|connection| connection.expectation(&host.profile, &self.common).timeout())
            .max();
        if blind == Mono(i64::MIN) { blind } else { blind + timeout.unwrap_or_default() }
    }

    pub(super) fn return_due(&mut self, host_index: u32, now: Now) -> Option<Event> {
        let host = self.hosts.get(host_index as usize)?;
        let due = host.return_deadline()?.max(self.may_be_heard_from(host, now.mono));
        if due > now.mono {
            let kind = DeadlineKind::Return;
            self.deadlines.push(DeadlineEntry { at: due, host: host_index, kind });
            return None;
        }
        if host.state == HostState::Up || !host.profile.watch {
            return None;
        }
        let event = self.hosts[host_index as usize].on_not_back(now);
        let mut event = event.map(|event| self.explained(host_index, event));
        self.add_context(event.as_mut_slice(), host_index, 0);
        self.update_down_set(host_index);
        self.update_uptime(host_index, now);
        event
    }

    pub(super) fn forget_due(&mut self, host_index: u32, now: Now) -> Vec<Event> {
        let Some(after) = self.common.forget_after else { return Vec::new() };
        let host = self.hosts.get(host_index as usize);
        let next = host.and_then(|host| Some((host, host.next_forgotten(after)?)));
        let Some((host, (at, index))) = next else { return Vec::new() };
        let last_seen = host.connections[index].last_seen.mono;
        let blind = self.blindness.periods_of(host.connections[index].receivers.bits(), now.mono);
        let at = (at + blind_since(&blind, last_seen)).max(self.may_be_heard_from(host, now.mono));
        if at > now.mono {
            let kind = DeadlineKind::Forget;
            self.deadlines.push(DeadlineEntry { at, host: host_index, kind });
            return Vec::new();
        }
        let silent = now.mono.since(host.connections[index].last_seen.mono);
        let (events, closed) =
            self.hosts[host_index as usize].forget_connection(index, Some(silent), now);
        self.pending.closed_incidents.extend(closed);
        self.after_forgetting(host_index, now);
        self.note_if_gone(host_index);
        events
    }

    fn after_forgetting(&mut self, host_index: u32, now: Now) {
        self.unknown.recount(&mut self.hosts[host_index as usize]);
        self.schedule_connections(host_index);
        self.schedule_forget(host_index);
        self.update_down_set(host_index);
        self.update_uptime(host_index, now);
        self.wake(host_index, now);
    }

    /// Forgets a connection of a host, or all that is known of it, until it beats again.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn forget(
        &mut self,
        name: &str,
        connection: Option<&str>,
        now: Now,
    ) -> Result<Changes, NotForgotten> {
        let host_index = *self.by_name.get(name).ok_or(NotForgotten::NoHost)?;
        let host = &mut self.hosts[host_index as usize];
        let known = || host.connections.iter().map(|one| one.name.as_ref().to_owned()).collect();
        let chosen = match connection {
            None => 0..host.connections.len(),
            Some(connection) => {
                let index = host.connection_index(connection);
                let index = index.ok_or_else(|| NotForgotten::NoConnection(known()))?;
                index..index + 1
            }
        };
        let mut changes = Changes::default();
        for index in chosen.rev() {
            let (events, closed) = host.forget_connection(index, None, now);
            changes.events.extend(events);
            changes.closed_incidents.extend(closed);
        }
        if connection.is_none() && !host.forgotten {
            // It was never heard.
            changes.closed_incidents.extend(host.open_incidents());
            (host.never_seen_reported, host.forgotten) = (false, true);
        }
        if self.hosts[host_index as usize].is_without_trace() {
            changes.removed_hosts.push(name.to_owned());
            self.remove(&BTreeSet::from([host_index]), now);
        } else {
            self.after_forgetting(host_index, now);
            changes.rows.push(self.take_row(host_index));
        }
        self.take_explained(&mut changes);
        Ok(changes)
    }

    /// Removes hosts; those behind them get other indexes.
    pub(super) fn remove(&mut self, gone: &BTreeSet<u32>, now: Now) {
        let Some(first) = gone.first() else { return };
        let hosts = self.take_hosts();
        self.dependencies.remove_from(*first);
        for (index, mut host) in (0..).zip(hosts) {
            if gone.contains(&index) {
                continue;
            }
            host.clear_schedule();
            let new_index = self.add_host(host);
            if new_index >= *first {
                self.connect_by_pattern(new_index);
            }
        }
        self.schedule_all(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::heartbeat::test_fleet::{DAY, HOUR, MINUTE, SECOND, TestFleet, config};

    fn goodbye(reason: &str) -> TestFleet {
        let mut test = TestFleet::new();
        test.ingest(r#"{"host":"web1","boot_id":"b1"}"#).wait(SECOND);
        let reason = if reason.is_empty() { reason } else { &format!(r#","reason":"{reason}""#) };
        test.ingest(&format!(r#"{{"host":"web1","event":"shutdown","boot_id":"b1"{reason}}}"#));
        assert_eq!(test.titles_with_level(), ["warning web1 ipv4 shutdown"]);
        test
    }

    const NOT_BACK: &str = "critical web1 has not come back";
    const BACK: &str = "ok web1 has come back";

    #[test]
    fn a_reboot_that_hangs_was_a_goodbye_for_ever() {
        let mut test = goodbye("reboot");
        test.wait(15 * MINUTE - SECOND);
        assert!(test.titles().is_empty());
        test.wait(2 * SECOND);
        assert_eq!(test.titles_with_level(), [NOT_BACK]);
        assert_eq!(test.fleet.open_problems(0, 9).len(), 2);
        assert_eq!(test.fleet.view("web1").unwrap().state, HostState::Overdue, "it is down now");
        test.wait(DAY).restart_after(HOUR).wait(DAY);
        assert!(test.titles().is_empty(), "told once");
        test.ingest(r#"{"host":"web1","boot_id":"b2"}"#);
        assert_eq!(test.titles_with_level(), [BACK, "info web1 booted"]);
        assert!(test.fleet.open_problems(0, 9).is_empty());
        test.ingest(r#"{"host":"web1","boot_id":"b2"}"#);
        assert!(test.titles().is_empty());
    }

    #[test]
    fn a_reboot_in_time_a_power_off_and_a_goodbye_without_a_reason_are_none() {
        let mut test = goodbye("reboot");
        test.wait(5 * MINUTE).ingest(r#"{"host":"web1","boot_id":"b2"}"#);
        assert_eq!(test.titles_with_level(), ["info web1 booted"]);
        test.wait(20 * SECOND).beat("web1").wait(20 * SECOND).beat("web1");
        for reason in ["poweroff", "", "kexec"] {
            let mut test = goodbye(reason);
            test.wait(2 * DAY);
            assert!(test.titles().is_empty(), "{reason}");
        }
    }

    #[test]
    fn how_long_a_reboot_may_take_is_configured_by_host() {
        let within = |time: Option<Duration>, reason: &str, after: Duration| {
            let mut test = goodbye(reason);
            test.config.hosts.get_mut("web1").unwrap().back_within = time;
            test.fleet.reconfigure(test.config.clone(), test.now);
            test.wait(after);
            test.titles_with_level().len()
        };
        assert_eq!(within(Some(HOUR), "reboot", 59 * MINUTE), 0);
        assert_eq!(within(Some(HOUR), "reboot", 61 * MINUTE), 1);
        assert_eq!(within(Some(HOUR), "", 61 * MINUTE), 1, "an agent that does not say");
        assert_eq!(within(Some(HOUR), "poweroff", DAY), 0, "never after a power-off");
        assert_eq!(within(Some(Duration::ZERO), "reboot", DAY), 0);
    }

    #[test]
    fn a_restart_of_the_daemon_is_no_reason_to_miss_or_to_invent_it() {
        let mut test = goodbye("reboot");
        test.wait(MINUTE).restart_after(MINUTE).wait(14 * MINUTE);
        assert_eq!(test.titles_with_level(), [NOT_BACK]);
        let mut test = goodbye("reboot");
        test.restart_after(HOUR).wait(5 * SECOND).beat("web1");
        assert_eq!(test.titles_with_level(), ["ok web1 ipv4 is back"]);
        let mut test = goodbye("reboot");
        test.restart_after(HOUR).wait(MINUTE);
        assert_eq!(test.titles_with_level(), [NOT_BACK]);
    }

    #[test]
    fn a_boot_of_the_daemon_s_machine_or_a_wrong_clock_is_no_reason_either() {
        let mut test = goodbye("reboot");
        test.wait(MINUTE).reboot_after(2 * MINUTE).wait(15 * MINUTE);
        assert_eq!(test.titles_with_level(), [NOT_BACK]);
        for wrong in [0, 1_000 * 86_400_000, 20_000 * 86_400_000, 30_000 * 86_400_000] {
            let mut test = goodbye("reboot");
            test.wait(MINUTE);
            test.now.wall = crate::clock::Wall(wrong);
            test.wait(13 * MINUTE);
            assert!(test.titles().is_empty(), "{wrong}: not too early");
            test.wait(2 * MINUTE);
            assert_eq!(test.titles_with_level(), [NOT_BACK], "{wrong}");
            let mut test = goodbye("reboot");
            test.wait(MINUTE);
            let (rows, last_alive) = (test.rows(), test.last_alive());
            test.kernel.push('x');
            test.now = Now { mono: Mono(20_000), wall: crate::clock::Wall(wrong) };
            test.start(rows, Some(last_alive)).wait(16 * MINUTE);
            assert_eq!(test.titles_with_level(), [NOT_BACK], "{wrong}: told once");
            test.ingest(r#"{"host":"web1","boot_id":"b2"}"#);
            assert_eq!(test.titles_with_level(), [BACK, "info web1 booted"], "{wrong}");
        }
    }

    #[test]
    fn a_connection_that_was_given_up_was_overdue_for_ever() {
        let mut test = TestFleet::new();
        test.beat_over("web1", "vpn").beat("web1");
        for _ in 0..30 * 24 * 60 * 3 + 1 {
            test.wait(20 * SECOND).beat("web1");
        }
        let titles = test.titles_with_level();
        assert_eq!(titles, ["warning web1 vpn overdue", "info web1 vpn is forgotten"]);
        assert_eq!(test.fleet.view("web1").unwrap().connections.len(), 1);
        test.wait(MINUTE);
        assert_eq!(test.titles_with_level(), ["critical web1 ipv4 overdue"], "still watched");
    }

    #[test]
    fn the_last_connection_is_forgotten_with_a_warning_and_begins_anew() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(31 * DAY);
        let titles = test.titles_with_level();
        assert_eq!(titles, ["critical web1 ipv4 overdue", "warning web1 ipv4 is forgotten"]);
        test.wait(3 * DAY).restart_after(HOUR).wait(3 * DAY);
        assert!(test.titles().is_empty(), "nor is it one that was never heard");
        assert!(test.fleet.open_problems(0, 9).is_empty());
        test.beat("web1").wait(MINUTE);
        assert_eq!(test.titles_with_level(), ["critical web1 ipv4 overdue"]);
    }

    #[test]
    fn nothing_is_forgotten_while_the_daemon_did_not_listen_or_was_told_not_to() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(DAY).restart_after(40 * DAY).wait(10 * SECOND);
        assert_eq!(test.titles(), ["web1 ipv4 overdue"]);
        test.beat("web1");
        assert_eq!(test.titles(), ["web1 ipv4 is back"]);
        test.wait(DAY).restart_after(40 * DAY).wait(28 * DAY);
        assert_eq!(test.titles(), ["web1 ipv4 overdue"], "only time spent listening counts");
        test.wait(2 * DAY);
        assert_eq!(test.titles(), ["web1 ipv4 is forgotten"]);
        let mut config = config();
        config.settings.forget_after = Duration::ZERO;
        let mut test = TestFleet::with(config);
        test.beat("web1").wait(100 * DAY);
        assert_eq!(test.titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_host_that_is_not_configured_is_gone_when_it_is_forgotten() {
        let mut config = config();
        config.settings.unknown_hosts = crate::heartbeat::settings::UnknownHosts::Accept;
        let mut test = TestFleet::with(config);
        test.beat("stranger").beat("web1").beat("other");
        let changes = test.fleet.forget("stranger", None, test.now).unwrap();
        assert_eq!(changes.removed_hosts, ["stranger"]);
        assert!(changes.rows.is_empty() && changes.events.is_empty());
        assert!(test.fleet.view("stranger").is_none());
        assert_eq!(test.fleet.views(0, 9).len(), 2);
        test.wait(MINUTE);
        assert_eq!(test.titles(), ["web1 ipv4 overdue", "other ipv4 overdue"]);
        test.beat("stranger").beat("web1");
        assert_eq!(test.titles(), ["web1 ipv4 is back"]);
        assert_eq!(test.fleet.views(0, 9).len(), 3);
    }

    #[test]
    fn an_operator_has_a_connection_or_a_host_forgotten() {
        let mut test = TestFleet::new();
        test.beat_over("web1", "vpn").beat("web1").wait(50 * SECOND).beat("web1").take_events();
        let now = test.now;
        let wrong = test.fleet.forget("web1", Some("lan"), now).unwrap_err();
        assert_eq!(wrong, NotForgotten::NoConnection(vec!["vpn".into(), "ipv4".into()]));
        assert_eq!(test.fleet.forget("web9", None, now).unwrap_err(), NotForgotten::NoHost);
        let changes = test.fleet.forget("web1", Some("vpn"), now).unwrap();
        test.add_events(changes.events);
        assert_eq!(test.titles_with_level(), ["info web1 vpn is forgotten"]);
        assert_eq!(changes.rows[0].1.connections.len(), 1);
        test.wait(MINUTE).take_events();
        let changes = test.fleet.forget("web1", None, test.now).unwrap();
        test.add_events(changes.events);
        assert_eq!(test.titles_with_level(), ["info web1 ipv4 is forgotten"]);
        assert_eq!(test.fleet.view("web1").unwrap().state, HostState::New);
        test.wait(3 * DAY);
        assert!(test.titles().is_empty());
    }
    #[test]
    fn an_alarm_of_a_metric_never_ended_when_its_host_was_forgotten() {
        let limit = "> 80".parse().ok();
        let rule = crate::heartbeat::threshold::Rule { warning: limit, ..Default::default() };
        let mut test = TestFleet::with_threshold("m", rule);
        test.sample(90.0).wait(SECOND).sample(90.0).take_events();
        assert_eq!(test.fleet.open_problems(0, 9).len(), 1);
        let changes = test.fleet.forget("web1", None, test.now).unwrap();
        assert!(changes.closed_incidents.is_empty(), "not in silence");
        test.add_events(changes.events);
        assert_eq!(test.titles_with_level(), ["info web1 ipv4 is forgotten"]);
    }
}
