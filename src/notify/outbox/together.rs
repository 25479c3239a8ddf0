//! Connections of one host that fall due, or are back, at the same time: one message with a line for
//! each. Pure.

use std::time::Duration;

use super::delivery::{Delivery, DeliveryId, SubjectDeliveries};
use super::{ChannelTarget, Outbox};
use crate::clock::{Mono, Now};
use crate::event::{Incident, Level};

/// How far apart these events may be.
const TOGETHER: Duration = Duration::from_secs(1);
/// How many lines one message has at most.
const MAX_LINES: usize = 8;

/// The head of a subject's deliveries that are sent as one message; empty when it is a single one.
pub fn head_together(waiting: &SubjectDeliveries) -> Vec<DeliveryId> {
    let Some((_, first)) = waiting.first() else { return Vec::new() };
    let Some(is_end) = ends_connection(first) else { return Vec::new() };
    let belongs = |(_, other): &&(DeliveryId, &Delivery)| {
        ends_connection(other) == Some(is_end)
            && other.message.at.since(first.message.at) <= TOGETHER
    };
    let members: Vec<DeliveryId> =
        waiting.iter().take_while(belongs).take(MAX_LINES).map(|(id, _)| *id).collect();
    if members.len() > 1 { members } else { Vec::new() }
}

/// Whether a delivery is the end of what one connection had, or its beginning; none when it is about
/// something else.
fn ends_connection(delivery: &Delivery) -> Option<bool> {
    match (&delivery.opens, delivery.closes.as_slice()) {
        (Some(Incident::Connection { .. }), []) => Some(false),
        (None, [Incident::Connection { .. }]) if delivery.message.level == Level::Ok => Some(true),
        _ => None,
    }
}

/// The titles of these, one line each.
pub fn titles(members: &[&Delivery]) -> String {
    let titles: Vec<&str> = members.iter().map(|one| one.message.title.as_str()).collect();
    titles.join("\n")
}

/// What there is to say of all of them, and of each with the name of its connection.
pub fn details(members: &[&Delivery]) -> Vec<(String, String)> {
    let Some((first, others)) = members.split_first() else { return Vec::new() };
    let is_common = |detail: &&(String, String)| {
        others.iter().all(|other| other.message.details.contains(detail))
    };
    let common: Vec<(String, String)> =
        first.message.details.iter().filter(is_common).cloned().collect();
    let mut own = Vec::new();
    for member in members {
        let incident = member.opens.as_ref().or(member.closes.first());
        let Some(Incident::Connection { connection, .. }) = incident else { continue };
        let details = member.message.details.iter().filter(|detail| !common.contains(detail));
        own.extend(details.map(|(label, text)| (format!("{connection} {label}"), text.clone())));
    }
    own.extend(common);
    own
}

impl Outbox {
    /// Until when the end of what a connection had waits for another connection of its host, which may
    /// be back in the same moment; none: it does not. An alarm never waits.
    pub(super) fn gathers_until(
        &self,
        channel: &str,
        target: &ChannelTarget,
        level: Level,
        now: Now,
    ) -> Option<Mono> {
        let [Incident::Connection { host, .. }] = target.closes.as_slice() else { return None };
        let joins = self.queues.get(channel)?.retry_policy().digest.is_some();
        let waits = joins && level == Level::Ok && self.incidents.has_connection_of(host, channel);
        waits.then(|| now.mono + TOGETHER)
    }
}
