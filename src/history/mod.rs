//! What was: how hosts fared, their metrics over time, what happened; kept in bounds, and shown.

mod availability;
pub mod query;
pub mod recorder;
pub mod retention;
mod rollup;
mod samples;
mod slots;

use crate::clock::{Now, Wall};
use crate::store::{Snapshot, Table, Write};
use crate::view::UptimeSample;

/// A row of the store.
pub type StoredRow = (String, Vec<u8>);

/// What the history is made of, and where it goes.
pub trait HistorySource: Send + Sync {
    /// How the `count` hosts from the place `from` on fared since their last account, until that
    /// moment; none means that there are no more.
    fn take_samples(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample>;

    /// How a host fared since its last account, without its metrics; none when nothing is recorded
    /// of it.
    fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample>;

    /// From when to when nobody could listen, each told once.
    fn outages(&self, now: Now) -> Vec<(Wall, Wall)>;

    /// What is on disk; an error is a sentence.
    fn snapshot(&self) -> Result<Snapshot, String>;

    /// At most `count` rows with the greatest keys below `before`, with those that wait for the
    /// disk.
    fn newest(
        &self,
        table: Table,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<StoredRow>, String>;

    /// Leaves rows to be written, in one transaction.
    fn write(&self, writes: Vec<Write>);
}
