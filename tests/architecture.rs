//! The map of the house, enforced: who may know whom, what a pure file may not mention, and the
//! rules of style that a reader of source can check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/source.rs"]
mod source;

use source::Source;

/// Words that everybody shares; they know each other and nothing else.
const VOCABULARY: &[&str] = &[
    "address",
    "clock",
    "duration",
    "escape",
    "event",
    "problem",
    "secret",
    "token_bucket",
    "version",
    "view",
];

/// What each room may know besides the vocabulary and itself. The binaries may know everything.
const KNOWS: &[(&str, &[&str])] = &[
    ("agent", &["heartbeat", "memory", "process", "config_file", "thread", "systemd"]),
    ("backup", &["process", "config_file", "thread", "store", "tls"]),
    (
        "cli",
        &["deadline", "backup", "config", "daemon", "dyndns", "logger", "notify", "thread", "tls"],
    ),
    (
        "config",
        &["agent", "backup", "dyndns", "heartbeat", "history", "notify", "config_file", "http"],
    ),
    ("config_file", &[]),
    (
        "daemon",
        &[
            "agent",
            "backup",
            "config",
            "dyndns",
            "heartbeat",
            "history",
            "memory",
            "notify",
            "thread",
            "store",
            "systemd",
            "tls",
            "http",
        ],
    ),
    ("deadline", &[]),
    ("dyndns", &["deadline", "config_file", "thread", "store", "tls"]),
    ("heartbeat", &["config_file", "thread", "store"]),
    ("history", &["config_file", "thread", "store"]),
    // The log channel's lines are never filtered out.
    ("logger", &["notify"]),
    ("memory", &[]),
    ("notify", &["deadline", "process", "config_file", "thread", "store", "tls"]),
    // What is told to stop kills what it runs.
    ("process", &["thread"]),
    ("store", &[]),
    ("systemd", &[]),
    ("thread", &[]),
    ("tls", &[]),
    ("http", &["deadline", "config_file", "thread", "store", "tls"]),
];

/// What the agent may know of `heartbeat`: the datagrams.
const AGENT_KNOWS: &[&str] = &["datagram", "encode"];

/// What would make a decision depend on more than its arguments, or do more than decide.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Now::read",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "std::fs",
    "fs::",
    "File::",
    "std::thread",
    "thread::",
    "std::process",
    "process::",
    "std::env",
    "env::var",
    "log::",
    "debug!",
    "info!",
    "warn!",
    "error!",
    "trace!",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
];

/// A channel makes one attempt and says how it ended; whoever decides logs, waits and tries again.
const NOT_IN_A_CHANNEL: &[&str] = &[
    "use log::",
    "logger(",
    "debug!",
    "info!",
    "warn!",
    "error!",
    "trace!",
    "sleep",
    "println!",
    "eprintln!",
];

const NOWHERE: &[(&str, &str)] = &[
    ("thread::sleep", "waiting is interruptible: use thread::Stop::wait"),
    ("sleep_ms", "waiting is interruptible: use thread::Stop::wait"),
    (".unwrap()", "unwrap is for tests: return the error, or expect(\"the invariant\")"),
    ("thread::spawn(", "every thread has a name: use thread::Builder"),
    ("scope.spawn", "every thread has a name: use thread::Builder"),
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
    ("dbg!", "remove it"),
    ("println!", "a closed output would panic: write to it and ignore that"),
    ("print!", "a closed output would panic: write to it and ignore that"),
];

const LONGEST_FUNCTION: usize = 60;
const LONGEST_FILE: usize = 600;

/// Files that may have more lines before their tests, how many, and why.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// What one file breaks, a sentence each.
fn broken_rules(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    let mut complain = |what: String| broken.push(format!("{}: {what}", source.path));
    for (room, line) in source.rooms() {
        if let Some(why) = may_not_know(&source.room, &room) {
            complain(format!("line {line}: {why}"));
        }
    }
    for (word, line) in source.find(&["crate::heartbeat::"]) {
        let part = source.word_after(line, word);
        if source.room == "agent" && !AGENT_KNOWS.contains(&part.as_str()) {
            complain(format!(
                "line {line}: the agent knows only datagrams of heartbeat, not {part}"
            ));
        }
    }
    if source.head.is_empty() {
        complain("begins with //! and what it is for".into());
    }
    if source.is_pure() {
        for (word, line) in source.find(IMPURE) {
            complain(format!("line {line}: is Pure and mentions {word}"));
        }
    }
    if source.path.contains("notify/channel/") && !source.path.ends_with("channel/log.rs") {
        for (word, line) in source.find(NOT_IN_A_CHANNEL) {
            complain(format!("line {line}: a channel neither logs nor sleeps, it mentions {word}"));
        }
    }
    for (word, remedy) in NOWHERE {
        for (_, line) in source.find(&[word]) {
            complain(format!("line {line}: {word}: {remedy}"));
        }
    }
    for (line, name) in source.unnamed_threads() {
        complain(format!("line {line}: {name} starts a thread without a name"));
    }
    for note in ["TODO", "FIXME", "XXX"] {
        if let Some(line) = source.comment_with(note) {
            complain(format!("line {line}: {note}: do it or leave it"));
        }
    }
    for (name, lines) in source.functions() {
        if lines > LONGEST_FUNCTION {
            complain(format!("fn {name} has {lines} lines, {LONGEST_FUNCTION} is the most"));
        }
    }
    let excused = LONG_FILES.iter().find(|(path, ..)| *path == source.path);
    let (lines, most) = (source.lines(), excused.map_or(LONGEST_FILE, |(_, most, _)| *most));
    if lines > most {
        complain(format!("{lines} lines before tests, {most} is the most"));
    } else if excused.is_some() && lines <= LONGEST_FILE {
        complain("is no longer long: take it off LONG_FILES".into());
    }
    broken
}

fn may_not_know(who: &str, whom: &str) -> Option<String> {
    let known = KNOWS.iter().find(|(room, _)| *room == who).map(|(_, known)| *known);
    match known {
        _ if who == whom || who == "bin" || who == "lib" => None,
        _ if VOCABULARY.contains(&whom) => None,
        Some(known) if known.contains(&whom) => None,
        Some(_) => Some(format!("{who} may not know {whom}")),
        None if VOCABULARY.contains(&who) => {
            Some(format!("{who} is vocabulary, it may not know {whom}"))
        }
        None => Some(format!("{who} is a new room: say in KNOWS whom it may know")),
    }
}

/// All files below `src` that are not tests, read.
fn house() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    let read: Vec<Source> = files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(root).unwrap().to_str().unwrap();
            Source::new(path, &fs::read_to_string(file).unwrap())
        })
        .collect();
    let tests: BTreeSet<String> =
        read.iter().flat_map(|source| source.test_files.clone()).collect();
    read.into_iter().filter(|source| !tests.contains(&source.path)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

#[test]
fn the_house_keeps_its_rules() {
    let house = house();
    assert!(house.len() > 50, "{} files were found", house.len());
    let broken: Vec<String> = house.iter().flat_map(broken_rules).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_exception_is_about_something_that_exists() {
    let rooms: BTreeSet<String> = house().into_iter().map(|source| source.room).collect();
    for (room, known) in KNOWS {
        assert!(rooms.contains(*room), "KNOWS speaks of {room}, which is no room");
        for other in *known {
            assert!(rooms.contains(*other), "KNOWS: {room} may know {other}, which is no room");
        }
    }
    for word in VOCABULARY {
        assert!(rooms.contains(*word), "{word} is no room");
    }
}

#[test]
fn enough_is_pure() {
    let house = house();
    let count = house.iter().filter(|source| source.is_pure()).count();
    assert!(count > 30, "only {count} files say that they are pure");
}

/// What is wrong with a made-up file.
fn verdict(path: &str, text: &str) -> String {
    let text = format!("//! A file. Pure.\n{text}");
    broken_rules(&Source::new(path, &text)).join("\n")
}

#[test]
fn the_features_do_not_know_each_other() {
    let cases = [
        ("src/http/a.rs", "use crate::heartbeat::fleet;", "http may not know heartbeat"),
        ("src/heartbeat/a.rs", "use crate::{clock, http::Server};", "heartbeat may not know http"),
        ("src/backup/a.rs", "fn f() { crate::notify::f() }", "backup may not know notify"),
        (
            "src/notify/channel/a.rs",
            "use super::super::super::http::x;",
            "notify may not know http",
        ),
        ("src/notify/mod.rs", "use super::backup::x;", "notify may not know backup"),
        ("src/store.rs", "use super::http;", "store may not know http"),
        ("src/http/a.rs", "use crate::daemon;", "http may not know daemon"),
        ("src/agent/a.rs", "use crate::heartbeat::fleet::Fleet;", "not fleet"),
        ("src/agent/a.rs", "use crate::store;", "agent may not know store"),
        ("src/view.rs", "use crate::store::Write;", "is vocabulary, it may not know store"),
        ("src/novelty.rs", "use crate::store::Write;", "novelty is a new room"),
    ];
    for (path, text, what) in cases {
        let verdict = verdict(path, text);
        assert!(verdict.contains(what), "{path}: {text}: {verdict:?}");
    }
    for (path, text) in [
        ("src/heartbeat/a.rs", "use crate::clock::Now; use super::fleet::Fleet;"),
        ("src/heartbeat/a.rs", "// crate::web\nconst A: &str = \"crate::web\";"),
        ("src/agent/a.rs", "use crate::heartbeat::encode::{self, Beat};"),
        ("src/view.rs", "use crate::clock::Wall;"),
        ("src/cli/a.rs", "use crate::daemon;"),
        ("src/heartbeat/a.rs", "#[cfg(test)]\nmod tests {\n    use crate::http;\n}"),
    ] {
        assert_eq!(verdict(path, text), "", "{path}: {text}");
    }
}

#[test]
fn a_pure_file_has_no_effects() {
    for text in [
        "fn f() -> Now { Now::read() }",
        "fn f() { std::fs::read(\"x\"); }",
        "use log::info;",
        "fn f() { info!(\"x\"); }",
        "use std::net::UdpSocket;",
        "fn f() { thread::Builder::new(); }",
        "fn f() { std::process::exit(1) }",
    ] {
        assert!(verdict("src/heartbeat/a.rs", text).contains("is Pure and mentions"), "{text}");
    }
    for text in [
        "//! thread::, Instant::now\n// SystemTime::now\nconst A: &str = \"log::\";",
        "const A: char = '\"'; /* fs:: /* nested */ fs:: */ const B: &str = r#\"fs::\"#;",
        "use crate::catalog::x; fn f<'a>(x: &'a str) -> &'a str { x }",
        "#[cfg(test)]\nmod tests {\n    use std::thread;\n    fn f() { thread::spawn(|| ()); }\n}",
    ] {
        let verdict = verdict("src/heartbeat/a.rs", text);
        assert!(!verdict.contains("is Pure"), "{text}: {verdict}");
    }
}

#[test]
fn what_belongs_nowhere_is_found() {
    for (text, what) in [
        ("fn f() { x().unwrap(); }", ".unwrap()"),
        ("fn f() { std::thread::sleep(d); }", "waiting is interruptible"),
        ("fn f() { thread::spawn(|| ()); }", "every thread has a name"),
        ("fn f() { todo!() }", "finish it"),
        ("// TODO: more", "do it or leave it"),
        ("fn f() { println!(\"\"); }", "a closed output would panic"),
    ] {
        assert!(verdict("src/heartbeat/a.rs", text).contains(what), "{text}");
    }
    let unnamed = "fn f() { thread::Builder::new().stack_size(1).spawn(|| ()); }";
    assert!(verdict("src/daemon/a.rs", unnamed).contains("without a name"));
    let named = "fn f() {\n    thread::Builder::new()\n        .name(n)\n        .spawn(g)\n}";
    assert!(!verdict("src/daemon/a.rs", named).contains("without a name"));
    assert!(
        verdict("src/notify/channel/a.rs", "use log::warn;").contains("a channel neither logs")
    );
    assert!(
        broken_rules(&Source::new("src/thread.rs", "fn f() {}"))[0].contains("begins with //!")
    );
}

#[test]
fn what_grew_too_long_is_found() {
    let body = |lines: usize| "    g();\n".repeat(lines);
    let function = |lines: usize| format!("fn long() {{\n{}}}\n", body(lines - 2));
    assert!(verdict("src/thread.rs", &function(61)).contains("fn long has 61 lines"));
    assert_eq!(verdict("src/thread.rs", &function(60)), "");
    assert!(
        verdict("src/thread.rs", &"const A: u8 = 1;\n".repeat(600))
            .contains("601 lines before tests")
    );
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", body(700));
    assert_eq!(verdict("src/thread.rs", &tests), "");
}

#[test]
fn what_is_compiled_for_tests_only_is_known() {
    let text =
        "//! x\n#[cfg(test)]\nmod play;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n";
    let of = |path| Source::new(path, text).test_files;
    assert_eq!(of("src/a/mod.rs"), ["src/a/play.rs", "src/a/b_tests.rs"]);
    assert_eq!(of("src/a/b.rs"), ["src/a/b/play.rs", "src/a/b_tests.rs"]);
}

#[test]
fn every_map_entry_names_a_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let map: String = lib.lines().take_while(|line| line.starts_with("//!")).collect();
    let rooms: BTreeMap<String, bool> = house()
        .into_iter()
        .filter(|source| !["lib", "bin"].contains(&source.room.as_str()))
        .map(|source| (source.room.clone(), map.contains(&format!("[`{}`]", source.room))))
        .collect();
    let unmapped: Vec<_> = rooms.iter().filter(|(_, mapped)| !**mapped).collect();
    assert!(unmapped.is_empty(), "the map in lib.rs leaves out {unmapped:?}");
}
