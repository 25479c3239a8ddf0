//! How long a configured host was up, degraded and down, and what its metrics were, kept until the
//! history takes it. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Mono;
use crate::heartbeat::connection::Period;
use crate::view::{MetricSummary, UptimeSample};

/// What an account may be too long by: it is taken so much after the moment that it is about.
const SLACK: Duration = Duration::from_secs(30);

/// How a host fares at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All is well.
    Up,
    /// It is up, but a connection is overdue or a metric beyond its limit.
    Degraded,
    /// It is overdue.
    Down,
    /// It was never heard or has said goodbye: nobody misses it.
    Apart,
}

/// How a host fared since the last account.
#[derive(Clone, Debug)]
pub struct Diary {
    condition: Condition,
    /// When the condition was last reckoned with.
    from: Mono,
    /// When the last account was given.
    begun: Mono,
    up: Duration,
    degraded: Duration,
    down: Duration,
}

impl Diary {
    /// A diary that begins now.
    pub fn begin(condition: Condition, now: Mono) -> Diary {
        let zero = Duration::ZERO;
        Diary { condition, from: now, begun: now, up: zero, degraded: zero, down: zero }
    }

    /// The condition from now on. `blind` are the periods in which nothing could be heard.
    pub fn turn(&mut self, condition: Condition, now: Mono, blind: &[Period]) {
        self.reckon(now, blind);
        self.condition = condition;
    }

    fn reckon(&mut self, now: Mono, blind: &[Period]) {
        let passed = listened(self.from, now, blind);
        self.from = self.from.max(now);
        match self.condition {
            Condition::Up => self.up += passed,
            Condition::Degraded => self.degraded += passed,
            Condition::Down => self.down += passed,
            Condition::Apart => {}
        }
    }

    /// What there is to tell until `now`, in whole seconds; the rest is told the next time.
    ///
    /// When the machine slept, a beat may have been heard before that was noticed, and have ended
    /// what seemed to last as long as the sleep: hardly more is told than there was time to listen.
    /// `now` may be a moment ago, and what came since is told already then.
    pub fn close(&mut self, now: Mono, blind: &[Period]) -> UptimeSample {
        self.reckon(now, blind);
        let room = listened(self.begun, now, blind) + SLACK;
        self.begun = self.begun.max(now);
        let mut excess = (self.up + self.degraded + self.down).saturating_sub(room);
        for spent in [&mut self.down, &mut self.degraded, &mut self.up] {
            let cut = excess.min(*spent);
            *spent -= cut;
            excess -= cut;
        }
        let whole = |spent: &mut Duration| {
            let told = Duration::from_secs(spent.as_secs());
            *spent -= told;
            told
        };
        UptimeSample {
            apart: self.condition == Condition::Apart,
            up: whole(&mut self.up),
            degraded: whole(&mut self.degraded),
            down: whole(&mut self.down),
            ..UptimeSample::default()
        }
    }
}

/// How long the daemon listened from one moment to another.
fn listened(from: Mono, to: Mono, blind: &[Period]) -> Duration {
    let deaf = blind.iter().map(|period| period.start.min(to).since(period.stop.max(from)));
    to.since(from).saturating_sub(deaf.sum())
}

/// The values of a metric since the last account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    count: u32,
    sum: f64,
    least: f32,
    most: f32,
}

impl Tally {
    /// Takes a value in.
    pub fn add(&mut self, value: f64) {
        #[allow(clippy::cast_possible_truncation, reason = "it is clamped to what f32 holds")]
        let value = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        if self.count == 0 {
            (self.least, self.most) = (value, value);
        }
        self.count = self.count.saturating_add(1);
        self.sum += f64::from(value);
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    /// The values as they are told, and none from then on; none when there were none.
    pub fn take(&mut self, path: &Arc<str>) -> Option<MetricSummary> {
        let Tally { count, sum, least, most } = std::mem::take(self);
        #[allow(clippy::cast_possible_truncation, reason = "a mean of f32 is one")]
        let mean = (sum / f64::from(count.max(1))) as f32;
        (count > 0).then(|| MetricSummary { path: path.clone(), count, mean, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::test_fleet::{DAY, HOUR, MINUTE, Play, SECOND};

    fn seconds(account: &UptimeSample) -> (u64, u64, u64) {
        (account.up.as_secs(), account.degraded.as_secs(), account.down.as_secs())
    }

    /// web1 as it fared since the last account.
    fn account(play: &mut Play) -> UptimeSample {
        let (now, mut all) = (play.now, play.fleet.accounts(0, 100, play.now));
        assert_eq!(all.len(), 1, "at {now:?}");
        all.remove(0)
    }

    #[test]
    fn a_day_adds_up_whatever_happens() {
        let mut play = Play::new();
        play.beat("web1");
        for _ in 0..60 {
            play.wait(10 * SECOND).beat("web1");
        }
        assert_eq!(seconds(&account(&mut play)), (600, 0, 0));
        play.wait(HOUR).beat("web1");
        assert_eq!(seconds(&account(&mut play)), (40, 0, 3560), "overdue after interval and grace");
        play.beat_over("web1", "vpn").wait(10 * SECOND).beat("web1").wait(35 * SECOND);
        play.beat("web1").wait(10 * SECOND);
        assert_eq!(seconds(&account(&mut play)), (40, 15, 0), "a connection was overdue");
        play.hear(r#"{"host":"web1","event":"shutdown"}"#).wait(HOUR);
        let told = account(&mut play);
        assert_eq!((seconds(&told), told.apart), ((0, 0, 3600), false), "its vpn is missed");
    }

    #[test]
    fn who_said_goodbye_or_never_came_is_not_missed() {
        let mut play = Play::new();
        play.wait(DAY);
        let told = account(&mut play);
        assert_eq!((seconds(&told), told.apart), ((0, 0, 0), true));
        play.beat("web1").wait(5 * SECOND);
        play.hear(r#"{"host":"web1","event":"shutdown"}"#).wait(DAY);
        let told = account(&mut play);
        assert_eq!((seconds(&told), told.apart), ((5, 0, 0), true));
    }

    #[test]
    fn a_metric_beyond_its_limit_degrades_its_host() {
        let limit = |text: &str| Some(text.parse().unwrap());
        let rule =
            crate::heartbeat::threshold::Rule { warning: limit("> 80"), ..Default::default() };
        let mut play = Play::with_threshold("m", rule);
        play.sample(10.0).wait(10 * SECOND).sample(90.0).wait(7 * SECOND).sample(10.0);
        let told = account(&mut play);
        assert_eq!(seconds(&told), (10, 7, 0));
        let [reading] = &told.metrics[..] else { panic!("{told:?}") };
        assert_eq!((&*reading.path, reading.count), ("m", 3));
        assert!((reading.mean - 36.666_668).abs() < 1e-4, "{reading:?}");
        assert_eq!((reading.least, reading.most), (10.0, 90.0));
        assert!(account(&mut play).metrics.is_empty(), "each value is told once");
    }

    #[test]
    fn blind_time_is_nobodys_fault() {
        let mut play = Play::new();
        play.beat("web1").wait(10 * SECOND).sleep(2 * HOUR);
        let spans = play.fleet.unseen(play.now);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].1.since(spans[0].0), 2 * HOUR);
        assert!(play.fleet.unseen(play.now).is_empty(), "each is told once");
        play.beat("web1").wait(10 * SECOND);
        assert_eq!(seconds(&account(&mut play)), (20, 0, 0));
        play.restart_after(HOUR).beat("web1").wait(5 * SECOND);
        assert_eq!(seconds(&account(&mut play)), (5, 0, 0));
        assert_eq!(play.fleet.unseen(play.now)[0].1, play.now.wall - 5 * SECOND);
    }

    #[test]
    fn a_beat_that_was_heard_before_the_sleep_was_noticed_did_count_it_as_down() {
        let mut play = Play::new();
        play.beat("web1").wait(MINUTE);
        let stop = play.now.mono;
        play.now = play.now.later(5 * HOUR);
        play.beat("web1");
        play.fleet.blind(stop, play.now.mono);
        play.wait(10 * SECOND);
        let (up, degraded, down) = seconds(&account(&mut play));
        assert_eq!((up, degraded), (50, 0));
        assert!(down <= 51, "{down}");
    }

    proptest::proptest! {
        #[test]
        fn no_moment_is_told_twice_and_none_is_left_out(
            steps in proptest::collection::vec((0..6u8, 1..9000u64), 1..60)
        ) {
            let mut play = Play::new();
            play.beat("web1");
            let begun = play.now.mono;
            let (mut told, mut unseen) = (Duration::ZERO, Duration::ZERO);
            for (step, seconds) in steps {
                let time = Duration::from_secs(seconds);
                match step {
                    0 => drop(play.beat("web1")),
                    1 => drop(play.beat_over("web1", "vpn")),
                    2 => drop(play.sleep(time)),
                    3 => {
                        let account = account(&mut play);
                        told += account.up + account.degraded + account.down;
                    }
                    _ => drop(play.wait(time)),
                }
                for (from, to) in play.fleet.unseen(play.now) {
                    unseen += to.since(from);
                }
            }
            let account = account(&mut play);
            told += account.up + account.degraded + account.down;
            let passed = play.now.mono.since(begun);
            let second = Duration::from_secs(1);
            proptest::prop_assert!(told + unseen <= passed, "{told:?} {unseen:?} {passed:?}");
            proptest::prop_assert!(told + unseen + 3 * second > passed, "{told:?} {unseen:?} {passed:?}");
        }
    }

    #[test]
    fn strangers_keep_no_diary() {
        let mut rules = crate::heartbeat::test_fleet::rules();
        rules.settings.unknown_hosts = crate::heartbeat::settings::UnknownHosts::Accept;
        let mut play = Play::with(rules);
        play.beat("stranger").beat("web1").wait(SECOND);
        let accounts = play.fleet.accounts(0, 100, play.now);
        let names: Vec<_> = accounts.iter().map(|account| &*account.host).collect();
        assert_eq!(names, ["web1"]);
        assert!(play.fleet.running("stranger", play.now).is_none());
        assert!(play.fleet.running("web1", play.now).is_some());
    }
}
