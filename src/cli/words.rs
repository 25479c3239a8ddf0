//! How hosts, connections and metrics are called, in the words of the status page. Pure.

use serde_json::Value as Json;

use super::answer::{field, items};
use crate::clock::Wall;
use crate::event::metric;

/// How a host is: `overdue`, `critical`, `degraded`, `silent, not watched`, `shut down`, `never
/// heard` or `up`.
pub fn health(host: &Json) -> &'static str {
    let watched = host["watch"] == true;
    match &*field(host, "state") {
        "OVERDUE" | "SHUTDOWN" if !watched => "silent, not watched",
        state @ ("OVERDUE" | "SHUTDOWN" | "NEW") => connection(state),
        _ if has_metric_at(host, "critical") => "critical",
        _ if has_metric_at(host, "warning") => "degraded",
        _ if watched && items(host, "connections").any(|one| one["state"] != "UP") => "degraded",
        _ => "up",
    }
}

fn has_metric_at(host: &Json, level: &str) -> bool {
    items(host, "metrics").any(|metric| metric["level"] == level)
}

/// Since when it is so: of a host whose beats come, since the oldest of what makes it so.
pub fn since(host: &Json) -> Option<Wall> {
    let level = match health(host) {
        "critical" => "critical",
        "degraded" => "warning",
        _ => return time(host, "since"),
    };
    let beyond = items(host, "metrics").filter(|metric| metric["level"] == level);
    let is_gone = |one: &&Json| level == "warning" && host["watch"] == true && one["state"] != "UP";
    let gone = items(host, "connections").filter(is_gone);
    beyond.chain(gone).filter_map(|one| time(one, "since")).min().or_else(|| time(host, "since"))
}

/// The state of a connection.
pub fn connection(state: &str) -> &'static str {
    match state {
        "NEW" => "never heard",
        "OVERDUE" => "overdue",
        "SHUTDOWN" => "shut down",
        _ => "up",
    }
}

/// A metric with its value and its limit, as messages have it: `disk root 97.5 % (limit: above 95.0 %)`.
pub fn metric(metric: &Json) -> String {
    let value = metric["value"].as_f64().unwrap_or(f64::NAN);
    metric::in_words(&field(metric, "path"), value, &field(metric, "limit"))
}

/// The value of a metric with its unit, as on the page: `97.5 %`.
pub fn value(metric: &Json) -> String {
    let (_, unit) = metric::metric_name(&field(metric, "path"));
    match metric["value"].as_f64() {
        Some(value) => {
            let limit = metric::limit_number(&field(metric, "limit"));
            unit.beside_limit(value, limit).replace('\u{a0}', " ")
        }
        None => String::new(),
    }
}

/// A time of an answer.
pub fn time(of: &Json, name: &str) -> Option<Wall> {
    humantime::parse_rfc3339(of[name].as_str()?).ok().map(Wall::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_metric_is_called_as_on_the_page() {
        for (path, value, limit, words) in [
            (
                "disk_monitor.root.percent",
                97.54,
                "> 95.0",
                "disk root 97.54 % (limit: above 95.0 %)",
            ),
            (
                "job_monitor.a.exit_code",
                2.0,
                "!= 0.0",
                "job a exit code 2.0 (limit: anything but 0.0)",
            ),
            ("queue.length", 7.0, "", "queue.length 7.0"),
        ] {
            let view = json!({"path": path, "value": value, "limit": limit});
            assert_eq!(metric(&view), words);
        }
        let free = json!({"path": "disk_monitor.root.free_bytes", "value": 123.4e9});
        assert_eq!(super::value(&free), "123 GB");
    }

    #[test]
    fn a_host_is_called_as_on_the_page() {
        let host = |state: &str, watch: bool, level: &str, other: &str| {
            json!({"state": state, "watch": watch, "since": "2026-11-21T17:00:00Z",
                "metrics": [{"level": level, "since": "2026-11-21T20:00:00Z"},
                    {"level": level, "since": "2026-11-21T19:00:00Z"}],
                "connections": [{"state": "UP"}, {"state": other}]})
        };
        for (host, word, hour) in [
            (host("OVERDUE", true, "critical", "UP"), "overdue", Some(17)),
            (host("OVERDUE", false, "ok", "UP"), "silent, not watched", Some(17)),
            (host("SHUTDOWN", true, "ok", "UP"), "shut down", Some(17)),
            (host("NEW", true, "ok", "UP"), "never heard", Some(17)),
            (host("UP", true, "critical", "UP"), "critical", Some(19)),
            (host("UP", false, "warning", "UP"), "degraded", Some(19)),
            (host("UP", true, "ok", "OVERDUE"), "degraded", Some(17)),
            (host("UP", false, "ok", "OVERDUE"), "up", Some(17)),
            (host("UP", true, "ok", "UP"), "up", Some(17)),
        ] {
            assert_eq!(health(&host), word);
            let at = hour.map(|hour| format!("2026-11-21T{hour}:00:00.000Z"));
            assert_eq!(since(&host).map(|at| at.to_string()), at, "{word}");
        }
    }
}
