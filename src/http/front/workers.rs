//! Worker pool of the front: a thread for each connection that is being served, kept for the next
//! one, and started only when none waits.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::thread::lock;

/// The workers, counted.
#[derive(Debug, Default)]
pub struct WorkerPool {
    counts: Mutex<WorkerCounts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WorkerCounts {
    /// Those that wait for a connection, and those that are about to.
    waiting: usize,
    all: usize,
    started: usize,
}

/// One thread of the pool, counted as long as it lives.
#[derive(Debug)]
pub struct Worker {
    pool: Arc<WorkerPool>,
    waiting: bool,
    /// Which one it is since the start.
    pub number: usize,
}

impl WorkerPool {
    /// One more worker, which waits for a connection; none when one waits already, or when there
    /// are `max`.
    pub fn grow(self: &Arc<WorkerPool>, max: usize) -> Option<Worker> {
        let mut counts = lock(&self.counts);
        if counts.waiting > 0 || counts.all >= max {
            return None;
        }
        counts.waiting += 1;
        counts.all += 1;
        counts.started += 1;
        Some(Worker { pool: Arc::clone(self), waiting: true, number: counts.started })
    }

    /// Waits until every worker has ended; false when that takes longer than `timeout`.
    pub fn wait_until_empty(&self, timeout: Duration) -> bool {
        let some = |counts: &mut WorkerCounts| counts.all > 0;
        let waited = self.changed.wait_timeout_while(lock(&self.counts), timeout, some);
        waited.map_or(true, |(counts, _)| counts.all == 0)
    }
}

impl Worker {
    /// It has a connection to serve.
    pub fn set_busy(&mut self) {
        if std::mem::take(&mut self.waiting) {
            lock(&self.pool.counts).waiting -= 1;
        }
    }

    /// It waits for the next connection.
    pub fn set_waiting(&mut self) {
        if !std::mem::replace(&mut self.waiting, true) {
            lock(&self.pool.counts).waiting += 1;
        }
    }

    /// Whether it may end because another one waits, too. If so, it counts as waiting no more.
    pub fn leave_if_surplus(&mut self) -> bool {
        let mut counts = lock(&self.pool.counts);
        let surplus = self.waiting && counts.waiting > 1;
        if surplus {
            self.waiting = false;
            counts.waiting -= 1;
        }
        surplus
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut counts = lock(&self.pool.counts);
        counts.waiting -= usize::from(self.waiting);
        counts.all -= 1;
        self.pool.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 3;

    #[test]
    fn a_worker_is_started_only_when_none_waits_and_not_beyond_the_limit() {
        let pool = Arc::new(WorkerPool::default());
        let mut first = pool.grow(MAX).unwrap();
        assert!(pool.grow(MAX).is_none(), "the first one waits");
        first.set_busy();
        let mut second = pool.grow(MAX).unwrap();
        second.set_busy();
        first.set_waiting();
        assert!(pool.grow(MAX).is_none(), "the first one waits again");
        first.set_busy();
        let mut third = pool.grow(MAX).unwrap();
        third.set_busy();
        assert!(pool.grow(MAX).is_none(), "there are as many as there may be");
        assert_eq!((first.number, second.number, third.number), (1, 2, 3));
        drop(second);
        assert!(pool.grow(MAX).is_some());
    }

    #[test]
    fn the_surplus_ones_leave_and_one_stays() {
        let pool = Arc::new(WorkerPool::default());
        let mut workers: Vec<Worker> = (0..MAX)
            .map(|_| {
                let mut worker = pool.grow(MAX).unwrap();
                worker.set_busy();
                worker
            })
            .collect();
        workers.iter_mut().for_each(Worker::set_waiting);
        let left = workers.iter_mut().filter_map(|worker| worker.leave_if_surplus().then_some(()));
        assert_eq!(left.count(), MAX - 1);
        assert!(!pool.wait_until_empty(Duration::ZERO));
        drop(workers);
        assert!(pool.wait_until_empty(Duration::ZERO));
    }

    #[test]
    fn a_worker_that_could_not_be_started_is_not_counted() {
        let pool = Arc::new(WorkerPool::default());
        drop(pool.grow(MAX).unwrap());
        assert!(pool.wait_until_empty(Duration::ZERO));
        assert!(pool.grow(MAX).is_some());
    }
}
