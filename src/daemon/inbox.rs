//! What other nodes of the cluster accepted, passed on to the feature that it is for.

use log::debug;

use super::service::Services;
use crate::backup::pipeline::AlertAdmission;
use crate::clock::Now;
use crate::cluster::inbox::{HandledMessage, InboxMessage};
use crate::cluster::inbox_entry::EntryKind;
use crate::heartbeat::datagram::Rejection;
use crate::heartbeat::monitor::RelayedDatagram;
use crate::http::IngestResult;

/// Handles a message of the inbox: it counts from when it was accepted.
pub fn handle(services: &Services, message: InboxMessage) -> HandledMessage {
    let InboxMessage { kind, body, peer, node, age, entry } = message;
    if kind != EntryKind::HttpBeat && services.courier.is_backlogged() {
        return HandledMessage::Later;
    }
    if kind == EntryKind::Alert {
        return match services.take_alerts(&body, Some(entry.clone()), |_| {}) {
            Ok(AlertAdmission::Pending) => HandledMessage::Taken,
            Ok(AlertAdmission::NoneRelevant) => HandledMessage::Nothing(entry),
            Ok(AlertAdmission::QueueFull) | Err(IngestResult::Unavailable(_)) => {
                HandledMessage::Later
            }
            Err(_) => HandledMessage::Nothing(entry),
        };
    }
    let now = Now::read();
    let relayed = RelayedDatagram {
        bytes: &body,
        from: peer.to_canonical(),
        is_direct: kind == EntryKind::Event,
        receiver: &node,
        at: Now { mono: now.mono - age, wall: now.wall - age },
    };
    match services.monitor.ingest_relayed(relayed, Some(entry.clone())) {
        Ok(()) => HandledMessage::Taken,
        Err(Rejection::Busy) => HandledMessage::Later,
        Err(rejection) => {
            debug!("what another node accepted from {peer} was dropped: {rejection}");
            HandledMessage::Nothing(entry)
        }
    }
}
