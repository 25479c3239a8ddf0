//! Time series of host availability and metrics, and the event log: recorded, bounded, and queried.

mod availability;
pub mod query;
pub mod recorder;
pub mod retention;
mod rollup;
mod samples;
mod slots;

use crate::clock::{Now, Wall};
use crate::store::{RawRow, Snapshot, Table, Write};
use crate::view::UptimeSample;

/// Where the recorder takes its samples from, and the store that it reads and writes.
pub trait HistorySource: Send + Sync {
    /// The availability and metrics of `count` hosts from the index `from` on, since their last
    /// samples until `until`; empty when there are no more hosts.
    fn take_samples(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample>;

    /// The availability of a host since its last sample, without metrics and without taking it; none
    /// when nothing is recorded of the host.
    fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample>;

    /// From when to when the daemon did not listen; each outage is returned once.
    fn outages(&self, now: Now) -> Vec<(Wall, Wall)>;

    /// A snapshot of the store; the error is a sentence.
    fn snapshot(&self) -> Result<Snapshot, String>;

    /// At most `count` rows with the greatest keys below `before`, also those that are not on disk
    /// yet.
    fn newest(
        &self,
        table: Table,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<RawRow>, String>;

    /// Queues rows to be written in one transaction.
    fn write(&self, writes: Vec<Write>);
}
