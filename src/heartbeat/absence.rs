//! Metrics that their host no longer sends: told when they were not OK, and forgotten in the end.
//! Pure.

use std::time::Duration;

use crate::clock::Now;
use crate::event::{Event, Incident};
use crate::heartbeat::gauge::{self, Gauge};
use crate::heartbeat::host::Host;
use crate::heartbeat::profile::Common;
use crate::view::State;

/// How often it is looked for them, in milliseconds.
const LOOK: i64 = 60_000;
/// A beat may be as late as another one, and a bit, before its silence is more than a lost datagram.
const MOST_LATE: u32 = 2;

/// What the absence of metrics meant.
#[derive(Debug, Default)]
pub struct Missed {
    /// One for each that is missing from now on.
    pub events: Vec<Event>,
    /// Troubles of metrics that were forgotten.
    pub ended: Vec<Incident>,
    /// Metrics are at other places than before.
    pub moved: bool,
}

impl Host {
    /// For how long the connection at `place`, that beats now, was silent beyond its promise; zero
    /// when that is nothing unusual. To be asked before the beat is noted.
    pub fn silence(&self, place: usize, common: &Common, now: Now) -> Duration {
        let connection = &self.connections[place];
        let interval = connection.promise(&self.profile, common).interval;
        let gap = now.mono.since(connection.seen.mono);
        let usual = interval.saturating_mul(MOST_LATE);
        if gap > usual { gap.saturating_sub(interval) } else { Duration::ZERO }
    }

    /// Whether it is time to look for metrics that are missing, at a beat of the connection at
    /// `place`. To be asked before the beat is noted.
    pub fn wants_look(&self, place: usize, now: Now) -> bool {
        self.connections[place].seen.mono.0.div_euclid(LOOK) != now.mono.0.div_euclid(LOOK)
    }

    /// The connection at `place` beats, after a `silence` that nobody may blame its metrics for.
    pub fn excuse_metrics(&mut self, place: usize, silence: Duration) {
        if silence.is_zero() {
            return;
        }
        for gauge in self.gauges.iter_mut().filter(|gauge| gauge.presence.over() == place) {
            gauge.presence.excuse(silence);
        }
    }

    /// The connection at `place` brings metrics: from it are expected from now on those, too, whose
    /// own connection is down.
    pub fn expect_metrics(&mut self, place: usize, now: Now) {
        let connections = &self.connections;
        for gauge in &mut self.gauges {
            let own = connections.get(gauge.presence.over());
            if own.is_none_or(|own| own.state != State::Up) {
                gauge.presence.expect_over(place, now);
            }
        }
    }

    /// Looks for metrics that the connection at `place`, which has just beaten, no longer brings.
    pub fn miss_metrics(&mut self, place: usize, common: &Common, now: Now) -> Missed {
        let mut missed = Missed::default();
        let interval = self.connections[place].promise(&self.profile, common).interval;
        for gauge in self.gauges.iter_mut().filter(|gauge| gauge.presence.over() == place) {
            if gauge.presence.missing(now.mono, interval) {
                missed.events.extend(gauge.miss(&self.name, now));
            }
        }
        let name = &self.name;
        let before = self.gauges.len();
        self.gauges.retain(|gauge| {
            let told = gauge.alert().is_some();
            let gone = gauge.presence.over() == place
                && gauge.presence.forgotten(now.mono, interval, told);
            missed.ended.extend(gauge.trouble(name).filter(|_| gone));
            !gone
        });
        missed.moved = self.gauges.len() < before;
        if missed.moved {
            gauge::unqueue(&mut self.gauges);
        }
        missed
    }

    /// Whether the connection that brought a metric beats on without it.
    pub fn is_missing(&self, gauge: &Gauge, common: &Common) -> bool {
        self.connections.get(gauge.presence.over()).is_some_and(|connection| {
            let interval = connection.promise(&self.profile, common).interval;
            gauge.presence.missing(connection.seen.mono, interval)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::heartbeat::play::{DAY, HOUR, MINUTE, Play, SECOND, set};
    use crate::heartbeat::threshold::{Rule, ThresholdSet};

    fn high() -> Rule {
        let limit = |text: &str| Some(text.parse().unwrap());
        Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() }
    }

    fn play() -> Play {
        let mut play = Play::with_threshold("disk.*.percent", high());
        play.rules.renotify_interval = None;
        play.fleet.reconfigure(play.rules.clone(), play.now);
        play
    }

    /// So many beats, ten seconds apart, in two datagrams: the second has the disk that may be gone.
    fn beats(play: &mut Play, count: u32, disk: Option<f64>) {
        for _ in 0..count {
            play.hear(r#"{"host":"web1","metrics":{"cpu":1,"disk":{"root":{"percent":5}}}}"#);
            let mnt = disk.map(|value| format!(r#","mnt":{{"percent":{value}}}"#));
            let mnt = mnt.unwrap_or_default();
            play.hear(&format!(
                r#"{{"host":"web1","metrics":{{"disk":{{"boot":{{"percent":1}}{mnt}}}}}}}"#
            ));
            play.wait(10 * SECOND);
        }
    }

    const MISSING: &str = "warning web1 metric disk.mnt.percent is missing";
    const CRITICAL: &str = "critical CRITICAL: web1 - disk.mnt.percent = 95.0 (threshold: > 90.0)";

    fn stale(play: &Play) -> Vec<String> {
        let metrics = play.fleet.view("web1").unwrap().metrics.into_iter();
        metrics.filter(|metric| metric.stale).map(|metric| metric.path).collect()
    }

    /// web1 with a disk at CRITICAL that is unmounted.
    fn unmounted() -> Play {
        let mut play = play();
        beats(&mut play, 20, Some(95.0));
        assert_eq!(play.told(), [CRITICAL]);
        play
    }

    #[test]
    fn a_disk_that_is_unmounted_while_critical_is_missing_once() {
        let mut play = unmounted();
        beats(&mut play, 59, None);
        assert!(play.told().is_empty() && stale(&play).is_empty());
        beats(&mut play, 7, None);
        assert_eq!(play.told(), [MISSING]);
        assert_eq!(stale(&play), ["disk.mnt.percent"]);
        beats(&mut play, 6 * 60 * 24, None);
        assert!(play.told().is_empty(), "once");
    }

    #[test]
    fn there_is_no_reminder_of_a_value_that_is_old() {
        let mut play = unmounted();
        play.rules.renotify_interval = Some(HOUR);
        play.fleet.reconfigure(play.rules.clone(), play.now);
        beats(&mut play, 6 * 60 * 5, None);
        assert_eq!(play.told(), [MISSING]);
        beats(&mut play, 1, Some(95.0));
        assert_eq!(play.told(), [CRITICAL]);
        beats(&mut play, 6 * 60, Some(95.0));
        assert_eq!(play.told(), [CRITICAL], "the reminder");
    }

    #[test]
    fn its_return_tells_how_it_stands() {
        for (value, told) in [
            (95.0, CRITICAL),
            (85.0, "warning WARNING: web1 - disk.mnt.percent = 85.0 (threshold: > 80.0)"),
            (5.0, "ok OK: web1 - disk.mnt.percent = 5.0 (threshold: > 80.0)"),
        ] {
            let mut play = unmounted();
            beats(&mut play, 90, None);
            assert_eq!(play.told(), [MISSING]);
            beats(&mut play, 90, Some(value));
            assert_eq!(play.told(), [told]);
            assert!(stale(&play).is_empty());
        }
    }

    #[test]
    fn what_was_well_is_stale_and_not_told() {
        let mut play = play();
        beats(&mut play, 20, Some(5.0));
        beats(&mut play, 90, None);
        assert!(play.told().is_empty());
        assert_eq!(stale(&play), ["disk.mnt.percent"]);
        assert_eq!(play.fleet.view("web1").unwrap().metrics.len(), 4);
        beats(&mut play, 6 * 60 * 24, None);
        assert_eq!(play.fleet.view("web1").unwrap().metrics.len(), 3, "it is forgotten");
        assert!(play.told().is_empty());
    }

    #[test]
    fn a_restart_neither_forgets_nor_repeats_it() {
        for reboot in [false, true] {
            let mut play = unmounted();
            let again = |play: &mut Play| {
                if reboot {
                    play.reboot_after(HOUR)
                } else {
                    play.restart_after(HOUR)
                };
            };
            again(&mut play);
            beats(&mut play, 55, None);
            assert!(play.told().is_empty(), "nobody listened for an hour");
            again(&mut play);
            beats(&mut play, 12, None);
            assert_eq!(play.told(), [MISSING], "restarts do not postpone it for ever");
            again(&mut play);
            beats(&mut play, 90, None);
            assert!(play.told().is_empty(), "once");
            beats(&mut play, 1, Some(95.0));
            assert_eq!(play.told(), [CRITICAL]);
        }
    }

    #[test]
    fn the_silence_of_a_host_is_not_the_absence_of_its_metrics() {
        let mut play = unmounted();
        for _ in 0..8 {
            // Up, but late within its grace; then overdue; then asleep.
            play.wait(25 * SECOND);
            beats(&mut play, 1, None);
            play.wait(DAY);
            assert_eq!(play.told(), ["critical web1 ipv4 overdue"]);
            beats(&mut play, 1, None);
            assert_eq!(play.told(), ["ok web1 ipv4 is back"]);
            play.sleep(DAY);
            beats(&mut play, 1, None);
        }
        assert!(play.told().is_empty());
    }

    #[test]
    fn metrics_of_a_connection_that_is_overdue_are_not_missed() {
        let mut play = play();
        for _ in 0..20 {
            play.hear(r#"{"host":"web1","connection":"vpn","metrics":{"disk.mnt.percent":95}}"#);
            play.beat("web1").wait(10 * SECOND);
        }
        play.told();
        for _ in 0..1000 {
            play.beat("web1").wait(10 * SECOND);
        }
        assert_eq!(play.told(), ["warning web1 vpn overdue"]);
        // Another one brings metrics from now on.
        beats(&mut play, 90, None);
        assert_eq!(play.told(), [MISSING]);
    }

    #[test]
    fn own_metrics_come_at_their_own_distances() {
        let mut play = play();
        for _ in 0..12 {
            play.hear(r#"{"host":"web1","metrics":{"disk.mnt.percent":95}}"#);
            for _ in 0..360 {
                play.beat("web1").wait(10 * SECOND);
            }
        }
        assert_eq!(play.told(), [CRITICAL]);
        for _ in 0..(3 * 360 + 350) {
            play.beat("web1").wait(10 * SECOND);
        }
        assert!(play.told().is_empty(), "it comes every hour");
        for _ in 0..400 {
            play.beat("web1").wait(10 * SECOND);
        }
        assert_eq!(play.told(), [MISSING]);
    }

    #[test]
    fn a_metric_of_a_job_that_ran_a_few_times_is_not_missed_the_next_day() {
        let mut play = play();
        for _ in 0..5 {
            play.hear(r#"{"host":"web1","metrics":{"disk.mnt.percent":95}}"#).wait(5 * SECOND);
        }
        play.told();
        for _ in 0..(6 * 24 * 7) {
            for _ in 0..60 {
                play.beat("web1").wait(10 * SECOND);
            }
        }
        assert!(play.told().is_empty());
    }

    #[test]
    fn nothing_is_missing_where_a_fifth_of_all_datagrams_is_lost() {
        let mut play = play();
        let mut state = 7u64;
        let mut lost = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33 < (1 << 31) / 5
        };
        for _ in 0..(10 * 360) {
            for part in ["disk.mnt", "disk.boot"] {
                if !lost() {
                    let metrics = format!(r#"{{"{part}.percent":95}}"#);
                    play.hear(&format!(r#"{{"host":"web1","metrics":{metrics}}}"#));
                }
            }
            play.wait(10 * SECOND);
        }
        let missing = |event: &Event| matches!(event.kind, EventKind::Missing { .. });
        assert!(!play.facts().iter().any(missing));
    }

    #[test]
    fn what_is_missing_for_long_is_forgotten_without_a_false_ok() {
        let mut play = unmounted();
        let mut ended = Vec::new();
        for _ in 0..(32 * 24 * 60) {
            let json = br#"{"host":"web1","interval":60,"metrics":{"cpu":1}}"#;
            ended.extend(play.try_hear(json).unwrap().ended);
            play.wait(MINUTE);
        }
        let told = play.told();
        assert!(told.iter().all(|title| !title.starts_with("ok ")), "{told:?}");
        let trouble = Incident::Metric { host: "web1".into(), metric: "disk.mnt.percent".into() };
        assert_eq!(ended, [trouble]);
        assert_eq!(play.fleet.view("web1").unwrap().metrics.len(), 1);
    }

    #[test]
    fn a_reload_that_removes_the_rule_ends_it() {
        let mut play = unmounted();
        beats(&mut play, 90, None);
        assert_eq!(play.told(), [MISSING]);
        play.rules.threshold_sets.insert("default".into(), ThresholdSet::default());
        let due = play.fleet.reconfigure(play.rules.clone(), play.now);
        assert_eq!((due.events.len(), due.ended.len()), (0, 1));
        play.rules.threshold_sets.insert("default".into(), set("disk.*.percent", high()));
        play.fleet.reconfigure(play.rules.clone(), play.now);
        beats(&mut play, 90, None);
        assert!(play.told().is_empty());
    }

    #[test]
    fn the_time_that_a_value_must_last_begins_anew_when_it_was_not_sent() {
        let mut play = play();
        let lasting = set("disk.*.percent", Rule { hold: 5 * MINUTE, ..high() });
        play.rules.threshold_sets.insert("default".into(), lasting);
        play.fleet.reconfigure(play.rules.clone(), play.now);
        beats(&mut play, 20, Some(95.0));
        beats(&mut play, 90, None);
        beats(&mut play, 30, Some(95.0));
        assert!(play.told().is_empty());
        beats(&mut play, 1, Some(95.0));
        assert_eq!(play.told(), [CRITICAL]);
    }

    #[test]
    fn the_time_that_a_value_must_last_goes_on_after_a_restart() {
        let rule = Rule { hold: MINUTE, ..high() };
        let critical = ["critical CRITICAL: web1 - m = 95.0 (threshold: > 90.0)"];
        let play = |away| {
            let mut play = Play::with_threshold("m", rule);
            for _ in 0..4 {
                play.sample(95.0).wait(10 * SECOND);
            }
            play.restart_after(away);
            play
        };
        let mut short = play(20 * SECOND);
        short.sample(95.0).wait(10 * SECOND);
        assert!(short.told().is_empty(), "being away does not count");
        short.sample(95.0).wait(10 * SECOND).sample(95.0);
        assert_eq!(short.told(), critical);
        let mut fell = play(20 * SECOND);
        fell.sample(5.0).wait(10 * SECOND).sample(95.0).wait(30 * SECOND).sample(95.0);
        assert!(fell.told().is_empty());
        let mut long = play(2 * MINUTE);
        for _ in 0..6 {
            long.sample(95.0).wait(10 * SECOND);
        }
        assert!(long.told().is_empty(), "it begins anew");
        assert_eq!(long.sample(95.0).told(), critical);
    }
}
