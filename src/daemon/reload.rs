//! The configuration is read again: all of it is taken up, or nothing.
//!
//! The main thread does it, one after the other, whoever asks: SIGHUP, or a request that raises
//! SIGHUP and waits for what becomes of it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, info, warn};
use signal_hook::consts::SIGHUP;
use signal_hook::low_level::raise;

use super::changes::changes;
use super::equip::{equipment, pipeline, rules};
use super::ports::{Ports, access};
use super::signs::Signs;
use super::{Daemon, signal_check};
use crate::clock::{Now, Wall};
use crate::config::Config;
use crate::http::ReloadResult;
use crate::notify::courier::Order;
use crate::notify::direct::Notifier;
use crate::problem::{Problem, Problems, Severity};
use crate::systemd;

/// How long a request waits. The HTTP front gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// Who waits for a reload, and how the last one ended.
#[derive(Debug)]
pub struct Reloads {
    /// None when nothing is reloaded any more.
    waiting: Mutex<Option<Vec<Sender<ReloadResult>>>>,
    refused: AtomicBool,
    /// Milliseconds of the wall clock.
    loaded: AtomicI64,
    /// Likewise, of the certificate in use; zero without one.
    expiry: AtomicI64,
}

impl Reloads {
    /// This configuration was loaded now.
    pub fn new(config: &Config, now: Now) -> Reloads {
        Reloads {
            waiting: Mutex::new(Some(Vec::new())),
            refused: AtomicBool::new(false),
            loaded: AtomicI64::new(now.wall.0),
            expiry: AtomicI64::new(expiry(config)),
        }
    }

    /// Until when the certificate in use is valid.
    pub fn certificate_expiry(&self) -> Option<Wall> {
        Some(self.expiry.load(Ordering::Relaxed)).filter(|expiry| *expiry != 0).map(Wall)
    }

    /// Asks the main thread for a reload and waits for it. Those who ask at the same time share one.
    pub fn ask(&self) -> ReloadResult {
        const STOPPING: &str = "hbd is stopping";
        match self.enlist().map(|answer| answer.recv_timeout(PATIENCE)) {
            Some(Ok(reloaded)) => reloaded,
            Some(Err(why)) if why.is_timeout() => {
                ReloadResult::NotTried("it takes long and goes on: see the log".into())
            }
            Some(Err(_)) | None => ReloadResult::NotTried(STOPPING.into()),
        }
    }

    fn enlist(&self) -> Option<Receiver<ReloadResult>> {
        let (tx, rx) = bounded(1);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.push(tx);
        // Only now: a reload that has begun has not seen the file as it is.
        if let Err(why) = raise(SIGHUP) {
            warn!("the main thread cannot be woken: {why}");
            return None;
        }
        Some(rx)
    }

    /// Nothing is reloaded any more; who waits is told so.
    pub fn close(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The last reload was refused.
    pub fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// When the configuration in use was loaded, in milliseconds of the wall clock.
    pub fn loaded(&self) -> i64 {
        self.loaded.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<Sender<ReloadResult>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

fn expiry(config: &Config) -> i64 {
    config.receiver.tls.as_ref().map_or(0, |tls| tls.certificate.not_after().0)
}

impl Daemon {
    /// Takes over what the configuration file says now; what cannot be taken over changes nothing.
    pub fn reload(&mut self) {
        systemd::reloading();
        let asked = self.rooms.reloads.take();
        let reloaded = match self.take_up() {
            Ok((changes, warnings)) => {
                self.rooms.reloads.refused.store(false, Ordering::Relaxed);
                self.rooms.reloads.loaded.store(Now::read().wall.0, Ordering::Relaxed);
                let said = if changes.is_empty() { "no change".into() } else { changes.join("; ") };
                info!("the configuration was reloaded: {said}");
                ReloadResult::Applied { changes, warnings }
            }
            Err(problems) => {
                problems.0.iter().for_each(|problem| error!("{problem}"));
                error!("the configuration was not reloaded: the old one stays");
                self.rooms.reloads.refused.store(true, Ordering::Relaxed);
                ReloadResult::Refused(problems)
            }
        };
        for answer in asked {
            // Who no longer waits for it does not get it.
            let _ = answer.try_send(reloaded.clone());
        }
        systemd::tell("READY=1");
    }

    /// What is different, and the warnings; or all that is in the way.
    fn take_up(&mut self) -> Result<(Vec<String>, Problems), Problems> {
        let config = Config::load(&self.config.file)?;
        let refused = |(path, what): (&str, String)| {
            let file = config.file.display().to_string();
            let (severity, path) = (Severity::Error, path.to_owned());
            Problems(vec![Problem { severity, file, line: None, path, what }])
        };
        if config.state_dir != self.config.state_dir {
            let (old, new) = (self.config.state_dir.display(), config.state_dir.display());
            let what = format!(
                "cannot move from {old} to {new} while hbd runs: set it back, or stop hbd, move the directory, and start it"
            );
            return Err(refused(("state_dir", what)));
        }
        let ports = Ports::open(&self.config, &config, &self.ear, &self.web).map_err(refused)?;
        for problem in &config.warnings.0 {
            warn!("{problem}");
        }
        let changes = changes(&self.config, &config);
        // In this order: what the new rules find must go by the new routes.
        self.rooms.courier.order(Order::Reconfigure(equipment(&config)));
        signal_check::begin(&config);
        self.rooms.keeper.reconfigure(config.dyndns.clone());
        self.rooms.watch.reconfigure(rules(&config));
        if let Err(why) = self.agent.reconfigure(config.agent.as_ref()) {
            error!("this machine is not watched: {why}");
        }
        self.rooms.pipelines.reconfigure(pipeline(&config));
        self.rooms.chronicle.reconfigure(config.history.clone());
        self.rooms.replace_signs(Signs::of(&config));
        self.rooms.replace_notifier(Notifier::new(&config));
        self.web.set_credentials(access(&config));
        self.polling.follow(&config, &self.rooms);
        let moved = ports.take(&mut self.ear, &mut self.web);
        let warnings = config.warnings.clone();
        if let Err(why) = moved {
            // Threads are short: what is in use is not what the file says, and that is told.
            error!("{why}");
            return Err(refused(("", why.to_string())));
        }
        self.rooms.reloads.expiry.store(expiry(&config), Ordering::Relaxed);
        self.config = config;
        Ok((changes, warnings))
    }
}
