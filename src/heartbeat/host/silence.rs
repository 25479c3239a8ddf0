//! Since when a host is silent, and the storm that it belongs to. Pure.

use std::time::Duration;

use super::Host;
use crate::clock::{Mono, Now};
use crate::view::HostState;

/// A host that is down for no longer than this was up just now.
const RECENT: Duration = Duration::from_secs(60);

impl Host {
    /// The number of the storm that it belongs to; 0 for none.
    pub fn storm(&self) -> u16 {
        self.explanation.as_deref().map_or(0, |explanation| explanation.storm)
    }

    /// It belongs to the storm of that number from now on; 0 for none.
    pub fn set_storm(&mut self, id: u16) {
        if self.storm() != id {
            self.explanation.get_or_insert_default().storm = id;
            self.tidy_explanation();
        }
    }

    /// It fell silent.
    pub fn note_fall(&mut self, at: Mono) {
        self.explanation.get_or_insert_default().fell_at = seconds(at).max(1);
    }

    /// It is heard again.
    pub fn forget_fall(&mut self) {
        if let Some(explanation) = &mut self.explanation {
            explanation.fell_at = 0;
            self.tidy_explanation();
        }
    }

    /// When it fell silent, in seconds; 0 when that is not known.
    pub fn fell_at(&self) -> u32 {
        self.explanation.as_deref().map_or(0, |explanation| explanation.fell_at)
    }

    /// Whether it fell silent just now, or that is not told yet.
    pub fn is_silent_recently(&self, now: Mono) -> bool {
        self.explanation.as_deref().is_some_and(|explanation| {
            let ago = u64::from(seconds(now).saturating_sub(explanation.fell_at));
            let is_recent = explanation.fell_at > 0 && ago <= RECENT.as_secs();
            is_recent || explanation.waits_for_storm()
        })
    }

    /// Whether it is still expected to beat, so that it may belong to a storm.
    pub fn is_expected(&self) -> bool {
        self.profile.watch && !self.forgotten && self.state != HostState::Shutdown
    }

    /// After a restart: it belongs to the storm of that number, and may have fallen silent just now.
    pub fn restore_silence(&mut self, storm: u16, now: Now) {
        self.set_storm(storm);
        let at = now.mono - now.wall.since(self.since);
        // Before the machine booted: that is long ago as far as storms go.
        if self.state == HostState::Overdue && self.since <= now.wall && seconds(at) > 0 {
            self.note_fall(at);
        }
    }
}

/// A moment in whole seconds since the kernel's boot; 0 when it is before that.
pub fn seconds(at: Mono) -> u32 {
    u32::try_from(at.0 / 1000).unwrap_or(0)
}
