//! README and docs: whatever a reader may copy works. Each configuration is loaded, each command is
//! parsed by the program that it is for, each link leads somewhere, each metric is there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use heartbeat::clock::{Now, Wall};
use heartbeat::event::Level;
use heartbeat::heartbeat::threshold::{self, Rule};

#[allow(dead_code, reason = "each test file uses some of it")]
mod support {
    pub mod browser;
    pub mod show;
}

use support::browser::Browser;
use support::show::{self, HOUR, Show, Site};

/// What a key, a token or a password of an example may be: of the length and the letters that all take.
const SECRET: &str = "azGDORePK8gMaC0QOYAMyEEuzJnyUi";
/// Nobody answers there.
const NOBODY: &str = "127.0.0.1:1";
/// What the commands of the documents find as heartbeat.yaml.
const CONFIG: &str = "notification_channels: {log: {type: log}}\n\
                      default_notification_channels: [log]\n\
                      hosts: {web1: {watch: true}}\n\
                      receiver: {port: 1}\n";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The paths of all documents.
fn documents() -> Vec<String> {
    let mut all =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(String::from).to_vec();
    for entry in fs::read_dir(root("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            all.push(format!("docs/{name}"));
        }
    }
    all.sort();
    all
}

/// A part of a document that is set as code.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in read(document).lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !open => found.push(Block {
                place: format!("{document}:{}", number + 1),
                language: language.to_owned(),
                text: String::new(),
            }),
            None if open => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            Some(_) | None => {}
        }
        open ^= line.trim_start().starts_with("```");
    }
    found
}

/// A directory in the place of /etc and /var, with the programs of this build.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { directory: tempfile::tempdir().unwrap() };
        for program in [env!("CARGO_BIN_EXE_hbd"), env!("CARGO_BIN_EXE_hbc")] {
            let name = Path::new(program).file_name().unwrap();
            fs::create_dir_all(machine.path("bin")).unwrap();
            symlink(program, machine.path("bin").join(name)).unwrap();
        }
        machine.write("etc/hbd/heartbeat.yaml", CONFIG);
        machine
            .write("etc/hbc/hbc.yaml", &format!("server: {NOBODY}\nkey: {SECRET}\nhost: web1\n"));
        machine.write("heartbeat.key", SECRET);
        for folder in ["etc/hbd/secrets", "etc/hbc/secrets", "etc/hbc/metrics.d"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// A text of a document for this machine: its directories, and no server that there really may be.
    fn at_home(&self, text: &str) -> String {
        let here = |name: &str| format!("{}/{name}/", self.directory.path().display());
        let names = ["hbd.example.com", "hbd1.example.com", "hbd2.example.com", "SERVER"];
        let mut text = text.replace("/etc/", &here("etc")).replace("/var/lib/", &here("var"));
        for name in names {
            text = text.replace(&format!("{name}:9099"), NOBODY).replace(name, NOBODY);
        }
        text.replace("127.0.0.1:9099", NOBODY)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.directory.path())
            .env("STATE_DIRECTORY", self.path("var"))
            .env("HBD_CONFIG", self.path("etc/hbd/heartbeat.yaml"))
            .env("HBC_CONFIG", self.path("etc/hbc/hbc.yaml"))
            .stdin(Stdio::null());
        command
    }
}

/// Status and what it said.
fn ran(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Writes every file that is named as a secret or a certificate.
fn write_named_files(machine: &Machine, text: &str) {
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some((_, behind)) = rest.split_once("_file: ") {
            let end = behind.find([',', '}', ' ']).unwrap_or(behind.len());
            let file = &behind[..end];
            let path = file.strip_prefix(machine.directory.path().to_str().unwrap());
            let path = path.map_or_else(|| format!("etc/hbd/{file}"), |path| path[1..].to_owned());
            for path in [path.clone(), path.replace("etc/hbd", "etc/hbc")] {
                machine.write(&path, SECRET);
            }
            rest = behind;
        }
    }
}

/// Why a configuration is not taken.
fn refusal(name: &str, text: &str) -> Option<String> {
    let machine = Machine::new();
    let text = machine.at_home(text);
    write_named_files(&machine, &text);
    let check = |program: &str, file: &Path| {
        ran(machine.command(program).args(["check", "--config"]).arg(file))
    };
    let (code, said) = match name {
        "heartbeat.yaml" => check("hbd", &machine.write("etc/hbd/heartbeat.yaml", &text)),
        "hbc.yaml" => check("hbc", &machine.write("etc/hbc/hbc.yaml", &text)),
        "prometheus.yml" => {
            machine
                .write("etc/prometheus/hbd.rules.yml", &read("packaging/examples/hbd.rules.yml"));
            let file = machine.write("etc/prometheus/prometheus.yml", &text);
            ran(Command::new("promtool").args(["check", "config"]).arg(file))
        }
        "alertmanager.yml" => {
            let file = machine.write("etc/alertmanager.yml", &text);
            ran(Command::new("amtool").arg("check-config").arg(file))
        }
        "playbook.yml" => match serde_yaml::from_str::<serde_yaml::Value>(&text) {
            Ok(plays) if plays[0]["tasks"].is_sequence() => return None,
            Ok(_) => return Some("it has no tasks".into()),
            Err(why) => return Some(why.to_string()),
        },
        _ => return Some("its first line names no file that is known here".into()),
    };
    (code != Some(0)).then_some(said)
}

/// The files that the text of a shell writes: `cat >PATH/NAME <<'END'`.
fn here_documents(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut end: Option<String> = None;
    for line in text.lines() {
        match &end {
            Some(word) if line == word => end = None,
            Some(_) => {
                let (_, text) = found.last_mut().unwrap();
                text.push_str(line);
                text.push('\n');
            }
            None => {
                let Some((head, word)) = line.split_once("<<'") else { continue };
                let name = head.trim_end().rsplit('/').next();
                found.push((name.unwrap_or_default().to_owned(), String::new()));
                end = Some(word.split('\'').next().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn every_configuration_in_the_documents_is_taken() {
    let mut broken = Vec::new();
    let mut count = 0;
    for block in documents().iter().flat_map(|document| blocks(document)) {
        let files = match block.language.as_str() {
            "yaml" => {
                let name = block.text.lines().next().unwrap_or_default().trim_start_matches("# ");
                let name = name.split([' ', ':', ',']).next().unwrap().rsplit('/').next().unwrap();
                vec![(name.to_owned(), block.text.clone())]
            }
            "sh" => here_documents(&block.text),
            _ => Vec::new(),
        };
        for (name, text) in files.iter().filter(|(name, _)| name.contains(".y")) {
            count += 1;
            if let Some(why) = refusal(name, text) {
                broken.push(format!("{}: {name}: {why}", block.place));
            }
        }
    }
    assert!(count > 10, "{count}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The commands of a text of a shell that are for hbd or hbc: prompts, sudo and here-documents left
/// out, lines that go on put together.
fn commands(text: &str) -> Vec<String> {
    let mut bare = String::new();
    let mut end: Option<String> = None;
    for line in text.lines() {
        if end.as_deref() == Some(line) {
            end = None;
        } else if end.is_none() {
            bare.push_str(line.strip_suffix('\\').unwrap_or(line));
            bare.push_str(if line.ends_with('\\') { " " } else { "\n" });
            end =
                line.split_once("<<'").map(|(_, word)| word.split('\'').next().unwrap().to_owned());
        }
    }
    let lines = bare.lines().map(|line| line.split(" #").next().unwrap());
    let parts = lines.flat_map(|line| line.split(['|', ';']).flat_map(|part| part.split("&&")));
    let mut found = Vec::new();
    for part in parts {
        let words: Vec<&str> = part.split_whitespace().collect();
        // A prompt ends with "#"; five fields of cron; what runs another program.
        let begin = words.iter().position(|word| matches!(*word, "hbd" | "hbc"));
        let Some(begin) = begin else { continue };
        let before = |word: &&str| {
            word.ends_with('#')
                || matches!(*word, "$" | "sudo" | "root" | "if" | "!" | "-")
                || word.contains('=')
                || word.chars().all(|c| c.is_ascii_digit() || "*/".contains(c))
        };
        if words[..begin].iter().all(before) {
            let place = part.find(words[begin]).unwrap();
            found.push(part[place..].trim().to_owned());
        }
    }
    found
}

#[test]
fn every_command_in_the_documents_is_taken_by_its_program() {
    let mut found = Vec::new();
    let mut broken = Vec::new();
    for block in documents().iter().flat_map(|document| blocks(document)) {
        if block.language != "sh" {
            continue;
        }
        let unprompted = block.text.lines().map(|line| {
            line.split_once("# ")
                .filter(|(prompt, _)| {
                    !prompt.is_empty() && prompt.chars().all(|c| c.is_ascii_alphanumeric())
                })
                .map_or(line, |(_, line)| line)
        });
        let text: String = unprompted.map(|line| format!("{line}\n")).collect();
        let (code, said) = ran(Command::new("bash").args(["-n", "-c", &text]));
        if code != Some(0) {
            broken.push(format!("{}: {said}", block.place));
        }
        found.extend(commands(&block.text).into_iter().map(|line| (block.place.clone(), line)));
    }
    assert!(found.len() > 10, "{found:?}");
    let refused = Mutex::new(broken);
    let refused = &refused;
    thread::scope(|scope| {
        for (place, line) in &found {
            scope.spawn(move || {
                let machine = Machine::new();
                // A daemon is not started: it takes the options of "check", besides others.
                let run = machine
                    .at_home(line)
                    .replace("hbd run", "hbd check")
                    .replace("hbc run", "hbc check");
                let (code, said) = ran(machine.command("/bin/sh").args(["-c", &run]));
                if matches!(code, Some(2) | None) || said.contains("see hbd --help") {
                    let words = format!("{place}: {line}: {said}");
                    refused.lock().unwrap_or_else(PoisonError::into_inner).push(words);
                }
            });
        }
    });
    let broken = refused.lock().unwrap();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A check that finds nothing proves nothing.
#[test]
fn what_is_wrong_is_found() {
    assert_eq!(refusal("heartbeat.yaml", CONFIG), None);
    assert!(refusal("heartbeat.yaml", &format!("{CONFIG}watch: yes\n")).is_some());
    assert!(refusal("hbc.yaml", "server: SERVER\nkye: K\n").is_some());
    assert!(refusal("alertmanager.yml", "route: {receiver: nobody}\nreceivers: []\n").is_some());
    assert!(refusal("unknown.yaml", CONFIG).is_some());
    let text = "web1# apt install x && hbc send --wait 5s\n\
                cat >/etc/hbd/x <<'END'\nhbd check\nEND\n\
                30 2 * * * hbc exec -- \\\n    a.sh\n";
    assert_eq!(commands(text), ["hbc send --wait 5s", "hbc exec --      a.sh"]);
    let files = here_documents("server# cat >/etc/hbd/heartbeat.yaml <<'END'\nhosts: {}\nEND\nx\n");
    assert_eq!(files, [("heartbeat.yaml".to_owned(), "hosts: {}\n".to_owned())]);
}

/// What stands between backquotes in the text, code blocks left out.
fn spans(document: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut open = false;
    for line in read(document).lines() {
        if line.trim_start().starts_with("```") {
            open = !open;
        } else if !open {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

#[test]
fn every_command_that_the_text_names_has_these_options() {
    let mut broken = Vec::new();
    for document in documents() {
        for span in spans(&document) {
            let words: Vec<&str> = span
                .split([' ', '[', ']', '(', ')', '|', '\\'])
                .filter(|word| !word.is_empty())
                .collect();
            let (program, command) = match words[..] {
                [program @ ("hbd" | "hbc"), command, ..] => (program, command),
                _ => continue,
            };
            let file = if program == "hbd" {
                env!("CARGO_BIN_EXE_hbd")
            } else {
                env!("CARGO_BIN_EXE_hbc")
            };
            let (code, help) = match command.starts_with("--") {
                true => ran(Command::new(file).arg("--help")),
                false => ran(Command::new(file).args([command, "--help"])),
            };
            if code != Some(0) {
                broken.push(format!("{document}: `{span}`: {help}"));
            }
            // What is behind "--" belongs to another program.
            let options = words.iter().take_while(|word| **word != "--");
            for option in options.filter(|word| word.starts_with("--")) {
                let known = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
                if !known.into_iter().any(|known| known == *option) {
                    broken.push(format!("{document}: `{span}`: there is no {option}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// How GitHub calls the place of a heading.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().flat_map(char::to_lowercase);
    let kept = letters.filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        for (_, behind) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = behind.split(')').next().unwrap();
            if target.starts_with("https://") {
                continue;
            }
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&document).parent().unwrap().to_owned();
            let file = if file.is_empty() {
                document.clone()
            } else {
                folder.join(file).display().to_string()
            };
            let there = root(&file);
            let has_place = || {
                let text = fs::read_to_string(&there).unwrap();
                text.lines().any(|line| {
                    line.starts_with('#') && anchor(line.trim_start_matches('#')) == place
                })
            };
            if !there.exists() || !place.is_empty() && !has_place() {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The words of this form: `hbd_` and letters.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let letter = |word: &str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let words = words.filter(|word| word.strip_prefix("hbd_").is_some_and(letter));
    words.map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_daemon_is_explained_and_no_other() {
    let source = read("src/http/metrics.rs");
    let source = source.split("#[cfg(test)]").next().unwrap();
    let there: BTreeSet<String> = source
        .split('"')
        .filter(|text| metric_names(text).contains(*text))
        .map(str::to_owned)
        .collect();
    assert!(there.len() > 25, "{there:?}");
    let explained = metric_names(&read("docs/metrics.md"));
    let missing: Vec<_> = there.difference(&explained).collect();
    assert!(missing.is_empty(), "docs/metrics.md leaves out {missing:?}");
    for file in [
        "docs/metrics.md",
        "README.md",
        "packaging/examples/hbd.rules.yml",
        "packaging/examples/grafana.json",
    ] {
        let named = metric_names(&read(file));
        let others: Vec<_> = named.difference(&there).collect();
        assert!(others.is_empty(), "{file} names {others:?}");
    }
}

#[test]
fn every_metric_of_the_agent_is_explained() {
    let manual = read("packaging/man/hbc.8");
    let (_, metrics) = manual.split_once(".Sh METRICS").unwrap();
    let (metrics, _) = metrics.split_once(".Sh ENVIRONMENT").unwrap();
    let connections = manual.lines().filter(|line| line.contains("connection_monitor."));
    let named = metrics.lines().chain(connections).filter_map(|line| line.strip_prefix(".It Li "));
    let names: Vec<&str> =
        named.flat_map(|line| line.split([' ', ','])).filter(|word| word.contains('.')).collect();
    assert!(names.len() > 20, "{names:?}");
    let document = read("docs/metrics.md");
    for name in names {
        let last = name.rsplit('.').next().unwrap();
        let group = name.split('.').next().unwrap();
        let explained = document.lines().any(|line| line.contains(group) && line.contains(last));
        assert!(explained, "docs/metrics.md leaves out {name}");
    }
}

fn limits(rule: Option<&Rule>) -> String {
    let Some(rule) = rule else { return "-".into() };
    let limit = |limit: Option<threshold::Limit>| {
        limit.map_or("-".into(), |limit| limit.to_string().replace(".0", ""))
    };
    let mut text = format!("{} / {}", limit(rule.warning), limit(rule.critical));
    if rule.for_duration > Duration::ZERO {
        text.push_str(&format!(" for {} s", rule.for_duration.as_secs()));
    }
    if let Some(clear) = rule.clear {
        text.push_str(&format!(", clear {}", limit(Some(clear))));
    }
    text
}

/// `HB_BLESS=1` writes it anew.
#[test]
fn the_table_of_built_in_limits_is_what_is_built_in() {
    const BEGIN: &str = "<!-- limits -->\n";
    const END: &str = "<!-- end of limits -->\n";
    let sets = threshold::built_in();
    let order = ["default", "high_sensitivity", "low_sensitivity", "database"];
    assert_eq!(sets.len(), order.len());
    let paths: BTreeSet<&String> = sets.values().flat_map(|set| set.rules.keys()).collect();
    let mut table = format!("| metric | {} |\n|---|---|---|---|---|\n", order.join(" | "));
    for path in paths {
        let cells = order.map(|name| limits(sets[name].rules.get(path)));
        table.push_str(&format!("| `{path}` | {} |\n", cells.join(" | ")));
    }
    let document = read("docs/metrics.md");
    let (head, rest) = document.split_once(BEGIN).unwrap();
    let (written, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("HB_BLESS").is_some() {
        fs::write(root("docs/metrics.md"), format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(written, table, "HB_BLESS=1 cargo test --test documents writes it anew");
}

#[test]
fn the_version_is_everywhere_the_same() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("CHANGELOG.md");
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## [")).unwrap();
    assert_eq!(newest.split(']').next(), Some(version), "CHANGELOG.md");
    let debian = read("packaging/debian/changelog");
    assert!(debian.starts_with(&format!("heartbeat ({version})")), "{debian}");
    let minor = version.rsplit_once('.').unwrap().0;
    assert!(read("SECURITY.md").contains(&format!("| {minor}.x |")), "SECURITY.md");
}

/// A few hosts as they are on an ordinary bad day.
fn ordinary() -> Show {
    let now = Now::read().wall;
    let mut show = Show::with(7);
    let names = ["db1", "web1", "web2", "web3", "mail1", "nas", "gateway"];
    for (host, name) in show.hosts.iter_mut().zip(names) {
        host.name = name.into();
    }
    show::overdue(&mut show.hosts[0], now - HOUR / 5);
    let disk = &mut show.hosts[5].metrics[2];
    (disk.level, disk.value) = (Some(Level::Warning), 87.4);
    let events = [
        ("db1", "db1 ipv4 overdue", Level::Critical, HOUR / 5),
        (
            "nas",
            "WARNING: nas - disk_monitor.root.percent = 87.4 (threshold: > 85.0)",
            Level::Warning,
            HOUR * 2,
        ),
        ("gateway", "gateway booted", Level::Info, HOUR * 7),
        ("web3", "web3 ipv4 is back", Level::Ok, HOUR * 9),
    ];
    show.events.truncate(events.len());
    for (event, (host, text, level, ago)) in show.events.iter_mut().zip(events) {
        event.details.clear();
        (event.host, event.subject) = (Some(host.into()), format!("host {host}"));
        (event.text, event.level) = (text.into(), level);
        event.at = Wall(now.0 - i64::try_from(ago.as_millis()).unwrap());
    }
    show
}

/// `HB_BLESS=1` makes it anew.
#[test]
fn the_picture_of_the_page_is_small() {
    let file = root("docs/page.png");
    if std::env::var_os("HB_BLESS").is_some() {
        let site = Site::open(ordinary());
        let browser = Browser::start();
        browser.screen(1280, 800, false);
        browser.open(&site.url);
        browser.wait("document.querySelector('#live').textContent !== ''");
        browser.picture("readme");
        let target = Path::new(env!("CARGO_BIN_EXE_hbd")).ancestors().nth(2).unwrap();
        fs::copy(target.join("page/readme.png"), &file).unwrap();
    }
    let picture = fs::read(&file).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n"), "it is a PNG");
    assert_eq!(u32::from_be_bytes(picture[16..20].try_into().unwrap()), 1280, "its width");
    assert!(picture.len() < 150_000, "{} bytes", picture.len());
}
