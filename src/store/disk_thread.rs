//! A thread that owns what can hang: callers hand it jobs and wait for the answers as long as they
//! can afford.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::thread::{ProgressCounter, lock, spawn_critical};

/// A disk that does not answer for that long hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether the disk answered anything.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Enough for redb. A page that is never touched costs nothing.
const STACK: usize = 512 * 1024;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// The thread, and the state `S` that only it touches.
pub(super) struct DiskThread<S> {
    /// None when it was told to end.
    jobs: Option<Sender<Job<S>>>,
    /// When the job at hand was begun.
    busy: Arc<Mutex<Option<Instant>>>,
    /// Counts what the disk answers to any thread.
    progress: ProgressCounter,
    /// Disconnected when the thread has ended.
    ended: Receiver<Infallible>,
}

impl<S: Send + 'static> DiskThread<S> {
    /// Starts the thread.
    pub(super) fn spawn(name: &str, progress: ProgressCounter, mut state: S) -> io::Result<Self> {
        let (jobs, queue) = unbounded::<Job<S>>();
        let (alive, ended) = bounded(0);
        let busy = Arc::new(Mutex::new(None));
        let shown = Arc::clone(&busy);
        spawn_critical(name, STACK, move || {
            for job in queue {
                *lock(&shown) = Some(Instant::now());
                job(&mut state);
                *lock(&shown) = None;
            }
            *lock(&shown) = Some(Instant::now());
            drop(state);
            drop(alive);
        })?;
        Ok(DiskThread { jobs: Some(jobs), busy, progress, ended })
    }

    /// Hands a job over. Its answer comes when those before it are done.
    pub(super) fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (tx, rx) = bounded(1);
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Box::new(move |state| {
                // Fails when the answer is no longer waited for.
                let _ = tx.send(job(state));
            }));
        }
        rx
    }

    /// The answer to a job; none when the disk hangs. Beyond [`PATIENCE`] it is waited for while
    /// the disk answers something, at most for `limit`.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Option<T> {
        if self.hangs() {
            return None;
        }
        self.wait(&self.start(job), limit)
    }

    /// Waits for an answer that [`DiskThread::start`] promised, as [`DiskThread::ask`] does.
    pub(super) fn wait<T>(&self, answer: &Receiver<T>, limit: Duration) -> Option<T> {
        let end = Instant::now() + limit;
        let (mut count, mut answered) = (self.progress.count(), Instant::now());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match answer.recv_timeout(left.min(PROGRESS_INTERVAL)) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if self.progress.count() != count {
                (count, answered) = (self.progress.count(), now);
            }
            if now >= end || now - answered >= PATIENCE {
                return None;
            }
        }
    }
}

impl<S> DiskThread<S> {
    /// Whether the job at hand takes longer than anybody waits.
    pub(super) fn hangs(&self) -> bool {
        lock(&self.busy).is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// Ends the thread after the jobs that were handed over; false when it hangs.
    pub(super) fn end(&mut self) -> bool {
        self.jobs = None;
        let patience = if self.hangs() { Duration::ZERO } else { PATIENCE };
        matches!(self.ended.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_is_waited_for_once() {
        let mut worker = DiskThread::spawn("test", ProgressCounter::default(), 1).unwrap();
        assert_eq!(worker.ask(PATIENCE, |state| *state + 1), Some(2));
        let (release, released) = bounded::<()>(1);
        let hung = worker.start(move |_| released.recv().is_ok());
        let before = Instant::now();
        assert_eq!(worker.ask(PATIENCE, |state| *state), None);
        let first = before.elapsed();
        assert!(first >= PATIENCE && first < 2 * PATIENCE, "{first:?}");
        // It may have begun a moment after it was handed over.
        while !worker.hangs() {
            std::thread::yield_now();
        }
        assert_eq!(worker.ask(PATIENCE, |state| *state), None);
        assert!(before.elapsed() - first < PATIENCE, "the second time at once");
        release.send(()).unwrap();
        assert_eq!(hung.recv(), Ok(true));
        assert_eq!(worker.ask(PATIENCE, |state| *state), Some(1));
        assert!(worker.end());
    }
}
