//! The history: hosts that beat, a store on a disk, and time that is moved by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use heartbeat::clock::{Now, Wall};
use heartbeat::heartbeat::fleet::Fleet;
use heartbeat::heartbeat::persistence::LastAlive;
use heartbeat::heartbeat::settings::{FleetConfig, HostSettings};
use heartbeat::history::HistorySource;
use heartbeat::history::recorder::Recorder;
use heartbeat::history::retention::RetentionSettings;
use heartbeat::store::{Table, Write};
use heartbeat::view::{AvailabilityView, UptimeSample};
use recorder::{DAY, Hosts, MIDNIGHT, MINUTE, World, lock};
use tempfile::TempDir;

#[path = "support/recorder.rs"]
mod recorder;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Hosts for Seen {
    fn take_samples(&mut self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        self.0.take_samples(from, count, until)
    }

    fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample> {
        self.0.peek_sample(host, now)
    }

    fn outages(&mut self, now: Now) -> Vec<(Wall, Wall)> {
        self.0.take_blind_periods(now)
    }
}

/// The fleet, as the history sees it.
struct Seen(Fleet);

/// A daemon in small: a fleet, a store, and the recorder between them.
struct Play {
    world: Arc<World<Seen>>,
    recorder: Recorder,
    rules: FleetConfig,
    now: Now,
    beats: u64,
    directory: TempDir,
}

fn rules(hosts: &[&str]) -> FleetConfig {
    let watched = HostSettings { watch: true, ..HostSettings::default() };
    let hosts = hosts.iter().map(|host| ((*host).to_owned(), watched.clone())).collect();
    let mut rules = FleetConfig { hosts, ..FleetConfig::default() };
    rules.settings.interval = 5 * MINUTE;
    rules
}

/// A directory, in memory where there is such a place: thousands of commits are made.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Play {
    fn new(hosts: &[&str]) -> Play {
        Play::with(hosts, RetentionSettings::default())
    }

    fn with(hosts: &[&str], settings: RetentionSettings) -> Play {
        let directory = scratch();
        let rules = rules(hosts);
        let fleet = Fleet::restore(rules.clone(), [], None, MIDNIGHT, "kernel");
        let world = World::new(directory.path(), Seen(fleet));
        let recorder = world.recorder(settings);
        let play = Play { world, recorder, rules, now: MIDNIGHT, beats: 0, directory };
        play.recorder.tick(play.now);
        play
    }

    /// Time passes, and these hosts beat every five minutes, with a metric that rises and falls.
    fn pass(&mut self, time: Duration, hosts: &[&str]) -> &mut Play {
        let end = self.now.later(time);
        while self.now.mono < end.mono {
            let step = (5 * MINUTE).min(end.mono.since(self.now.mono));
            self.now = self.now.later(step);
            self.beats += 1;
            for host in hosts {
                let load = self.beats % 10;
                let beat = format!(
                    r#"{{"host":"{host}","interval":300,"metrics":{{"m":{{"load":{load},"disk":42.5}}}}}}"#
                );
                lock(&self.world.hosts).0.ingest(beat.as_bytes(), HERE, self.now).unwrap();
            }
            lock(&self.world.hosts).0.due(self.now);
            self.recorder.tick(self.now);
        }
        self
    }

    /// The daemon stops, in peace or not, and another one begins after `away`.
    fn restart(&mut self, peaceful: bool, away: Duration) -> &mut Play {
        let mark = LastAlive { kernel_boot: "kernel".into(), now: self.now, offset: None };
        if peaceful {
            self.recorder.close(self.now);
        }
        let rows = lock(&self.world.hosts).0.all_rows();
        self.now = self.now.later(away);
        let fleet = Fleet::restore(self.rules.clone(), rows, Some(mark), self.now, "kernel");
        lock(&self.world.hosts).0 = fleet;
        *lock(&self.world.store) = None;
        let (store, _) = heartbeat::store::Store::open(self.directory.path(), self.now).unwrap();
        *lock(&self.world.store) = Some(store);
        self.recorder = self.world.recorder(RetentionSettings::default());
        self.recorder.tick(self.now);
        self
    }

    fn past(&self, host: &str) -> AvailabilityView {
        self.recorder.pasts(&[host], self.now).unwrap().remove(0).unwrap()
    }
}

fn hours(past: &AvailabilityView, last: usize) -> Vec<(u64, u64, u64)> {
    let minutes = |time: Duration| time.as_secs() / 60;
    let shown = &past.hours[past.hours.len() - last..];
    shown.iter().map(|hour| (minutes(hour.up), minutes(hour.down), minutes(hour.blind))).collect()
}

#[test]
fn hours_and_days_show_how_a_host_fared() {
    let mut play = Play::new(&["web1", "web2"]);
    play.pass(3 * DAY, &["web1", "web2"]).pass(6 * 60 * MINUTE, &["web2"]);
    let past = play.past("web1");
    assert_eq!((past.hours.len(), past.days.len()), (24, 90));
    // The interval and twice that as grace, then it is overdue.
    assert_eq!(hours(&past, 8)[..2], [(60, 0, 0), (15, 45, 0)]);
    assert_eq!(hours(&past, 8)[2..7], [(0, 60, 0); 5]);
    let days: Vec<u64> = past.days[86..].iter().map(|day| day.up.as_secs() / 60).collect();
    assert_eq!(days, [1435, 1440, 1440, 15]);
    assert!((past.availability_day.unwrap() - 17.25 / 23.0).abs() < 0.001);
    assert_eq!(play.past("web2").availability_90_days, Some(1.0));
    assert_eq!(play.recorder.pasts(&["stranger"], play.now).unwrap(), [None]);
}

#[test]
fn what_the_daemon_did_not_see_is_nobodys_fault() {
    let mut play = Play::new(&["web1"]);
    play.pass(60 * MINUTE, &["web1"]).restart(true, 90 * MINUTE).pass(60 * MINUTE, &["web1"]);
    assert_eq!(hours(&play.past("web1"), 4), [(55, 0, 0), (0, 0, 60), (30, 0, 30), (30, 0, 0)]);
    assert_eq!(play.past("web1").availability_day, Some(1.0));
}

#[test]
fn a_crash_loses_ten_minutes_at_most() {
    let mut play = Play::new(&["web1"]);
    play.pass(65 * MINUTE, &["web1"]).restart(false, MINUTE).pass(54 * MINUTE, &["web1"]);
    let hours = hours(&play.past("web1"), 3);
    assert_eq!(hours[0], (55, 0, 0));
    assert!(hours[1].0 >= 49 && hours[1].2 == 1, "{hours:?}");
    let series = play.recorder.series("web1", &["m.load".into()], DAY, play.now.wall).unwrap();
    assert!(series[0].points.len() >= 11, "{:?}", series[0].points);
}

#[test]
fn metrics_are_kept_by_ten_minutes_then_hours_then_days() {
    let mut play = Play::new(&["web1"]);
    play.pass(20 * DAY, &["web1"]);
    let series = |metrics: &[&str], days: u32| {
        let metrics: Vec<String> = metrics.iter().map(|path| (*path).to_owned()).collect();
        play.recorder.series("web1", &metrics, days * DAY, play.now.wall).unwrap()
    };
    for (days, step, least) in [(1, 600, 140), (2, 600, 280), (7, 3600, 165), (90, 86_400, 20)] {
        let all = series(&["m.load"], days);
        assert_eq!((all.len(), all[0].path.as_str()), (1, "m.load"));
        assert_eq!(all[0].step, Duration::from_secs(step), "{days}");
        assert!(all[0].points.len() >= least, "{days}: {}", all[0].points.len());
        assert!(all[0].points.windows(2).all(|pair| pair[0].at < pair[1].at));
    }
    let day = series(&["m.*"], 90);
    let [disk, load] = &day[..] else { panic!("{day:?}") };
    assert!(disk.points.iter().all(|p| (p.mean, p.least, p.most) == (42.5, 42.5, 42.5)));
    let point = load.points[5];
    assert_eq!((point.least, point.most), (0.0, 9.0));
    assert!((point.mean - 4.5).abs() < 0.01, "{point:?}");
    assert_eq!(series(&[], 1).len(), 2, "all of them");
    assert!(series(&["x"], 1).is_empty());
}

#[test]
fn what_is_too_old_goes_and_a_host_that_is_gone_with_it() {
    let settings = RetentionSettings {
        metrics: 3 * DAY,
        availability: 10 * DAY,
        events: DAY,
        ..RetentionSettings::default()
    };
    let mut play = Play::with(&["web1", "web2"], settings);
    play.pass(5 * DAY, &["web1", "web2"]);
    let rows = play.world.rows(Table::Metrics);
    // Two days of ten minutes, three days of hours and days, for two hosts.
    assert!((2 * (288 + 72 + 3) - 20..2 * (289 + 73 + 4) + 20).contains(&rows), "{rows}");
    lock(&play.world.hosts).0.reconfigure(rules(&["web1"]), play.now);
    play.rules = rules(&["web1"]);
    play.pass(16 * DAY, &["web1"]);
    for table in [Table::Hours, Table::Days, Table::Names] {
        assert_eq!(play.world.rows(table), 1, "{table:?}");
    }
}

#[test]
fn what_takes_too_much_room_goes_the_oldest_first() {
    let small = RetentionSettings { max_bytes: 300_000, ..RetentionSettings::default() };
    let hosts: Vec<String> = (0..31).map(|n| format!("host{n:03}")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut play = Play::with(&hosts, small);
    play.pass(2 * DAY + 120 * MINUTE, &hosts);
    let snapshot = play.world.snapshot().unwrap();
    let bytes: u64 = Table::ALL.into_iter().map(|table| snapshot.bytes(table)).sum();
    // What came since midnight may be too much until the next.
    assert!(bytes < 700_000, "{bytes}");
    let newest = play.world.newest(Table::Metrics, Some("b"), 1).unwrap();
    assert!(newest[0].0.ends_with("/host029"), "of more hosts nothing is kept: {}", newest[0].0);
    let series = play.recorder.series("host007", &["m.load".into()], DAY, play.now.wall).unwrap();
    let last = series[0].points.last().unwrap();
    assert!(play.now.wall.since(last.at) <= 20 * MINUTE, "the newest are there");
    assert_eq!(play.past("host007").availability_90_days, Some(1.0));
}

#[test]
fn a_clock_that_was_never_set_records_nothing_and_disturbs_nothing_later() {
    let mut play = Play::new(&["web1"]);
    play.recorder = play.world.recorder(RetentionSettings::default());
    let right = play.now.wall;
    play.now.wall = Wall(5_000);
    play.pass(180 * MINUTE, &["web1"]);
    assert_eq!(*lock(&play.world.writes), 0);
    play.now.wall = right;
    play.pass(60 * MINUTE, &["web1"]);
    assert_eq!(hours(&play.past("web1"), 2), [(55, 0, 0), (0, 0, 0)]);
}

#[test]
fn nothing_is_written_while_nothing_happens() {
    let mut play = Play::new(&["web1"]);
    play.pass(DAY, &[]);
    assert_eq!(*lock(&play.world.writes), 0);
    play.pass(DAY, &["web1"]);
    // Ten minutes: the hour's row and the metrics; now and then an hour, a day, a list of names.
    let writes = *lock(&play.world.writes);
    assert!((288..2 * 144 + 40).contains(&writes), "{writes}");
}

#[test]
fn a_wall_clock_that_jumps_does_no_harm() {
    let mut play = Play::new(&["web1"]);
    play.pass(2 * DAY, &["web1"]);
    for days in [-30_000i64, 40, -40, 20_000, -20_000] {
        play.now.wall = Wall(play.now.wall.0 + days * 86_400_000);
        play.pass(180 * MINUTE, &["web1"]);
        play.past("web1");
        play.recorder.series("web1", &[], 400 * DAY, play.now.wall).unwrap();
    }
}

#[test]
fn what_was_heard_before_the_first_look_at_the_clock_was_not_recorded() {
    let mut play = Play::new(&["web1"]);
    play.recorder = play.world.recorder(RetentionSettings::default());
    let beat = br#"{"host":"web1","metrics":{"m":{"load":7}}}"#;
    lock(&play.world.hosts).0.ingest(beat, HERE, play.now).unwrap();
    play.recorder.tick(play.now.later(MINUTE));
    play.recorder.close(play.now.later(2 * MINUTE));
    assert_eq!(play.world.rows(Table::Names), 1);
}

/// The most bytes that the history had on disk, and the most that the file had.
#[derive(Debug, Default)]
struct Sizes {
    rows: u64,
    file: u64,
}

impl Sizes {
    fn look(&mut self, world: &World<Seen>, directory: &TempDir) {
        let snapshot = world.snapshot().unwrap();
        let history = [
            Table::History,
            Table::Events,
            Table::Hours,
            Table::Days,
            Table::Names,
            Table::Metrics,
        ];
        self.rows = self.rows.max(history.map(|table| snapshot.bytes(table)).iter().sum());
        let path = directory.path().join(heartbeat::store::FILE_NAME);
        self.file = self.file.max(std::fs::metadata(path).unwrap().len());
    }
}

fn event_row(number: u64, kind: &str, level: &str) -> Write {
    let text = format!("web1 {}", "x".repeat(500));
    let event = serde_json::json!({"id": format!("{number:014x}"), "at": number, "level": level,
        "host": "web1", "subject": "host web1", "kind": kind, "text": text, "details": []});
    Write::put(Table::Events, format!("{number:014x}"), &event)
}

fn delivery_row(number: u64, minor: bool) -> Write {
    let mut record = serde_json::json!({"event": number, "channel": "chat", "level": "warning",
        "subject": {"host": "web1"}, "title": "x".repeat(200), "accepted": number,
        "finished": number, "attempts": 1, "delivered": true});
    if minor {
        record["minor"] = true.into();
    }
    Write::put(Table::History, format!("{number:020}"), &record)
}

#[test]
fn events_took_any_room_until_the_next_day() {
    let settings = RetentionSettings { max_bytes: 1_000_000, ..RetentionSettings::default() };
    let play = Play::with(&["web1"], settings);
    let mut sizes = Sizes::default();
    for (number, at_once) in [1u64, 10, 100, 1000].iter().cycle().take(60).enumerate() {
        let first = number as u64 * 1000;
        let rows: Vec<Write> =
            (0..*at_once).map(|row| event_row(first + row, "message", "warning")).collect();
        play.world.write(rows);
        sizes.look(&play.world, &play.directory);
    }
    assert!(sizes.rows < 1_500_000 && sizes.file < 4_000_000, "{sizes:?}");
    let rows = play.world.rows(Table::Events);
    assert!(rows > 900, "the newest are there: {rows}");
}

#[test]
fn an_alarm_was_removed_before_the_messages_that_came_after_it() {
    let settings = RetentionSettings { max_bytes: 1_000_000, ..RetentionSettings::default() };
    let play = Play::with(&["web1"], settings.clone());
    let alarms = [("overdue", "critical"), ("shutdown", "warning"), ("booted", "warning")];
    let mut sizes = Sizes::default();
    for round in 0..60u64 {
        let mut rows: Vec<Write> =
            (0..100).map(|number| event_row(round * 1000 + number, "message", "warning")).collect();
        let (kind, level) = alarms[round as usize % 3];
        rows.push(event_row(round * 1000 + 500, kind, level));
        rows.push(delivery_row(round * 1000, true));
        rows.push(delivery_row(round * 1000 + 1, false));
        play.world.write(rows);
        sizes.look(&play.world, &play.directory);
        if round == 30 {
            // The sizes that a restart finds are those that there are.
            *lock(&play.world.store) = None;
            let (mut store, _) =
                heartbeat::store::Store::open(play.directory.path(), play.now).unwrap();
            store.limit_history(settings.limit());
            *lock(&play.world.store) = Some(store);
        }
    }
    assert!(sizes.rows < 2_000_000 && sizes.file < 5_000_000, "{sizes:?}");
    let all = play.world.newest(Table::Events, None, 100_000).unwrap();
    let is_message = |row: &[u8]| String::from_utf8_lossy(row).contains(r#""kind":"message""#);
    assert_eq!(all.iter().filter(|(_, row)| !is_message(row)).count(), 60);
    let deliveries = play.world.newest(Table::History, None, 100_000).unwrap();
    let of_alarms = deliveries.iter().filter(|(_, row)| !row.windows(5).any(|w| w == b"minor"));
    assert_eq!(of_alarms.count(), 60);
}

#[test]
fn names_of_metrics_that_are_ever_new_took_any_room() {
    let settings = RetentionSettings { max_bytes: 1_000_000, ..RetentionSettings::default() };
    let mut play = Play::with(&["web1", "web2"], settings);
    let mut sizes = Sizes::default();
    for slot in 0..60 {
        for part in 0..10 {
            let name = |number: usize| format!(r#""s{slot}_{part}_{number}{}":1"#, "x".repeat(150));
            let metrics = (0..40).map(name).collect::<Vec<_>>().join(",");
            let beat = format!(r#"{{"host":"web1","metrics":{{{metrics}}}}}"#);
            lock(&play.world.hosts).0.ingest(beat.as_bytes(), HERE, play.now).unwrap();
        }
        play.pass(10 * MINUTE, &["web2"]);
        sizes.look(&play.world, &play.directory);
    }
    assert!(sizes.rows < 2_000_000 && sizes.file < 4_000_000, "{sizes:?}");
    let series = play.recorder.series("web2", &["m.load".into()], DAY, play.now.wall).unwrap();
    assert!(series[0].points.len() > 50, "its neighbour is recorded");
}

#[test]
fn metrics_took_any_room_until_the_next_day() {
    let settings = RetentionSettings { max_bytes: 1_000_000, ..RetentionSettings::default() };
    let hosts: Vec<String> = (0..20).map(|number| format!("host{number:03}")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut play = Play::with(&hosts, settings);
    let mut sizes = Sizes::default();
    for slot in 0..40 {
        for host in &hosts {
            let metric = |number: usize| format!(r#""m{number}":{}.5"#, slot % 7);
            let metrics = (0..400).map(metric).collect::<Vec<_>>().join(",");
            let beat = format!(r#"{{"host":"{host}","metrics":{{{metrics}}}}}"#);
            lock(&play.world.hosts).0.ingest(beat.as_bytes(), HERE, play.now).unwrap();
        }
        play.pass(10 * MINUTE, &[]);
        sizes.look(&play.world, &play.directory);
    }
    assert!(sizes.rows < 2_000_000 && sizes.file < 5_000_000, "{sizes:?}");
}
