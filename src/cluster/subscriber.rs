//! Takes in what the other nodes relay: the thread `relay-in`, subscribed to the channel of beats.
//!
//! A subscription is no promise: Redis cuts off a reader that is too slow, and a connection may be lost.
//! All of that is told as times in which another node's receiver was not heard, and as nothing else.

use std::time::Duration;

use log::{debug, info, warn};

use super::relay_format::{self, BatchBody, RelayBatch};
use super::relay_listener::{HeardConnection, RelayListener, RelayOptions, RelayedPart};
use super::relay_order::RelayOrder;
use crate::clock::{Mono, Now};
use crate::thread::Stop;

/// How long nothing at all may come: this node's own batches come back to it each second.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest way through Redis that is believed: a wrong clock moves nothing by more.
const MAX_TRANSIT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(2);

/// What came in that the publishing half does something about.
pub(super) enum RelayNotice {
    /// A process that heard nothing of the last round.
    NewProcess,
    /// Batches of another node are missing.
    Gap,
}

/// Reads what is relayed, until the stop.
pub(super) fn run(
    options: &RelayOptions,
    notify: &dyn Fn(RelayNotice),
    listener: &dyn RelayListener,
    stop: &Stop,
) {
    let mut subscriber =
        Subscriber { options, notify, listener, order: RelayOrder::default(), odd: false };
    let (mut pause, mut is_told) = (FIRST_RETRY, false);
    while !stop.stopped() {
        let why = subscriber.read(stop, || {
            if std::mem::take(&mut is_told) {
                info!("what other nodes hear comes in again");
            }
            pause = FIRST_RETRY;
        });
        for (node, since) in subscriber.order.lose_all() {
            listener.lost(&node, since);
        }
        if stop.wait(pause) {
            return;
        }
        if !std::mem::replace(&mut is_told, true) {
            warn!("what other nodes hear does not come in: {why}");
        }
        pause = (pause * 2).min(MAX_RETRY);
    }
}

struct Subscriber<'a> {
    options: &'a RelayOptions,
    notify: &'a dyn Fn(RelayNotice),
    listener: &'a dyn RelayListener,
    order: RelayOrder,
    /// A batch that cannot be read, or comes from a node of our own name, was logged.
    odd: bool,
}

impl Subscriber<'_> {
    /// Subscribes and reads until the stop or until the subscription is lost: then why.
    fn read(&mut self, stop: &Stop, mut on_subscribed: impl FnMut()) -> String {
        let mut connection = match self.options.connector.connect() {
            Ok(connection) => connection.into_inner(),
            Err(fault) => return fault.to_string(),
        };
        let mut subscription = connection.as_pubsub();
        let subscribed = subscription.subscribe(&self.options.channel);
        if let Err(why) = subscribed.and_then(|()| subscription.set_read_timeout(Some(SILENCE))) {
            return why.to_string();
        }
        on_subscribed();
        self.listener.subscribed(Now::read().mono);
        while !stop.stopped() {
            // After a timeout, too, the connection is not read from any more.
            let message = match subscription.get_message() {
                Ok(message) => message,
                Err(why) => return why.to_string(),
            };
            let now = Now::read().mono;
            self.take(message.get_payload_bytes(), now);
            for (node, since) in self.order.newly_lost(now) {
                self.listener.lost(&node, since);
            }
        }
        "hbd is stopping".into()
    }

    fn take(&mut self, bytes: &[u8], now: Mono) {
        let Some(batch) = relay_format::decode(bytes) else {
            return self.log_odd("something that is no batch of heartbeats, or of a later version");
        };
        let head = batch.head;
        if head.node == self.options.node {
            if head.incarnation != self.options.incarnation {
                self.log_odd(
                    "batches of another process with the name of this node (cluster.node)",
                );
            }
            return;
        }
        let arrival = self.order.arrive(head.node, head.incarnation, head.number, now);
        if arrival.is_stale {
            return debug!("batch {} of {} comes too late", head.number, head.node);
        }
        if arrival.is_new {
            (self.notify)(RelayNotice::NewProcess);
        }
        let begun = received_at(self.begun(&batch), Duration::ZERO, now);
        self.listener.arrived(head.node, begun, !arrival.is_missing);
        if let Some((from, to)) = arrival.gap {
            (self.notify)(RelayNotice::Gap);
            self.listener.gap(head.node, from, to);
        }
        if arrival.is_back {
            self.listener.back(head.node, now);
        }
        self.tell(&batch, now);
    }

    /// When a batch was begun, by our clock; none while a clock is not known.
    fn begun(&self, batch: &RelayBatch) -> Option<Mono> {
        let (at, offset) = batch.head.at.zip((self.options.offset)())?;
        Some(Mono(at.saturating_sub(offset)))
    }

    fn tell(&self, batch: &RelayBatch, now: Mono) {
        let (node, begun) = (batch.head.node, self.begun(batch));
        let time = |after: Duration| received_at(begun, after, now);
        match &batch.body {
            BatchBody::Beats(beats) => {
                for beat in beats {
                    let at = time(Duration::from_millis(beat.after.into()));
                    self.listener.beat(node, beat.datagram, beat.peer, at);
                }
            }
            BatchBody::LastHeard(part, connections) => {
                let begun = time(Duration::ZERO);
                let ago = |age: u32| begun - Duration::from_millis(age.into());
                let heard: Vec<HeardConnection> = connections
                    .iter()
                    .map(|one| HeardConnection {
                        host: one.host.to_owned(),
                        connection: one.connection.to_owned(),
                        at: ago(one.age),
                        signed: one.signed,
                    })
                    .collect();
                let part = RelayedPart {
                    round: part.round,
                    part: part.part,
                    parts: part.parts,
                    began: ago(part.began),
                };
                self.listener.last_heard(node, part, &heard);
            }
        }
    }

    fn log_odd(&mut self, what: &str) {
        if !std::mem::replace(&mut self.odd, true) {
            warn!("Redis gives this node {what}: ignored, and not told again");
        }
    }
}

/// When something was received that came `after` its batch was begun: never later than `now`, and not
/// long before it.
fn received_at(begun: Option<Mono>, after: Duration, now: Mono) -> Mono {
    let Some(begun) = begun else { return now };
    now - now.since(begun + after).min(MAX_TRANSIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_moves_nothing_by_more_than_five_seconds_nor_into_the_future() {
        let now = Mono(100_000);
        for (begun, after, at, why) in [
            (Some(99_900), 40, 99_940, "60 ms on its way"),
            (Some(100_500), 0, 100_000, "a clock that is ahead"),
            (Some(20_000), 0, 95_000, "a clock that is behind"),
            (Some(i64::MIN), u32::MAX, 95_000, "a time that a stranger made up"),
            (Some(i64::MAX), u32::MAX, 100_000, "and another one"),
            (None, 40, 100_000, "clocks that are not compared yet"),
        ] {
            let after = Duration::from_millis(after.into());
            assert_eq!(received_at(begun.map(Mono), after, now), Mono(at), "{why}");
        }
    }
}
