//! Power that fails: what the daemon writes and syncs is recorded, and files are made of it from which
//! unsynced writes are missing, whole or in sectors. Each opens as a sound store, with all that the
//! daemon had said to be stored, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use heartbeat::clock::Now;
use heartbeat::store::{CommitResult, OpenResult, Store, Table, Write};

#[allow(dead_code)]
mod support {
    pub mod hbd;
    pub mod http_double;
    pub mod preload;
    pub mod torture;
    pub mod writes;
}

use support::hbd::{Hbd, TIMEOUT};
use support::torture::{Dice, request};
use support::writes::{Loss, Recording, Step, Steps};

/// How often the daemon is killed while it is recorded, without a loss of power.
const LIVES: u64 = 4;
/// Hosts that say things at once, and how much each in a life.
const HOSTS: u64 = 4;
const WORDS: u64 = 15;
/// Every so many images the daemon itself is started on one.
const STARTED: usize = 25;

fn configure(folder: &Path) -> PathBuf {
    let path = folder.join("heartbeat.yaml");
    let mut text = format!(
        "state_dir: {}\nheartbeat: {{port: 0}}\nreceiver: {{port: 0}}\n\
         correlator: {{redis_url: \"redis://127.0.0.1:1\"}}\n\
         default_notification_channels: [away]\nnotification_channels:\n\
         \x20 away: {{type: mattermost, host: \"http://127.0.0.1:1\", token: xr3j5x7d1bncmfz8yhq6u4kswe, channel: ops}}\n\
         hosts:\n",
        folder.join("state").display()
    );
    for host in 0..HOSTS {
        text += &format!("  web{host}: {{watch: true, interval: 1d}}\n");
    }
    fs::write(&path, text).unwrap();
    path
}

/// What is said under a number, by nobody else.
fn word(number: u64) -> String {
    let mut dice = Dice(number * 2 + 1);
    for _ in 0..8 {
        dice.throw(2);
    }
    format!("number {number} {:016x}.", dice.throw(u64::MAX))
}

/// One life of the daemon, in which hosts say what is stored, report metrics, and boot.
fn live(recording: &Recording, config: &Path, life: u64) {
    let hbd = Hbd::start_by(recording.command(env!("CARGO_BIN_EXE_hbd")), config);
    thread::scope(|scope| {
        for host in 0..HOSTS {
            let address = hbd.address;
            scope.spawn(move || {
                for step in 0..WORDS {
                    let number = (life * HOSTS + host) * WORDS + step;
                    let word = word(number);
                    let body = format!(
                        r#"{{"host":"web{host}","event":"message","message":"{word}",
                        "boot_id":"b{life}","metrics":{{"a":{{"b":{number}}}}}}}"#
                    );
                    let answer = request(address, "POST /api/v1/heartbeat", &body, TIMEOUT);
                    if answer.is_some_and(|(status, _)| status == 200) {
                        recording.acknowledged(number);
                    }
                }
            });
        }
        scope.spawn(|| {
            let body = format!(
                r#"{{"alerts":[{{"status":"firing","labels":{{"alertname":"BackupFailed","id":"{life}"}}}}]}}"#
            );
            request(hbd.address, "POST /alert", &body, TIMEOUT);
        });
    });
    if life + 1 < LIVES { hbd.kill() } else { hbd.stop() }
}

fn record(folder: &Path) -> Steps {
    let config = configure(folder);
    let recording = Recording::of(folder.join("state"), folder.join("trace"));
    (0..LIVES).for_each(|life| live(&recording, &config, life));
    recording.steps()
}

/// The numbers in the rows of the outbox, each with the text that was said under it.
fn numbers(store: &Store) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for (key, row) in store.rows(Table::Outbox) {
        let row = String::from_utf8_lossy(&row).into_owned();
        for rest in row.split("number ").skip(1) {
            let number = rest.split(' ').next().and_then(|number| number.parse().ok());
            let number: u64 = number.unwrap_or_else(|| panic!("{key}: {row}"));
            let said = format!("number {rest}");
            assert!(said.starts_with(&word(number)), "{key} was altered: {row}");
            *found.entry(number).or_default() += 1;
        }
    }
    found
}

/// Opens an image, and goes on with it.
fn check_store(directory: &Path, acknowledged: &BTreeSet<u64>, what: &str) {
    let (mut store, opened) = Store::open(directory, Now::read()).unwrap();
    assert_eq!(opened, OpenResult::Ready, "{what}");
    let found = numbers(&store);
    let lost: Vec<_> = acknowledged.iter().filter(|number| !found.contains_key(number)).collect();
    assert!(lost.is_empty(), "{what}: {lost:?} were accepted and are lost");
    store.write(Write::put(Table::Hosts, "after", &1));
    assert_eq!(store.commit(Now::read()), CommitResult::Committed, "{what}");
    drop(store);
    let (store, opened) = Store::open(directory, Now::read()).unwrap();
    assert_eq!(opened, OpenResult::Ready, "{what}");
    assert_eq!(numbers(&store), found, "{what}");
}

/// The daemon itself starts on it and tells all of it.
fn check_daemon(folder: &Path, acknowledged: &BTreeSet<u64>, what: &str) {
    let hbd = Hbd::start(&configure(folder));
    let waiting = hbd.metric("hbd_outbox_deliveries");
    assert!(waiting >= acknowledged.len() as f64, "{what}: {waiting} of {}", acknowledged.len());
    let damaged: Vec<_> = hbd.log().into_iter().filter(|line| line.contains("damaged")).collect();
    assert_eq!(damaged, [""; 0], "{what}");
    hbd.stop();
}

/// So many images of one recording.
fn lose_power(times: usize) {
    let recorded = tempfile::tempdir().unwrap();
    let steps = record(recorded.path());
    let place = |wanted: fn(&Step) -> bool| -> Vec<usize> {
        (0..steps.steps.len()).filter(|index| wanted(&steps.steps[*index])).collect()
    };
    let acknowledged = place(|step| matches!(step, Step::Acknowledged(_)));
    assert!(acknowledged.len() as u64 > HOSTS * WORDS, "this tests nothing");
    let syncs = place(|step| matches!(step, Step::Synced(_)));
    let all = steps.steps.len();
    println!("{all} steps, {} syncs, {} were accepted", syncs.len(), acknowledged.len());
    let mut dice = Dice(1602);
    for number in 0..times {
        let loss = Loss::ALL[number % Loss::ALL.len()];
        // Half of them when the most is under way.
        let cut = match number / Loss::ALL.len() % 2 {
            0 => syncs[dice.throw(syncs.len() as u64) as usize],
            _ => dice.throw(all as u64) as usize,
        };
        let folder = tempfile::tempdir().unwrap();
        let image = steps.image(cut, loss, &mut dice);
        image.install(&folder.path().join("state"));
        let what = format!("image {number}, {loss:?} after step {cut} of {all}");
        if number % STARTED == 0 {
            check_daemon(folder.path(), &image.acknowledged, &what);
        } else {
            check_store(&folder.path().join("state"), &image.acknowledged, &what);
        }
    }
}

#[test]
fn a_loss_of_power_costs_nothing_that_was_accepted_in_twenty_images() {
    lose_power(20);
}

#[test]
#[ignore = "500 images of a loss of power: about a minute"]
fn a_loss_of_power_costs_nothing_that_was_accepted_in_five_hundred_images() {
    lose_power(500);
}

const FILE: u64 = 1;
const DIRECTORY: u64 = 2;

fn write(offset: usize, byte: u8, count: usize) -> Step {
    Step::Write { file: FILE, offset, bytes: vec![byte; count] }
}

fn named(name: &str) -> Step {
    Step::Named { file: FILE, name: name.into() }
}

#[test]
fn what_is_synced_is_there_and_what_is_not_may_be_missing() {
    let steps = vec![
        named("store"),
        write(0, 1, 1024),
        Step::SyncBegins(FILE),
        write(1024, 2, 512),
        Step::Synced(FILE),
        Step::Acknowledged(7),
        write(0, 3, 1024),
        Step::SetLength { file: FILE, length: 4096 },
    ];
    let steps = Steps { directory: DIRECTORY, steps };
    let of = |cut, loss, seed| steps.image(cut, loss, &mut Dice(seed));
    let synced = of(5, Loss::All, 1).files;
    assert_eq!(synced["store"], vec![1; 1024], "what comes while it syncs is not covered");
    assert!(of(5, Loss::All, 1).acknowledged.is_empty());
    assert_eq!(of(8, Loss::All, 1).acknowledged, BTreeSet::from([7]));
    assert!(of(4, Loss::All, 1).files.is_empty(), "a name that no sync covers may be gone");
    let torn = (1..50).filter(|seed| {
        let bytes = &of(8, Loss::SomeSectors, *seed).files["store"];
        let sectors: Vec<_> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(matches!(sectors[..], [1 | 3, 1 | 3, ..]), "{sectors:?}");
        sectors[0] != sectors[1]
    });
    assert!(torn.count() > 0, "no write was ever torn");
}

#[test]
fn a_rename_is_lost_until_the_directory_is_synced() {
    let rename = Step::Renamed { from: "new".into(), to: "store".into() };
    let syncs = |file| [Step::SyncBegins(file), Step::Synced(file)];
    let mut steps = vec![named("new"), write(0, 1, 512)];
    steps.extend(syncs(FILE));
    steps.push(rename);
    steps.extend(syncs(DIRECTORY));
    let steps = Steps { directory: DIRECTORY, steps };
    let names = |cut| -> Vec<String> {
        steps.image(cut, Loss::All, &mut Dice(1)).files.into_keys().collect()
    };
    assert_eq!([names(2), names(5), names(7)].concat(), ["new", "store"]);
}

#[test]
#[should_panic(expected = "are lost")]
fn a_loss_is_found() {
    let folder = tempfile::tempdir().unwrap();
    check_store(folder.path(), &BTreeSet::from([7]), "an empty store");
}

#[test]
#[should_panic(expected = "was altered")]
fn an_altered_text_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(folder.path(), Now::read()).unwrap();
    store.write(Write::put(Table::Outbox, "1", &word(7).replace('.', "x")));
    store.commit(Now::read());
    numbers(&store);
}
