//! The map of src/lib.rs, enforced: which module may know which, what a pure file may not mention,
//! where types and their methods stand, and the rules of style that can be read off the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/imports.rs"]
mod imports;
#[path = "support/source.rs"]
mod source;

use imports::Imports;
use source::Source;

/// Modules that all others may know; they know each other and nothing else.
const VOCABULARY: &[&str] = &[
    "address",
    "btree",
    "clock",
    "duration",
    "escape",
    "event",
    "host_pattern",
    "problem",
    "secret",
    "token_bucket",
    "version",
    "view",
];

/// What each module may know besides the vocabulary and itself. The binaries may know everything.
const KNOWS: &[(&str, &[&str])] = &[
    (
        "agent",
        &["heartbeat", "memory", "process", "descriptors", "config_file", "thread", "systemd"],
    ),
    ("backup", &["process", "config_file", "redis_client", "thread", "store", "tls"]),
    (
        "cli",
        &[
            "deadline",
            "backup",
            "cluster",
            "config",
            "config_file",
            "daemon",
            "descriptors",
            "dyndns",
            // The words of the status page.
            "http",
            "logger",
            "notify",
            "thread",
            "tls",
        ],
    ),
    ("cluster", &["config_file", "redis_client", "thread", "store", "tls"]),
    (
        "config",
        &[
            "agent",
            "backup",
            "cluster",
            "dyndns",
            "heartbeat",
            "history",
            "notify",
            "config_file",
            "http",
        ],
    ),
    ("config_file", &[]),
    (
        "daemon",
        &[
            "agent",
            "backup",
            "cluster",
            "config",
            "descriptors",
            "dyndns",
            "heartbeat",
            "history",
            "http",
            "memory",
            "notify",
            "thread",
            "store",
            "systemd",
            "tls",
        ],
    ),
    ("deadline", &[]),
    ("descriptors", &[]),
    ("dyndns", &["deadline", "config_file", "thread", "store", "tls"]),
    ("heartbeat", &["config_file", "thread", "store"]),
    ("history", &["config_file", "thread", "store"]),
    ("http", &["deadline", "config_file", "thread", "store", "tls"]),
    // The log channel's lines are never filtered out.
    ("logger", &["notify"]),
    ("memory", &[]),
    ("name_service", &[]),
    ("notify", &["deadline", "process", "config_file", "thread", "store", "tls"]),
    // A stop kills the child processes.
    ("process", &["thread"]),
    ("redis_client", &[]),
    ("store", &["thread"]),
    ("systemd", &[]),
    ("thread", &[]),
    ("tls", &[]),
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

/// A channel makes one attempt and returns the result; the outbox logs, waits and tries again.
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

/// Who may start a program with all of our environment: the one function that takes it away, the job
/// that a user wraps in `hbc exec`, and hbd itself, which starts anew.
const STARTS_PROGRAMS: &[&str] =
    &["src/process.rs", "src/agent/exec/mod.rs", "src/daemon/sockets.rs"];

const MAX_FUNCTION_LINES: usize = 60;
const MAX_FILE_LINES: usize = 600;

/// Files that may have more lines before their tests, how many, and why.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// What one file breaks, a sentence each.
fn broken_rules(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    let mut complain = |what: String| broken.push(format!("{}: {what}", source.path));
    for (module, line) in source.root_modules() {
        if let Some(why) = may_not_know(&source.module, &module) {
            complain(format!("line {line}: {why}"));
        }
    }
    for (word, line) in source.find(&["crate::heartbeat::"]) {
        let part = source.word_after(line, word);
        if source.module == "agent" && !AGENT_KNOWS.contains(&part.as_str()) {
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
    if !STARTS_PROGRAMS.contains(&source.path.as_str()) {
        for (_, line) in source.find(&["Command::new"]) {
            complain(format!("line {line}: a program inherits our secrets: use process::command"));
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
        if lines > MAX_FUNCTION_LINES {
            complain(format!("fn {name} has {lines} lines, {MAX_FUNCTION_LINES} is the most"));
        }
    }
    let excused = LONG_FILES.iter().find(|(path, ..)| *path == source.path);
    let (lines, most) = (source.lines(), excused.map_or(MAX_FILE_LINES, |(_, most, _)| *most));
    if lines > most {
        complain(format!("{lines} lines before tests, {most} is the most"));
    } else if excused.is_some() && lines <= MAX_FILE_LINES {
        complain("is no longer long: take it off LONG_FILES".into());
    }
    broken
}

fn may_not_know(who: &str, whom: &str) -> Option<String> {
    let known = KNOWS.iter().find(|(module, _)| *module == who).map(|(_, known)| *known);
    match known {
        _ if who == whom || who == "bin" || who == "lib" => None,
        _ if VOCABULARY.contains(&whom) => None,
        Some(known) if known.contains(&whom) => None,
        Some(_) => Some(format!("{who} may not know {whom}")),
        None if VOCABULARY.contains(&who) => {
            Some(format!("{who} is vocabulary, it may not know {whom}"))
        }
        None => Some(format!("{who} is a new module: say in KNOWS which others it may know")),
    }
}

/// All files below `src` that are not tests, read.
fn sources() -> Vec<Source> {
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
fn every_file_keeps_the_rules() {
    let sources = sources();
    assert!(sources.len() > 50, "{} files were found", sources.len());
    let broken: Vec<String> = sources.iter().flat_map(broken_rules).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_exception_is_about_something_that_exists() {
    let modules: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    for (module, known) in KNOWS {
        assert!(modules.contains(*module), "KNOWS lists {module}, which is no module");
        for other in *known {
            assert!(modules.contains(*other), "KNOWS: {module} may know {other}, which is none");
        }
    }
    for word in VOCABULARY {
        assert!(modules.contains(*word), "{word} is no module");
    }
}

#[test]
fn enough_is_pure() {
    let sources = sources();
    let count = sources.iter().filter(|source| source.is_pure()).count();
    assert!(count > 30, "only {count} files say that they are pure");
}

/// The broken rules of a made-up file.
fn complaints(path: &str, text: &str) -> String {
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
        ("src/novelty.rs", "use crate::store::Write;", "novelty is a new module"),
    ];
    for (path, text, what) in cases {
        let complaints = complaints(path, text);
        assert!(complaints.contains(what), "{path}: {text}: {complaints:?}");
    }
    for (path, text) in [
        ("src/heartbeat/a.rs", "use crate::clock::Now; use super::fleet::Fleet;"),
        ("src/heartbeat/a.rs", "// crate::http\nconst A: &str = \"crate::http\";"),
        ("src/agent/a.rs", "use crate::heartbeat::encode::{self, Beat};"),
        ("src/view.rs", "use crate::clock::Wall;"),
        ("src/cli/a.rs", "use crate::daemon;"),
        ("src/heartbeat/a.rs", "#[cfg(test)]\nmod tests {\n    use crate::http;\n}"),
    ] {
        assert_eq!(complaints(path, text), "", "{path}: {text}");
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
        assert!(complaints("src/heartbeat/a.rs", text).contains("is Pure and mentions"), "{text}");
    }
    for text in [
        "//! thread::, Instant::now\n// SystemTime::now\nconst A: &str = \"log::\";",
        "const A: char = '\"'; /* fs:: /* nested */ fs:: */ const B: &str = r#\"fs::\"#;",
        "use crate::catalog::x; fn f<'a>(x: &'a str) -> &'a str { x }",
        "#[cfg(test)]\nmod tests {\n    use std::thread;\n    fn f() { thread::spawn(|| ()); }\n}",
    ] {
        let complaints = complaints("src/heartbeat/a.rs", text);
        assert!(!complaints.contains("is Pure"), "{text}: {complaints}");
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
        ("fn f() { Command::new(p).spawn(); }", "use process::command"),
    ] {
        assert!(complaints("src/heartbeat/a.rs", text).contains(what), "{text}");
    }
    let unnamed = "fn f() { thread::Builder::new().stack_size(1).spawn(|| ()); }";
    assert!(complaints("src/daemon/a.rs", unnamed).contains("without a name"));
    let named = "fn f() {\n    thread::Builder::new()\n        .name(n)\n        .spawn(g)\n}";
    assert!(!complaints("src/daemon/a.rs", named).contains("without a name"));
    assert!(
        complaints("src/notify/channel/a.rs", "use log::warn;").contains("a channel neither logs")
    );
    assert!(
        broken_rules(&Source::new("src/thread.rs", "fn f() {}"))[0].contains("begins with //!")
    );
}

#[test]
fn what_grew_too_long_is_found() {
    let body = |lines: usize| "    g();\n".repeat(lines);
    let function = |lines: usize| format!("fn long() {{\n{}}}\n", body(lines - 2));
    assert!(complaints("src/thread.rs", &function(61)).contains("fn long has 61 lines"));
    assert_eq!(complaints("src/thread.rs", &function(60)), "");
    assert!(
        complaints("src/thread.rs", &"const A: u8 = 1;\n".repeat(600))
            .contains("601 lines before tests")
    );
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", body(700));
    assert_eq!(complaints("src/thread.rs", &tests), "");
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
fn the_map_in_lib_rs_leaves_no_module_out() {
    let head = head_of_lib();
    let modules: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    let unmapped: Vec<_> = modules
        .iter()
        .filter(|module| !["lib", "bin"].contains(&module.as_str()))
        .filter(|module| !head.contains(&format!("[`{module}`]")))
        .collect();
    assert!(unmapped.is_empty(), "the map in lib.rs leaves out {unmapped:?}");
}

fn head_of_lib() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    lib.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

/// The paths in the table "Where do I change X" of a head, with what is to be changed.
fn table_paths(head: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for line in head.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((what, places)) = line.split_once(" | ") else { continue };
        // Every second part stands between back quotes.
        let quoted = places.split('`').skip(1).step_by(2);
        paths.extend(quoted.map(|path| (what.to_owned(), path.to_owned())));
    }
    paths
}

/// Whether a path below `src`, or the name of a file that several modules have, exists.
fn is_there(path: &str, sources: &[Source]) -> bool {
    let full = format!("src/{path}");
    sources.iter().any(|source| {
        let folder = path.ends_with('/') && source.path.starts_with(&full);
        let name = !path.contains('/') && source.path.ends_with(&format!("/{path}"));
        folder || name || source.path == full
    })
}

#[test]
fn the_table_in_lib_rs_names_files_that_exist() {
    let (paths, sources) = (table_paths(&head_of_lib()), sources());
    assert!(paths.len() > 20, "{paths:?}");
    let missing: Vec<_> = paths.iter().filter(|(_, path)| !is_there(path, &sources)).collect();
    assert!(missing.is_empty(), "lib.rs sends the reader to no file: {missing:#?}");
}

#[test]
fn a_table_that_names_what_is_gone_is_found() {
    let head = "//! | I want to change | go to |\n//! |---|---|\n\
                //! | the key `x` of b | `settings.rs` of b; also `b/c.rs`, `b/d/`, `b/gone.rs` |";
    let paths: Vec<String> = table_paths(head).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["settings.rs", "b/c.rs", "b/d/", "b/gone.rs"]);
    let files = ["src/b/settings.rs", "src/b/c.rs", "src/b/d/mod.rs"];
    let files: Vec<Source> = files.iter().map(|path| Source::new(path, "//! x")).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !is_there(path, &files)).collect();
    assert_eq!(missing, ["b/gone.rs"]);
    assert!(!is_there("d/", &files) && !is_there("c", &files));
}

/// Types whose inherent `impl` is cut in pieces: it stands in one file, or in files of the folder
/// that bears the type's name, such as `Fleet` in `fleet/`.
fn scattered_impls(sources: &[Source]) -> Vec<String> {
    let mut declared: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources {
        for item in source.types() {
            declared.entry(item.name).or_default().push(&source.path);
        }
    }
    // By type: where a name stands for several, the one that is declared nearest is meant.
    let mut files: BTreeMap<(String, &str), BTreeSet<&str>> = BTreeMap::new();
    for source in sources {
        for (name, _) in source.inherent_impls() {
            let places = declared.get(&name).map(Vec::as_slice).unwrap_or_default();
            let place = places.iter().max_by_key(|place| common(place, &source.path));
            let key = (name, place.copied().unwrap_or_default());
            files.entry(key).or_default().insert(&source.path);
        }
    }
    let in_own_folder = |name: &str, path: &str| {
        path.rsplit_once('/').is_some_and(|(folder, _)| folder.split('/').any(|part| part == name))
    };
    files
        .into_iter()
        .filter(|((name, _), paths)| {
            let folder = snake_case(name);
            paths.len() > 1 && !paths.iter().all(|path| in_own_folder(&folder, path))
        })
        .map(|((name, _), paths)| format!("impl {name} is in {paths:?}"))
        .collect()
}

/// How many characters of two paths are the same from the beginning.
fn common(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[test]
fn the_methods_of_a_type_stand_in_one_place() {
    let scattered = scattered_impls(&sources());
    assert!(scattered.is_empty(), "\n{}\n", scattered.join("\n"));
}

/// Made-up files.
fn files(texts: &[(&str, &str)]) -> Vec<Source> {
    texts.iter().map(|(path, text)| Source::new(path, text)).collect()
}

#[test]
fn an_impl_in_pieces_is_found() {
    let struct_and_impl = "pub struct Fleet { a: u8 }\nimpl Fleet { fn f() {} }";
    let found = scattered_impls(&files(&[
        ("src/a/fleet.rs", struct_and_impl),
        ("src/a/b.rs", "use super::fleet::Fleet;\n#[rustfmt::skip]\nimpl Fleet {}"),
    ]));
    assert_eq!(found, [r#"impl Fleet is in {"src/a/b.rs", "src/a/fleet.rs"}"#]);
    for pieces in [
        [("src/fleet/mod.rs", struct_and_impl), ("src/fleet/b.rs", "impl super::Fleet {}")],
        [
            ("src/a/host_fleet/b.rs", "impl HostFleet {}"),
            ("src/a/host_fleet/c.rs", "impl HostFleet {}"),
        ],
        // Traits are implemented where it suits.
        [("src/a.rs", struct_and_impl), ("src/b.rs", "impl<T> From<Fleet> for B<T> {}")],
        // Two types of one name.
        [
            ("src/a/x.rs", struct_and_impl),
            ("src/b/x.rs", "struct Fleet<'a>(&'a u8);\nimpl<'a> Fleet<'a> {}"),
        ],
        [
            ("src/a.rs", struct_and_impl),
            ("src/b.rs", "fn f(a: &impl Fleet) -> impl Fleet { impl_() }"),
        ],
        [("src/a.rs", struct_and_impl), ("src/b.rs", "#[cfg(test)]\nimpl Fleet { fn f() {} }")],
    ] {
        assert_eq!(scattered_impls(&files(&pieces)), [""; 0], "{pieces:?}");
    }
    let generic = "struct A<F>(F);\nimpl<F: Fn(u8) -> u8> A<F>\nwhere F: Send {}\nimpl<F> A<F> {}";
    let found =
        scattered_impls(&files(&[("src/a.rs", generic), ("src/b.rs", "impl crate::a::A<u8> {}")]));
    assert_eq!(found.len(), 1);
}

/// Names that several public types may have, and why.
const SHARED_NAMES: &[(&str, &str)] = &[];

/// How large the share of types may be whose name another type of the crate has, too, public or
/// not, in percent.
const MAX_SHARED_PERCENT: usize = 10;

/// Where the types of each name are declared, and how many of them are public.
fn types_by_name(sources: &[Source]) -> BTreeMap<String, (Vec<String>, usize)> {
    let mut types: BTreeMap<String, (Vec<String>, usize)> = BTreeMap::new();
    for source in sources {
        for item in source.types() {
            let (places, public) = types.entry(item.name).or_default();
            places.push(format!("{}:{}", source.path, item.line));
            *public += usize::from(item.public);
        }
    }
    types
}

/// Names of more than one public type.
fn shared_names(sources: &[Source]) -> Vec<String> {
    let excused = |name: &str| SHARED_NAMES.iter().any(|(shared, _)| *shared == name);
    types_by_name(sources)
        .into_iter()
        .filter(|(name, (_, public))| *public > 1 && !excused(name))
        .map(|(name, (places, _))| format!("{name}: {}", places.join(", ")))
        .collect()
}

#[test]
fn no_two_public_types_share_a_name() {
    let sources = sources();
    let shared = shared_names(&sources);
    assert!(shared.is_empty(), "\n{}\n", shared.join("\n"));
    let types = types_by_name(&sources);
    for (name, why) in SHARED_NAMES {
        let public = types.get(*name).map_or(0, |(_, public)| *public);
        assert!(public > 1, "{name} is one type: take it off SHARED_NAMES ({why})");
    }
}

#[test]
fn few_types_share_a_name_at_all() {
    let types = types_by_name(&sources());
    let all: usize = types.values().map(|(places, _)| places.len()).sum();
    let shared: Vec<_> = types.into_iter().filter(|(_, (places, _))| places.len() > 1).collect();
    let count: usize = shared.iter().map(|(_, (places, _))| places.len()).sum();
    let names: Vec<_> =
        shared.iter().map(|(name, (places, _))| format!("{name}: {}", places.join(", "))).collect();
    assert!(
        count * 100 < all * MAX_SHARED_PERCENT,
        "{count} of {all} types share a name:\n{}\n",
        names.join("\n")
    );
}

#[test]
fn a_name_for_two_types_is_found() {
    let two = |one: &str, other: &str| {
        shared_names(&files(&[("src/a.rs", one), ("src/b.rs", other)])).join("\n")
    };
    let found = two("pub struct Line;", "\npub(super) enum Line {}");
    assert_eq!(found, "Line: src/a.rs:1, src/b.rs:2");
    assert_ne!(two("pub trait Line {}", "pub(in crate::b) type Line = u8;"), "");
    for other in [
        "struct Line;",
        "pub struct Lines;",
        "pub fn line() { let pub_struct = Line; }",
        "impl A for B { type Line = u8; }",
        "// pub struct Line;",
        "#[cfg(test)]\npub struct Line;",
    ] {
        assert_eq!(two("pub struct Line;", other), "", "{other}");
    }
}

/// Groups of files that know one another in a circle.
const MAX_CIRCLES: usize = 2;

#[test]
fn files_do_not_import_one_another_in_circles() {
    let circles = Imports::of(&sources()).circles();
    let listed: Vec<_> = circles.iter().map(|circle| circle.join(" <-> ")).collect();
    assert!(
        circles.len() <= MAX_CIRCLES,
        "{} circles, {MAX_CIRCLES} are the most:\n{}\n",
        circles.len(),
        listed.join("\n")
    );
}

#[test]
fn a_circle_of_imports_is_found() {
    let circles = |texts: &[(&str, &str)]| -> Vec<String> {
        let circles = Imports::of(&files(texts)).circles();
        circles.iter().map(|circle| circle.join(" ")).collect()
    };
    let both = "src/a/x.rs src/a/y.rs";
    for (one, other) in [
        ("use super::y::Y;", "use crate::a::x::{self, X};"),
        ("use crate::a::{y::{Y as Z}, w::W};", "fn f() -> super::x::X { x() }"),
        ("use super::{\n    y,\n};", "pub(super) use super::x::*;"),
    ] {
        assert_eq!(circles(&[("src/a/x.rs", one), ("src/a/y.rs", other)]), [both], "{one} {other}");
    }
    // What a module hands on is declared elsewhere: that file is meant.
    let front = ("src/a/mod.rs", "mod x;\nmod y;\npub use self::x::X;\nuse y::Y;");
    let known = [front, ("src/a/x.rs", "use super::Y;"), ("src/a/y.rs", "use crate::a::X;")];
    assert_eq!(circles(&known), [both]);
    let three = [
        ("src/a.rs", "use crate::b::B;"),
        ("src/b.rs", "use crate::c::C;"),
        ("src/c.rs", "use crate::a::A;"),
        ("src/d.rs", "use crate::a::A;"),
    ];
    assert_eq!(circles(&three), ["src/a.rs src/b.rs src/c.rs"]);
    let around = [
        ("src/a/mod.rs", "use crate::b::B;"),
        ("src/a/x.rs", "use super::LIMIT;"),
        ("src/b.rs", "use crate::a::x::X;"),
    ];
    assert_eq!(circles(&around), ["src/a/mod.rs src/a/x.rs src/b.rs"]);
    for free in [
        // A folder's front names its parts, and they may use what it declares.
        vec![("src/a/mod.rs", "mod x;\nuse x::X;"), ("src/a/x.rs", "use super::LIMIT;")],
        vec![("src/a/x.rs", "use super::y::Y;"), ("src/a/y.rs", "// use super::x::X;")],
        vec![("src/a/x.rs", "use super::y;"), ("src/a/y.rs", "#[cfg(test)]\nuse super::x::X;")],
        vec![("src/a/x.rs", "use super::y::Y;"), ("src/a/y.rs", "use super::z::x;")],
    ] {
        assert_eq!(circles(&free), [""; 0], "{free:?}");
    }
}
