//! The daemon's own threads: a panic in one of them ends the process, and the stop waits for all of
//! them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::thread::{lock, spawn_critical};

/// The stack of each of them, in bytes.
const STACK: usize = 256 * 1024;

/// The threads that were started. Cloned: all clones share them.
#[derive(Clone, Default)]
pub struct Threads {
    running: Arc<Mutex<Vec<Thread>>>,
    /// The names of threads that the system refuses to start.
    #[cfg(test)]
    pub refused: Arc<Mutex<Vec<&'static str>>>,
}

struct Thread {
    name: String,
    handle: JoinHandle<()>,
    /// Disconnected when the thread has ended: a handle cannot be joined with a deadline.
    ended: Receiver<Infallible>,
}

impl Threads {
    /// Starts a thread without which the daemon is of no use: a panic in it ends the process.
    ///
    /// # Errors
    /// A sentence when the system has no thread to give.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
        self.spawn_with_stack(name, STACK, work)
    }

    /// The same with a stack of `stack` bytes.
    ///
    /// # Errors
    /// As [`Threads::spawn`].
    pub fn spawn_with_stack(
        &self,
        name: &str,
        stack: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), String> {
        let why = |why| format!("the thread {name} cannot be started: {why}");
        #[cfg(test)]
        if lock(&self.refused).contains(&name) {
            return Err(why(std::io::ErrorKind::WouldBlock.into()));
        }
        let (alive, ended) = bounded(0);
        let work = move || {
            let _alive = alive;
            work();
        };
        let handle = spawn_critical(name, stack, work).map_err(why)?;
        let mut running = lock(&self.running);
        running.retain(|thread| !thread.handle.is_finished());
        running.push(Thread { name: name.to_owned(), handle, ended });
        Ok(())
    }

    /// Waits until all of them have ended, at most until `deadline`. Returns the names of those that
    /// have not.
    #[must_use]
    pub fn join(&self, deadline: Instant) -> Vec<String> {
        let threads = std::mem::take(&mut *lock(&self.running));
        threads.into_iter().filter_map(|thread| thread.join(deadline)).collect()
    }
}

impl Thread {
    /// Its name, if it has not ended by `deadline`.
    fn join(self, deadline: Instant) -> Option<String> {
        match self.ended.recv_deadline(deadline) {
            Err(RecvTimeoutError::Timeout) => Some(self.name),
            Err(RecvTimeoutError::Disconnected) | Ok(_) => {
                // A panic has ended the process already.
                let _ = self.handle.join();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::thread::Stop;

    #[test]
    fn a_thread_that_does_not_end_at_the_stop_is_named() {
        let threads = Threads::default();
        let (source, stop) = Stop::channel();
        let (hung, hangs) = Stop::channel();
        for (name, stop) in [("one", &stop), ("two", &hangs), ("three", &stop)] {
            let stop = stop.clone();
            threads.spawn(name, move || while !stop.wait(Duration::from_secs(60)) {}).unwrap();
        }
        drop(source);
        assert_eq!(threads.join(Instant::now() + Duration::from_millis(200)), ["two"]);
        drop(hung);
    }

    #[test]
    fn threads_that_have_ended_are_joined_though_the_deadline_has_passed() {
        let threads = Threads::default();
        let (source, stop) = Stop::channel();
        threads.spawn("one", move || while !stop.wait(Duration::from_secs(60)) {}).unwrap();
        drop(source);
        let far = Instant::now() + Duration::from_secs(60);
        assert_eq!(threads.join(far), [""; 0]);
        threads.spawn("two", || ()).unwrap();
        while !lock(&threads.running)[0].handle.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(threads.join(Instant::now()), [""; 0]);
    }

    #[test]
    fn threads_of_earlier_reloads_are_let_go_of() {
        let threads = Threads::default();
        for _ in 0..5 {
            threads.spawn("poll", || ()).unwrap();
            while !lock(&threads.running).iter().all(|thread| thread.handle.is_finished()) {
                std::thread::yield_now();
            }
        }
        assert_eq!(lock(&threads.running).len(), 1);
    }
}
