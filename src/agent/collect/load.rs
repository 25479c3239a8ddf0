//! Load and uptime, from `/proc/loadavg` and `/proc/uptime` (proc_loadavg(5), proc_uptime(5)). Pure.

use super::cpu;
use crate::agent::name::hundredths;

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

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu1 1 2 3 4\n";

    fn shown(metrics: &[(String, f64)]) -> String {
        metrics.iter().map(|(name, value)| format!("{name}={value} ")).collect()
    }

    #[test]
    fn the_load_is_divided_by_the_processors() {
        let metrics = load("1.03 1.10 1.44 1/97 5381\n", TWO);
        assert_eq!(shown(&metrics), "load1=1.03 load5=1.1 load15=1.44 per_core=0.52 ");
        assert_eq!(
            shown(&load("1.03 1.10 1.44 1/97 5381\n", "")),
            "load1=1.03 load5=1.1 load15=1.44 "
        );
    }

    #[test]
    fn junk_is_left_out() {
        for junk in ["", "x 1 2", "\n"] {
            assert_eq!(shown(&load(junk, TWO)), "");
        }
        assert_eq!(shown(&load("1.5 x 2", TWO)), "load1=1.5 per_core=0.75 ");
    }

    #[test]
    fn the_uptime_is_the_first_number() {
        assert_eq!(shown(&uptime("11527.84 9452.71\n")), "seconds=11527.84 ");
        assert_eq!(shown(&uptime("")), "");
        assert_eq!(shown(&uptime("long ago")), "");
    }
}
