//! Interruptible waiting: whoever waits is woken by the drop of the [`Stopper`].

use std::convert::Infallible;
use std::process;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

/// As long as it lives, everybody goes on. Dropping it stops all holders of its [`Stop`]s.
#[derive(Debug)]
pub struct Stopper(#[allow(dead_code, reason = "it is there to be dropped")] Sender<Infallible>);

/// The waiting side; cloned for every thread.
#[derive(Clone, Debug)]
pub struct Stop(Receiver<Infallible>);

/// A pair that belongs together.
pub fn channel() -> (Stopper, Stop) {
    let (tx, rx) = bounded(0);
    (Stopper(tx), Stop(rx))
}

impl Stop {
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

/// Held by a thread without which the process is of no use: should the thread panic, the process
/// ends, and whoever watches over it starts it again.
#[derive(Debug)]
pub struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            let thread = thread::current();
            log::error!("the thread {} panicked, giving up", thread.name().unwrap_or("?"));
            process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_ends_at_its_time_while_the_stopper_lives() {
        let (_stopper, stop) = channel();
        assert!(!stop.wait(Duration::from_millis(1)));
        assert!(!stop.stopped());
    }

    #[test]
    fn dropping_the_stopper_wakes_everybody() {
        let (stopper, stop) = channel();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let stop = stop.clone();
                thread::spawn(move || stop.wait(Duration::from_secs(60)))
            })
            .collect();
        let before = Instant::now();
        drop(stopper);
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        assert!(stop.stopped());
        assert!(before.elapsed() < Duration::from_secs(10));
    }
}
