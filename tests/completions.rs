//! The completions of the shells: they load, and leave out no command and no option of --help.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/completions").join(name)
}

fn programs() -> [(&'static str, &'static str); 2] {
    [("hbd", env!("CARGO_BIN_EXE_hbd")), ("hbc", env!("CARGO_BIN_EXE_hbc"))]
}

/// Every command of the help, and all words that begin with two dashes.
fn help(name: &str, program: &str) -> BTreeSet<String> {
    let output = Command::new(program).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let options = help.split(|c: char| c.is_whitespace() || "[](),:".contains(c));
    let commands = help.lines().filter_map(|line| {
        let mut words = line.strip_prefix("  ")?.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()).flatten()
    });
    let words: BTreeSet<String> = options
        .filter(|word| word.len() > 3 && word.starts_with("--"))
        .chain(commands.filter(|word| word.chars().all(|c| c.is_ascii_lowercase())))
        .map(str::to_owned)
        .collect();
    assert!(words.len() > 6, "{words:?}");
    words
}

#[test]
fn nothing_of_the_help_is_left_out() {
    for (name, program) in programs() {
        for shell in ["bash", "zsh", "fish"] {
            let text = fs::read_to_string(file(&format!("{name}.{shell}"))).unwrap();
            let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let words: Vec<&str> = text.split(|c| !part(c)).collect();
            for wanted in &help(name, program) {
                let long = wanted.trim_start_matches("--");
                let plain = if shell == "fish" { long } else { wanted.as_str() };
                assert!(words.contains(&plain), "{name}.{shell} leaves out {wanted}");
            }
        }
    }
}

#[test]
fn the_shells_take_them() {
    for (name, _) in programs() {
        for shell in ["bash", "zsh", "fish"] {
            let output =
                Command::new(shell).arg("-n").arg(file(&format!("{name}.{shell}"))).output();
            let output = output.unwrap_or_else(|why| panic!("{shell}: {why}"));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{name}.{shell}: {said}");
        }
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    // What bash-completion(7) gives to all completions, as far as these use it.
    let frame = r#"
        _init_completion() { cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}
            words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
        _filedir() { COMPREPLY=(FILES); }
        _known_hosts_real() { COMPREPLY=(HOSTS); }
        _command_offset() { COMPREPLY=("COMMAND $1"); }
        . "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        "_${COMP_WORDS[0]}"
        echo "${COMPREPLY[*]}"
    "#;
    for (line, expected) in [
        (&["hbd", "ch"][..], "check"),
        (&["hbd", "check", "--s"], "--strict"),
        (&["hbd", "notify", "--level", "cri"], "critical"),
        (&["hbd", "run", "--config", ""], "FILES"),
        (&["hbd", "silence", "web1", "1h", "--unless", "w"], "warning"),
        (&["hbd", "ack", "--un"], "--undo"),
        (&["hbc", "silence", "e"], "end"),
        (&["hbc", "send", "--server", ""], "HOSTS"),
        (&["hbc", "send", "--event", "sh"], "shutdown"),
        (&["hbc", "exec", "--server", "a", "--", "ls"], "COMMAND 5"),
    ] {
        let mut bash = Command::new("bash");
        bash.args(["-c", frame, "bash"]).arg(file(&format!("{}.bash", line[0]))).args(line);
        let output = bash.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{line:?}");
    }
}
