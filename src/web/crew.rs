//! How many threads stand at the gate. One always takes the next connection while there are
//! connections to take; whoever has to wait for a client first sees to that.
//!
//! A thread for each connection, begun and ended with it, would cost more than most requests do.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// So many are busy at a time, beside those that wait for their client.
const MOST_BUSY: usize = 64;
/// So many stay when there is nothing to do; the others leave after a while.
const STAYING: usize = 2;

type Hire = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

#[derive(Debug, Default)]
struct Numbers {
    /// Those that wait for the next connection.
    free: usize,
    /// Those that serve one, but for the ones that wait for their client.
    busy: usize,
    all: usize,
}

/// The threads at the gate, counted.
#[derive(Default)]
pub struct Crew {
    numbers: Mutex<Numbers>,
    changed: Condvar,
    hire: OnceLock<Hire>,
}

impl Crew {
    /// Says how one more thread is started, and starts the first. It is counted as free already.
    ///
    /// # Errors
    /// Why the first could not be started.
    pub fn hire_with(
        &self,
        hire: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let _ = self.hire.set(Box::new(hire));
        self.hire_if_needed(self.lock())
    }

    /// A free thread has a connection to serve now.
    pub fn begins(&self) {
        let mut numbers = self.lock();
        numbers.free -= 1;
        numbers.busy += 1;
        self.hire_or_tell(numbers);
    }

    /// A thread has served its connection; false when it is to leave.
    pub fn ends(&self) -> bool {
        let mut numbers = self.lock();
        numbers.busy -= 1;
        numbers.free += 1;
        numbers.free <= MOST_BUSY || self.leave(numbers)
    }

    /// A free thread has waited in vain for long; false when it is to leave.
    pub fn stays(&self) -> bool {
        let numbers = self.lock();
        numbers.free <= STAYING || self.leave(numbers)
    }

    /// A free thread leaves of its own accord.
    pub fn leaves(&self) {
        self.leave(self.lock());
    }

    /// A thread that has left holds nothing any more.
    pub fn is_gone(&self) {
        self.lock().all -= 1;
        self.changed.notify_all();
    }

    /// A thread has to wait for its client: until the drop it is not counted as busy.
    pub fn aside(&self) -> Aside<'_> {
        let mut numbers = self.lock();
        numbers.busy = numbers.busy.saturating_sub(1);
        self.hire_or_tell(numbers);
        Aside(self)
    }

    /// Waits until all are gone; false when they had not after `patience`.
    pub fn wait_until_gone(&self, patience: Duration) -> bool {
        let some = |numbers: &mut Numbers| numbers.all > 0;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, some);
        waited.unwrap_or_else(PoisonError::into_inner).0.all == 0
    }

    fn hire_or_tell(&self, numbers: MutexGuard<'_, Numbers>) {
        // Whoever is free again takes the next connection.
        if let Err(why) = self.hire_if_needed(numbers) {
            log::warn!("connections wait, no thread could be started for them: {why}");
        }
    }

    fn hire_if_needed(&self, mut numbers: MutexGuard<'_, Numbers>) -> io::Result<()> {
        let Some(hire) = self.hire.get() else { return Ok(()) };
        if numbers.free > 0 || numbers.busy >= MOST_BUSY {
            return Ok(());
        }
        numbers.free += 1;
        numbers.all += 1;
        drop(numbers);
        hire().inspect_err(|_| {
            self.leaves();
            self.is_gone();
        })
    }

    fn leave(&self, mut numbers: MutexGuard<'_, Numbers>) -> bool {
        numbers.free -= 1;
        false
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long as it lives, a thread waits for its client.
pub struct Aside<'a>(&'a Crew);

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.lock().busy += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn crew() -> (Crew, Arc<AtomicUsize>) {
        let crew = Crew::default();
        let hired = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hired);
        crew.hire_with(move || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap();
        (crew, hired)
    }

    #[test]
    fn one_more_is_hired_when_nobody_is_free_and_not_beyond_the_busy() {
        let (crew, hired) = crew();
        let hired = || hired.load(Ordering::SeqCst);
        for busy in 1..MOST_BUSY {
            crew.begins();
            assert_eq!(hired(), busy + 1);
        }
        crew.begins();
        assert_eq!(hired(), MOST_BUSY, "all are busy");
        let waiting = crew.aside();
        assert_eq!(hired(), MOST_BUSY + 1, "one waits for its client");
        drop(waiting);
        assert!(crew.ends());
        assert_eq!(hired(), MOST_BUSY + 1);
    }

    #[test]
    fn the_bored_leave_but_for_a_few() {
        let (crew, _) = crew();
        for _ in 0..5 {
            crew.begins();
        }
        for _ in 0..5 {
            assert!(crew.ends());
        }
        let left = (0..10).filter(|_| !crew.stays()).count();
        assert_eq!(left, 6 - STAYING);
        assert!(!crew.wait_until_gone(Duration::ZERO));
        (0..STAYING).for_each(|_| crew.leaves());
        (0..6).for_each(|_| crew.is_gone());
        assert!(crew.wait_until_gone(Duration::ZERO));
    }

    #[test]
    fn where_no_thread_can_be_started_the_next_that_is_free_goes_on() {
        let crew = Crew::default();
        assert!(crew.hire_with(|| Err(io::ErrorKind::OutOfMemory.into())).is_err());
        assert!(crew.wait_until_gone(Duration::ZERO));
    }
}
