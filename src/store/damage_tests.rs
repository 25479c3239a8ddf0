//! Bits that flip in the file of the store, after a clean stop and after `kill -9`: each row is read
//! as it was written, or its loss is told.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::directory::LOCK_NAME;
use super::tests::{at, history_bytes};
use super::*;

/// Which tables the rows are in, and how many there are in each.
const TABLES: [(Table, usize); 6] = [
    (Table::Hosts, 60),
    (Table::Outbox, 5),
    (Table::Troubles, 3),
    (Table::Pipelines, 2),
    (Table::Plans, 4),
    (Table::Events, 40),
];

fn value(table: Table, number: usize, version: usize) -> String {
    format!("{table:?} {number} as of {version}: {}", "x".repeat(40 + number % 50))
}

/// The rows that the last commit left.
fn expected() -> Vec<(Table, String, String)> {
    let rows = |(table, count): &(Table, usize)| {
        let table = *table;
        (0..*count).map(move |number| (table, format!("row{number:03}"), value(table, number, 3)))
    };
    TABLES.iter().flat_map(rows).collect()
}

/// A store that was written to several times: file and lock, after a clean stop or as a crash
/// leaves them.
fn image(clean: bool) -> (Vec<u8>, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path(), at(0)).unwrap().0;
    for version in 1..=3 {
        for (table, key, _) in expected() {
            let number = key[3..].parse().unwrap();
            store.write(Write::put(table, key, &value(table, number, version)));
            // Commits of a few rows each, as they come.
            if number % 16 == 15 {
                assert_eq!(store.commit(at(1)), CommitResult::Committed);
            }
        }
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
    }
    if clean {
        drop(store);
    }
    [FILE_NAME, LOCK_NAME].map(|name| fs::read(directory.path().join(name)).unwrap()).into()
}

fn place((file, lock): (&[u8], &[u8])) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE_NAME), file).unwrap();
    fs::write(directory.path().join(LOCK_NAME), lock).unwrap();
    directory
}

fn reports_of(store: &mut Store) -> Vec<StoreFileEvent> {
    let report = |kind| match kind {
        EventKind::StoreFile(report) => Some(report),
        EventKind::AlertsLost { .. } => None,
        kind => panic!("{kind:?}"),
    };
    store.take_reports().into_iter().filter_map(report).collect()
}

/// What a start on a damaged file tells, having checked that nothing is lost or altered in silence.
fn judge(damaged: &[u8], lock: &[u8], what: &str) -> Vec<StoreFileEvent> {
    let directory = place((damaged, lock));
    let (mut store, opened) = Store::open(directory.path(), at(2)).unwrap();
    assert!(!matches!(opened, OpenResult::Failed { .. }), "{what}: {opened:?}");
    let reports = reports_of(&mut store);
    let behind = reports.iter().any(|report| matches!(report, StoreFileEvent::Behind { .. }));
    let mut lost = 0;
    for (table, _) in TABLES {
        let rows: BTreeMap<String, String> = store.read(table).into_iter().collect();
        for (of, key, value) in expected() {
            if of == table {
                match rows.get(&key) {
                    Some(read) if behind => {
                        assert!(read.starts_with(&value[..12]), "{what}: {read}")
                    }
                    Some(read) => assert_eq!(*read, value, "{what}: {key} was altered"),
                    None => lost += 1,
                }
            }
        }
        let known = expected().iter().filter(|row| row.0 == table).count();
        assert!(rows.len() <= known, "{what}: {table:?} has rows that it never had");
    }
    let told: usize = reports.iter().map(|report| told(report, lost)).sum();
    assert!(told >= lost, "{what}: {lost} rows were lost and {told} told: {reports:?}");
    if let Some(kept) = kept(directory.path()) {
        assert!(!reports.is_empty(), "{what}");
        assert_eq!(fs::read(kept).unwrap(), damaged, "{what}: the kept file is another one");
    } else {
        assert_eq!(lost, 0, "{what}");
    }
    let [counted, measured] = history_bytes(&store);
    assert_eq!(counted, measured, "{what}");
    // It works.
    store.write(Write::put(Table::Hosts, "row000", &value(Table::Hosts, 0, 3)));
    assert_eq!(store.commit(at(3)), CommitResult::Committed, "{what}");
    drop(store);
    let (mut store, opened) = Store::open(directory.path(), at(4)).unwrap();
    assert_eq!((opened, reports_of(&mut store)), (OpenResult::Ready, vec![]), "{what}: told twice");
    assert_eq!(history_bytes(&store), [measured; 2], "{what}");
    reports
}

/// How many lost rows a report accounts for.
fn told(report: &StoreFileEvent, lost: usize) -> usize {
    match report {
        StoreFileEvent::Damaged { count, uncounted, .. } if uncounted.is_empty() => *count,
        StoreFileEvent::Damaged { .. }
        | StoreFileEvent::Behind { .. }
        | StoreFileEvent::MovedAside { .. } => lost,
        _ => 0,
    }
}

fn kept(directory: &Path) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut kept = entries.filter(|path| path.to_string_lossy().contains(".damaged-"));
    kept.next()
}

/// Damages `count` places of a file, those of its header first, then all over it; how many damages
/// were told.
fn damage_all_over(clean: bool, count: usize) -> usize {
    let (file, lock) = image(clean);
    assert_eq!(judge(&file, &lock, "sound"), [], "nothing is damaged");
    let used = file.len() - file.iter().rev().take_while(|byte| **byte == 0).count();
    let mut told = 0;
    for number in 0..count {
        let header = number < count / 3;
        let place = if header { number * 320 * 3 / count } else { number * used / count };
        let mut damaged = file.clone();
        let what = if number % 4 == 3 && !header {
            let sector = place / 512 * 512;
            damaged[sector..sector + 512].fill(0);
            format!("clean {clean}, the sector at {sector} is zero")
        } else {
            damaged[place] ^= 1 << (number % 8);
            format!("clean {clean}, bit {} of byte {place} flipped", number % 8)
        };
        told += usize::from(!judge(&damaged, &lock, &what).is_empty());
    }
    told
}

#[test]
fn a_flipped_bit_never_alters_a_row_and_what_it_destroys_is_told() {
    for clean in [true, false] {
        assert!(damage_all_over(clean, 24) > 0);
    }
}

#[test]
#[ignore = "takes a minute: tests/run --long"]
fn three_hundred_damaged_files() {
    for clean in [true, false] {
        let told = damage_all_over(clean, 150);
        assert!(told > 15, "{told}");
    }
}

/// Changes every copy of these bytes: a file has those of earlier commits as well.
fn flip_in(file: &mut [u8], bytes: &str) {
    let places: Vec<usize> = (0..file.len() - bytes.len())
        .filter(|at| file[*at..].starts_with(bytes.as_bytes()))
        .collect();
    assert!(!places.is_empty(), "{bytes}");
    places.into_iter().for_each(|at| file[at] ^= 1);
}

#[test]
fn a_row_that_is_lost_is_named_and_the_others_are_there() {
    for clean in [true, false] {
        let (mut file, lock) = image(clean);
        flip_in(&mut file, "Hosts 5 as of 3");
        flip_in(&mut file, "Outbox 2 as of 3");
        let reports = judge(&file, &lock, "two rows");
        let [StoreFileEvent::Damaged { rows, count, uncounted, .. }] = &reports[..] else {
            panic!("{reports:?}")
        };
        let outbox = "a message that waited to be sent, number row002".to_owned();
        assert_eq!((&rows[..], *count), (&["host row005".to_owned(), outbox][..], 2));
        assert_eq!(uncounted, &[""; 0]);
    }
}

#[test]
fn those_who_hear_of_backups_hear_of_lost_alerts() {
    let (mut file, lock) = image(true);
    flip_in(&mut file, "Pipelines 1 as of 3");
    let directory = place((&file, &lock));
    let reports = Store::open(directory.path(), at(2)).unwrap().0.take_reports();
    let [EventKind::StoreFile(_), EventKind::AlertsLost { rows, count: 1 }] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(rows, &["an accepted backup alert, row001"]);
}

#[test]
fn the_commit_before_the_last_was_taken_for_the_last() {
    let (file, lock) = image(false);
    // The slot of the newer commit, by the id of its transaction.
    let id = |at: usize| u64::from_le_bytes(file[at + 104..at + 112].try_into().unwrap());
    let newer = if id(64) > id(192) { 64 } else { 192 };
    let mut zeroed = file.clone();
    zeroed[newer..newer + 128].fill(0);
    zeroed[newer] = 3;
    let directory = place((&zeroed, &lock));
    let (mut store, _) = Store::open(directory.path(), at(2)).unwrap();
    let reports = reports_of(&mut store);
    assert!(matches!(&reports[..], [StoreFileEvent::Behind { .. }]), "{reports:?}");
    // One flipped bit in it can be undone: nothing is lost.
    for bit in [8, 70, 111] {
        let mut flipped = file.clone();
        flipped[newer + bit] ^= 4;
        let reports = judge(&flipped, &lock, "the slot");
        let [StoreFileEvent::Damaged { count: 0, .. }] = &reports[..] else {
            panic!("{bit}: {reports:?}")
        };
    }
}

#[test]
fn an_older_file_alone_is_told_and_a_whole_older_directory_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    let open = || Store::open(directory.path(), at(0)).unwrap().0;
    let write = |number: usize| {
        let mut store = open();
        store.write(Write::put(Table::Hosts, "web1", &number));
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
    };
    write(1);
    let backup = [FILE_NAME, LOCK_NAME].map(|name| fs::read(path(name)).unwrap());
    write(2);
    assert_eq!(reports_of(&mut open()), []);
    let newer = fs::read(path(FILE_NAME)).unwrap();

    fs::write(path(FILE_NAME), &backup[0]).unwrap();
    let reports = reports_of(&mut open());
    assert!(matches!(&reports[..], [StoreFileEvent::Behind { .. }]), "{reports:?}");

    fs::write(path(LOCK_NAME), &backup[1]).unwrap();
    assert_eq!(reports_of(&mut open()), []);
    // After a loss of power the note may be older, or there is none.
    fs::write(path(FILE_NAME), &newer).unwrap();
    assert_eq!(reports_of(&mut open()), []);
    fs::remove_file(path(LOCK_NAME)).unwrap();
    assert_eq!(reports_of(&mut open()), []);

    write(3);
    fs::remove_file(path(FILE_NAME)).unwrap();
    let reports = reports_of(&mut open());
    assert!(matches!(&reports[..], [StoreFileEvent::Behind { .. }]), "{reports:?}");
}
