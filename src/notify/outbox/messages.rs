//! The message of an event as each channel gets it: where it links to, and whom of other hosts it names.
//! Pure.

use std::sync::Arc;

use super::Outbox;
use crate::escape::PercentEncoded;
use crate::event::{Event, EventId, EventKind, Message, Subject};

impl Outbox {
    /// From now on messages link to the status page there; none: to none.
    pub fn set_public_url(&mut self, url: Option<String>) {
        self.public_url = url;
    }

    /// The message of an event: it links to the page of its host, else to that of all.
    pub(super) fn message_of(&self, event: &Event, id: EventId) -> Arc<Message> {
        let mut message = event.message(id);
        message.link = self.link_of(&message.subject);
        Arc::new(message)
    }

    /// The page of a host, else that of all.
    pub(super) fn link_of(&self, subject: &Subject) -> Option<String> {
        let base = self.public_url.as_deref()?;
        Some(match subject {
            Subject::Host(host) => format!("{base}/hosts/{}", PercentEncoded(host)),
            Subject::Plan(_) | Subject::Channel(_) | Subject::Daemon => format!("{base}/"),
        })
    }

    /// The same for one channel: of other hosts that are overdue it names those that the channel was
    /// told of, and that are not named as being behind it.
    pub(super) fn message_for(
        &self,
        event: &Event,
        message: &Arc<Message>,
        channel: &str,
    ) -> Arc<Message> {
        let EventKind::Overdue { host, others_count: 1.., behind_it, .. } = &event.kind else {
            return Arc::clone(message);
        };
        let (names, count) = self.incidents.overdue_beside(channel, host, behind_it);
        Arc::new(message.with_also_overdue(&names, count))
    }
}
