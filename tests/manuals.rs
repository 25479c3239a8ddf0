//! The manuals: they render without a warning, and leave out no key and no option.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn read(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What a manual looks like, without breaks of lines.
fn rendered(manual: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/man").join(manual);
    // -c: no escape sequences; -P: no overstriking either, words stay words.
    let arguments = ["-ww", "-mandoc", "-Tascii", "-P-c", "-P-b", "-P-u", "-rLL=400n"];
    let output = Command::new("groff")
        .args(arguments)
        .arg(&path)
        .output()
        .expect("groff is there: the package groff-base");
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warnings.is_empty(), "{manual}: {warnings}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_terminal_of_80_columns_shows_them_without_a_warning_and_every_quote_whole() {
    for manual in ["hbd.8", "hbc.8", "heartbeat.yaml.5"] {
        let output = Command::new("groff")
            .args(["-man", "-ww", "-Tutf8", "-P-c", "-P-b", "-P-u"])
            .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/man").join(manual))
            .output()
            .expect("groff is there: the package groff-base");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{manual}");
        let text = String::from_utf8(output.stdout).unwrap();
        let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{manual}: {wide:#?}");
        let mut open = None;
        for (place, quote) in text.match_indices(['\u{2018}', '\u{2019}']) {
            let opens = quote == "\u{2018}";
            let around: String = text[..place].chars().rev().take(40).collect();
            let around: String = around.chars().rev().collect();
            // An apostrophe is none.
            let letter = around.chars().last().is_some_and(char::is_alphanumeric);
            let whole = if opens { open.is_none() } else { open.is_some() || letter };
            assert!(whole, "{manual}: a quote in a quote behind {around:?}");
            open = opens.then_some(place);
        }
        let commands: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.starts_with("SYNOPSIS"))
            .take_while(|line| !line.starts_with("DESCRIPTION"))
            .collect();
        let name = manual.trim_end_matches(".8");
        let twice = commands.iter().find(|line| line.matches(&format!("{name} ")).count() > 1);
        assert_eq!(twice, None, "two commands in one line");
    }
}

fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    text.split(|c| !part(c)).any(|found| found == word)
}

#[test]
fn every_key_of_the_example_has_its_place_in_the_manual() {
    let manual = rendered("heartbeat.yaml.5");
    let example = read("heartbeat.yaml.example");
    let key = |line: &str| {
        let (key, _) = line.trim_start().trim_start_matches('#').split_once(':')?;
        let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        plain.then(|| key.to_owned())
    };
    // Keys that are names of somebody's choice, and words of the prose.
    let names = ["log", "email_ops", "pushover_urgent", "signal_oncall", "mattermost_ops"];
    let others = ["small_disks", "unix", "home"];
    let keys: BTreeSet<String> = example.lines().filter_map(key).collect();
    assert!(keys.len() > 60, "{keys:?}");
    let secret_file = |key: &str| key.ends_with("_file") && key != "ca_file";
    for key in keys {
        if names.contains(&&*key) || others.contains(&&*key) || secret_file(&key) {
            continue;
        }
        assert!(has_word(&manual, &key), "heartbeat.yaml(5) leaves out {key}");
    }
}

#[test]
fn every_key_of_the_agents_example_has_its_place_in_the_manual() {
    let manual = rendered("hbc.8");
    let example = read("packaging/hbc.yaml");
    let prose = |line: &&str| line.starts_with("# ") && !line.starts_with("#  ");
    let words = example.lines().filter(|line| !prose(line)).flat_map(|line| {
        line.split(['{', ',', '#', ' ']).filter_map(|word| word.strip_suffix(':'))
    });
    // Names of somebody's choice.
    let names = ["vpn", "lte"];
    let keys: BTreeSet<&str> = words.filter(|word| !names.contains(word)).collect();
    assert!(keys.len() > 6, "{keys:?}");
    for key in keys {
        assert!(has_word(&manual, key), "hbc(8) leaves out {key}");
    }
}

#[test]
fn every_word_of_help_has_its_place_in_the_manual() {
    for (program, manual) in
        [(env!("CARGO_BIN_EXE_hbd"), "hbd.8"), (env!("CARGO_BIN_EXE_hbc"), "hbc.8")]
    {
        let page = rendered(manual);
        let help = |arguments: &[&str]| {
            let output = Command::new(program).args(arguments).arg("--help").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let overview = help(&[]);
        let name = manual.trim_end_matches(".8");
        let commands = overview.lines().filter_map(|line| {
            let mut words = line.strip_prefix("  ")?.split_whitespace();
            (words.next() == Some(name)).then(|| words.next()).flatten()
        });
        let commands: Vec<&str> =
            commands.filter(|word| word.chars().all(|c| c.is_ascii_lowercase())).collect();
        let helps: String = commands.iter().map(|command| help(&[command])).collect();
        let options = helps.split(|c: char| c.is_whitespace() || "[](),;:|".contains(c));
        let wanted: BTreeSet<&str> = options
            .filter(|word| word.len() > 3 && word.starts_with("--"))
            .chain(commands)
            .collect();
        assert!(wanted.len() > 4, "{wanted:?}");
        for word in wanted {
            assert!(page.contains(word), "{manual} leaves out {word}");
        }
    }
}

#[test]
fn the_readme_is_short() {
    assert!(read("README.md").lines().count() <= 200);
}
