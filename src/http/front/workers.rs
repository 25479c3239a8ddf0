//! How many threads stand at the gate. One is at the door and takes one connection after the other,
//! as long as none makes it wait. When one does, it first calls another thread to the door.
//!
//! A thread for each connection, begun and ended or only woken for it, would cost more than most
//! requests do.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// So many are busy at a time, beside those that wait for their client.
const MOST_BUSY: usize = 64;
/// So many rest when there is nothing to do; the others leave after a while.
const RESTING: usize = 1;

type Hire = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Door {
    /// Nobody is there.
    #[default]
    Free,
    /// Somebody was called and is on the way.
    Promised,
    /// This thread is there.
    Held(ThreadId),
}

#[derive(Debug, Default)]
struct Numbers {
    door: Door,
    /// Those that wait to be called.
    resting: usize,
    /// Those that have left the door for their connection, but for the ones that wait for their
    /// client.
    busy: usize,
    all: usize,
    closed: bool,
}

/// The threads at the gate, counted.
#[derive(Default)]
pub struct Crew {
    numbers: Mutex<Numbers>,
    called: Condvar,
    changed: Condvar,
    hire: OnceLock<Hire>,
}

impl Crew {
    /// Says how one more thread is started, and starts the first.
    ///
    /// # Errors
    /// Why the first could not be started.
    pub fn hire_with(
        &self,
        hire: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let _ = self.hire.set(Box::new(hire));
        self.call(self.lock())
    }

    /// A new thread begins; until it comes to the door it counts as busy.
    pub fn begins(&self) {
        self.lock().busy += 1;
    }

    /// Waits until this thread is the one at the door, where it may be already; false when it is
    /// to leave. Who has rested for `boredom` leaves, but for a few.
    pub fn come_to_door(&self, boredom: Duration) -> bool {
        let me = thread::current().id();
        let mut numbers = self.lock();
        let held = numbers.door == Door::Held(me);
        if !held {
            numbers.busy -= 1;
        }
        loop {
            if numbers.closed {
                if held {
                    numbers.door = Door::Free;
                }
                return false;
            }
            if !matches!(numbers.door, Door::Held(other) if other != me) {
                numbers.door = Door::Held(me);
                return true;
            }
            numbers.resting += 1;
            let waited = self.called.wait_timeout(numbers, boredom);
            let (rested, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            numbers = rested;
            numbers.resting -= 1;
            let bored = timeout.timed_out() && numbers.door != Door::Promised;
            if bored && numbers.resting >= RESTING {
                return false;
            }
        }
    }

    /// This thread has something to do that takes long: another one comes to the door.
    pub fn leave_door(&self) {
        let mut numbers = self.lock();
        if numbers.door == Door::Held(thread::current().id()) {
            numbers.door = Door::Free;
            numbers.busy += 1;
            self.call_or_tell(numbers);
        }
    }

    /// This thread has to wait for its client: until the drop it is not counted as busy.
    pub fn aside(&self) -> Aside<'_> {
        let mut numbers = self.lock();
        if numbers.door == Door::Held(thread::current().id()) {
            numbers.door = Door::Free;
        } else {
            numbers.busy = numbers.busy.saturating_sub(1);
        }
        self.call_or_tell(numbers);
        Aside(self)
    }

    /// Nobody is to come to the door any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.called.notify_all();
    }

    /// A thread that has left holds nothing any more.
    pub fn is_gone(&self) {
        self.lock().all -= 1;
        self.changed.notify_all();
    }

    /// Waits until all are gone; false when they had not after `patience`.
    pub fn wait_until_gone(&self, patience: Duration) -> bool {
        let some = |numbers: &mut Numbers| numbers.all > 0;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, some);
        waited.unwrap_or_else(PoisonError::into_inner).0.all == 0
    }

    fn call_or_tell(&self, numbers: MutexGuard<'_, Numbers>) {
        // Whoever has nothing more to do comes to the door.
        if let Err(why) = self.call(numbers) {
            log::warn!("connections wait, no thread could be started for them: {why}");
        }
    }

    /// Has somebody come to the door, where nobody is or will be.
    fn call(&self, mut numbers: MutexGuard<'_, Numbers>) -> io::Result<()> {
        let Some(hire) = self.hire.get() else { return Ok(()) };
        if numbers.door != Door::Free || numbers.busy >= MOST_BUSY || numbers.closed {
            return Ok(());
        }
        numbers.door = Door::Promised;
        if numbers.resting > 0 {
            self.called.notify_one();
            return Ok(());
        }
        numbers.all += 1;
        drop(numbers);
        hire().inspect_err(|_| {
            let mut numbers = self.lock();
            if numbers.door == Door::Promised {
                numbers.door = Door::Free;
            }
            drop(numbers);
            self.is_gone();
        })
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

    const LONG: Duration = Duration::from_secs(20);

    /// A crew whose threads the test plays itself, and how many were hired.
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

    /// In a new thread of the crew.
    fn with<T: Send>(crew: &Crew, play: impl FnOnce() -> T + Send) -> T {
        let begin = || {
            crew.begins();
            play()
        };
        thread::scope(|scope| scope.spawn(begin).join().unwrap())
    }

    #[test]
    fn who_is_at_the_door_stays_there_and_calls_nobody() {
        let (crew, hired) = crew();
        with(&crew, || (0..3).for_each(|_| assert!(crew.come_to_door(LONG))));
        assert_eq!(hired.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_leaves_the_door_calls_another_and_not_beyond_the_busy() {
        let (crew, hired) = crew();
        let hired = || hired.load(Ordering::SeqCst);
        let leave = || {
            assert!(crew.come_to_door(LONG));
            crew.leave_door();
            crew.leave_door();
        };
        for busy in 1..MOST_BUSY {
            with(&crew, leave);
            assert_eq!(hired(), busy + 1);
        }
        with(&crew, leave);
        assert_eq!(hired(), MOST_BUSY, "all are busy");
        assert!(crew.come_to_door(LONG), "one that is done comes itself");
        let waiting = crew.aside();
        assert_eq!(hired(), MOST_BUSY + 1, "it waits for its client");
        drop(waiting);
        crew.leave_door();
        assert_eq!(hired(), MOST_BUSY + 1);
    }

    #[test]
    fn who_rests_is_called_before_anybody_is_hired() {
        let (crew, hired) = crew();
        thread::scope(|scope| {
            let (told, rests) = crossbeam_channel::bounded(1);
            let crew = &crew;
            crew.begins();
            assert!(crew.come_to_door(LONG));
            scope.spawn(move || {
                crew.begins();
                told.send(()).unwrap();
                assert!(crew.come_to_door(LONG));
            });
            rests.recv_timeout(LONG).unwrap();
            while crew.lock().resting == 0 {
                thread::yield_now();
            }
            crew.leave_door();
        });
        assert_eq!(hired.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_bored_leave_but_for_a_few() {
        let (crew, _) = crew();
        crew.begins();
        assert!(crew.come_to_door(LONG));
        let stayed = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    crew.begins();
                    stayed.fetch_add(
                        crew.come_to_door(Duration::from_millis(1)).into(),
                        Ordering::SeqCst,
                    );
                });
            }
            while crew.lock().busy > 0 || crew.lock().resting != RESTING {
                thread::yield_now();
            }
            crew.close();
        });
        assert_eq!(stayed.load(Ordering::SeqCst), 0);
        assert!(!crew.come_to_door(LONG), "and at the end all");
        assert!(!crew.wait_until_gone(Duration::ZERO));
        crew.is_gone();
        assert!(crew.wait_until_gone(Duration::ZERO));
    }

    #[test]
    fn where_no_thread_can_be_started_the_next_that_is_done_goes_on() {
        let crew = Crew::default();
        assert!(crew.hire_with(|| Err(io::ErrorKind::OutOfMemory.into())).is_err());
        assert!(crew.wait_until_gone(Duration::ZERO));
        with(&crew, || {
            assert!(crew.come_to_door(LONG));
            drop(crew.aside());
            assert!(crew.come_to_door(LONG));
        });
    }
}
