//! Open incidents whose channels are no longer configured: the present channels of their subject take
//! them over, and are told of their end. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::incidents::{NotifiedChannel, OpenIncident};
use super::{ChannelTarget, Outbox};
use crate::clock::Now;
use crate::event::{Level, Message};
use crate::notify::routing::Routes;

/// What is taken over from one channel that is no longer configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// The channel that is gone.
    pub channel: String,
    /// The channels that take over.
    pub successors: Vec<String>,
    /// How many open incidents.
    pub incidents: usize,
}

impl Succession {
    /// As a sentence, for the log and the answer to a reload.
    pub fn describe(&self) -> String {
        let count = match self.incidents {
            1 => "1 open alarm".into(),
            more => format!("{more} open alarms"),
        };
        let channel = &self.channel;
        match self.successors.as_slice() {
            [] => format!(
                "notification_channels.{channel}: is gone, and no channel hears of the end of {count} that it was given"
            ),
            successors => format!(
                "notification_channels.{channel}: is gone, the end of {count} that it was given goes to {}",
                successors.join(", ")
            ),
        }
    }
}

impl Outbox {
    /// What [`Outbox::reconfigure`] will do with open incidents under these routes.
    pub fn successions(&self, routes: &Routes) -> Vec<Succession> {
        let mut gone: BTreeMap<(&str, Vec<String>), usize> = BTreeMap::new();
        for open in self.open_incidents() {
            let successors = successors(open, routes);
            for channel in open.gone_channels(|name| routes.has_channel(name)) {
                *gone.entry((channel, successors.clone())).or_default() += 1;
            }
        }
        let succession = |((channel, successors), incidents): ((&str, _), _)| Succession {
            channel: channel.to_owned(),
            successors,
            incidents,
        };
        gone.into_iter().map(succession).collect()
    }

    /// Hands open incidents over to the channels that there are. An alarm that still waits for a
    /// channel that is gone is sent to those that were not given it.
    pub(super) fn hand_over(&mut self, routes: &Routes, now: Now) {
        let heirs: Vec<_> = self
            .open_incidents()
            .filter(|open| {
                let returned = |(name, given): (&String, &NotifiedChannel)| {
                    given.handed_over && routes.has_channel(name)
                };
                let gone = open.gone_channels(|name| routes.has_channel(name)).next().is_some();
                gone || open.channels.iter().any(returned)
            })
            .map(|open| (open.incident.clone(), successors(open, routes)))
            .collect();
        for (incident, successors) in heirs {
            let waiting: Vec<_> = self
                .deliveries
                .values()
                .filter(|delivery| delivery.opens.as_ref() == Some(&incident))
                .filter(|delivery| !routes.has_channel(&delivery.channel))
                .map(|delivery| delivery.message.clone())
                .collect();
            let events: Vec<_> = waiting.iter().map(|message| message.event).collect();
            let is_configured = |name: &str| routes.has_channel(name);
            self.incidents.hand_over(&incident, &successors, &events, is_configured);
            for message in waiting {
                // A number of its own: behind what its new channels were given before.
                let event = self.next_event(now.wall);
                let again = Arc::new(Message { event, ..(*message).clone() });
                for name in &successors {
                    if !self.incidents.was_given(&incident, name, message.event) {
                        let target =
                            ChannelTarget { always_deliver: true, ..ChannelTarget::default() };
                        self.enqueue(name, &again, Some(&incident), &target, now);
                    }
                }
            }
        }
    }
}

/// The present channels for what an incident is about, as far as its level concerns them.
fn successors(open: &OpenIncident, routes: &Routes) -> Vec<String> {
    routes.channels_for(&open.incident, open.level.unwrap_or(Level::Warning))
}
