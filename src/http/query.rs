//! What of the history is wanted: the queries of the routes that show it. Pure.

use std::time::Duration;

use serde::Deserialize;

use super::routes::percent_decoded;
use crate::clock::Wall;
use crate::duration;
use crate::event::{EventKind, Level};

/// How many are shown when it is not said.
const USUAL: usize = 100;
/// How many are shown at most.
const MOST: usize = 1000;
/// How far back a series goes when it is not said.
const USUAL_RANGE: Duration = Duration::from_secs(24 * 3600);

/// A part of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// So many at most.
    pub limit: usize,
    /// Only what is older than the notification of this id.
    pub before: Option<u64>,
    /// Only about this host.
    pub host: Option<String>,
    /// Only through this channel.
    pub channel: Option<String>,
    /// Only what arrived, or only what did not (or not yet).
    pub delivered: Option<bool>,
}

/// A part of what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsWanted {
    /// So many at most.
    pub limit: usize,
    /// Only what is older than the event of this id.
    pub before: Option<u64>,
    /// Only about this host.
    pub host: Option<String>,
    /// Only of these levels; all when there is none.
    pub levels: Vec<Level>,
    /// Only of these kinds; all when there is none.
    pub kinds: Vec<String>,
    /// Nothing older.
    pub since: Option<Wall>,
    /// Only what is older than this moment.
    pub until: Option<Wall>,
}

/// A part of the metrics of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesWanted {
    /// Their paths; `*` stands for one part, and by itself for all. All when there is none.
    pub metrics: Vec<String>,
    /// How far back.
    pub range: Duration,
}

impl Default for SeriesWanted {
    fn default() -> SeriesWanted {
        SeriesWanted { metrics: Vec::new(), range: USUAL_RANGE }
    }
}

/// Reads the query of notifications; an error is a sentence for whoever wrote the client.
pub fn wanted(target: &str) -> Result<Wanted, String> {
    let mut wanted =
        Wanted { limit: USUAL, before: None, host: None, channel: None, delivered: None };
    each(target, |name, value| {
        match name {
            "limit" => wanted.limit = limit(&value)?,
            "before" => wanted.before = Some(id(&value)?),
            "host" => wanted.host = Some(value),
            "channel" => wanted.channel = Some(value),
            "delivered" => match value.as_str() {
                "true" => wanted.delivered = Some(true),
                "false" => wanted.delivered = Some(false),
                _ => return Err("delivered: must be true or false".into()),
            },
            _ => return Err(unknown(name, "limit, before, host, channel, delivered")),
        }
        Ok(())
    })?;
    Ok(wanted)
}

/// Reads the query of events.
pub fn events(target: &str) -> Result<EventsWanted, String> {
    let mut wanted = EventsWanted { limit: USUAL, ..EventsWanted::default() };
    each(target, |name, value| {
        match name {
            "limit" => wanted.limit = limit(&value)?,
            "before" => wanted.before = Some(id(&value)?),
            "host" => wanted.host = Some(value),
            "level" => wanted.levels = list(&value, level)?,
            "kind" => wanted.kinds = list(&value, kind)?,
            "since" => wanted.since = Some(time(name, &value)?),
            "until" => wanted.until = Some(time(name, &value)?),
            _ => return Err(unknown(name, "limit, before, host, level, kind, since, until")),
        }
        Ok(())
    })?;
    Ok(wanted)
}

/// Reads the query of a host's series.
pub fn series(target: &str) -> Result<SeriesWanted, String> {
    let mut wanted = SeriesWanted::default();
    each(target, |name, value| {
        match name {
            "metrics" => wanted.metrics = list(&value, |path| Ok(path.to_owned()))?,
            "range" => {
                let range = duration::parse(&value).map_err(|why| format!("range: {why}"))?;
                wanted.range = range;
            }
            _ => return Err(unknown(name, "metrics, range")),
        }
        Ok(())
    })?;
    Ok(wanted)
}

/// Calls `take` with each name and value of a query.
fn each(
    target: &str,
    mut take: impl FnMut(&str, String) -> Result<(), String>,
) -> Result<(), String> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        take(name, percent_decoded(value).ok_or_else(|| format!("{name}: bad encoding"))?)?;
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
    Ok(limit.ok_or("limit: must be a number from 1 to 1000")?.min(MOST))
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

/// A time by RFC 3339, with any offset. One before 1970 is the beginning of all times.
fn time(name: &str, value: &str) -> Result<Wall, String> {
    let wrong = || format!("{name}: must be a time such as 2026-11-21T20:12:08Z");
    let text = value.to_ascii_uppercase();
    let (local, offset) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => text
            .len()
            .checked_sub(6)
            .and_then(|place| text.split_at_checked(place))
            .and_then(|(local, offset)| Some((local, seconds_of(offset)?)))
            .ok_or_else(wrong)?,
    };
    match humantime::parse_rfc3339_weak(local) {
        Ok(time) => Ok(Wall(Wall::from(time).0 - offset * 1000)),
        Err(humantime::TimestampError::OutOfRange) => Ok(Wall(0)),
        Err(_) => Err(wrong()),
    }
}

/// `+01:30` in seconds.
fn seconds_of(offset: &str) -> Option<i64> {
    let sign = match offset.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let two = |text: &str, most: i64| -> Option<i64> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && *number <= most)
    };
    Some(sign * (two(hours, 23)? * 3600 + two(minutes, 59)? * 60))
}

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The channels of a host.
    Host(String),
    /// These channels.
    Channels(Vec<String>),
}

/// Something to be told at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whom.
    pub whom: Whom,
    /// What.
    pub message: String,
    /// How much it matters; none leaves it to the daemon.
    pub level: Option<Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    host: Option<String>,
    channels: Option<Vec<String>>,
    message: String,
    level: Option<Level>,
}

/// Reads the body; an error is a sentence for whoever wrote the client.
pub fn parse(body: &[u8]) -> Result<Notice, String> {
    let Body { host, channels, message, level } =
        serde_json::from_slice(body).map_err(|why| format!("the body: {why}"))?;
    let whom = match (host, channels) {
        (Some(host), None) => Whom::Host(host),
        (None, Some(channels)) if channels.is_empty() => {
            return Err("channels: must name at least one".into());
        }
        (None, Some(channels)) => Whom::Channels(channels),
        (Some(_), Some(_)) => return Err("give either host or channels, not both".into()),
        (None, None) => return Err("whom to tell is missing: host or channels".into()),
    };
    Ok(Notice { whom, message, level })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_narrows_the_history() {
        let usual = Wanted { limit: 100, before: None, host: None, channel: None, delivered: None };
        let all = "/n?limit=5000&before=01a2&host=m%C3%BCnster&channel=a.b&delivered=false";
        assert_eq!(wanted("/n").unwrap(), usual);
        assert_eq!(wanted("/n?").unwrap(), usual);
        assert_eq!(
            wanted(all).unwrap(),
            Wanted {
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
            let why = wanted(&format!("/n?{query}")).unwrap_err();
            assert!(why.starts_with(name), "{query}: {why}");
        }
        assert!(wanted("/n?host=%ff").is_err());
    }

    #[test]
    fn events_are_narrowed_by_lists_and_times() {
        let query = "/e?limit=7&before=1a&host=a&level=warning,critical&kind=overdue,back\
            &since=2026-11-21T20:12:08Z&until=2026-11-22T00:00:00Z";
        let found = events(query).unwrap();
        assert_eq!((found.limit, found.before, found.host.as_deref()), (7, Some(0x1a), Some("a")));
        assert_eq!(found.levels, [Level::Warning, Level::Critical]);
        assert_eq!(found.kinds, ["overdue", "back"]);
        assert_eq!(found.since, Some(Wall(1_795_291_928_000)));
        for same in ["2026-11-21T21:42:08%2B01:30", "2026-11-21t20:12:08.000z"] {
            assert_eq!(events(&format!("/e?since={same}")).unwrap().since, found.since);
        }
        assert_eq!(events("/e?since=1900-01-01T00:00:00Z").unwrap().since, Some(Wall(0)));
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
            let why = events(&format!("/e?{wrong}")).unwrap_err();
            assert!(why.starts_with(name), "{wrong}: {why}");
        }
    }

    #[test]
    fn series_have_paths_and_a_range() {
        let found = series("/s?metrics=a.b,c.*&range=7d").unwrap();
        let range = Duration::from_secs(7 * 86_400);
        assert_eq!(found, SeriesWanted { metrics: vec!["a.b".into(), "c.*".into()], range });
        assert_eq!(series("/s").unwrap(), SeriesWanted::default());
        assert!(series("/s?range=long").unwrap_err().starts_with("range"));
    }

    #[test]
    fn a_notice_has_one_address_and_a_message() {
        let notice = |whom, level| Ok(Notice { whom, message: "m".into(), level });
        let host = Whom::Host("web1".into());
        let channels = Whom::Channels(vec!["a".into(), "b".into()]);
        for (body, expected) in [
            (r#"{"host":"web1","message":"m"}"#, notice(host.clone(), None)),
            (
                r#"{"channels":["a","b"],"host":null,"message":"m","level":"critical"}"#,
                notice(channels, Some(Level::Critical)),
            ),
        ] {
            assert_eq!(parse(body.as_bytes()), expected, "{body}");
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
            let said = parse(body.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{body}: {said}");
        }
        assert!(parse(b"{\"host\":\"\xff\",\"message\":\"m\"}").is_err());
    }
}
