//! Schedules against the real `systemd-analyze calendar`.

use std::process::Command;

use heartbeat::backup::schedule::{Schedule, Zones};
use heartbeat::clock::{Wall, parse_rfc3339};

const ITERATIONS: usize = 4;

const RANDOM_EXPRESSIONS: usize = 400;

/// Zones with and without daylight saving time, one south of the equator.
const ZONES: [&str; 4] = ["UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe"];

/// An ordinary day, the end of one, the days before the clocks change, and a leap day.
const BASES: [&str; 6] = [
    "2026-09-22T18:07:31Z",
    "2026-12-30T23:55:58Z",
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
    // The repetition runs over the end of an hour, a day, a year.
    "*:4/24",
    "*:0/7",
    "*-*-1/2",
    "*-*-4/13",
    "4/9:00",
    "*:*:7/17",
    "*-3/5-1",
    "0/5:30",
    "@1790000000",
    "@1795000000",
    "@0",
    "@",
    "@-5",
    "@x",
    "@1895000000 UTC",
];

/// What systemd says of an expression.
#[derive(Debug, PartialEq)]
enum Answer {
    Refused,
    /// The next times at which it elapses.
    Elapses(Vec<String>),
    /// systemd 252 gives up on some days of the month when the clocks change.
    GaveUp,
}

fn systemd(expression: &str, zone: &str, base: &str) -> Answer {
    let output = Command::new("systemd-analyze")
        .args(["calendar", &format!("--iterations={ITERATIONS}")])
        .arg(format!("--base-time={}", base.replace('T', " ").replace('Z', " UTC")))
        .args(["--", expression])
        .env("TZ", zone)
        .env("LC_ALL", "C")
        .output()
        .expect("systemd-analyze can be run: it is in Debian's package systemd");
    if String::from_utf8_lossy(&output.stderr).contains("Resource deadlock avoided") {
        return Answer::GaveUp;
    }
    if !output.status.success() {
        return Answer::Refused;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    Answer::Elapses(text.lines().filter_map(elapse).collect())
}

/// `2026-09-23 18:07:31` of `(in UTC): Wed 2026-09-23 18:07:31 UTC`.
fn elapse(line: &str) -> Option<String> {
    let mut heads = ["Next elapse: ", "Iter. #", "(in UTC): "].iter();
    heads.find(|head| line.trim().starts_with(**head))?;
    let mut words = line.strip_suffix(" UTC")?.rsplit(' ');
    let (time, day) = (words.next()?, words.next()?);
    Some(format!("{day} {time}"))
}

/// Expressions by a grammar that goes a little beyond what is valid, the same in every run.
struct Grammar(u64);

impl Grammar {
    /// A number below `limit` (xorshift64).
    fn number(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[usize::try_from(self.number(texts.len() as u64)).unwrap()]
    }

    fn field(&mut self, from: u64, limit: u64) -> String {
        let [one, two, three] = [(); 3].map(|()| from + self.number(limit + 1 - from));
        match self.number(9) {
            0..4 => "*".into(),
            4 | 5 => one.to_string(),
            6 => format!("{one}..{two}"),
            7 => format!("{one}/{}", 1 + self.number(limit / 2)),
            _ => format!("{one},{two}..{three}/{}", 1 + self.number(3)),
        }
    }

    fn expression(&mut self) -> String {
        let mut parts = Vec::new();
        if self.number(3) == 0 {
            let days = ["Mon", "tue", "Wed..Fri", "Sat,Sun", "Thu-Sat", "Sunday", "Fri..Tue"];
            parts.push(self.one_of(&days).to_owned());
        }
        if self.number(3) > 0 {
            let year = match self.number(3) {
                0 => format!("{}-", self.field(2025, 2032)),
                1 => "*-".into(),
                _ => String::new(),
            };
            let separator = self.one_of(&["-", "-", "~"]);
            parts.push(format!("{year}{}{separator}{}", self.field(1, 12), self.field(1, 31)));
        }
        if self.number(4) > 0 || parts.is_empty() {
            let seconds = match self.number(3) {
                0 => format!(":{}", self.field(0, 59)),
                _ => String::new(),
            };
            parts.push(format!("{}:{}{seconds}", self.field(0, 23), self.field(0, 59)));
        }
        let zones = ["", "", "", "", "UTC", "Europe/Rome", "Asia/Kolkata", "CET"];
        parts.push(self.one_of(&zones).to_owned());
        parts.join(" ").trim().to_owned()
    }
}

/// The same from us. What elapsed last is found from the moment before the next.
fn ours(expression: &str, zone: &str, base: &str) -> Answer {
    let zones = Zones::with_local(zone).unwrap();
    let Some(schedule) = Schedule::parse(expression, &zones) else { return Answer::Refused };
    let mut now = parse_rfc3339(base).unwrap();
    let mut elapses = Vec::new();
    while let Some(next) = schedule.next_elapse(now).filter(|_| elapses.len() < ITERATIONS) {
        let before = schedule.latest_elapse(Wall(next.0 - 1));
        // Where repetitions run over the end of a day, what elapses depends on where one begins.
        let found = elapses.is_empty() || before >= Some(now);
        assert!(found && before < Some(next), "{expression} {zone} {base}: {before:?} {now:?}");
        elapses.push(next.to_string()[..19].replace('T', " "));
        now = next;
    }
    Answer::Elapses(elapses)
}

/// Where we and systemd differ.
fn difference(expression: &str, zone: &str, base: &str) -> Option<String> {
    let (ours, systemd) = (ours(expression, zone, base), systemd(expression, zone, base));
    // systemd 252 takes three days more off the limit for each further one of a list.
    let list_refused =
        systemd == Answer::Refused && expression.contains('~') && expression.contains(',');
    let differ = ours != systemd && systemd != Answer::GaveUp && !list_refused;
    differ.then(|| format!("{expression:?} {zone} {base}\n  {ours:?}\n  {systemd:?}"))
}

#[test]
fn a_schedule_means_what_systemd_takes_it_for() {
    let mut differing = Vec::new();
    for (at, expression) in EXPRESSIONS.iter().enumerate() {
        let (zone, base) = (ZONES[at % ZONES.len()], BASES[at % BASES.len()]);
        differing.extend(difference(expression, zone, base));
        differing.extend(difference(expression, "Europe/Rome", BASES[(at + 1) % BASES.len()]));
    }
    assert!(differing.is_empty(), "{}\n{}", differing.len(), differing.join("\n"));
}

#[test]
fn what_nobody_thought_of_means_the_same_as_well() {
    let mut grammar = Grammar(0x2545_F491_4F6C_DD1D);
    let mut differing = Vec::new();
    for at in 0..RANDOM_EXPRESSIONS {
        let (zone, base) = (ZONES[at % ZONES.len()], BASES[at % BASES.len()]);
        differing.extend(difference(&grammar.expression(), zone, base));
    }
    assert!(differing.is_empty(), "{}\n{}", differing.len(), differing.join("\n"));
}
