//! Load and uptime, from `/proc/loadavg` and `/proc/uptime` (proc_loadavg(5), proc_uptime(5)). Pure.

use super::cpu;
use super::name::hundredths;

/// The load averages over 1, 5 and 15 minutes, and that over one minute for each processor.
///
/// One minute, because the limits of hbd ask for a minute beyond them already.
pub fn load(loadavg: &str, stat: &str) -> Vec<(String, f64)> {
    let averages: Vec<f64> =
        loadavg.split_ascii_whitespace().map_while(|field| field.parse().ok()).take(3).collect();
    let names = ["load1", "load5", "load15"];
    let mut metrics: Vec<(String, f64)> =
        names.iter().map(|name| (*name).to_owned()).zip(averages.iter().copied()).collect();
    if let (Some(load), processors @ 1..) = (averages.first(), cpu::count(stat)) {
        metrics.push(("per_core".to_owned(), hundredths(load / processors as f64)));
    }
    metrics
}

/// Seconds since the boot; in a container since its start, where that is virtualised.
pub fn uptime(uptime: &str) -> Vec<(String, f64)> {
    let seconds = uptime.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
    seconds.map(|seconds: f64| ("seconds".to_owned(), seconds)).into_iter().collect()
}
