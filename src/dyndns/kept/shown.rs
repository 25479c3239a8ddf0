//! One name, as it is stored and shown. Pure.

use super::{Failure, Kept, Slot};
use crate::clock::Now;
use crate::dyndns::method::Bad;
use crate::dyndns::names::Family;
use crate::dyndns::row::{FailureRow, RecordRow, Row, fingerprint};
use crate::view::{DyndnsState, DyndnsView, DynrecordView, FailureView};

impl Kept {
    /// Its row at the stop: an address that has not proven itself yet does so after the start.
    pub fn row(&self) -> Row {
        let record = |slot: &Slot| RecordRow {
            wanted: slot.wanted,
            sent: slot.sent.map(|(address, _)| address),
            at: slot.sent.and_then(|(_, at)| at),
        };
        Row {
            name: self.entry.name.clone(),
            place: self.entry.method.place(),
            fingerprint: fingerprint(&self.entry),
            records: self.slots.iter().map(|(family, slot)| (*family, record(slot))).collect(),
            failure: self.failure.as_ref().map(|failure| FailureRow {
                since: failure.since.wall,
                at: failure.at,
                why: failure.bad.why().to_owned(),
                refused: matches!(failure.bad, Bad::Refused(_) | Bad::Forbidden(_)),
                told: failure.told,
            }),
            held_until: self.held_until,
        }
    }

    /// How it stands.
    pub fn view(&self, now: Now) -> DyndnsView {
        let waits = self.slots.values().any(|slot| slot.coming.is_some() || slot.due().is_some());
        let state = match &self.failure {
            Some(Failure { bad: Bad::Refused(_) | Bad::Forbidden(_), .. }) => DyndnsState::Refused,
            Some(_) => DyndnsState::Failing,
            None if self.slots.is_empty() => DyndnsState::Unknown,
            None if waits => DyndnsState::Waiting,
            None => DyndnsState::Kept,
        };
        let record = |(family, slot): (&Family, &Slot)| DynrecordView {
            record: family.record(),
            address: slot.coming.map(|(address, _)| address).or(slot.wanted),
            written: slot.sent.map(|(address, _)| address),
            last_update: slot.sent.and_then(|(_, at)| at),
        };
        DyndnsView {
            host: self.host.clone(),
            name: self.entry.name.clone(),
            method: self.entry.method.name(),
            server: self.entry.method.place(),
            state,
            records: self.slots.iter().map(record).collect(),
            failing_since: self.failure.as_ref().map(|failure| failure.since.wall),
            last_failure: self.failure.as_ref().map(|failure| FailureView {
                at: Some(failure.at),
                why: failure.bad.why().to_owned(),
            }),
            next_attempt: self.next_attempt().map(|at| now.wall + at.since(now.mono)),
        }
    }
}
