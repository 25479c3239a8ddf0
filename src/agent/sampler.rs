//! Collects metrics in a thread of its own, so that a disk that hangs does not delay a beat; and once
//! for `hbc metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{info, warn};

use super::collect::{CollectSettings, Collector, Sample};
use super::plugins::{self, PluginSettings, Plugins};
use super::poll::Waker;
use super::settings::AgentSettings;
use crate::clock::{Mono, Now, format_duration};
use crate::descriptors;
use crate::thread::{DEFAULT_STACK, Stop, spawn_critical};

/// hbd keeps this number of metrics of one host.
const MAX_METRICS: usize = 512;
/// Metrics that take longer to collect are worth a line in the log.
const REPORT_AFTER: Duration = Duration::from_secs(60);
/// The time between the two readings of `hbc metrics`: a rate needs two.
const RATE_INTERVAL: Duration = Duration::from_millis(1100);

/// Gives the metrics of this machine and their texts; called before every beat.
pub type CollectFn = Box<dyn FnMut(Now) -> Sample + Send>;

/// What collects as `settings` say: the machine's own metrics, and over them those of the plugins.
pub fn collect_fn(settings: &AgentSettings) -> CollectFn {
    let mut collector = Collector::for_service(&settings.metrics);
    let (source, stop) = Stop::channel();
    let directory = settings.metrics_dir.clone();
    let plugins = Plugins::start(&PluginSettings { directory, ..PluginSettings::default() }, stop);
    if let Err(why) = &plugins {
        warn!("own metrics are left out: no thread can be started: {why}");
    }
    Box::new(move |now| {
        // The plugins stop when this function is dropped.
        let _source = &source;
        let mut metrics: BTreeMap<String, f64> = collector.collect(now).into_iter().collect();
        let mut texts = collector.texts(now);
        if let Ok(plugins) = &plugins {
            metrics.extend(plugins.latest(now));
            texts.extend(plugins.texts(now));
        }
        Sample { metrics: metrics.into_iter().collect(), texts }
    })
}

/// The thread that collects.
#[derive(Debug)]
pub struct Sampler {
    requests: Sender<Now>,
    samples: Receiver<Sample>,
    /// When the present request was made.
    requested: Option<Mono>,
    slow_reported: bool,
    excess_reported: bool,
}

impl Sampler {
    /// Starts the thread, which wakes `waker` whenever there is a sample.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut collect: CollectFn, waker: Waker) -> Result<Sampler, String> {
        let (requests, requested) = bounded::<Now>(1);
        let (collected, samples) = bounded(1);
        let sample = move || {
            for now in requested {
                if collected.send(collect(now)).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        spawn_critical("metrics", DEFAULT_STACK, sample)
            .map_err(|why| format!("no thread can be started: {why}"))?;
        let (slow_reported, excess_reported) = (false, false);
        Ok(Sampler { requests, samples, requested: None, slow_reported, excess_reported })
    }

    /// Requests a sample, unless one is being collected already.
    pub fn request(&mut self, now: Now) {
        match self.requested {
            None => {
                if self.requests.try_send(now).is_ok() {
                    self.requested = Some(now.mono);
                }
            }
            Some(since) if !self.slow_reported && now.mono.since(since) > REPORT_AFTER => {
                self.slow_reported = true;
                warn!(
                    "metrics take more than {}: beats go without them",
                    format_duration(REPORT_AFTER)
                );
            }
            Some(_) => {}
        }
    }

    /// The sample that was requested, as soon as it is there.
    pub fn take_sample(&mut self) -> Option<Sample> {
        let sample = self.samples.try_recv().ok()?;
        self.requested = None;
        if std::mem::take(&mut self.slow_reported) {
            info!("metrics are there again");
        }
        let count = sample.metrics.len();
        if count > MAX_METRICS && !std::mem::replace(&mut self.excess_reported, true) {
            warn!("{count} metrics are collected, and hbd keeps {MAX_METRICS} of a host");
        }
        Some(sample)
    }
}

/// `hbc metrics`: lines `PATH VALUE` in order of the paths, of the machine and of the plugins in
/// `directory`, collected once.
pub fn sample_once(directory: PathBuf) -> String {
    descriptors::close_inherited_on_exec();
    let (_source, stop) = Stop::channel();
    let start = Instant::now();
    let mut collector = Collector::new(&CollectSettings::default());
    collector.collect(Now::read());
    let settings = PluginSettings { directory, ..PluginSettings::default() };
    let of_plugins = plugins::run_once(&settings, &stop);
    stop.wait(RATE_INTERVAL.saturating_sub(start.elapsed()));
    let mut metrics: BTreeMap<String, f64> = collector.collect(Now::read()).into_iter().collect();
    metrics.extend(of_plugins);
    let mut lines = String::new();
    for (path, value) in metrics {
        let _ = writeln!(lines, "{path} {value}");
    }
    lines
}
