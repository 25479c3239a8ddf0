//! The Alertmanager that is asked for its alerts, as the configuration in use names it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::error;

use super::house::Rooms;
use super::{Failure, spawn};
use crate::backup::alert::Alert;
use crate::backup::poll;
use crate::config::Config;
use crate::http::settings::ReceiverSettings;
use crate::store::ChangeSink;
use crate::thread::{Stop, StopSource};

/// Asks, where there is somebody to ask.
pub struct Polling {
    running: Option<Running>,
    sink: ChangeSink,
    /// People were told that there is no answer.
    told: Arc<AtomicBool>,
}

struct Running {
    receiver: (String, std::time::Duration),
    _stopper: StopSource,
}

impl Polling {
    /// Begins to ask; `told` says that people were told before the start that there is no answer.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        config: &Config,
        told: bool,
        rooms: &Arc<Rooms>,
        sink: ChangeSink,
    ) -> Result<Polling, Failure> {
        let mut polling = Polling { running: None, sink, told: Arc::new(AtomicBool::new(told)) };
        polling.turn_to(&config.receiver, rooms)?;
        Ok(polling)
    }

    /// Asks whom a new configuration names, and how often it says.
    pub fn follow(&mut self, config: &Config, rooms: &Arc<Rooms>) {
        if let Err(why) = self.turn_to(&config.receiver, rooms) {
            error!("{why}");
        }
    }

    fn turn_to(&mut self, receiver: &ReceiverSettings, rooms: &Arc<Rooms>) -> Result<(), Failure> {
        let Some(url) = receiver.poll_url.clone() else {
            self.running = None;
            if self.told.swap(false, Ordering::Relaxed) {
                poll::abandon(&self.sink);
            }
            return Ok(());
        };
        let wanted = (url, receiver.poll_interval);
        if self.running.as_ref().is_some_and(|running| running.receiver == wanted) {
            return Ok(());
        }
        self.running = None;
        let (stopper, stop) = Stop::channel();
        let told = Arc::clone(&self.told);
        let settings = poll::Settings { url: wanted.0.clone(), interval: wanted.1, told };
        let (rooms, sink) = (Arc::clone(rooms), Arc::clone(&self.sink));
        spawn("poll", move || {
            let names = || rooms.signs().names().to_vec();
            let beat = |alerts: &[Alert]| rooms.signs().beat(alerts, &rooms.watch);
            let signs = poll::Signs { names: &names, beat: &beat };
            poll::poll(&settings, &rooms.pipelines, signs, &sink, &stop);
        })?;
        self.running = Some(Running { receiver: wanted, _stopper: stopper });
        Ok(())
    }
}
