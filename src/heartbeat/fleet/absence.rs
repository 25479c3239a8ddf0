//! When the daemon could not listen, and which deadlines are extended because of that. Pure.

use super::Fleet;
use crate::clock::Mono;
use crate::heartbeat::blindness::BlindPeriod;

impl Fleet {
    /// Records that nothing could be received. To be called before the first [`due`](Fleet::due) after
    /// `to`.
    pub fn record_blindness(&mut self, from: Mono, to: Mono) {
        self.blindness.add(from, to);
        if from < to {
            self.unreported_blindness.push(BlindPeriod { from, to });
        }
    }

    /// Extends the deadlines that the daemon's absence concerns, so that their rows say it from the
    /// start on: a daemon that dies before the next flush must not extend them anew. Without
    /// `continued`, all deadlines were extended because the clocks do not say for how long it was away.
    /// The hosts whose rows changed.
    pub(super) fn apply_blindness(&mut self, continued: bool) -> Vec<u32> {
        let mut all_changed = Vec::new();
        for host_index in 0..self.hosts.len() as u32 {
            let host = &mut self.hosts[host_index as usize];
            let mut changed = false;
            for connection in &mut host.connections {
                let expectation = connection.expectation(&host.profile, &self.common);
                let before = connection.extension;
                // What lasts is left out: it is not known until when it does.
                let receivers = connection.receivers.bits();
                let blind = self.blindness.periods_of(receivers, Mono(i64::MIN));
                connection.deadline_after_blindness(expectation, &blind);
                changed |= connection.extension != before || (!continued && before.is_some());
            }
            if changed {
                self.mark_dirty(host_index);
                all_changed.push(host_index);
            }
        }
        all_changed
    }
}
