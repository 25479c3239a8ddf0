//! The sections `maintenance` and `calm`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::flap::FlapSettings;
use super::scope::{CalmScope, matches};
use super::window::{Days, Hours, Window};
use crate::clock::{Now, Wall};
use crate::config_file::suggestion::{nearest, suggestion};
use crate::config_file::{NameSet, Section};
use crate::event::{Level, StormLimit};
use crate::host_pattern::{is_pattern, overlap};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How many changes may make something flapping. An alarm and its end are none.
const FLAP_CHANGES: RangeInclusive<i64> = 3..=100;
/// The longest silence that may be configured as the longest.
const MAX_SILENCE: Duration = Duration::from_secs(366 * 24 * 3600);

/// What may be held back, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalmSettings {
    /// The longest silence that people may set.
    pub longest_silence: Duration,
    /// The longest silence that a host may ask for; zero: none.
    pub longest_host_silence: Duration,
    /// From when on hosts that fall silent together are a storm; none: never.
    pub storm: Option<StormLimit>,
    /// The maintenance windows, by name.
    pub windows: Vec<Window>,
    /// When something counts as flapping; none: never.
    pub flapping: Option<FlapSettings>,
}

impl Default for CalmSettings {
    fn default() -> CalmSettings {
        CalmSettings {
            longest_silence: 28 * DAY,
            longest_host_silence: Duration::from_secs(4 * 3600),
            storm: Some(StormLimit::default()),
            windows: Vec::new(),
            flapping: Some(FlapSettings::default()),
        }
    }
}

impl CalmSettings {
    /// Reads both sections of the top level; `hosts` are those that are configured, by name or pattern.
    pub fn read(top: &mut Section, hosts: &NameSet) -> CalmSettings {
        let windows = top.entries("maintenance", |name, section| {
            read_window(name, section, hosts, Now::read().wall)
        });
        let windows = windows.into_iter().filter_map(|(_, window)| window).collect();
        let limits = top.section("calm", |section| {
            let default = CalmSettings::default();
            let second = Duration::from_secs(1);
            let longest = section.duration_within("longest_silence", second..=MAX_SILENCE);
            let of_hosts =
                section.duration_within("longest_host_silence", Duration::ZERO..=MAX_SILENCE);
            CalmSettings {
                longest_silence: longest.unwrap_or(default.longest_silence),
                longest_host_silence: of_hosts.unwrap_or(default.longest_host_silence),
                storm: read_storm(section),
                windows: Vec::new(),
                flapping: read_flapping(section),
            }
        });
        CalmSettings { windows, ..limits.unwrap_or_default() }
    }
}

/// `flapping`: `{changes, within, quiet}`, or `off`.
fn read_flapping(section: &mut Section) -> Option<FlapSettings> {
    let default = FlapSettings::default();
    let read = |section: &mut Section| {
        let time = Duration::from_secs(1)..=DAY;
        let changes = section.number("changes", FLAP_CHANGES);
        FlapSettings {
            changes: changes.and_then(|one| one.try_into().ok()).unwrap_or(default.changes),
            within: section.duration_within("within", time.clone()).unwrap_or(default.within),
            quiet: section.duration_within("quiet", time).unwrap_or(default.quiet),
        }
    };
    section
        .section_or_off("flapping", "{changes: 6, within: 30m, quiet: 15m}", read)
        .unwrap_or(Some(default))
}

/// `storm`: `{hosts, share}`, or `off`.
fn read_storm(section: &mut Section) -> Option<StormLimit> {
    let default = StormLimit::default();
    let read = |section: &mut Section| {
        let hosts = section.number("hosts", 2..=1_000_000).and_then(|n| usize::try_from(n).ok());
        let share = section.number("share", 1..=99).and_then(|n| usize::try_from(n).ok());
        StormLimit { hosts: hosts.unwrap_or(default.hosts), share: share.unwrap_or(default.share) }
    };
    section.section_or_off("storm", "{hosts: 3, share: 50}", read).unwrap_or(Some(default))
}

const LEVELS: [(&str, Level); 3] =
    [("info", Level::Info), ("warning", Level::Warning), ("critical", Level::Critical)];

fn read_window(name: &str, section: &mut Section, hosts: &NameSet, now: Wall) -> Option<Window> {
    let scopes = read_scopes(section, hosts);
    let days = read_days(section);
    section.require("at");
    let at = section
        .text("at")
        .and_then(|text| Hours::parse(&text).map_err(|what| section.error("at", what)).ok());
    let zone = read_zone(section);
    let unless = section.choice("unless", &LEVELS);
    let window =
        Window { name: name.to_owned(), scopes, days: days?, at: at?, zone: zone?, unless };
    check_days(section, &window, now);
    Some(window)
}

/// `all`, `hosts` and `plans`.
fn read_scopes(section: &mut Section, hosts: &NameSet) -> Vec<CalmScope> {
    let all = section.flag("all").unwrap_or_default();
    let patterns = section.texts("hosts").unwrap_or_default();
    let plans = section.texts("plans").unwrap_or_default();
    if all && !(patterns.is_empty() && plans.is_empty()) {
        section.error("all", "is everything: give either all, or hosts and plans");
    }
    if !all && patterns.is_empty() && plans.is_empty() {
        section.error("", "names nothing: give hosts, plans, or all: true");
    }
    if all {
        return vec![CalmScope::All];
    }
    let mut scopes = Vec::new();
    for pattern in patterns {
        match CalmScope::parse(&pattern) {
            Ok(CalmScope::Hosts(pattern)) => {
                check_hosts(section, &pattern, hosts);
                scopes.push(CalmScope::Hosts(pattern));
            }
            Ok(CalmScope::All | CalmScope::Parts { .. } | CalmScope::Plan(_)) | Err(_) => {
                let what =
                    format!("must be names of hosts, or patterns such as web*, not \"{pattern}\"");
                section.error("hosts", what);
            }
        }
    }
    scopes.extend(plans.into_iter().map(CalmScope::Plan));
    scopes
}

/// A host may be added later, so that this is a warning.
fn check_hosts(section: &Section, pattern: &str, hosts: &NameSet) {
    let may_match =
        |host: &String| matches(pattern, host) || is_pattern(host) && overlap(pattern, host);
    if hosts.iter().any(may_match) {
        return;
    }
    let what = if pattern.contains('*') {
        format!("\"{pattern}\" matches none of the hosts below \"hosts\"")
    } else {
        let meant = suggestion(pattern, hosts.iter().map(String::as_str));
        format!("no host is called \"{pattern}\"{meant}")
    };
    section.warning("hosts", what);
}

fn read_days(section: &mut Section) -> Option<Days> {
    let (days, dates) = (section.texts("days"), section.texts("dates"));
    if let (Some(_), Some(_)) = (&days, &dates) {
        section.error("dates", "give either days or dates, not both");
        return None;
    }
    if let Some(texts) = dates {
        return read_dates(section, &texts);
    }
    match days {
        Some(texts) if texts.is_empty() => {
            section.error("days", "names no day: leave it out for every day");
            None
        }
        Some(texts) => Days::parse(&texts).map_err(|what| section.error("days", what)).ok(),
        None => Some(Days::Weekly([true; 7])),
    }
}

fn read_dates(section: &Section, texts: &[String]) -> Option<Days> {
    let mut dates = BTreeSet::new();
    let mut sound = true;
    for text in texts {
        match text.parse::<Date>().ok().filter(|date| date.to_string() == *text) {
            Some(date) => drop(dates.insert(date)),
            None => {
                let what = format!("must be a date such as 2027-03-28, not \"{text}\"");
                section.error("dates", what);
                sound = false;
            }
        }
    }
    if texts.is_empty() {
        section.error("dates", "names no day");
    }
    (sound && !texts.is_empty()).then_some(Days::Dates(dates))
}

/// The zone, none within where this machine's cannot be read: then there is no window. None when it
/// is refused.
fn read_zone(section: &mut Section) -> Option<Option<TimeZone>> {
    let Some(name) = section.text("zone") else {
        if section.given("zone") {
            return None;
        }
        return Some(match local_zone() {
            Ok(zone) => Some(zone),
            Err(why) => {
                let what = format!(
                    "this machine's time zone cannot be read, so there is no window: {why}: name one"
                );
                section.warning("zone", what);
                None
            }
        });
    };
    let database = jiff::tz::db();
    let zone = database.get(&name).ok().filter(|zone| zone.iana_name() == Some(name.as_str()));
    if zone.is_none() {
        let known: Vec<String> = database.available().map(|zone| zone.to_string()).collect();
        if known.iter().all(|zone| zone == "UTC") {
            let what = "no time zones can be read, so there is no window (package tzdata)";
            section.warning("zone", what);
            return Some(None);
        }
        let near = nearest(&name, known.iter().map(String::as_str))
            .map_or(String::new(), |near| format!(", did you mean \"{near}\"?"));
        section.error("zone", format!("no time zone is called \"{name}\"{near} (package tzdata)"));
        return None;
    }
    Some(zone)
}

/// That of `TZ`, or of `/etc/localtime`; UTC where there is neither.
fn local_zone() -> Result<TimeZone, String> {
    let is_set = std::env::var_os("TZ").is_some_and(|name| !name.is_empty());
    if !is_set && !std::path::Path::new("/etc/localtime").exists() {
        return Ok(TimeZone::UTC);
    }
    TimeZone::try_system().map_err(|why| why.to_string())
}

fn check_days(section: &Section, window: &Window, now: Wall) {
    if window.zone.is_none() {
        return;
    }
    if window.is_over(now) {
        section.warning("dates", "is over: no window is left");
    } else if let Some(day) = window.left_out(now) {
        let what =
            format!("a change of the clocks leaves it out on {day}: there is no window then");
        section.warning("at", what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The windows and all problems of a configuration with this section `maintenance`.
    fn load(maintenance: &str) -> (Vec<Window>, Vec<String>) {
        let (settings, problems) = load_all(maintenance);
        (settings.map(|settings| settings.windows).unwrap_or_default(), problems)
    }

    /// The same for all settings, where they are accepted.
    fn load_all(maintenance: &str) -> (Option<CalmSettings>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        let text = format!(
            "hosts: {{web1: {{watch: true}}, web2: {{watch: true}}, db1: {{watch: true}}}}\n\
             notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             {maintenance}"
        );
        std::fs::write(&file, text).unwrap();
        let shown = |problems: crate::problem::Problems| {
            let problems = problems.0.into_iter();
            problems
                .map(|one| format!("{}: {}: {}", one.line.unwrap_or(0), one.path, one.what))
                .collect()
        };
        match Config::load(&file) {
            Ok(config) => (Some(config.calm.clone()), shown(config.warnings)),
            Err(problems) => (None, shown(problems)),
        }
    }

    #[test]
    fn the_windows_of_the_documentation_are_read() {
        let text = "\
maintenance:
  nightly:
    hosts: [web*, db1]
    plans: [\"4\"]
    days: [mon-fri, sun]
    at: 02:00-04:30
    zone: Asia/Kolkata
    unless: critical
  firmware:
    all: true
    dates: [2127-03-28, 2127-04-01]
    at: 01:00-05:00
    zone: UTC
calm:
  longest_silence: 4w
  longest_host_silence: 0
";
        let (windows, problems) = load(text);
        assert_eq!(problems, [""; 0]);
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[0].scopes.len(), 3);
        assert_eq!(windows[0].unless, Some(Level::Critical));
        assert_eq!(windows[1].scopes, [CalmScope::All]);
    }

    #[test]
    fn what_is_wrong_with_a_window_is_said_with_its_line() {
        let good = "hosts: [web1], at: 02:00-04:30, zone: UTC";
        for (window, problem) in [
            (
                "hosts: [web1], at: 2:00, zone: UTC",
                "at: must be two times of day such as 02:00-04:30, not \"2:00\"",
            ),
            (
                "hosts: [web1], at: 02:00-02:00, zone: UTC",
                "at: is empty; for a whole day write 00:00-24:00",
            ),
            ("hosts: [web1], zone: UTC", "at: is missing"),
            (
                "hosts: [web1], at: 02:00-04:30, zone: UTC, days: [funday]",
                "days: must be mon, tue ... or a range such as mon-fri, not \"funday\"",
            ),
            (
                "hosts: [web1], at: 02:00-04:30, zone: UTC, days: []",
                "days: names no day: leave it out for every day",
            ),
            (
                "hosts: [web1], at: 02:00-04:30, zone: UTC, days: [mon], dates: [2127-03-28]",
                "dates: give either days or dates, not both",
            ),
            (
                "hosts: [web1], at: 02:00-04:30, zone: UTC, dates: [2127-02-30]",
                "dates: must be a date such as 2027-03-28, not \"2127-02-30\"",
            ),
            (
                "hosts: [web1], at: 02:00-04:30, zone: UTC, dates: [2001-02-03]",
                "dates: is over: no window is left",
            ),
            (
                "hosts: [web1], at: 02:00-04:30, zone: Europe/Berln",
                "zone: no time zone is called \"Europe/Berln\", did you mean \"Europe/Berlin\"? (package tzdata)",
            ),
            (
                "hosts: [wbe*], at: 02:00-04:30, zone: UTC",
                "hosts: \"wbe*\" matches none of the hosts below \"hosts\"",
            ),
            (
                "hosts: [wbe1], at: 02:00-04:30, zone: UTC",
                "hosts: no host is called \"wbe1\", did you mean \"web1\"?",
            ),
            (
                "hosts: [web1/ipv4], at: 02:00-04:30, zone: UTC",
                "hosts: must be names of hosts, or patterns such as web*, not \"web1/ipv4\"",
            ),
            ("at: 02:00-04:30, zone: UTC", ": names nothing: give hosts, plans, or all: true"),
            (
                "all: true, hosts: [web1], at: 02:00-04:30, zone: UTC",
                "all: is everything: give either all, or hosts and plans",
            ),
            (
                &format!("{good}, unless: loud"),
                "unless: must be info, warning or critical, not \"loud\"",
            ),
            (&format!("{good}, host: [web1]"), "host: unknown key, did you mean \"hosts\"?"),
        ] {
            let (_, problems) = load(&format!("maintenance:\n  nightly: {{{window}}}\n"));
            let path = if problem.starts_with(": ") {
                "5: maintenance.nightly"
            } else {
                "5: maintenance.nightly."
            };
            assert_eq!(problems, [format!("{path}{problem}")], "{window}");
        }
    }

    #[test]
    fn a_window_that_a_change_of_the_clocks_leaves_out_is_a_warning_with_the_day() {
        let zone = "zone: Europe/Berlin";
        let (windows, problems) =
            load(&format!("maintenance: {{early: {{all: true, at: 02:15-02:45, {zone}}}}}\n"));
        assert_eq!(windows.len(), 1);
        assert!(problems[0].contains("leaves it out on 20"), "{problems:?}");
        let (_, problems) =
            load(&format!("maintenance: {{early: {{all: true, at: 02:15-03:45, {zone}}}}}\n"));
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn the_limits_of_silences_have_limits() {
        let (_, problems) = load("calm: {longest_silence: 0, longest_host_silence: 2000d}\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("calm.longest_silence: must be from 1 s to 366 d"));
    }

    #[test]
    fn flapping_is_on_unless_it_is_off_and_has_limits() {
        let settings = |changes, within, quiet| {
            let (within, quiet) = (Duration::from_secs(within), Duration::from_secs(quiet));
            Some(FlapSettings { changes, within, quiet })
        };
        let default = settings(6, 1800, 900);
        for (calm, expected) in [
            ("", default),
            ("calm: {longest_silence: 1w}", default),
            ("calm: {flapping: off}", None),
            ("calm: {flapping: {changes: 6, within: 30m, quiet: 15m}}", default),
            ("calm: {flapping: {}}", default),
            ("calm: {flapping: {changes: 100}}", settings(100, 1800, 900)),
            ("calm: {flapping: {changes: 3, within: 1s, quiet: 24h}}", settings(3, 1, 86_400)),
        ] {
            let (read, problems) = load_all(&format!("{calm}\n"));
            assert_eq!(problems, [""; 0], "{calm}");
            assert_eq!(read.unwrap().flapping, expected, "{calm}");
        }
        let number = "must be a whole number from 3 to 100, not";
        let wanted = "must be off, or a map such as {changes: 6, within: 30m, quiet: 15m}";
        for (flapping, problem) in [
            ("{changes: 1}", format!("flapping.changes: {number} \"1\"")),
            ("{changes: 2}", format!("flapping.changes: {number} \"2\"")),
            ("{changes: 101}", format!("flapping.changes: {number} \"101\"")),
            ("{changes: many}", format!("flapping.changes: {number} \"many\"")),
            ("{within: 0}", "flapping.within: must be from 1 s to 1 d, not 0 s".into()),
            ("{quiet: 2d}", "flapping.quiet: must be from 1 s to 1 d, not 2 d".into()),
            ("{change: 6}", "flapping.change: unknown key, did you mean \"changes\"?".into()),
            ("on", format!("flapping: {wanted}, not \"on\"")),
            ("6", format!("flapping: {wanted}, not \"6\"")),
            ("[6]", format!("flapping: {wanted}, not a list")),
        ] {
            let (_, problems) = load_all(&format!("calm: {{flapping: {flapping}}}\n"));
            assert_eq!(problems, [format!("4: calm.{problem}")], "{flapping}");
        }
    }

    #[test]
    fn storms_are_read_and_refused_with_their_range() {
        let calm = |text: &str| {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("heartbeat.yaml");
            std::fs::write(&file, format!("calm: {text}\n")).unwrap();
            match Config::load(&file) {
                Ok(config) => Ok(config.calm.storm.map(|limit| (limit.hosts, limit.share))),
                Err(problems) => {
                    let shown =
                        |one: crate::problem::Problem| format!("{}: {}", one.path, one.what);
                    Err(problems.0.into_iter().map(shown).collect::<Vec<_>>().join("; "))
                }
            }
        };
        for (text, expected) in [
            ("{}", Some((3, 50))),
            ("{storm: {}}", Some((3, 50))),
            ("{storm: {hosts: 5}}", Some((5, 50))),
            ("{storm: {hosts: 2, share: 99}}", Some((2, 99))),
            ("{storm: off}", None),
            ("{storm: }", Some((3, 50))),
        ] {
            assert_eq!(calm(text), Ok(expected), "{text}");
        }
        let wanted = "must be off, or a map such as {hosts: 3, share: 50}";
        for (text, problem) in [
            ("{share: 0}", ".share: must be a whole number from 1 to 99, not \"0\""),
            ("{share: 100}", ".share: must be a whole number from 1 to 99, not \"100\""),
            ("{share: 50%}", ".share: must be a whole number from 1 to 99, not \"50%\""),
            ("{hosts: 1}", ".hosts: must be a whole number from 2 to 1000000, not \"1\""),
            ("{host: 3}", ".host: unknown key, did you mean \"hosts\"?"),
            ("on", &format!(": {wanted}, not \"on\"")),
            ("false", &format!(": {wanted}, not \"false\"")),
            ("often", &format!(": {wanted}, not \"often\"")),
            ("3", &format!(": {wanted}, not \"3\"")),
            ("[3, 50]", &format!(": {wanted}, not a list")),
        ] {
            assert_eq!(calm(&format!("{{storm: {text}}}")), Err(format!("calm.storm{problem}")));
        }
    }
}
