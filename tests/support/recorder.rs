//! A history over a real store, whose time is moved by hand.
#![allow(dead_code)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heartbeat::clock::{Mono, Now, Wall};
use heartbeat::history::HistorySource;
use heartbeat::history::recorder::Recorder;
use heartbeat::history::retention::RetentionSettings;
use heartbeat::store::{CommitResult, RawRow, Snapshot, Store, Table, Write};
pub use heartbeat::thread::lock;
use heartbeat::view::UptimeSample;

/// 2026-11-21T00:00:00Z.
pub const MIDNIGHT: Now = Now { mono: Mono(10_000_000), wall: Wall(1_795_219_200_000) };

pub const MINUTE: Duration = Duration::from_secs(60);
pub const DAY: Duration = Duration::from_secs(86_400);

/// Hosts as the history sees them.
pub trait Hosts: Send {
    fn take_samples(&mut self, from: usize, count: usize, until: Now) -> Vec<UptimeSample>;
    fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample>;
    fn outages(&mut self, now: Now) -> Vec<(Wall, Wall)>;
}

/// Hosts and a store.
pub struct World<H> {
    pub hosts: Mutex<H>,
    pub store: Mutex<Option<Store>>,
    pub writes: Mutex<usize>,
}

impl<H: Hosts + 'static> World<H> {
    pub fn new(directory: &Path, hosts: H) -> Arc<World<H>> {
        let (store, _) = Store::open(directory, MIDNIGHT).unwrap();
        let (hosts, store) = (Mutex::new(hosts), Mutex::new(Some(store)));
        Arc::new(World { hosts, store, writes: Mutex::new(0) })
    }

    pub fn recorder(self: &Arc<World<H>>, settings: RetentionSettings) -> Recorder {
        lock(&self.store).as_mut().unwrap().limit_history(settings.limit());
        Recorder::new(Arc::clone(self) as Arc<dyn HistorySource>, settings)
    }

    /// How many rows a table has.
    pub fn rows(&self, table: Table) -> usize {
        lock(&self.store).as_ref().unwrap().rows(table).len()
    }
}

impl<H: Hosts> HistorySource for World<H> {
    fn take_samples(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        lock(&self.hosts).take_samples(from, count, until)
    }

    fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample> {
        lock(&self.hosts).peek_sample(host, now)
    }

    fn outages(&self, now: Now) -> Vec<(Wall, Wall)> {
        lock(&self.hosts).outages(now)
    }

    fn snapshot(&self) -> Result<Snapshot, String> {
        let store = lock(&self.store);
        store.as_ref().and_then(Store::snapshot).ok_or_else(|| "no disk".into())
    }

    fn newest(
        &self,
        table: Table,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<RawRow>, String> {
        Ok(lock(&self.store).as_ref().ok_or("no disk")?.view(table).newest(before, count))
    }

    fn write(&self, writes: Vec<Write>) {
        *lock(&self.writes) += writes.len();
        let mut store = lock(&self.store);
        let store = store.as_mut().unwrap();
        writes.into_iter().for_each(|write| store.write(write));
        assert_eq!(store.commit(MIDNIGHT), CommitResult::Committed);
    }
}
