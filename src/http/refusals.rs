//! Webhooks that were refused: their sender may never say so, and a refused alert may not come again.
//! Each is counted, and told to the log once a minute for each reason and peer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::warn;

use super::routes::{NoRoute, Route, route};
use crate::thread::lock;

/// Between two log lines about one reason and peer.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// How many pairs of reason and peer are remembered; beyond that, refusals are only counted.
const MAX_LOGGED: usize = 1000;
/// How many characters of a reason are logged.
const MAX_WHY: usize = 200;

/// Each reason with its HTTP status and what the sender can do.
const REASONS: [(u16, &str, &str); 8] = [
    (400, "malformed", ""),
    (401, "unauthorized", "its sender must show receiver.token: http_config.authorization"),
    (403, "forbidden", ""),
    (404, "not_found", "alerts are taken at /alert"),
    (405, "method_not_allowed", "alerts are posted to /alert: a redirect makes a GET of a POST"),
    (413, "too_large", "max_alerts in its webhook_configs limits it"),
    (429, "too_many_attempts", "its sender must show receiver.token: http_config.authorization"),
    (503, "unavailable", ""),
];
/// Every other status.
const OTHER: (u16, &str, &str) = (0, "other", "");

/// A request, and the answer that refuses it.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// Its method; empty where that was not understood.
    pub method: &'a str,
    /// Path and query; empty where that was not understood.
    pub target: &'a str,
    /// The address of the client.
    pub peer: IpAddr,
    /// The HTTP status of the answer.
    pub status: u16,
    /// What the answer says.
    pub why: &'a str,
}

/// The webhooks that were refused since the start.
#[derive(Debug, Default)]
pub struct RefusedAlerts {
    counts: [AtomicU64; REASONS.len() + 1],
    log: Mutex<RefusalLog>,
}

impl RefusedAlerts {
    /// Counts and logs an answer, if it refuses what may have been a webhook.
    pub fn record(&self, refusal: Refusal) {
        if refusal.status < 400 || !may_be_alert(refusal.method, refusal.target) {
            return;
        }
        let reason = reason_index(refusal.status);
        self.counts[reason].fetch_add(1, Ordering::Relaxed);
        if !lock(&self.log).is_due((reason, refusal.peer), Instant::now()) {
            return;
        }
        let Refusal { peer, status, why, .. } = refusal;
        let remedy = REASONS.get(reason).map_or("", |(_, _, remedy)| remedy);
        let separator = if remedy.is_empty() { "" } else { "; " };
        let why: String = why.lines().next().unwrap_or_default().chars().take(MAX_WHY).collect();
        warn!("an alert from {peer} was refused with status {status}: {why}{separator}{remedy}");
    }

    /// How many there were, by reason; every known reason is there, if only with 0.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = REASONS.iter().chain([&OTHER]).map(|(_, name, _)| *name);
        names.zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

fn reason_index(status: u16) -> usize {
    REASONS.iter().position(|(known, ..)| *known == status).unwrap_or(REASONS.len())
}

/// Whether a request is a webhook, or may be one that was sent to the wrong place: whatever is posted
/// to where nothing is taken.
fn may_be_alert(method: &str, target: &str) -> bool {
    match route("POST", target) {
        Ok(Route::Alert) => true,
        Ok(_) => false,
        Err(NoRoute::NotFound | NoRoute::WrongMethod(_)) => method == "POST",
    }
}

/// What was logged lately. Pure.
#[derive(Debug, Default)]
struct RefusalLog {
    last: BTreeMap<(usize, IpAddr), Instant>,
}

impl RefusalLog {
    /// Whether a refusal is to be logged now; it counts as logged then.
    fn is_due(&mut self, refusal: (usize, IpAddr), now: Instant) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < LOG_PAUSE;
        if self.last.get(&refusal).is_some_and(is_recent) {
            return false;
        }
        if self.last.len() >= MAX_LOGGED {
            self.last.retain(|_, at| is_recent(at));
        }
        let has_room = self.last.len() < MAX_LOGGED;
        if has_room {
            self.last.insert(refusal, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_may_have_been_an_alert_is_told_from_the_rest() {
        for (method, target, expected) in [
            ("POST", "/alert", true),
            ("POST", "/alert/?x", true),
            ("GET", "/alert", true),
            ("", "/alert", true),
            ("POST", "/alerts", true),
            ("POST", "/api/v1/alerts", true),
            ("POST", "/", true),
            ("GET", "/alerts", false),
            ("POST", "/api/v1/heartbeat", false),
            ("POST", "/api/v1/notify", false),
            ("POST", "/-/reload", false),
            ("GET", "/", false),
            ("", "", false),
        ] {
            assert_eq!(may_be_alert(method, target), expected, "{method} {target}");
        }
    }

    #[test]
    fn each_reason_and_peer_is_logged_once_a_minute() {
        let mut log = RefusalLog::default();
        let start = Instant::now();
        let peer = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        assert!(log.is_due((0, peer(1)), start));
        assert!(!log.is_due((0, peer(1)), start + LOG_PAUSE / 2));
        assert!(log.is_due((1, peer(1)), start) && log.is_due((0, peer(2)), start));
        assert!(log.is_due((0, peer(1)), start + LOG_PAUSE));
        let crowd = (10..9_999).filter(|n| log.is_due((0, peer(*n)), start + LOG_PAUSE)).count();
        assert!(log.last.len() == MAX_LOGGED && crowd < MAX_LOGGED, "{crowd}");
        assert!(log.is_due((0, peer(7)), start + 2 * LOG_PAUSE), "the crowd is forgotten");
    }

    #[test]
    fn every_refusal_is_counted_by_its_reason() {
        let refused = RefusedAlerts::default();
        for status in [200, 400, 401, 401, 413, 417, 503] {
            let peer = Ipv4Addr::LOCALHOST.into();
            refused.record(Refusal { method: "POST", target: "/alert", peer, status, why: "x" });
        }
        let counts: BTreeMap<_, _> = refused.counts().collect();
        assert_eq!(counts.len(), REASONS.len() + 1);
        for (reason, count) in [
            ("malformed", 1),
            ("unauthorized", 2),
            ("not_found", 0),
            ("too_large", 1),
            ("other", 1),
        ] {
            assert_eq!(counts[reason], count, "{reason}");
        }
    }
}
