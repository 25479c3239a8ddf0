//! Collects metrics in a thread of its own, so that a disk that hangs does not delay a beat; and once
//! for `hbc metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{info, warn};

use super::collect::{CollectSettings, Collector};
use super::plugins::{self, PluginSettings, Plugins};
use super::poll::Waker;
use super::settings::AgentSettings;
use crate::clock::{Mono, Now, words};
use crate::thread::{AbortOnPanic, Stop};

/// Gives the metrics of this machine, ordered by path; called before every beat.
pub type CollectFn = Box<dyn FnMut(Now) -> Vec<(String, f64)> + Send>;

/// What `settings` ask for: the machine's own figures, and over them those of the operator's
/// programs.
pub fn of_this_machine(settings: &AgentSettings) -> CollectFn {
    let mut collector = Collector::new(&settings.metrics);
    let (stopper, stop) = Stop::channel();
    let directory = settings.metrics_dir.clone();
    let own = Plugins::start(&PluginSettings { directory, ..PluginSettings::default() }, stop);
    if let Err(why) = &own {
        warn!("own metrics are left out: no thread can be started: {why}");
    }
    Box::new(move |now| {
        // The programs stop with whoever asks for them.
        let _lives = &stopper;
        let mut metrics: BTreeMap<String, f64> = collector.collect(now).into_iter().collect();
        if let Ok(own) = &own {
            metrics.extend(own.latest(now));
        }
        metrics.into_iter().collect()
    })
}

/// So many metrics does hbd keep of a host.
const MOST: usize = 512;
/// Metrics that take longer are worth a line in the log.
const SLOW: Duration = Duration::from_secs(60);

/// The collecting thread.
#[derive(Debug)]
pub struct Sampler {
    asks: Sender<Now>,
    given: Receiver<Vec<(String, f64)>>,
    /// Since when it is at it.
    since: Option<Mono>,
    slow: bool,
    many: bool,
}

impl Sampler {
    /// Starts it. What it gives is announced by `waker`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut collect: CollectFn, waker: Waker) -> Result<Sampler, String> {
        let (asks, asked) = bounded::<Now>(1);
        let (give, given) = bounded(1);
        thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                let _vital = AbortOnPanic;
                for now in asked {
                    if give.send(collect(now)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })
            .map_err(|why| format!("no thread can be started: {why}"))?;
        Ok(Sampler { asks, given, since: None, slow: false, many: false })
    }

    /// Wants metrics, unless they are being collected already.
    pub fn ask(&mut self, now: Now) {
        match self.since {
            None => {
                if self.asks.try_send(now).is_ok() {
                    self.since = Some(now.mono);
                }
            }
            Some(since) if !self.slow && now.mono.since(since) > SLOW => {
                self.slow = true;
                warn!("metrics take more than {}: beats go without them", words(SLOW));
            }
            Some(_) => {}
        }
    }

    /// The metrics that were asked for, as soon as they are there.
    pub fn take(&mut self) -> Option<Vec<(String, f64)>> {
        let metrics = self.given.try_recv().ok()?;
        self.since = None;
        if std::mem::take(&mut self.slow) {
            info!("metrics are there again");
        }
        if metrics.len() > MOST && !std::mem::replace(&mut self.many, true) {
            warn!("{} metrics are collected, and hbd keeps {MOST} of a host", metrics.len());
        }
        Some(metrics)
    }
}

/// How long after the first reading the second one is taken: rates need two.
const BETWEEN: Duration = Duration::from_millis(1100);

/// Lines `PATH VALUE` in order of the paths; of the machine, and of the programs in `directory`.
pub fn metrics(directory: PathBuf) -> String {
    let (_stopper, stop) = Stop::channel();
    let begin = Instant::now();
    let mut collector = Collector::new(&CollectSettings::default());
    collector.collect(Now::read());
    let own = plugins::once(&PluginSettings { directory, ..PluginSettings::default() }, &stop);
    stop.wait(BETWEEN.saturating_sub(begin.elapsed()));
    let mut metrics: BTreeMap<String, f64> = collector.collect(Now::read()).into_iter().collect();
    metrics.extend(own);
    let mut lines = String::new();
    for (path, value) in metrics {
        let _ = writeln!(lines, "{path} {value}");
    }
    lines
}
