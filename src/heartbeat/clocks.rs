//! How the monotonic clock of stored rows relates to the present one: that of another boot of this
//! kernel, or of another node of the cluster. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now};
use crate::heartbeat::blindness::Blindness;

/// The last moment at which a daemon is known to have listened: written at the start, together with
/// the deadlines that were extended because of it, and with each flush.
///
/// It must never be later than the flush that its rows come from: a beat that was received after that
/// flush is lost in a crash, and must count as one that could not be received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAlive {
    /// The kernel's boot id at that time: whether its monotonic clock is still ours.
    pub kernel_boot: String,
    /// That moment.
    pub now: Now,
    /// In a cluster, what was to be added to its monotonic clock to get the cluster's, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

/// A short hash of a kernel's boot id (FNV-1a): it says whose monotonic clock a row was written on.
pub fn kernel_tag(boot_id: &str) -> u32 {
    let step = |tag: u32, byte: u8| (tag ^ u32::from(byte)).wrapping_mul(16_777_619);
    boot_id.trim().bytes().fold(2_166_136_261, step).max(1)
}

/// What is to be added to the monotonic clocks of kernels, in milliseconds, to get the cluster's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterClocks {
    /// To that of this process.
    pub own: i64,
    /// To those of other kernels, by [`kernel_tag`].
    pub of: BTreeMap<u32, i64>,
}

impl ClusterClocks {
    /// A time of the cluster's clock on the one of this process.
    pub fn to_own(&self, cluster: i64) -> Mono {
        Mono(cluster.saturating_sub(self.own))
    }

    /// What to add to a time of `kernel` to get that of this process.
    fn shift(&self, kernel: u32) -> Option<i64> {
        self.of.get(&kernel).map(|offset| offset.saturating_sub(self.own))
    }
}

/// How the clock of stored rows relates to the present one.
#[derive(Debug)]
pub struct ClockMapping {
    now: Now,
    kernel: u32,
    /// The kernel of [`LastAlive`], and what to add to its monotonic times.
    last_alive: Option<(u32, i64)>,
    /// How long the daemon was away; none when that is not known.
    away: Option<Duration>,
    /// The clocks of all nodes, in a cluster.
    cluster: Option<ClusterClocks>,
}

impl ClockMapping {
    /// Compares the clocks; the time in which the daemon was away is added to `blindness`.
    pub fn new(
        last_alive: Option<&LastAlive>,
        kernel_boot: &str,
        now: Now,
        blindness: &mut Blindness,
    ) -> ClockMapping {
        let kernel = kernel_tag(kernel_boot);
        let mut clocks = ClockMapping { now, kernel, last_alive: None, away: None, cluster: None };
        let Some(last_alive) = last_alive else {
            return clocks;
        };
        let same_kernel = last_alive.kernel_boot.trim() == kernel_boot.trim();
        if same_kernel && last_alive.now.mono <= now.mono {
            clocks.last_alive = Some((kernel, 0));
            clocks.away = Some(now.mono.since(last_alive.now.mono));
            blindness.add(last_alive.now.mono, now.mono);
        } else if !same_kernel && now.wall.is_plausible() && last_alive.now.wall <= now.wall {
            let elapsed = now.wall.since(last_alive.now.wall);
            let stopped_at = now.mono - elapsed;
            let offset = stopped_at.0.saturating_sub(last_alive.now.mono.0);
            clocks.last_alive = Some((kernel_tag(&last_alive.kernel_boot), offset));
            clocks.away = Some(elapsed);
            blindness.add(stopped_at, now.mono);
        }
        clocks
    }

    /// Those of a cluster, whose last leader was known to listen at `last_alive`: each row is on the
    /// clock of the node that wrote it.
    pub fn in_cluster(
        last_alive: Option<&LastAlive>,
        kernel_boot: &str,
        now: Now,
        cluster: ClusterClocks,
    ) -> ClockMapping {
        let kernel = kernel_tag(kernel_boot);
        let mut clocks = ClockMapping { now, kernel, last_alive: None, away: None, cluster: None };
        let (own, cluster) = (cluster.own, clocks.cluster.insert(cluster));
        cluster.of.insert(kernel, own);
        if let Some(last_alive) = last_alive {
            let writer = kernel_tag(&last_alive.kernel_boot);
            if let Some(offset) = last_alive.offset {
                cluster.of.entry(writer).or_insert(offset);
            }
            let offset = clocks.offset(writer, last_alive.now);
            clocks.last_alive = Some((writer, offset));
            let stopped_at = Mono(last_alive.now.mono.0.saturating_add(offset));
            clocks.away = Some(now.mono.since(stopped_at));
        }
        clocks
    }

    /// When a daemon was last known to listen, on the present clock.
    pub fn last_alive(&self) -> Option<Mono> {
        self.away.map(|away| self.now.mono - away)
    }

    /// What to add to a time of a row of `kernel`, at best by its monotonic clock, else by the wall
    /// clock that was read together with it.
    pub fn offset(&self, kernel: u32, read: Now) -> i64 {
        self.known_offset(kernel).unwrap_or_else(|| {
            (self.now.mono - self.now.wall.since(read.wall)).0.saturating_sub(read.mono.0)
        })
    }

    /// What to add to a monotonic time of `kernel`, where its clock is known.
    pub fn known_offset(&self, kernel: u32) -> Option<i64> {
        if let Some(shift) = self.cluster.as_ref().and_then(|cluster| cluster.shift(kernel)) {
            return Some(shift);
        }
        match self.last_alive {
            Some((known, offset)) if kernel == known || kernel == 0 => Some(offset),
            _ => (kernel == self.kernel && self.away.is_some()).then_some(0),
        }
    }

    /// What to add to a time of `kernel`, where that kernel runs, or ran on a clock of the cluster: what
    /// was measured against it holds.
    pub fn running_offset(&self, kernel: u32) -> Option<i64> {
        let offset = self.known_offset(kernel)?;
        (self.cluster.is_some() || (kernel == self.kernel && offset == 0)).then_some(offset)
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        self.now
    }

    /// A time of a row of `kernel` on the present clock, never later than now.
    pub fn translate(&self, kernel: u32, read: Now) -> Now {
        let mono = Mono(read.mono.0.saturating_add(self.offset(kernel, read)));
        Now { mono: mono.min(self.now.mono), wall: read.wall }
    }

    /// Since when a value is beyond its limit, where that has to last for `duration`: only the time in
    /// which the daemon listened counts, and when it was away for longer than that, it begins anew.
    pub fn resume_pending(
        &self,
        kernel: u32,
        since: Option<Mono>,
        duration: Duration,
    ) -> Option<Mono> {
        let away = self.away.filter(|away| *away <= duration)?;
        let since = Mono(since?.0.saturating_add(self.known_offset(kernel)?));
        Some((since + away).min(self.now.mono))
    }

    /// Whether it is known for how long the daemon was away.
    pub fn is_continued(&self) -> bool {
        self.away.is_some()
    }

    /// The tag of the present kernel.
    pub fn kernel(&self) -> u32 {
        self.kernel
    }
}
