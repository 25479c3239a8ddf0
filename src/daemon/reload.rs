//! Requests for a reload of the configuration, and the result of the last one.
//!
//! The main thread reloads when it receives SIGHUP. A request over HTTP is queued here, raises SIGHUP
//! and waits for the result.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, info, warn};
use signal_hook::consts::SIGHUP;
use signal_hook::low_level::raise;

use super::config_error;
use crate::clock::{Now, Wall};
use crate::config::Config;
use crate::http::ReloadResult;
use crate::problem::Problems;
use crate::systemd;
use crate::thread::lock;

/// How long a request waits for the result. The HTTP server gives up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(25);

/// The requests that wait for a reload, and the result of the last one.
#[derive(Debug)]
pub struct Reloads {
    /// None when nothing is reloaded any more.
    requests: Mutex<Option<Vec<Sender<ReloadResult>>>>,
    refused: AtomicBool,
    /// When the configuration in use was loaded, in milliseconds of the wall clock.
    loaded: AtomicI64,
    /// When the certificate in use expires, likewise; zero without one.
    expiry: AtomicI64,
}

impl Reloads {
    /// With a configuration that was loaded now.
    pub fn new(config: &Config, now: Now) -> Reloads {
        Reloads {
            requests: Mutex::new(Some(Vec::new())),
            refused: AtomicBool::new(false),
            loaded: AtomicI64::new(now.wall.0),
            expiry: AtomicI64::new(expiry(config)),
        }
    }

    /// Until when the certificate in use is valid.
    pub fn certificate_expiry(&self) -> Option<Wall> {
        Some(self.expiry.load(Ordering::Relaxed)).filter(|expiry| *expiry != 0).map(Wall)
    }

    /// Has the main thread reload the configuration and waits for the result. Requests that wait at
    /// the same time share one reload.
    pub fn request(&self) -> ReloadResult {
        const STOPPING: &str = "hbd is stopping";
        match self.enqueue().map(|result| result.recv_timeout(TIMEOUT)) {
            Some(Ok(reloaded)) => reloaded,
            Some(Err(why)) if why.is_timeout() => {
                ReloadResult::NotTried("it takes long and goes on: see the log".into())
            }
            Some(Err(_)) | None => ReloadResult::NotTried(STOPPING.into()),
        }
    }

    fn enqueue(&self) -> Option<Receiver<ReloadResult>> {
        let (tx, rx) = bounded(1);
        lock(&self.requests).as_mut()?.push(tx);
        // Only now: a reload that has begun may have read an older version of the file.
        if let Err(why) = raise(SIGHUP) {
            warn!("the main thread cannot be woken: {why}");
            return None;
        }
        Some(rx)
    }

    /// Ends the wait of all requests; from now on none is accepted.
    pub fn close(&self) {
        *lock(&self.requests) = None;
    }

    /// This configuration is the one in use, since now.
    pub fn record_applied(&self, config: &Config, now: Now) {
        self.refused.store(false, Ordering::Relaxed);
        self.loaded.store(now.wall.0, Ordering::Relaxed);
        self.expiry.store(expiry(config), Ordering::Relaxed);
    }

    /// Whether the last reload was refused.
    pub fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// When the configuration in use was loaded, in milliseconds of the wall clock.
    pub fn loaded(&self) -> i64 {
        self.loaded.load(Ordering::Relaxed)
    }

    /// Reloads, and answers the requests that wait for it.
    pub fn serve(&self, reload: impl FnOnce() -> Result<(Vec<String>, Problems), Problems>) {
        systemd::notify_reloading();
        let requests = lock(&self.requests).as_mut().map(std::mem::take).unwrap_or_default();
        let result = self.conclude(reload());
        for request in requests {
            // Fails when the request no longer waits.
            let _ = request.try_send(result.clone());
        }
        systemd::notify("READY=1");
    }

    /// Logs what came of a reload: what changed, and the warnings; or all that was in the way.
    pub fn conclude(&self, result: Result<(Vec<String>, Problems), Problems>) -> ReloadResult {
        match result {
            Ok((changes, warnings)) => {
                let list = if changes.is_empty() { "no change".into() } else { changes.join("; ") };
                info!("the configuration was reloaded: {list}");
                ReloadResult::Applied { changes, warnings }
            }
            Err(problems) => {
                problems.0.iter().for_each(|problem| error!("{problem}"));
                error!("the configuration was not reloaded: the old one stays");
                self.refused.store(true, Ordering::Relaxed);
                ReloadResult::Refused(problems)
            }
        }
    }
}

/// What a reload cannot change.
///
/// # Errors
/// The key, and what to do.
pub fn check_fixed(old: &Config, new: &Config) -> Result<(), Problems> {
    let refused = |key, what| Err(Problems(vec![config_error(new, (key, what))]));
    if new.state_dir != old.state_dir {
        let (from, to) = (old.state_dir.display(), new.state_dir.display());
        let what = format!(
            "cannot move from {from} to {to} while hbd runs: set it back, or stop hbd, move the directory, and start it"
        );
        return refused("state_dir", what);
    }
    if new.cluster != old.cluster {
        let what = "is read only when hbd starts: restart it (systemctl restart hbd)";
        return refused("cluster", what.into());
    }
    Ok(())
}

fn expiry(config: &Config) -> i64 {
    config.receiver.tls.as_ref().map_or(0, |tls| tls.certificate.not_after().0)
}
