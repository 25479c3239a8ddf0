//! Threads: an interruptible stop, named threads whose panic ends the process, progress counters,
//! a counting semaphore, and the one way to lock a mutex.

use std::convert::Infallible;
use std::io;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};

/// Stops all [`Stop`]s of its pair when it is dropped.
#[derive(Debug)]
pub struct StopSource(#[allow(dead_code, reason = "it is there to be dropped")] Sender<Infallible>);

/// The waiting side of a [`StopSource`]; cloned for every thread.
#[derive(Clone, Debug)]
pub struct Stop(Receiver<Infallible>);

impl Stop {
    /// A source and the stop that belongs to it.
    pub fn channel() -> (StopSource, Stop) {
        let (tx, rx) = bounded(0);
        (StopSource(tx), Stop(rx))
    }

    /// Waits for `duration` at most; true when it is time to stop.
    pub fn wait(&self, duration: Duration) -> bool {
        matches!(self.0.recv_timeout(duration), Err(RecvTimeoutError::Disconnected))
    }

    /// Whether it is time to stop.
    pub fn stopped(&self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// For `select!`: nothing is ever sent, an error from it means stop.
    pub fn receiver(&self) -> &Receiver<Infallible> {
        &self.0
    }
}

/// Held by a thread without which the process is of no use: if the thread panics, the process
/// aborts, and the service manager starts it again.
#[derive(Debug)]
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let thread = thread::current();
            log::error!("the thread {} panicked, giving up", thread.name().unwrap_or("?"));
            process::abort();
        }
    }
}

/// The stack of a thread that has no need of its own, as std has it.
pub const DEFAULT_STACK: usize = 2 * 1024 * 1024;

/// Starts a named thread with a stack of `stack` bytes; a panic in it aborts the process.
///
/// # Errors
/// When the system has no thread to give.
pub fn spawn_critical<T: Send + 'static>(
    name: &str,
    stack: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.into()).stack_size(stack).spawn(move || {
        let _guard = AbortOnPanic;
        work()
    })
}

/// Counts the turns of a thread's loop. Cloned: the thread counts, the watchdog compares.
#[derive(Clone, Debug, Default)]
pub struct ProgressCounter(Arc<AtomicU64>);

impl ProgressCounter {
    /// Another turn was made.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many turns were made.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counting semaphore. Cloned: all clones share the same permits.
#[derive(Clone, Debug)]
pub struct Semaphore {
    released: Sender<()>,
    free: Receiver<()>,
}

/// One permit of a [`Semaphore`], released when dropped.
#[derive(Debug)]
#[must_use = "it is released when dropped"]
pub struct Permit(Sender<()>);

impl Semaphore {
    /// A semaphore of `permits` permits, all free.
    pub fn new(permits: usize) -> Semaphore {
        let (released, free) = unbounded();
        for _ in 0..permits {
            // Never refused: this semaphore holds the receiver.
            let _ = released.send(());
        }
        Semaphore { released, free }
    }

    /// A permit, when one is free now.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.free.try_recv().ok().map(|()| self.permit())
    }

    /// Whether no permit is free now.
    pub fn is_exhausted(&self) -> bool {
        self.free.is_empty()
    }

    /// A permit, when one is free within `timeout`.
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit> {
        self.free.recv_timeout(timeout).ok().map(|()| self.permit())
    }

    fn permit(&self) -> Permit {
        Permit(self.released.clone())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Refused only when the semaphore is gone, and then nothing waits for a permit.
        let _ = self.0.send(());
    }
}

/// Locks `mutex`, also after a panic of another holder: what is kept under a lock in this program
/// is changed in one step, and a daemon that keeps refusing would be worse than one stale value.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_ends_at_its_time_while_the_source_lives() {
        let (_source, stop) = Stop::channel();
        assert!(!stop.wait(Duration::from_millis(1)));
        assert!(!stop.stopped());
    }

    #[test]
    fn dropping_the_source_wakes_every_waiting_thread() {
        let (source, stop) = Stop::channel();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let stop = stop.clone();
                thread::spawn(move || stop.wait(Duration::from_secs(60)))
            })
            .collect();
        let before = Instant::now();
        drop(source);
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        assert!(stop.stopped());
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_semaphore_gives_as_many_permits_as_it_has_and_takes_them_back() {
        let semaphore = Semaphore::new(2);
        let first = semaphore.try_acquire().unwrap();
        let second = semaphore.clone().try_acquire().unwrap();
        assert!(semaphore.try_acquire().is_none());
        assert!(semaphore.is_exhausted());
        assert!(semaphore.acquire_timeout(Duration::from_millis(1)).is_none());
        drop(first);
        let third = semaphore.acquire_timeout(Duration::from_secs(60)).unwrap();
        drop((second, third));
        assert!(semaphore.try_acquire().is_some());
    }

    #[test]
    fn a_lock_is_taken_over_from_a_thread_that_panicked() {
        let mutex = Arc::new(Mutex::new(1));
        let held = Arc::clone(&mutex);
        let panicked = thread::spawn(move || {
            let _guard = held.lock();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(*lock(&mutex), 1);
    }
}
