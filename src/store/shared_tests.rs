//! How the store behaves on tables that it shares.

use std::sync::Arc;
use std::time::Duration;

use super::shared_model::{ModelAnswer, SharedModel};
use super::tests::at;
use super::*;

struct Place {
    _directory: tempfile::TempDir,
    model: Arc<SharedModel>,
    store: Store,
}

fn open(model: &Arc<SharedModel>) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::hold(directory.path()).unwrap();
    let (store, opened) = Store::open_shared(lock, model.clone(), at(0));
    assert_eq!(opened, OpenResult::Ready);
    Place { _directory: directory, model: Arc::clone(model), store }
}

impl Place {
    fn put(&mut self, table: Table, key: &str, value: i32) {
        self.store.write(Write::put(table, key, &value));
    }

    fn read(&self, table: Table) -> Vec<(String, i32)> {
        self.store.read(table)
    }
}

fn row(key: &str, value: i32) -> (String, i32) {
    (key.to_owned(), value)
}

#[test]
fn what_was_committed_is_read_by_the_next_one_that_leads() {
    let model = SharedModel::new();
    let mut place = open(&model);
    place.put(Table::Hosts, "web1", 1);
    place.put(Table::Hosts, "web2", 2);
    assert_eq!(place.store.commit(at(1)), CommitResult::Committed);
    place.store.write(Write::remove(Table::Hosts, "web1"));
    assert_eq!(place.store.commit(at(2)), CommitResult::Committed);
    let next = open(&model);
    assert_eq!(next.read(Table::Hosts), [row("web2", 2)]);
    assert_eq!(next.store.get::<i32>(Table::Hosts, "web2"), Some(2));
}

#[test]
fn a_state_directory_has_one_daemon_whatever_its_store_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    let lock = DirectoryLock::hold(&path).unwrap();
    assert!(DirectoryLock::hold(&path).is_err_and(|held| held.why.contains("in use")));
    assert!(Store::open(&path, at(0)).is_err());
    drop(lock);
    assert!(Store::open(&path, at(0)).is_ok());
}

#[test]
fn what_is_not_confirmed_is_written_again_and_neither_stored_nor_refused() {
    let model = SharedModel::new();
    let mut place = open(&model);
    for answer in [ModelAnswer::Silent, ModelAnswer::Unconfirmed] {
        model.answer(answer);
        place.put(Table::Outbox, "1", 1);
        let why = match place.store.commit(at(1)) {
            CommitResult::Unconfirmed { why } => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(place.store.failure(), Some(why.as_str()));
        assert!(!place.store.is_failing() && place.store.snapshot().is_none());
        assert_eq!(place.store.commit(at(1)), CommitResult::Unconfirmed { why }, "too early");
        place.put(Table::Outbox, "2", 2);
        model.answer(ModelAnswer::Confirmed);
        let soon = at(1).later(SHARED_RETRY_MIN);
        assert_eq!(place.store.commit(soon), CommitResult::Committed, "nothing was told of it");
        assert_eq!((place.store.pending(), place.store.failure()), (0, None));
        assert_eq!(place.read(Table::Outbox), [row("1", 1), row("2", 2)]);
        place.store.write(Write::remove(Table::Outbox, "1"));
        place.store.commit(at(2));
    }
}

#[test]
fn tables_that_refuse_are_reported_once_and_recover() {
    let model = SharedModel::new();
    let mut place = open(&model);
    model.answer(ModelAnswer::Silent);
    place.put(Table::Outbox, "1", 1);
    assert!(matches!(place.store.commit(at(1)), CommitResult::Unconfirmed { .. }));
    model.answer(ModelAnswer::Refused);
    assert_eq!(place.store.commit(at(2)), CommitResult::Failed { why: "OOM".into() });
    assert!(place.store.is_failing());
    assert_eq!(place.store.commit(at(4)), CommitResult::StillFailing);
    model.answer(ModelAnswer::Silent);
    assert!(matches!(place.store.commit(at(6)), CommitResult::Unconfirmed { .. }));
    model.answer(ModelAnswer::Refused);
    assert_eq!(place.store.commit(at(8)), CommitResult::StillFailing, "it was told already");
    model.answer(ModelAnswer::Confirmed);
    let failed_for = Duration::from_secs(9);
    assert_eq!(place.store.commit(at(10)), CommitResult::Recovered { failed_for });
    assert_eq!(place.read(Table::Outbox), [row("1", 1)]);
}

#[test]
fn one_that_is_deposed_writes_nothing() {
    let model = SharedModel::new();
    let mut place = open(&model);
    place.put(Table::Outbox, "1", 1);
    model.answer(ModelAnswer::Deposed);
    assert_eq!(place.store.commit(at(1)), CommitResult::Deposed);
    assert_eq!(place.store.commit_now(at(2)), CommitResult::Deposed);
    assert!(model.stored().is_empty());
}

#[test]
fn what_was_lost_is_written_anew_and_what_was_removed_does_not_come_back() {
    let model = SharedModel::new();
    let mut place = open(&model);
    for table in Table::ALL {
        place.put(table, "gone", 1);
        place.put(table, "stays", 1);
    }
    assert_eq!(place.store.commit(at(1)), CommitResult::Committed);
    for table in Table::ALL {
        place.store.write(Write::remove(table, "gone"));
        place.put(table, "lost", 2);
    }
    assert_eq!(place.store.commit(at(2)), CommitResult::Committed);
    model.roll_back(1);
    place.put(Table::Outbox, "new", 3);
    assert_eq!(place.store.commit(at(3)), CommitResult::Replaced);
    assert_eq!(place.store.commit(at(3)), CommitResult::Replaced, "until it is done");
    // Of the history the daemon knows nothing by heart.
    let known = Table::ALL.into_iter().filter(|table| table.is_known_whole());
    let rows = known.flat_map(|table| {
        ["stays", "lost"].map(|key| Write::put(table, key, if key == "lost" { &2 } else { &1 }))
    });
    place.store.rewrite(rows);
    model.answer(ModelAnswer::Unconfirmed);
    assert!(matches!(place.store.commit(at(3)), CommitResult::Unconfirmed { .. }));
    model.roll_back(1);
    model.answer(ModelAnswer::Confirmed);
    assert_eq!(place.store.commit(at(4)), CommitResult::Committed);
    for table in Table::ALL {
        let rows = match table {
            Table::Outbox => vec![row("lost", 2), row("new", 3), row("stays", 1)],
            table if table.is_known_whole() => vec![row("lost", 2), row("stays", 1)],
            _ => vec![row("gone", 1), row("stays", 1)],
        };
        assert_eq!(place.read(table), rows, "{table:?}");
    }
    place.put(Table::Outbox, "later", 4);
    assert_eq!(place.store.commit(at(5)), CommitResult::Committed, "and goes on");
}

#[test]
fn commits_that_were_never_confirmed_are_not_missed() {
    let model = SharedModel::new();
    let mut place = open(&model);
    place.put(Table::Outbox, "1", 1);
    assert_eq!(place.store.commit(at(1)), CommitResult::Committed);
    model.answer(ModelAnswer::Unconfirmed);
    place.put(Table::Outbox, "2", 2);
    for second in 2..5 {
        assert!(matches!(place.store.commit(at(second)), CommitResult::Unconfirmed { .. }));
    }
    model.roll_back(3);
    model.answer(ModelAnswer::Confirmed);
    assert_eq!(place.store.commit(at(6)), CommitResult::Committed);
    assert_eq!(place.read(Table::Outbox).len(), 2);
}

#[test]
fn tables_that_cannot_be_read_at_the_start_are_not_written_over() {
    let model = SharedModel::new();
    let mut place = open(&model);
    place.put(Table::Hosts, "web1", 1);
    place.store.commit(at(1));
    drop(place);
    let mut place = open(&model);
    model.set_readable(false);
    assert_eq!(place.read(Table::Hosts), []);
    model.set_readable(true);
    assert_eq!(place.read(Table::Outbox), [], "one half is worse than none");
    place.store.write(Write::remove(Table::Hosts, "web1"));
    place.put(Table::Outbox, "1", 1);
    let failed_for = Duration::ZERO;
    assert_eq!(place.store.commit(at(2)), CommitResult::RecoveredUnread { failed_for });
    let keys: Vec<(Table, String)> = model.stored().into_keys().collect();
    assert_eq!(keys, [(Table::Hosts, "web1".into()), (Table::Outbox, "1".into())]);
    model.set_readable(false);
    let lock = DirectoryLock::hold(place._directory.path());
    assert!(lock.is_err(), "it is held");
    drop(place.store);
    let lock = DirectoryLock::hold(place._directory.path()).unwrap();
    let (_, opened) = Store::open_shared(lock, place.model, at(3));
    assert_eq!(opened, OpenResult::Failed { why: "no connection".into() });
}

#[test]
fn the_history_is_read_as_from_a_file() {
    let model = SharedModel::new();
    let directory = tempfile::tempdir().unwrap();
    let (mut file, _) = Store::open(directory.path(), at(0)).unwrap();
    let mut place = open(&model);
    for number in 0..2500 {
        for table in [Table::Events, Table::Plans] {
            let write = Write::put(table, format!("k{number:04}"), &number);
            file.write(write.clone());
            place.store.write(write);
        }
    }
    for store in [&mut file, &mut place.store] {
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
        store.write(Write::put(Table::Events, "k9999", &9999));
        store.write(Write::remove(Table::Events, "k2499"));
    }
    let ranges = || vec![("k0", "k1"), ("k2", "k3"), ("x", "y")];
    let ranges = || ranges().into_iter().map(|(from, to)| (from.into(), to.into())).collect();
    let read = |store: &Store, table| {
        let snapshot = store.snapshot().unwrap();
        let all = vec![
            snapshot.range(table, "k0010", "k0020", 5),
            snapshot.range(table, "", "\u{10ffff}", 2500),
            snapshot.range(table, "k2490", "k9", 100),
            snapshot.newest(table, None, 3),
            snapshot.newest(table, Some("k0002"), 3),
            snapshot.newest(table, None, usize::MAX),
            store.view(table).newest(None, 3),
            store.view(table).newest(None, usize::MAX),
        ];
        let last = (snapshot.last(table, "k0", "k1"), snapshot.last_of_each(table, ranges()));
        let keys = snapshot.keys_before(table, "", "k0100", 7);
        let some = snapshot.get_all(table, ["k0001", "none", "k0003"].into_iter());
        assert!(snapshot.is_sound());
        (all, last, keys, some)
    };
    for table in [Table::Events, Table::Plans, Table::Hours] {
        assert_eq!(read(&file, table), read(&place.store, table), "{table:?}");
    }
    let snapshot = place.store.snapshot().unwrap();
    assert_eq!(snapshot.bytes(Table::Events), 2500 * 5 + 10 + 2 * 90 + 3 * 900 + 4 * 1500);
    model.set_readable(false);
    assert_eq!(snapshot.newest(Table::Events, None, 3), []);
    assert!(!snapshot.is_sound(), "what was not read is not taken for missing");
}

#[test]
fn too_much_history_goes_with_the_next_commit() {
    let model = SharedModel::new();
    let mut place = open(&model);
    let is_minor = |value: &[u8]| value.starts_with(b"\"minor");
    place.store.limit_history(HistoryLimit { max_bytes: 20_000, is_minor });
    for second in 1..400 {
        let word = if second % 2 == 0 { "minor" } else { "alarm" };
        let text = format!("{word}{}", "x".repeat(90));
        place.store.write(Write::put(Table::Events, format!("{second:04}"), &text));
        assert_eq!(place.store.commit(at(second)), CommitResult::Committed);
    }
    let rows = place.store.read::<String>(Table::Events);
    let bytes: usize = rows.iter().map(|(key, text)| key.len() + text.len() + 2).sum();
    assert!((15_000..=21_000).contains(&bytes), "{bytes}");
    let minor = rows.iter().filter(|(_, text)| text.starts_with("minor")).count();
    assert!(minor < 10, "{minor} of {} that matter less are left", rows.len());
    assert_eq!(rows.last().unwrap().0, "0399");
}
