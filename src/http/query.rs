//! Parsing of query strings, and of the body of `POST /api/v1/notify`. Errors are sentences for the
//! author of the client. Pure.

use serde::Deserialize;

use crate::address::percent_decoded;
use crate::clock::{TimeError, Wall, parse_rfc3339};
use crate::duration;
use crate::event::{EventId, EventKind, Level};
use crate::view::query::{EventQuery, NotificationQuery, SeriesQuery};

/// How many are shown when the query does not say it.
const DEFAULT_LIMIT: usize = 100;
/// How many are shown at most.
const MAX_LIMIT: usize = 1000;

/// Reads the query of notifications.
///
/// # Errors
/// What is wrong with it.
pub fn parse_notifications(target: &str) -> Result<NotificationQuery, String> {
    let mut query = NotificationQuery { limit: DEFAULT_LIMIT, ..NotificationQuery::default() };
    for_each_param(target, |name, value| {
        match name {
            "limit" => query.limit = limit(&value)?,
            "before" => query.before = Some(id(&value)?),
            "host" => query.host = Some(value),
            "channel" => query.channel = Some(value),
            "delivered" => match value.as_str() {
                "true" => query.delivered = Some(true),
                "false" => query.delivered = Some(false),
                _ => return Err("delivered: must be true or false".into()),
            },
            _ => return Err(unknown(name, "limit, before, host, channel, delivered")),
        }
        Ok(())
    })?;
    Ok(query)
}

/// Reads the query of events.
///
/// # Errors
/// What is wrong with it.
pub fn parse_events(target: &str) -> Result<EventQuery, String> {
    let mut query = EventQuery { limit: DEFAULT_LIMIT, ..EventQuery::default() };
    for_each_param(target, |name, value| {
        match name {
            "limit" => query.limit = limit(&value)?,
            "before" => query.before = Some(EventId(id(&value)?)),
            "host" => query.host = Some(value),
            "level" => query.levels = list(&value, level)?,
            "kind" => query.kinds = list(&value, kind)?,
            "since" => query.since = Some(time(name, &value)?),
            "until" => query.until = Some(time(name, &value)?),
            _ => return Err(unknown(name, "limit, before, host, level, kind, since, until")),
        }
        Ok(())
    })?;
    Ok(query)
}

/// Reads the query of a host's series.
///
/// # Errors
/// What is wrong with it.
pub fn parse_series(target: &str) -> Result<SeriesQuery, String> {
    let mut query = SeriesQuery::default();
    for_each_param(target, |name, value| {
        match name {
            "metrics" => query.metrics = list(&value, |path| Ok(path.to_owned()))?,
            "range" => {
                let range = duration::parse(&value).map_err(|why| format!("range: {why}"))?;
                query.range = range;
            }
            _ => return Err(unknown(name, "metrics, range")),
        }
        Ok(())
    })?;
    Ok(query)
}

/// The connection that is to be forgotten; none for the whole host.
///
/// # Errors
/// A sentence with the parameter that is wrong.
pub fn parse_forget(target: &str) -> Result<Option<String>, String> {
    let mut connection = None;
    for_each_param(target, |name, value| {
        match name {
            "connection" => connection = Some(value),
            _ => return Err(unknown(name, "connection")),
        }
        Ok(())
    })?;
    Ok(connection)
}

/// Calls `read` with each name and value of a query.
fn for_each_param(
    target: &str,
    mut read: impl FnMut(&str, String) -> Result<(), String>,
) -> Result<(), String> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        read(name, percent_decoded(value).ok_or_else(|| format!("{name}: bad encoding"))?)?;
    }
    Ok(())
}

fn unknown(name: &str, there_are: &str) -> String {
    format!("{name}: unknown, there are: {there_are}")
}

fn limit(value: &str) -> Result<usize, String> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // What is beyond all numbers is beyond the limit.
    let limit: Option<usize> = digits.then(|| value.parse().unwrap_or(usize::MAX));
    let limit = limit.filter(|limit| *limit > 0);
    Ok(limit.ok_or("limit: must be a number from 1 to 1000")?.min(MAX_LIMIT))
}

fn id(value: &str) -> Result<u64, String> {
    let digits = value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(value, 16).ok().filter(|_| digits);
    id.ok_or_else(|| "before: must be an id of this list".into())
}

/// A list with commas.
fn list<T>(value: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.split(',').filter(|part| !part.is_empty()).map(read).collect()
}

fn level(name: &str) -> Result<Level, String> {
    const LEVELS: [Level; 4] = [Level::Ok, Level::Info, Level::Warning, Level::Critical];
    let found = LEVELS.into_iter().find(|level| level.name() == name);
    found.ok_or_else(|| "level: must be ok, info, warning or critical".into())
}

fn kind(name: &str) -> Result<String, String> {
    if EventKind::NAMES.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("kind: must be one of {}", EventKind::NAMES.join(", ")))
}

/// One before 1970 is the beginning of all times.
fn time(name: &str, value: &str) -> Result<Wall, String> {
    match parse_rfc3339(value) {
        Err(TimeError::TooEarly) => Ok(Wall(0)),
        time => time.map_err(|_| format!("{name}: must be a time such as 2026-11-21T20:12:08Z")),
    }
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// The channels of a host.
    Host(String),
    /// These channels.
    Channels(Vec<String>),
}

/// The body of `POST /api/v1/notify`: a message to send at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyRequest {
    /// Where it goes.
    pub recipients: Recipients,
    /// The text.
    pub message: String,
    /// How much it matters; none leaves it to the daemon.
    pub level: Option<Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNotify {
    host: Option<String>,
    channels: Option<Vec<String>>,
    message: String,
    level: Option<Level>,
}

/// Reads the body.
///
/// # Errors
/// What is wrong with it.
pub fn parse_notify(body: &[u8]) -> Result<NotifyRequest, String> {
    let RawNotify { host, channels, message, level } =
        serde_json::from_slice(body).map_err(|why| format!("the body: {why}"))?;
    let recipients = match (host, channels) {
        (Some(host), None) => Recipients::Host(host),
        (None, Some(channels)) if channels.is_empty() => {
            return Err("channels: must name at least one".into());
        }
        (None, Some(channels)) => Recipients::Channels(channels),
        (Some(_), Some(_)) => return Err("give either host or channels, not both".into()),
        (None, None) => return Err("whom to tell is missing: host or channels".into()),
    };
    Ok(NotifyRequest { recipients, message, level })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_query_narrows_the_history() {
        let usual = NotificationQuery { limit: 100, ..NotificationQuery::default() };
        let all = "/n?limit=5000&before=01a2&host=m%C3%BCnster&channel=a.b&delivered=false";
        assert_eq!(parse_notifications("/n").unwrap(), usual);
        assert_eq!(parse_notifications("/n?").unwrap(), usual);
        assert_eq!(
            parse_notifications(all).unwrap(),
            NotificationQuery {
                limit: 1000,
                before: Some(0x1a2),
                host: Some("m\u{fc}nster".into()),
                channel: Some("a.b".into()),
                delivered: Some(false),
            }
        );
    }

    #[test]
    fn what_is_no_query_is_refused_by_its_name() {
        for query in
            ["limit=0", "limit=-1", "limit=x", "limit", "before=xyz", "delivered=yes", "chanel=a"]
        {
            let name = query.split('=').next().unwrap();
            let why = parse_notifications(&format!("/n?{query}")).unwrap_err();
            assert!(why.starts_with(name), "{query}: {why}");
        }
        assert!(parse_notifications("/n?host=%ff").is_err());
    }

    #[test]
    fn events_are_narrowed_by_lists_and_times() {
        let query = "/e?limit=7&before=1a&host=a&level=warning,critical&kind=overdue,back\
            &since=2026-11-21T20:12:08Z&until=2026-11-22T00:00:00Z";
        let found = parse_events(query).unwrap();
        assert_eq!(
            (found.limit, found.before, found.host.as_deref()),
            (7, Some(EventId(0x1a)), Some("a"))
        );
        assert_eq!(found.levels, [Level::Warning, Level::Critical]);
        assert_eq!(found.kinds, ["overdue", "back"]);
        assert_eq!(found.since, Some(Wall(1_795_291_928_000)));
        for same in ["2026-11-21T21:42:08%2B01:30", "2026-11-21t20:12:08.000z"] {
            assert_eq!(parse_events(&format!("/e?since={same}")).unwrap().since, found.since);
        }
        assert_eq!(parse_events("/e?since=1900-01-01T00:00:00Z").unwrap().since, Some(Wall(0)));
        for wrong in [
            "level=bad",
            "kind=x",
            "since=yesterday",
            "until=",
            "until=2026-11-21T20:12:08",
            "before=%2B1",
            "color=red",
        ] {
            let name = wrong.split('=').next().unwrap();
            let why = parse_events(&format!("/e?{wrong}")).unwrap_err();
            assert!(why.starts_with(name), "{wrong}: {why}");
        }
    }

    #[test]
    fn series_have_paths_and_a_range() {
        let found = parse_series("/s?metrics=a.b,c.*&range=7d").unwrap();
        let range = Duration::from_secs(7 * 86_400);
        assert_eq!(found, SeriesQuery { metrics: vec!["a.b".into(), "c.*".into()], range });
        assert_eq!(parse_series("/s").unwrap(), SeriesQuery::default());
        assert!(parse_series("/s?range=long").unwrap_err().starts_with("range"));
    }

    #[test]
    fn a_notice_has_one_address_and_a_message() {
        let request =
            |recipients, level| Ok(NotifyRequest { recipients, message: "m".into(), level });
        let host = Recipients::Host("web1".into());
        let channels = Recipients::Channels(vec!["a".into(), "b".into()]);
        for (body, expected) in [
            (r#"{"host":"web1","message":"m"}"#, request(host.clone(), None)),
            (
                r#"{"channels":["a","b"],"host":null,"message":"m","level":"critical"}"#,
                request(channels, Some(Level::Critical)),
            ),
        ] {
            assert_eq!(parse_notify(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_notice_is_refused_with_the_reason() {
        for (body, why) in [
            ("", "EOF"),
            ("[]", "invalid"),
            ("{\"message\":\"m\"}", "whom to tell is missing"),
            (r#"{"host":"a","channels":["b"],"message":"m"}"#, "not both"),
            (r#"{"channels":[],"message":"m"}"#, "at least one"),
            (r#"{"channels":"a","message":"m"}"#, "a sequence"),
            (r#"{"host":"a"}"#, "message"),
            (r#"{"host":"a","message":7}"#, "a string"),
            (r#"{"host":"a","message":"m","level":"loud"}"#, "loud"),
            (r#"{"hots":"a","message":"m"}"#, "hots"),
            ("{\"host\":\"\u{fffd}\"", "EOF"),
        ] {
            let said = parse_notify(body.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{body}: {said}");
        }
        assert!(parse_notify(b"{\"host\":\"\xff\",\"message\":\"m\"}").is_err());
    }
}
