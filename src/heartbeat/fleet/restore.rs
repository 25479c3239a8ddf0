//! The fleet from its rows: that of a single daemon, and that of a node which leads from now on. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::{Now, Wall};
use crate::heartbeat::clocks::{ClockMapping, ClusterClocks};
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::fleet::patterns::ProfileIndex;
use crate::heartbeat::last_beats::LastBeats;
use crate::heartbeat::persistence::{self, HostRow, LastAlive};
use crate::heartbeat::settings::{self, FleetConfig};

/// What a node of a cluster that leads from now on knows besides the rows.
#[derive(Debug)]
pub struct Takeover {
    /// The present moment.
    pub now: Now,
    /// The kernel's boot id.
    pub kernel_boot: String,
    /// The clocks of the nodes.
    pub clocks: ClusterClocks,
    /// The row [`RECEIVERS_KEY`](super::receivers::RECEIVERS_KEY).
    pub told_gone: Vec<String>,
    /// The node that led before, where that was another one.
    pub previous: Option<String>,
    /// What was heard while another node led.
    pub beats: LastBeats,
}

impl Fleet {
    /// The fleet from its rows, after the daemon was away since `last_alive`.
    ///
    /// What must be removed from the store is returned by the first [`due`](Fleet::due).
    pub fn restore(
        config: FleetConfig,
        rows: impl IntoIterator<Item = (String, HostRow)>,
        last_alive: Option<LastAlive>,
        now: Now,
        kernel_boot: &str,
    ) -> Fleet {
        let mut fleet = Fleet::empty(&config, now);
        let clocks = ClockMapping::new(last_alive.as_ref(), kernel_boot, now, &mut fleet.blindness);
        let passed = last_alive.map_or(Wall::default(), |last_alive| last_alive.now.wall);
        fleet.restore_rows(config, rows, &clocks, passed);
        fleet
    }

    /// The fleet of a node that leads from now on. What it heard while another node led is merged: what
    /// that caused is returned by the first [`due`](Fleet::due).
    ///
    /// Nobody knows what the last leader heard after it was heard last itself: it counts as gone since
    /// then. A node that has not heard yet all that the last leader knew counts all of the time before
    /// as one in which nothing was received.
    pub fn restore_in_cluster(
        config: FleetConfig,
        rows: impl IntoIterator<Item = (String, HostRow)>,
        last_alive: Option<LastAlive>,
        takeover: Takeover,
    ) -> Fleet {
        let Takeover { now, kernel_boot, clocks, told_gone, previous, beats } = takeover;
        let mut fleet = Fleet::empty(&config, now);
        let clocks = ClockMapping::in_cluster(last_alive.as_ref(), &kernel_boot, now, clocks);
        fleet.blindness.set_own(beats.node());
        if let Some((from, to)) = clocks.last_alive().zip(beats.deaf_until()) {
            fleet.blindness.add(from, to.min(now.mono));
        }
        let passed = last_alive.map_or(Wall::default(), |last_alive| last_alive.now.wall);
        fleet.restore_rows(config, rows, &clocks, passed);
        fleet.restore_told(&told_gone, now);
        fleet.merge(beats, previous.as_deref(), now);
        fleet
    }

    fn restore_rows(
        &mut self,
        config: FleetConfig,
        rows: impl IntoIterator<Item = (String, HostRow)>,
        clocks: &ClockMapping,
        passed: Wall,
    ) {
        self.unreported_blindness = self.blindness.periods().to_vec();
        self.kernel = clocks.kernel();
        self.clock_check.observe_past(passed);
        let profiles = settings::profiles(&config);
        let configured = ProfileIndex::new(&profiles);
        let mut known = HashMap::new();
        for (name, row) in rows {
            let profile = configured.get(&name, !row.connections.is_empty());
            let profile = profile.unwrap_or(&self.unknown_profile).clone();
            let name: Arc<str> = name.into();
            row.connections
                .iter()
                .for_each(|connection| self.clock_check.observe_past(connection.seen.wall));
            let known_names = &mut self.names;
            let names = if profile.configured { known_names } else { &mut self.unknown.names };
            let (host, untold, closed) = persistence::restore_host(
                name.clone(),
                row,
                profile,
                clocks,
                &self.common,
                (names, &mut self.blindness),
            );
            self.pending.events.extend(untold);
            self.pending.closed_incidents.extend(closed);
            known.insert(name, host);
        }
        self.populate(profiles, known, &config.depends_on, clocks.now());
        self.keep_told_ends();
        self.apply_blindness(clocks.is_continued());
    }
}
