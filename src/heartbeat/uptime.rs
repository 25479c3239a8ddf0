//! Availability accounting: how long a configured host was up, degraded and down, and what its metrics
//! were, since the history took its last sample. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Mono;
use crate::heartbeat::blindness::BlindPeriod;
use crate::view::{MetricSummary, UptimeSample};

/// How much longer than the time since the last one a sample may be: it is taken up to this long after
/// the moment that it is about.
const MAX_EXCESS: Duration = Duration::from_secs(30);

/// What the time of a host counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UptimeStatus {
    /// All is well.
    Up,
    /// It is up, but a connection is overdue or a metric beyond its limit.
    Degraded,
    /// It is overdue.
    Down,
    /// It was never seen or was shut down.
    NotExpected,
}

/// The availability of a host since the last sample.
#[derive(Clone, Debug)]
pub struct UptimeCounter {
    status: UptimeStatus,
    /// Up to when time was counted.
    counted_until: Mono,
    /// When the last sample was taken.
    sample_started: Mono,
    up: Duration,
    degraded: Duration,
    down: Duration,
}

impl UptimeCounter {
    /// A counter that starts now.
    pub fn new(status: UptimeStatus, now: Mono) -> UptimeCounter {
        let zero = Duration::ZERO;
        UptimeCounter {
            status,
            counted_until: now,
            sample_started: now,
            up: zero,
            degraded: zero,
            down: zero,
        }
    }

    /// Counts time under `status` from now on. In `blind` periods nothing could be received.
    pub fn set_status(&mut self, status: UptimeStatus, now: Mono, blind: &[BlindPeriod]) {
        self.accumulate(now, blind);
        self.status = status;
    }

    fn accumulate(&mut self, now: Mono, blind: &[BlindPeriod]) {
        let passed = listening_time(self.counted_until, now, blind);
        self.counted_until = self.counted_until.max(now);
        match self.status {
            UptimeStatus::Up => self.up += passed,
            UptimeStatus::Degraded => self.degraded += passed,
            UptimeStatus::Down => self.down += passed,
            UptimeStatus::NotExpected => {}
        }
    }

    /// The times since the last sample until `now`, in whole seconds; the rest counts in the next one.
    ///
    /// When the machine slept, a beat may have been received before that was noticed, and have ended
    /// what seemed to last as long as the sleep: a sample is hardly longer than there was time to
    /// listen. `now` may be a moment ago, and what was counted since is in the sample already.
    pub fn take_sample(&mut self, now: Mono, blind: &[BlindPeriod]) -> UptimeSample {
        self.accumulate(now, blind);
        let room = listening_time(self.sample_started, now, blind) + MAX_EXCESS;
        self.sample_started = self.sample_started.max(now);
        let mut excess = (self.up + self.degraded + self.down).saturating_sub(room);
        for spent in [&mut self.down, &mut self.degraded, &mut self.up] {
            let cut = excess.min(*spent);
            *spent -= cut;
            excess -= cut;
        }
        let whole = |spent: &mut Duration| {
            let seconds = Duration::from_secs(spent.as_secs());
            *spent -= seconds;
            seconds
        };
        UptimeSample {
            not_expected: self.status == UptimeStatus::NotExpected,
            up: whole(&mut self.up),
            degraded: whole(&mut self.degraded),
            down: whole(&mut self.down),
            ..UptimeSample::default()
        }
    }
}

/// How long the daemon listened from one moment to another.
fn listening_time(from: Mono, to: Mono, blind: &[BlindPeriod]) -> Duration {
    let blind = blind.iter().map(|period| period.to.min(to).since(period.from.max(from)));
    to.since(from).saturating_sub(blind.sum())
}

/// The values of a metric since the last sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricAccumulator {
    count: u32,
    sum: f64,
    min: f32,
    max: f32,
}

impl MetricAccumulator {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        #[allow(clippy::cast_possible_truncation, reason = "it is clamped to what f32 holds")]
        let value = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.count = self.count.saturating_add(1);
        self.sum += f64::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Their summary, and none from then on; none when there were none.
    pub fn take_summary(&mut self, path: &Arc<str>) -> Option<MetricSummary> {
        let MetricAccumulator { count, sum, min: least, max: most } = std::mem::take(self);
        #[allow(clippy::cast_possible_truncation, reason = "a mean of f32 is one")]
        let mean = (sum / f64::from(count.max(1))) as f32;
        (count > 0).then(|| MetricSummary { path: path.clone(), count, mean, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::test_fleet::{DAY, HOUR, MINUTE, SECOND, TestFleet};

    fn seconds(sample: &UptimeSample) -> (u64, u64, u64) {
        (sample.up.as_secs(), sample.degraded.as_secs(), sample.down.as_secs())
    }

    /// The next sample of web1.
    fn sample(test: &mut TestFleet) -> UptimeSample {
        let (now, mut all) = (test.now, test.fleet.take_samples(0, 100, test.now));
        assert_eq!(all.len(), 1, "at {now:?}");
        all.remove(0)
    }

    #[test]
    fn a_day_adds_up_whatever_happens() {
        let mut test = TestFleet::new();
        test.beat("web1");
        for _ in 0..60 {
            test.wait(10 * SECOND).beat("web1");
        }
        assert_eq!(seconds(&sample(&mut test)), (600, 0, 0));
        test.wait(HOUR).beat("web1");
        assert_eq!(seconds(&sample(&mut test)), (40, 0, 3560), "overdue after interval and grace");
        test.beat_over("web1", "vpn").wait(10 * SECOND).beat("web1").wait(35 * SECOND);
        test.beat("web1").wait(10 * SECOND);
        assert_eq!(seconds(&sample(&mut test)), (40, 15, 0), "a connection was overdue");
        test.ingest(r#"{"host":"web1","event":"shutdown"}"#).wait(HOUR);
        let told = sample(&mut test);
        assert_eq!((seconds(&told), told.not_expected), ((0, 0, 3600), false), "its vpn is missed");
    }

    #[test]
    fn a_host_that_was_shut_down_or_never_seen_is_not_down() {
        let mut test = TestFleet::new();
        test.wait(DAY);
        let told = sample(&mut test);
        assert_eq!((seconds(&told), told.not_expected), ((0, 0, 0), true));
        test.beat("web1").wait(5 * SECOND);
        test.ingest(r#"{"host":"web1","event":"shutdown"}"#).wait(DAY);
        let told = sample(&mut test);
        assert_eq!((seconds(&told), told.not_expected), ((5, 0, 0), true));
    }

    #[test]
    fn a_metric_beyond_its_limit_degrades_its_host() {
        let limit = |text: &str| Some(text.parse().unwrap());
        let rule =
            crate::heartbeat::threshold::Rule { warning: limit("> 80"), ..Default::default() };
        let mut test = TestFleet::with_threshold("m", rule);
        test.sample(10.0).wait(10 * SECOND).sample(90.0).wait(7 * SECOND).sample(10.0);
        let told = sample(&mut test);
        assert_eq!(seconds(&told), (10, 7, 0));
        let [reading] = &told.metrics[..] else { panic!("{told:?}") };
        assert_eq!((&*reading.path, reading.count), ("m", 3));
        assert!((reading.mean - 36.666_668).abs() < 1e-4, "{reading:?}");
        assert_eq!((reading.least, reading.most), (10.0, 90.0));
        assert!(sample(&mut test).metrics.is_empty(), "each value is told once");
    }

    #[test]
    fn blind_time_is_nobodys_fault() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(10 * SECOND).sleep(2 * HOUR);
        let spans = test.fleet.take_blind_periods(test.now);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].1.since(spans[0].0), 2 * HOUR);
        assert!(test.fleet.take_blind_periods(test.now).is_empty(), "each is told once");
        test.beat("web1").wait(10 * SECOND);
        assert_eq!(seconds(&sample(&mut test)), (20, 0, 0));
        test.restart_after(HOUR).beat("web1").wait(5 * SECOND);
        assert_eq!(seconds(&sample(&mut test)), (5, 0, 0));
        assert_eq!(test.fleet.take_blind_periods(test.now)[0].1, test.now.wall - 5 * SECOND);
    }

    #[test]
    fn a_beat_that_came_before_the_sleep_was_noticed_did_count_it_as_down() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(MINUTE);
        let stop = test.now.mono;
        test.now = test.now.later(5 * HOUR);
        test.beat("web1");
        test.fleet.record_blindness(stop, test.now.mono);
        test.wait(10 * SECOND);
        let (up, degraded, down) = seconds(&sample(&mut test));
        assert_eq!((up, degraded), (50, 0));
        assert!(down <= 51, "{down}");
    }

    proptest::proptest! {
        #[test]
        fn no_moment_is_told_twice_and_none_is_left_out(
            steps in proptest::collection::vec((0..6u8, 1..9000u64), 1..60)
        ) {
            let mut test = TestFleet::new();
            test.beat("web1");
            let begun = test.now.mono;
            let (mut told, mut unseen) = (Duration::ZERO, Duration::ZERO);
            for (step, seconds) in steps {
                let time = Duration::from_secs(seconds);
                match step {
                    0 => drop(test.beat("web1")),
                    1 => drop(test.beat_over("web1", "vpn")),
                    2 => drop(test.sleep(time)),
                    3 => {
                        let sample = sample(&mut test);
                        told += sample.up + sample.degraded + sample.down;
                    }
                    _ => drop(test.wait(time)),
                }
                for (from, to) in test.fleet.take_blind_periods(test.now) {
                    unseen += to.since(from);
                }
            }
            let sample = sample(&mut test);
            told += sample.up + sample.degraded + sample.down;
            let passed = test.now.mono.since(begun);
            let second = Duration::from_secs(1);
            proptest::prop_assert!(told + unseen <= passed, "{told:?} {unseen:?} {passed:?}");
            proptest::prop_assert!(told + unseen + 3 * second > passed, "{told:?} {unseen:?} {passed:?}");
        }
    }

    #[test]
    fn unknown_hosts_have_no_uptime_counter() {
        let mut config = crate::heartbeat::test_fleet::config();
        config.settings.unknown_hosts = crate::heartbeat::settings::UnknownHosts::Accept;
        let mut test = TestFleet::with(config);
        test.beat("stranger").beat("web1").wait(SECOND);
        let samples = test.fleet.take_samples(0, 100, test.now);
        let names: Vec<_> = samples.iter().map(|sample| &*sample.host).collect();
        assert_eq!(names, ["web1"]);
        assert!(test.fleet.peek_sample("stranger", test.now).is_none());
        assert!(test.fleet.peek_sample("web1", test.now).is_some());
    }
}
