//! What signals want of `hbc run`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

use super::poll::Waker;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    /// SIGTERM, SIGINT: end, and say so.
    Stop,
    /// SIGUSR1: end without a word, since another one starts right away.
    Restart,
    /// SIGHUP: begin anew with the configuration as it is now.
    Reload,
}

/// In the order in which they count: who is told to end and to read its configuration ends.
const SIGNALS: [(i32, SignalAction); 4] = [
    (SIGTERM, SignalAction::Stop),
    (SIGINT, SignalAction::Stop),
    (SIGUSR1, SignalAction::Restart),
    (SIGHUP, SignalAction::Reload),
];

/// The signals that were received.
#[derive(Debug)]
pub struct SignalFlags(Vec<(Arc<AtomicBool>, SignalAction)>);

impl SignalFlags {
    /// Receives them from now on; `waker` announces each.
    ///
    /// # Errors
    /// When they cannot be received.
    pub fn new(waker: &Waker) -> io::Result<SignalFlags> {
        let mut signals = Vec::new();
        for (signal, wish) in SIGNALS {
            let received = Arc::new(AtomicBool::new(false));
            // In this order: who is woken finds it.
            flag::register(signal, received.clone())?;
            low_level::pipe::register(signal, waker.writer()?)?;
            signals.push((received, wish));
        }
        Ok(SignalFlags(signals))
    }

    /// What was wanted since this was last asked.
    pub fn take(&self) -> Option<SignalAction> {
        let received = self.0.iter().find(|(flag, _)| flag.swap(false, Ordering::SeqCst));
        received.map(|(_, wish)| *wish)
    }
}
