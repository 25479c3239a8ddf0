//! `hbc metrics`: what this machine says about itself, once, for the operator to look at.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::collect::{self, Collector};
use super::own;
use crate::clock::Now;
use crate::thread::Stop;

/// How long after the first reading the second one is taken: rates need two.
const BETWEEN: Duration = Duration::from_millis(1100);

/// Lines `PATH VALUE` in order of the paths; of the machine, and of the programs in `directory`.
pub fn metrics(directory: PathBuf) -> String {
    let (_stopper, stop) = Stop::channel();
    let begin = Instant::now();
    let mut collector = Collector::new(&collect::Settings::default());
    collector.collect(Now::read());
    let own = own::once(&own::Settings { directory, ..own::Settings::default() }, &stop);
    stop.wait(BETWEEN.saturating_sub(begin.elapsed()));
    let mut metrics: BTreeMap<String, f64> = collector.collect(Now::read()).into_iter().collect();
    metrics.extend(own);
    let mut lines = String::new();
    for (path, value) in metrics {
        let _ = writeln!(lines, "{path} {value}");
    }
    lines
}
