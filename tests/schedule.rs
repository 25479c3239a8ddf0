//! Schedules against the real `systemd-analyze calendar`.

use std::process::Command;

use heartbeat::backup::schedule::{Schedule, Zones};
use heartbeat::clock::{Wall, parse_rfc3339};

const ITERATIONS: usize = 4;

/// Zones with and without daylight saving time, one south of the equator.
const ZONES: [&str; 4] = ["UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe"];

/// An ordinary day, the days before the clocks change, and a leap day.
const BASES: [&str; 5] = [
    "2026-09-22T18:07:31Z",
    "2026-03-28T11:10:00Z",
    "2026-10-24T22:10:00Z",
    "2027-12-31T23:59:59Z",
    "2028-02-28T12:00:00Z",
];

/// Each with what is hard about it.
const EXPRESSIONS: &[&str] = &[
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "yearly",
    "annually",
    "anually",
    "biannually",
    "bi-annually",
    "semiannually",
    "semi-annually",
    "semi-yearly",
    "DAILY",
    "Weekly",
    "daily UTC",
    "hourly Europe/Rome",
    "weekly CET",
    "monthly utc",
    "daily daily",
    "often",
    "",
    "03:00",
    "3:0",
    "03:00:00",
    "*:0/15",
    "*:*",
    "*:*:*",
    "*:*:0/10",
    "*-*-* *:00/15:00",
    "0/6:00",
    "8..18:00",
    "22:52",
    "02:30",
    "*:30",
    "1,3,5:10,20",
    "1..3,2/2:00",
    "05..05:00",
    "7..5:00",
    "00:00:59.9999999",
    "03:00:00.5",
    "*:*:0/0.5",
    "*:*:5..5",
    "*:*:5..6",
    "*:*:1.5..3",
    "25:00",
    "24:00",
    "*:60",
    "*:*:60",
    "*/15:00",
    "*:*/15",
    "23/2:00",
    "22/2:00",
    "*:0/0",
    "*:0/61",
    "1:2:3:4",
    "03",
    "*",
    ":",
    "03:",
    ":30",
    "3.5:00",
    "*-*-*  03:00",
    "Mon",
    "mon..fri",
    "Mon-Fri 03:00",
    "Sat,Sun 03:00",
    "Mon,Thu, 03:00",
    "Mon,",
    "Mon..",
    "Fri..Mon",
    "mon..mon",
    "Monday,tue 04:00",
    "Mondays",
    "Mon..Wed..Fri",
    "Mon..Wed,Fri",
    "Mon,,Tue",
    "Sun *-*-1..7 03:00",
    "Mon *-*-*",
    "Mon *",
    "Mon 2026",
    "Foo 03:00",
    "Mon..Foo",
    "*-*-01",
    "01-15",
    "*-*-1,15",
    "*-13-01",
    "*-02-30",
    "*-02-29",
    "*-*-31",
    "*-*-0",
    "*-*-32",
    "*-*-01..10/3",
    "*-*-1/7",
    "*-1/3-01",
    "*-*-31/5",
    "2026-12-24 18:00",
    "26-12-24",
    "89-1-1",
    "2026..2030-*-*",
    "2026,2028-02-29",
    "2027/2-06-01",
    "1969-01-01",
    "2200-01-01",
    "2199-12-31",
    "2026-01-01T03:00",
    "2020-01-01",
    "*-02~03",
    "~07/1",
    "*~07/1",
    "*-*~3/1",
    "*-*~01",
    "*-*~1..5",
    "*-*~28",
    "*-*~29",
    "*-*~31",
    "*-05~07/2",
    "*-*~7/7",
    "Mon *-05~07/1",
    "*~1",
    "2026-*~1",
    "2026~1-1",
    "*-*~*",
    "*-*~5..1",
    "*-*~5/5",
    "*-*~1/1",
    "*-*~1,3,5",
    "03:00 CET",
    "03:00 CEST",
    "03:00 cet",
    "03:00 EST",
    "03:00 EDT",
    "03:00 Europe/Rome",
    "03:00 europe/rome",
    "03:00 America/New_York",
    "02:30 Europe/Rome",
    "03:00 GMT",
    "03:00 Etc/UTC",
    "03:00 Z",
    "03:00 Nowhere/Town",
    "UTC",
    "GMT",
    "UTC UTC",
    "*:0/20 Asia/Kolkata",
    "Mon..Fri 01:30 Australia/Lord_Howe",
    "@1790000000",
    "@1795000000",
    "@0",
    "@",
    "@-5",
    "@x",
    "@1895000000 UTC",
];

/// What systemd says of an expression: its next elapses, or that it refuses it.
fn systemd(expression: &str, zone: &str, base: &str) -> Option<Vec<String>> {
    let output = Command::new("systemd-analyze")
        .args(["calendar", &format!("--iterations={ITERATIONS}")])
        .arg(format!("--base-time={}", base.replace('T', " ").replace('Z', " UTC")))
        .args(["--", expression])
        .env("TZ", zone)
        .env("LC_ALL", "C")
        .output()
        .expect("systemd-analyze can be run: it is in Debian's package systemd");
    let text = String::from_utf8(output.stdout).unwrap();
    let elapse = |line: &str| {
        let mut heads = ["Next elapse: ", "Iter. #", "(in UTC): "].iter();
        let is_elapse = heads.any(|head| line.trim().starts_with(head));
        let (day_and_time, _) = line.strip_suffix(" UTC")?.rsplit_once(' ')?;
        let time = &line[day_and_time.len()..line.len() - " UTC".len()];
        let (_, day) = day_and_time.rsplit_once(' ')?;
        is_elapse.then(|| format!("{day}{time}"))
    };
    let elapses = text.lines().filter_map(elapse);
    output.status.success().then(|| elapses.collect())
}

/// The same from us.
fn ours(expression: &str, zone: &str, base: &str) -> Option<Vec<String>> {
    let zones = Zones::with_local(zone).unwrap();
    let schedule = Schedule::parse(expression, &zones)?;
    let mut now = parse_rfc3339(base).unwrap();
    let mut elapses = Vec::new();
    while let Some(next) = schedule.next_elapse(now).filter(|_| elapses.len() < ITERATIONS) {
        let before = schedule.latest_elapse(Wall(next.0 - 1));
        assert!(
            elapses.is_empty() || before == Some(now),
            "{expression} {zone} {base} {before:?} {now:?}"
        );
        elapses.push(next.to_string()[..19].replace('T', " "));
        now = next;
    }
    Some(elapses)
}

fn compare(expression: &str, zone: &str, base: &str, differing: &mut Vec<String>) {
    let (ours, systemd) = (ours(expression, zone, base), systemd(expression, zone, base));
    if ours != systemd {
        differing.push(format!("{expression:?} {zone} {base}\n  {ours:?}\n  {systemd:?}"));
    }
}

#[test]
fn a_schedule_means_what_systemd_takes_it_for() {
    let mut differing = Vec::new();
    for (at, expression) in EXPRESSIONS.iter().enumerate() {
        let (zone, base) = (ZONES[at % ZONES.len()], BASES[at % BASES.len()]);
        compare(expression, zone, base, &mut differing);
        compare(expression, "Europe/Rome", BASES[(at + 1) % BASES.len()], &mut differing);
    }
    assert!(differing.is_empty(), "{}\n{}", differing.len(), differing.join("\n"));
}
