//! What the history and the status ask of the fleet under its lock.

use super::accounts::Wrong;
use super::watch::Watch;
use crate::clock::{Now, Wall};
use crate::view::UptimeSample;

impl Watch {
    /// How the `count` hosts from the place `from` on fared since their last account.
    pub fn accounts(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        self.lock().fleet.accounts(from, count, until)
    }

    /// What the next account of a host would say.
    pub fn running(&self, host: &str, now: Now) -> Option<UptimeSample> {
        self.lock().fleet.running(host, now)
    }

    /// When nothing could be heard, each told once.
    pub fn unseen(&self, now: Now) -> Vec<(Wall, Wall)> {
        self.lock().fleet.unseen(now)
    }

    /// What is wrong with the `count` hosts from the place `from` on.
    pub fn wrong(&self, from: usize, count: usize) -> Vec<Wrong> {
        self.lock().fleet.wrong(from, count)
    }
}
