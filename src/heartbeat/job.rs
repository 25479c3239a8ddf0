//! A job that failed is told once: its message becomes part of the event about its exit code, where a
//! threshold says that this is wrong. Pure.

use crate::clock::Now;
use crate::event::{Event, EventKind, Level};
use crate::heartbeat::datagram::{Datagram, DatagramKind};
use crate::heartbeat::metric::{JOBS, Metric};

/// The message of a job that failed, with its exit code.
pub struct FailedJob<'d> {
    /// The path of its exit code.
    path: &'d str,
    message: &'d str,
    /// Exit code and last words of the failure that people were told of before and that goes on.
    told: Option<(f64, Option<String>)>,
}

impl<'d> FailedJob<'d> {
    /// The one that a datagram tells of, before its metrics are applied.
    pub fn of(datagram: &'d Datagram, metrics: &[Metric]) -> Option<FailedJob<'d>> {
        let is_message = datagram.event == DatagramKind::Message;
        let message = datagram.message.as_deref().filter(|_| is_message)?;
        let failed = |(path, code): &(&str, f64)| is_exit_code(path) && *code != 0.0;
        let (path, _) = datagram.metrics.iter().find(failed)?;
        let known = metrics.iter().find(|metric| *metric.path == *path);
        let known = known.filter(|metric| metric.alert().is_some());
        let told = known.map(|metric| (metric.value, metric.text.as_deref().cloned()));
        Some(FailedJob { path, message, told })
    }

    /// Has one of the `events` that its datagram caused tell of it, where its exit code is an alert. A
    /// failure that says what was told before is recorded only, where `reminders` say that it goes on.
    pub fn tell_once(
        &self,
        host: &str,
        metrics: &mut [Metric],
        events: &mut Vec<Event>,
        (reminders, now): (bool, Now),
    ) {
        let is_message = |event: &Event| matches!(event.kind, EventKind::HostMessage { .. });
        let metric = metrics.iter_mut().find(|metric| *metric.path == *self.path);
        let (Some(metric), Some(place)) =
            (metric.filter(|metric| metric.alert().is_some()), events.iter().position(is_message))
        else {
            return;
        };
        let fired = events.iter().position(|event| self.is_alert(event));
        match fired {
            Some(fired) => {
                self.add_message(metric, &mut events[fired]);
                events.remove(place);
            }
            // Its level is that of a worse failure before: the message is told as it is.
            None if metric.is_recovering() => {}
            None if !reminders || self.is_news(metric) => {
                if let Some(mut event) = metric.event(host, now, false) {
                    self.add_message(metric, &mut event);
                    events[place] = event;
                }
            }
            None => events[place].untold = true,
        }
    }

    fn is_alert(&self, event: &Event) -> bool {
        matches!(&event.kind, EventKind::Threshold { metric, level, .. }
            if *metric == self.path && *level > Level::Ok)
    }

    /// Whether it failed otherwise than what was told: numbers in its last words, such as times, do not
    /// make it so.
    fn is_news(&self, metric: &Metric) -> bool {
        let words = |text: Option<&String>| -> String {
            text.into_iter().flat_map(|text| text.chars()).filter(|c| !c.is_numeric()).collect()
        };
        self.told.as_ref().is_none_or(|(code, text)| {
            *code != metric.value || words(text.as_ref()) != words(metric.text.as_deref())
        })
    }

    /// Its message, without the last words where these stand beside it.
    fn add_message(&self, metric: &Metric, event: &mut Event) {
        let last = metric.text.as_deref().and_then(|text| self.message.strip_suffix(text.as_str()));
        let message = last.and_then(|rest| rest.strip_suffix(": ")).unwrap_or(self.message);
        event.more.insert(0, ("message".into(), message.into()));
    }
}

fn is_exit_code(path: &str) -> bool {
    let job = path.strip_prefix(JOBS).and_then(|job| job.strip_suffix(".exit_code"));
    job.is_some_and(|job| !job.is_empty() && !job.contains('.'))
}

#[cfg(test)]
mod tests {
    use crate::event::Event;
    use crate::heartbeat::test_fleet::{HOUR, MINUTE, SECOND, TestFleet};
    use crate::heartbeat::threshold::{Rule, ThresholdSet};

    const TITLE: &str = "CRITICAL: web1 - job_monitor.backup.exit_code";

    fn fleet(rule: &str) -> TestFleet {
        let failed = Rule { critical: rule.parse().ok(), ..Rule::default() };
        let mut test = TestFleet::with_threshold("job_monitor.*.exit_code", failed);
        test.config.settings.interval = HOUR;
        test.fleet.reconfigure(test.config.clone(), test.now);
        test.beat("web1");
        test
    }

    fn metrics(code: u8, words: &str) -> String {
        let metrics = format!(r#"{{"job_monitor":{{"backup":{{"exit_code":{code}}}}}}}"#);
        let texts = match words {
            "" => String::new(),
            _ => format!(r#","texts":{{"job_monitor.backup.exit_code":"{words}"}}"#),
        };
        format!(r#""metrics":{metrics}{texts}"#)
    }

    /// As hbc exec tells of it: the message, and then a beat with all metrics.
    fn fails(test: &mut TestFleet, code: u8, words: &str) -> Vec<Event> {
        let metrics = metrics(code, words);
        let message = format!("job backup failed with exit code {code} after 3 s: {words}");
        test.ingest(&format!(
            r#"{{"host":"web1","event":"message","message":"{message}",{metrics}}}"#
        ));
        test.ingest(&format!(r#"{{"host":"web1",{metrics}}}"#));
        test.wait(SECOND).take_events()
    }

    fn title(event: &Event) -> String {
        event.describe().title
    }

    fn details(event: &Event) -> Vec<(String, String)> {
        let mut details = event.describe().details;
        details.retain(|(label, _)| label == "message" || label == "last words");
        details
    }

    #[test]
    fn a_job_that_failed_was_told_twice() {
        for watch in [true, false] {
            let mut test = fleet("> 0");
            test.config.hosts.get_mut("web1").unwrap().watch = watch;
            test.fleet.reconfigure(test.config.clone(), test.now);
            let told = fails(&mut test, 3, "Fatal: no repository");
            let [event] = &told[..] else { panic!("{told:?}") };
            assert_eq!(title(event), format!("{TITLE} = 3.0 (threshold: > 0.0)"));
            let expected = [
                ("message", "job backup failed with exit code 3 after 3 s"),
                ("last words", "Fatal: no repository"),
            ];
            let expected = expected.map(|(label, text)| (label.to_owned(), text.to_owned()));
            assert_eq!(details(event), expected);
            // Success after it: one OK.
            test.wait(MINUTE).ingest(&format!(r#"{{"host":"web1",{}}}"#, metrics(0, "")));
            let over = "OK: web1 - job_monitor.backup.exit_code = 0.0 (threshold: > 0.0)";
            assert_eq!(test.titles(), [over]);
        }
    }

    #[test]
    fn a_failure_that_says_the_same_again_is_no_second_message() {
        let mut test = fleet("> 0");
        assert_eq!(fails(&mut test, 3, "12:30:01 no space left").len(), 1);
        test.restart_after(SECOND).wait(MINUTE);
        let again = fails(&mut test, 3, "12:31:02 no space left");
        assert!(again.len() == 1 && again[0].untold, "it is recorded only: {again:?}");
        for (code, words) in [(4, "12:32:03 no space left"), (4, "no repository"), (4, "")] {
            let news = fails(&mut test, code, words);
            let [event] = &news[..] else { panic!("{news:?}") };
            assert_eq!(title(event), format!("{TITLE} = {code}.0 (threshold: > 0.0)"));
            assert!(!event.untold && details(event)[0].1.starts_with("job backup failed"));
        }
        let reminders = test.wait(HOUR).titles();
        assert_eq!(reminders, [format!("{TITLE} = 4.0 (threshold: > 0.0)")], "as of any other");
    }

    #[test]
    fn without_reminders_a_job_that_failed_each_night_was_told_once() {
        let mut test = fleet("> 0");
        test.config.renotify.interval = None;
        test.fleet.reconfigure(test.config.clone(), test.now);
        for _ in 0..2 {
            let told = fails(&mut test, 3, "no space left");
            let [event] = &told[..] else { panic!("{told:?}") };
            assert!(!event.untold && title(event).starts_with(TITLE), "{event:?}");
        }
    }

    #[test]
    fn a_milder_failure_on_the_way_back_was_told_with_the_level_of_the_worse() {
        let mut test = fleet("> 2");
        let set = test.config.threshold_sets.get_mut("default").unwrap();
        let rule = set.rules.get_mut("job_monitor.*.exit_code").unwrap();
        (rule.warning, rule.clear_for) = ("> 0".parse().ok(), HOUR);
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert!(title(&fails(&mut test, 3, "no")[0]).starts_with(TITLE));
        let milder: Vec<String> = fails(&mut test, 1, "slow").iter().map(title).collect();
        assert_eq!(milder, ["web1 job backup failed with exit code 1 after 3 s: slow"]);
    }

    #[test]
    fn where_no_rule_fires_the_message_is_told() {
        let message = "web1 job backup failed with exit code 3 after 3 s: no";
        let mut without = TestFleet::new();
        without.config.threshold_sets.insert("default".into(), ThresholdSet::default());
        without.fleet.reconfigure(without.config.clone(), without.now);
        without.beat("web1");
        let mut lenient = fleet("> 3");
        for test in [&mut without, &mut lenient] {
            let told = fails(test, 3, "no");
            assert_eq!(told.iter().map(title).collect::<Vec<_>>(), [message]);
        }
        // Of a host that is overdue nothing is evaluated.
        let mut overdue = fleet("> 0");
        overdue.wait(5 * HOUR).take_events();
        overdue.ingest(&format!(
            r#"{{"host":"web1","event":"message","message":"job x failed",{}}}"#,
            metrics(3, "no")
        ));
        assert_eq!(overdue.titles(), ["web1 job x failed"]);
    }

    #[test]
    fn a_message_that_is_about_no_job_stays_its_own() {
        let mut test = fleet("> 0");
        test.ingest(r#"{"host":"web1","event":"message","message":"the tape is full","metrics":{"tapes":3}}"#);
        let good = metrics(0, "");
        test.ingest(&format!(r#"{{"host":"web1","event":"message","message":"done",{good}}}"#));
        assert_eq!(test.titles(), ["web1 the tape is full", "web1 done"]);
        let mut metrics = test.fleet.view("web1").unwrap().metrics.into_iter();
        assert!(metrics.any(|metric| metric.path == "tapes"), "its metrics count");
        // One of an hbc that sends them apart, as before.
        test.ingest(r#"{"host":"web1","event":"message","message":"job backup failed"}"#);
        assert_eq!(test.titles(), ["web1 job backup failed"]);
    }
}
