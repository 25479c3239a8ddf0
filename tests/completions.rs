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

/// What is printed with `--help` behind these arguments.
fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that the help of a program names.
fn commands(name: &str, program: &str) -> BTreeSet<String> {
    let help = printed(program, &[]);
    let commands = help.lines().filter_map(|line| {
        let mut words = line.strip_prefix("  ")?.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()).flatten()
    });
    let is_command = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
    commands.filter(is_command).map(str::to_owned).collect()
}

/// Every command of the help, and all words of it and of their own that begin with two dashes.
fn help(name: &str, program: &str) -> BTreeSet<String> {
    let mut help = printed(program, &[]);
    for command in commands(name, program) {
        help.push_str(&printed(program, &[&command]));
    }
    let options = help.split(|c: char| c.is_whitespace() || "[](),;:|".contains(c));
    let words: BTreeSet<String> = options
        .filter(|word| word.len() > 3 && word.starts_with("--"))
        .map(str::to_owned)
        .chain(commands(name, program))
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

/// The help of one command was three screens of all of them.
#[test]
fn every_command_has_a_help_of_its_own_that_fits_a_terminal() {
    for (name, program) in programs() {
        for command in commands(name, program) {
            let help = printed(program, &[&command]);
            assert!(help.starts_with(&format!("{name} {command}")), "{help}");
            assert!(help.lines().count() <= 40, "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
            let asked = Command::new(program).args(["help", &command]).output().unwrap();
            assert_eq!(String::from_utf8(asked.stdout).unwrap(), help);
        }
        assert!(printed(program, &[]).lines().all(|line| line.chars().count() <= 80));
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
        _filedir() { COMPREPLY+=(FILES); }
        _known_hosts_real() { COMPREPLY=(HOSTS); }
        _command_offset() { COMPREPLY=("COMMAND $1"); }
        hbd() { "$HBD" "$@"; }
        . "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        "_${COMP_WORDS[0]}"
        echo "${COMPREPLY[*]}"
    "#;
    let directory = tempfile::tempdir().unwrap();
    let (file_of_hbd, other) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    // Names are completed even while something else is wrong.
    let text = "hots: 1\nhosts: {web1: {}, web2: {wacth: 1}, db1: {}}\n\
                notification_channels: {log: {type: log}, chat: {}}\n";
    fs::write(&file_of_hbd, text).unwrap();
    fs::write(&other, "hosts:\n  db1: {}\nreceiver: {token: ${X}}\n").unwrap();
    let other = other.display().to_string();
    for (line, expected) in [
        (&["hbd", "ch"][..], "check"),
        (&["hbd", "check", "--s"], "--strict"),
        (&["hbd", "notify", "--level", "cri"], "critical"),
        (&["hbd", "run", "--config", ""], "FILES"),
        (&["hbd", "check", ""], "--help --config --strict --json FILES"),
        (&["hbd", "status", "w"], "web1 web2"),
        (&["hbd", "log", "--config", &other, "d"], "db1"),
        (&["hbd", "notify", "--host", "web1"], "web1"),
        (&["hbd", "notify", "--channel", ""], "log chat"),
        (&["hbd", "forget", "-c", "/nowhere", "w"], ""),
        (&["hbd", "reload", "--js"], "--json"),
        (&["hbd", "names", "ch"], "channels"),
        (&["hbd", "help", "unsi"], "unsilence"),
        (&["hbc", "help", "ex"], "exec"),
        (&["hbc", "check", "--j"], "--json"),
        (&["hbd", "silence", "web1", "1h", "--unless", "w"], "warning"),
        (&["hbd", "ack", "--un"], "--undo"),
        (&["hbc", "silence", "e"], "end"),
        (&["hbc", "send", "--server", ""], "HOSTS"),
        (&["hbc", "send", "--event", "sh"], "shutdown"),
        (&["hbc", "exec", "--server", "a", "--", "ls"], "COMMAND 5"),
    ] {
        let mut bash = Command::new("bash");
        bash.env("HBD", env!("CARGO_BIN_EXE_hbd")).env("HBD_CONFIG", &file_of_hbd);
        bash.args(["-c", frame, "bash"]).arg(file(&format!("{}.bash", line[0]))).args(line);
        let output = bash.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{line:?}");
    }
}
