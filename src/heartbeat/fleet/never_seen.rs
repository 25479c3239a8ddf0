//! Watched hosts that were configured, and never heard since. Pure.

use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind};
use crate::heartbeat::connection::Connection;
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::fleet::deadlines::{DeadlineEntry, DeadlineKind};

impl Fleet {
    pub(super) fn schedule_never_seen(&mut self, host_index: u32, now: Now) {
        let host = &mut self.hosts[host_index as usize];
        let timeout = self.common.new_timeout;
        let expected = host.profile.watch && host.profile.pattern.is_none() && !host.forgotten;
        if !expected || host.never_seen_reported || host.was_seen() || timeout.is_zero() {
            return;
        }
        let passed = if now.wall.is_plausible() && host.configured_since.is_plausible() {
            now.wall.since(host.configured_since)
        } else {
            Default::default()
        };
        let at = now.mono + timeout.saturating_sub(passed);
        self.deadlines.push(DeadlineEntry { at, host: host_index, kind: DeadlineKind::NeverSeen });
    }

    pub(super) fn never_seen_due(&mut self, host_index: u32, now: Now) -> Option<Event> {
        let host = self.hosts.get_mut(host_index as usize)?;
        let told = host.never_seen_reported || host.forgotten;
        if host.was_seen() || told || !host.profile.watch {
            return None;
        }
        host.never_seen_reported = true;
        host.must_store_now = true;
        let kind = EventKind::NeverSeen {
            host: host.name.as_ref().into(),
            configured: host.configured_since,
            clock: self.clock_check.difference((host_index, None), Mono(i64::MIN)),
        };
        // When what explains it ends, it has as long to beat as any other.
        let any = Connection::new(host.name.clone(), now);
        let patience = any.expectation(&host.profile, &self.common).timeout();
        let refused = self.refusals.of(&host.name);
        let event = Event { patience, refused, ..Event::new(now.wall, kind) };
        Some(self.explained(host_index, event))
    }
}
