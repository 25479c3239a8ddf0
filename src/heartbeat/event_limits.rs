//! How many events a host may cause, and what people are told of those that it may not. Pure.
//!
//! A host that sends as fast as it can must not fill the disk, nor take its neighbours' place. Its
//! messages beyond the limit are refused. An alarm never is: what is put off instead, to the next
//! beat that has a token, is what must come before the next alarm of the same kind, a recovery or a
//! boot.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind};

/// How many events of each [`LimitedEvent`] a host may cause in a minute, in the long run.
pub const EVENTS_PER_MINUTE: u32 = 60;

/// When nothing was refused for so long, what was is told.
const QUIET: Duration = Duration::from_secs(10);
/// What is refused without a pause is told after this time.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// What is refused after that is told no sooner: it would be a flood of its own.
const REPEAT: Duration = Duration::from_secs(3600);
/// More hosts than this have no count of their own of what the outbox refused.
const MAX_COUNTED_HOSTS: usize = 1000;
/// How often the buckets that are full again are dropped.
const SWEEP: Duration = Duration::from_secs(60);
/// The time in which a token comes back.
const INTERVAL: Duration = Duration::from_millis(60_000 / EVENTS_PER_MINUTE as u64);

/// What waits already when a datagram of a host comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// There is room.
    Free,
    /// Too much waits for the disk: only beats are taken.
    DiskBusy,
    /// Too much waits for the channels: only beats are taken.
    OutboxFull,
    /// The same, and so much of it is this host's that its boots and recoveries are put off, too.
    ShareUsed,
}

/// The events of which a host may cause only so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedEvent {
    /// A text, or a wish for a silence: refused.
    Message,
    /// A boot, or a connection that is back: put off.
    Return,
    /// A metric that comes down to a lower level: put off.
    Recovery,
}

impl LimitedEvent {
    /// How many may come at once. All metrics of a host may recover in one moment.
    fn burst(self) -> u32 {
        match self {
            LimitedEvent::Message | LimitedEvent::Return => EVENTS_PER_MINUTE,
            LimitedEvent::Recovery => 600,
        }
    }
}

/// A token bucket in eight bytes: of 100,000 hosts each may have three.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When all of its tokens are back.
    full_at: Mono,
}

impl Bucket {
    fn take(&mut self, burst: u32, now: Mono) -> bool {
        let full_at = self.full_at.max(now) + INTERVAL;
        let may = full_at.since(now) <= burst * INTERVAL;
        if may {
            self.full_at = full_at;
        }
        may
    }
}

/// What each host may cause, and what was refused and is not told yet.
#[derive(Debug, Default)]
pub struct EventLimits {
    /// Of the hosts that caused something of late; all others have full buckets.
    buckets: HashMap<Arc<str>, [Bucket; 3]>,
    next_sweep: Mono,
    refused: BTreeMap<Arc<str>, Episode>,
    by_outbox: Episode,
    by_outbox_hosts: BTreeMap<Box<str>, u64>,
}

impl EventLimits {
    /// Takes a token of a host; false when there is none.
    pub fn take(&mut self, host: &Arc<str>, event: LimitedEvent, now: Now) -> bool {
        let full = [Bucket { full_at: now.mono }; 3];
        let buckets = self.buckets.entry(Arc::clone(host)).or_insert(full);
        buckets[event as usize].take(event.burst(), now.mono)
    }

    /// A hundred thousand hosts may boot at once: what that cost is given back.
    fn sweep(&mut self, now: Mono) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        self.buckets.retain(|_, buckets| buckets.iter().any(|bucket| bucket.full_at > now));
        if self.buckets.capacity() > 4 * self.buckets.len() {
            self.buckets.shrink_to(2 * self.buckets.len());
        }
    }

    /// A datagram of a configured host was refused, or put off in part, for want of a token.
    pub fn refused(&mut self, host: &Arc<str>, now: Now) {
        self.refused.entry(Arc::clone(host)).or_default().add(now.mono);
    }

    /// A datagram of a host was refused because too many messages wait for the channels.
    pub fn refused_by_outbox(&mut self, host: &str, now: Now) {
        self.by_outbox.add(now.mono);
        if let Some(count) = self.by_outbox_hosts.get_mut(host) {
            *count += 1;
        } else if self.by_outbox_hosts.len() < MAX_COUNTED_HOSTS {
            self.by_outbox_hosts.insert(host.into(), 1);
        }
    }

    /// What is to be told now of what was refused; at the stop, all of it.
    pub fn due(&mut self, now: Now, stopping: bool) -> Vec<Event> {
        self.sweep(now.mono);
        let mut events = Vec::new();
        for (host, episode) in &mut self.refused {
            if let Some(count) = episode.take_due(now.mono, stopping) {
                let (host, limit) = (host.as_ref().into(), EVENTS_PER_MINUTE);
                let kind = EventKind::TooManyMessages { host, limit, count };
                events.push(Event::new(now.wall, kind));
            }
        }
        self.refused.retain(|_, episode| !episode.is_over(now.mono));
        if let Some(count) = self.by_outbox.take_due(now.mono, stopping) {
            let hosts = std::mem::take(&mut self.by_outbox_hosts).into_iter();
            let mut whose: Vec<_> = hosts.map(|(host, count)| (host.into(), count)).collect();
            whose.sort_by_key(|(_, count)| Reverse(*count));
            let kind = EventKind::OutboxRefuses { count, whose };
            events.push(Event::new(now.wall, kind));
        }
        events
    }
}

/// A time in which things are refused again and again: told once, when it pauses or has lasted for a
/// while, and then with all that came since at most once an hour.
#[derive(Debug, Default)]
struct Episode {
    /// Since it was last told.
    count: u64,
    begun: Mono,
    last: Mono,
    told: Option<Mono>,
}

impl Episode {
    fn add(&mut self, now: Mono) {
        if self.count == 0 {
            self.begun = now;
        }
        self.count += 1;
        self.last = now;
    }

    fn take_due(&mut self, now: Mono, stopping: bool) -> Option<u64> {
        let paused = now.since(self.last) >= QUIET || now.since(self.begun) >= MAX_DELAY;
        let may = self.told.is_none_or(|told| now.since(told) >= REPEAT);
        if self.count == 0 || !(stopping || paused && may) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }

    fn is_over(&self, now: Mono) -> bool {
        self.count == 0 && self.told.is_some_and(|told| now.since(told) >= REPEAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;
    use crate::heartbeat::test_fleet::{BEGIN, HOUR, SECOND};

    fn titles(limits: &mut EventLimits, now: Now) -> Vec<String> {
        limits.due(now, false).iter().map(|event| event.message(EventId(1)).title).collect()
    }

    /// So many messages of a host at one moment; how many were refused.
    fn send(limits: &mut EventLimits, host: &Arc<str>, count: u32, now: Now) -> u32 {
        let refused = (0..count).filter(|_| !limits.take(host, LimitedEvent::Message, now)).count();
        (0..refused).for_each(|_| limits.refused(host, now));
        refused as u32
    }

    #[test]
    fn what_is_refused_is_told_once_when_it_pauses_and_with_its_true_count() {
        let (mut limits, web1) = (EventLimits::default(), Arc::from("web1"));
        let mut now = BEGIN;
        for _ in 0..20 {
            send(&mut limits, &web1, 100, now);
            assert_eq!(titles(&mut limits, now), [""; 0]);
            now = now.later(SECOND);
        }
        now = now.later(9 * SECOND);
        // 60 at once, and one for each of the 19 seconds.
        let told = "web1 sends more than 60 messages a minute: 1921 were not recorded";
        assert_eq!(titles(&mut limits, now), [told]);
        assert_eq!(titles(&mut limits, now.later(HOUR)), [""; 0]);
        assert!(limits.refused.is_empty(), "nothing of it is left");
    }

    #[test]
    fn a_flood_without_an_end_or_with_pauses_is_told_once_an_hour_and_nothing_of_it_is_lost() {
        for pause in [1, 15] {
            let (mut limits, web1) = (EventLimits::default(), Arc::from("web1"));
            let (mut told, mut refused) = (0, 0);
            let mut now = BEGIN;
            while now.mono < BEGIN.mono + 2 * HOUR {
                refused += u64::from(send(&mut limits, &web1, 100, now));
                now = now.later(pause * SECOND);
                for event in limits.due(now, false) {
                    let EventKind::TooManyMessages { count, .. } = event.kind else { panic!() };
                    (told, refused) = (told + 1, refused - count);
                }
            }
            assert_eq!(told, 2, "pause {pause}");
            let rest = limits.due(now, true);
            assert!(rest.iter().all(|event| {
                matches!(event.kind, EventKind::TooManyMessages { count, .. } if count == refused)
            }));
        }
    }

    #[test]
    fn one_hosts_flood_takes_nothing_of_another_nor_of_what_else_it_says() {
        let mut limits = EventLimits::default();
        let [web1, web2] = ["web1", "web2"].map(Arc::from);
        assert_eq!(send(&mut limits, &web1, 1000, BEGIN), 940);
        assert_eq!(send(&mut limits, &web2, 60, BEGIN), 0);
        assert!(limits.take(&web1, LimitedEvent::Return, BEGIN));
        let recoveries = (0..1000).filter(|_| limits.take(&web1, LimitedEvent::Recovery, BEGIN));
        assert_eq!(recoveries.count(), 600);
    }

    #[test]
    fn hosts_that_are_quiet_again_cost_no_memory() {
        let mut limits = EventLimits::default();
        let mut now = BEGIN;
        for number in 0..20_000 {
            now = now.later(Duration::from_millis(10));
            limits.take(&format!("h{number}").into(), LimitedEvent::Return, now);
            limits.due(now, false);
        }
        assert!(limits.buckets.len() <= 6200, "{}", limits.buckets.len());
        limits.due(now.later(2 * SWEEP), false);
        assert_eq!(limits.buckets.capacity(), 0);
    }

    #[test]
    fn what_the_outbox_refused_is_told_in_one_sentence_for_all() {
        let mut limits = EventLimits::default();
        for (host, count) in [("web1", 5), ("web2", 35)] {
            (0..count).for_each(|_| limits.refused_by_outbox(host, BEGIN));
        }
        assert_eq!(titles(&mut limits, BEGIN), [""; 0]);
        let told = "40 messages of web2 (35), web1 (5) were refused: \
                    too many wait to be sent already";
        assert_eq!(titles(&mut limits, BEGIN.later(QUIET)), [told]);
        for number in 0..2000 {
            limits.refused_by_outbox(&format!("h{number}"), BEGIN.later(HOUR));
        }
        assert_eq!(limits.by_outbox_hosts.len(), MAX_COUNTED_HOSTS);
    }
}
