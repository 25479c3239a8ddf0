//! Feeds text to the reading of a configuration: every refusal names a place, what is read is read
//! alike when it is written anew, and no secret is in a warning.

use std::path::PathBuf;
use std::sync::OnceLock;

use heartbeat::Config;
use heartbeat::config_file::yaml::{MAX_BYTES, MapEntry, Node, NodeValue, ScalarKind, parse};
use heartbeat::problem::Problems;

/// The longest key that YAML takes in a map on one line.
const MAX_KEY: usize = 1000;

/// What ends a line in YAML 1.1.
const BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];

/// The file that is loaded again and again; one for each process.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
        folder.join(format!("heartbeat-fuzz-{}.yaml", std::process::id()))
    })
}

fn load(text: &[u8]) -> Result<Config, Problems> {
    std::fs::write(file(), text).expect("a file of ours can be written");
    Config::load_with(file(), &|_| None)
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            letter => quoted += &format!("\\U{:08x}", u32::from(letter)),
        }
    }
    quoted + "\""
}

/// The tree as text on one line.
fn written(node: &Node) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match &node.value {
        NodeValue::Scalar { kind: ScalarKind::Null, .. } => "~".into(),
        NodeValue::Scalar { text, kind: ScalarKind::Text } => quoted(text),
        NodeValue::Scalar { text, .. } => text.clone(),
        NodeValue::List(nodes) => format!("[{}]", list(nodes.iter().map(written).collect())),
        NodeValue::Map(entries) => {
            let entry =
                |entry: &MapEntry| format!("{}: {}", quoted(&entry.key), written(&entry.node));
            format!("{{{}}}", list(entries.iter().map(entry).collect()))
        }
    }
}

/// The tree without lines and without the spellings of nothing.
fn plain(node: &Node) -> Node {
    let value = match &node.value {
        NodeValue::Scalar { kind: ScalarKind::Null, .. } => {
            NodeValue::Scalar { text: String::new(), kind: ScalarKind::Null }
        }
        NodeValue::Scalar { .. } => node.value.clone(),
        NodeValue::List(nodes) => NodeValue::List(nodes.iter().map(plain).collect()),
        NodeValue::Map(entries) => {
            let entry = |entry: &MapEntry| MapEntry {
                key: entry.key.clone(),
                line: None,
                node: plain(&entry.node),
            };
            NodeValue::Map(entries.iter().map(entry).collect())
        }
    };
    Node { line: None, value }
}

fn has_long_key(node: &Node) -> bool {
    match &node.value {
        NodeValue::Scalar { .. } => false,
        NodeValue::List(nodes) => nodes.iter().any(has_long_key),
        NodeValue::Map(entries) => {
            let long = |entry: &MapEntry| quoted(&entry.key).len() > MAX_KEY;
            entries.iter().any(|entry| long(entry) || has_long_key(&entry.node))
        }
    }
}

/// The same tree, written anew; none where it cannot be.
fn check_tree(text: &str) -> Option<String> {
    let lines = text.matches(BREAKS).count() + 2;
    let tree = match parse(text) {
        Ok(tree) => tree,
        Err(error) => {
            assert!(!error.what.is_empty());
            assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error:?}");
            return None;
        }
    };
    let anew = written(&tree);
    if anew.len() > MAX_BYTES || has_long_key(&tree) {
        return None;
    }
    let again = parse(&anew).unwrap_or_else(|error| panic!("{anew} is refused: {error:?}"));
    assert_eq!(plain(&again), plain(&tree), "{anew}");
    Some(anew)
}

fn check_problems(text: &[u8], problems: &Problems) {
    let lines = String::from_utf8_lossy(text).matches(BREAKS).count() + 2;
    for problem in &problems.0 {
        assert!(!problem.what.is_empty() && !problem.what.contains('\n'), "{problem}");
        assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem}");
    }
}

fn check_secrets(text: &str, config: &Config) {
    for secret in config.secrets.iter().map(|secret| secret.reveal()) {
        // One that stands elsewhere in the file, too, may be told from there.
        if secret.len() < 16 || text.matches(secret).count() != 1 {
            continue;
        }
        let told = config.warnings.0.iter().map(ToString::to_string);
        assert!(!told.clone().any(|line| line.contains(secret)), "a secret is told");
        assert!(!format!("{config:?}").contains(secret), "a secret is shown");
    }
}

/// Checks one input.
pub fn run(bytes: &[u8]) {
    let anew = std::str::from_utf8(bytes).ok().and_then(check_tree);
    let loaded = load(bytes);
    match &loaded {
        Err(problems) => {
            assert!(problems.has_errors(), "it is refused, and nothing is wrong with it");
            check_problems(bytes, problems);
        }
        Ok(config) => {
            check_problems(bytes, &config.warnings);
            check_secrets(std::str::from_utf8(bytes).expect("what is loaded is text"), config);
        }
    }
    let Some(anew) = anew else { return };
    match (loaded, load(anew.as_bytes())) {
        (Ok(first), Ok(second)) => {
            let plain = |config: Config| Config { warnings: Problems::default(), ..config };
            assert_eq!(plain(first), plain(second));
        }
        (Err(_), Err(_)) => {}
        (Ok(_), Err(problems)) => panic!("{anew} is refused: {problems:?}"),
        (Err(problems), Ok(_)) => panic!("{anew} is accepted, unlike before: {problems:?}"),
    }
}
