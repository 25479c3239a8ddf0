//! Limits of what the daemon keeps: what each is, and when people are told that it is reached. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Mono;

/// A limit of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptLimit {
    /// How many bytes hosts that are not configured take.
    UnknownHostBytes(usize),
    /// How many of them there are.
    UnknownHosts(usize),
    /// How many hosts are configured by patterns.
    PatternHosts(usize),
    /// How many backup alerts wait, or how many bytes they take.
    WaitingAlerts,
    /// The same of those that were reported.
    ReportedAlerts,
    /// How many backup plans that nothing is known of were reported.
    UnknownPlans,
}

impl KeptLimit {
    /// What programs call it. It never changes.
    pub fn name(self) -> &'static str {
        match self {
            KeptLimit::UnknownHostBytes(_) => "unknown_host_bytes",
            KeptLimit::UnknownHosts(_) => "unknown_hosts",
            KeptLimit::PatternHosts(_) => "pattern_hosts",
            KeptLimit::WaitingAlerts => "waiting_alerts",
            KeptLimit::ReportedAlerts => "reported_alerts",
            KeptLimit::UnknownPlans => "unknown_plans",
        }
    }

    /// The words for its event: what is the case, what that means, and what is to be done.
    pub fn words(self) -> (String, &'static str, String) {
        let strangers = "configure the hosts that matter, or ignore the others \
                         (heartbeat.unknown_hosts: ignore)";
        match self {
            KeptLimit::UnknownHostBytes(most) => (
                format!("hosts that are not configured take {} MB", most / 1_000_000),
                "their beats count, further metrics of them are not kept; configured hosts keep all",
                format!("{strangers}, or raise heartbeat.max_unknown_bytes"),
            ),
            KeptLimit::UnknownHosts(most) => (
                format!("{most} hosts beat that are not configured, further ones are ignored"),
                "configured hosts are not concerned",
                format!("{strangers}, or raise heartbeat.max_unknown_hosts"),
            ),
            KeptLimit::PatternHosts(most) => (
                format!("{most} hosts match patterns, further ones are ignored"),
                "hosts that are listed, and those that were heard before, are not concerned",
                "have those forgotten that are gone (hbd forget), list the hosts that matter by \
                 name, or raise heartbeat.max_unknown_hosts"
                    .to_owned(),
            ),
            KeptLimit::WaitingAlerts => (
                "more backup alerts come in than can be looked into".to_owned(),
                "they are sent away, and Alertmanager sends them again",
                "find out what sends so many, or group them in Alertmanager".to_owned(),
            ),
            KeptLimit::ReportedAlerts => (
                "more backup alerts were reported than can be remembered".to_owned(),
                "the oldest are forgotten: what still fires of them is reported once more",
                "find out what sends so many different alerts".to_owned(),
            ),
            KeptLimit::UnknownPlans => (
                "alerts name more backup plans that do not exist than can be remembered".to_owned(),
                "the oldest are forgotten: another alert about one is reported once more",
                "find out what sends them; correlator.backup_id_labels says which label has the id"
                    .to_owned(),
            ),
        }
    }

    /// Whether those who hear about backups are told.
    pub fn is_about_backups(self) -> bool {
        match self {
            KeptLimit::WaitingAlerts | KeptLimit::ReportedAlerts | KeptLimit::UnknownPlans => true,
            KeptLimit::UnknownHostBytes(_)
            | KeptLimit::UnknownHosts(_)
            | KeptLimit::PatternHosts(_) => false,
        }
    }
}

/// How near a limit is, for `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// [`KeptLimit::name`].
    pub name: &'static str,
    /// How much is used of it.
    pub used: usize,
    /// How much may be.
    pub most: usize,
    /// How often something was not kept because of it.
    pub reached: u64,
}

/// A limit that was not reached for so long was left behind: the next time is told again.
const QUIET: Duration = Duration::from_secs(3600);

/// How often a limit was reached, and when last.
#[derive(Debug, Default)]
pub struct LimitEpisodes {
    count: u64,
    last: Option<Mono>,
}

impl LimitEpisodes {
    /// The limit is reached: whether people are to be told, which is once for each episode.
    pub fn reached(&mut self, times: u64, now: Mono) -> bool {
        self.count += times;
        let last = self.last.replace(now);
        last.is_none_or(|last| now.since(last) >= QUIET)
    }

    /// How often something was not kept.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::event::{Event, EventId, EventKind};

    #[test]
    fn a_limit_is_told_once_while_it_is_reached_again_and_again() {
        let mut episodes = LimitEpisodes::default();
        let minutes = |minutes: i64| Mono(minutes * 60_000);
        let told = (0..600).filter(|minute| episodes.reached(2, minutes(*minute))).count();
        assert_eq!((told, episodes.count()), (1, 1200));
        assert!(!episodes.reached(1, minutes(658)));
        assert!(episodes.reached(1, minutes(718)), "another episode");
    }

    #[test]
    fn every_limit_says_what_is_to_be_done() {
        for limit in [
            KeptLimit::UnknownHostBytes(64_000_000),
            KeptLimit::UnknownHosts(100_000),
            KeptLimit::PatternHosts(100_000),
            KeptLimit::WaitingAlerts,
            KeptLimit::ReportedAlerts,
            KeptLimit::UnknownPlans,
        ] {
            let message =
                Event::new(Wall(0), EventKind::LimitReached { limit }).message(EventId(1));
            assert_eq!(message.details[1].0, "to do", "{limit:?}");
        }
        let (title, ..) = KeptLimit::UnknownHostBytes(64_000_000).words();
        assert_eq!(title, "hosts that are not configured take 64 MB");
    }
}
