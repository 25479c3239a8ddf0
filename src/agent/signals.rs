//! The signals of `hbc run`, as flags that its loop reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

use super::poll::Waker;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    /// SIGTERM, SIGINT: send a shutdown and end.
    Stop,
    /// SIGUSR1: end without a shutdown, since another agent starts right away.
    Restart,
    /// SIGHUP: start anew with the configuration as it is now.
    Reload,
}

/// The first of them that was received counts: an agent that is to stop and to reload stops.
const SIGNALS: [(i32, SignalAction); 4] = [
    (SIGTERM, SignalAction::Stop),
    (SIGINT, SignalAction::Stop),
    (SIGUSR1, SignalAction::Restart),
    (SIGHUP, SignalAction::Reload),
];

/// A flag for each signal that was received.
#[derive(Debug)]
pub struct SignalFlags(Vec<(Arc<AtomicBool>, SignalAction)>);

impl SignalFlags {
    /// Catches the signals from now on; each wakes `waker`.
    ///
    /// # Errors
    /// When a signal cannot be caught.
    pub fn new(waker: &Waker) -> io::Result<SignalFlags> {
        let mut signals = Vec::new();
        for (signal, action) in SIGNALS {
            let received = Arc::new(AtomicBool::new(false));
            // In this order: the flag is up when the poller wakes.
            flag::register(signal, received.clone())?;
            low_level::pipe::register(signal, waker.writer()?)?;
            signals.push((received, action));
        }
        Ok(SignalFlags(signals))
    }

    /// What was asked for since the last call.
    pub fn take(&self) -> Option<SignalAction> {
        let received = self.0.iter().find(|(flag, _)| flag.swap(false, Ordering::SeqCst));
        received.map(|(_, action)| *action)
    }
}
