//! `hbd check`: prints what is wrong with a configuration, or how much is in it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use serde_json::json;

use super::{CONFIGURATION, FAILED, config_file, help, json_line, print};
use crate::backup::correlator;
use crate::cluster;
use crate::cluster::members::Member;
use crate::config::Config;
use crate::event::counted;
use crate::problem::{Problem, Problems, Severity};
use crate::thread::Stop;

#[derive(Debug, Default, PartialEq)]
struct CheckArgs {
    config: Option<PathBuf>,
    strict: bool,
    json: bool,
}

/// Reads the arguments and prints what is wrong with the configuration. Gives the exit code.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("check"))) };
    let file = config_file(args.config);
    let printed = check(&file, args.strict, args.json, &mut io::stdout().lock());
    Ok(printed.unwrap_or(FAILED))
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<CheckArgs>, lexopt::Error> {
    let mut args = CheckArgs::default();
    let named = |config: &mut Option<PathBuf>, file: OsString| match config.replace(file.into()) {
        None => Ok(()),
        Some(_) => Err("name one file: FILE is the same as --config FILE"),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => named(&mut args.config, parser.value()?)?,
            Long("strict") => args.strict = true,
            Long("json") => args.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(file) => named(&mut args.config, file)?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

/// Prints every problem of the file at `config`, one a line, then, when it can be used, how much is
/// in it: channels, hosts, and the threshold sets that the file itself defines. Gives the exit code. With
/// `strict` warnings count as errors, and the Redis of the cluster is asked; with `json` all is one JSON object.
pub fn check(config: &Path, strict: bool, json: bool, out: &mut impl Write) -> io::Result<u8> {
    let mut loaded = Config::load(config);
    if let Ok(loaded) = &mut loaded {
        check_redis(loaded, config);
        if strict {
            check_cluster(loaded, config);
        }
    }
    report(loaded, strict, json, out)
}

/// Warns of a Redis that answers and cannot be used. One that does not answer is none of this: the
/// file may be checked elsewhere, or before anything runs.
fn check_redis(loaded: &mut Config, file: &Path) {
    if !loaded.correlator.written {
        return;
    }
    let (_stopper, stop) = Stop::channel();
    if let Some(what) = correlator::find_problem(&loaded.correlator, &stop) {
        loaded.warnings.0.push(Problem {
            severity: Severity::Warning,
            file: file.display().to_string(),
            line: None,
            path: "correlator.redis_url".into(),
            what,
        });
    }
}

/// Asks the Redis of the cluster what it must be, and which nodes have another configuration.
fn check_cluster(loaded: &mut Config, file: &Path) {
    let Some(settings) = &loaded.cluster else { return };
    let mut problems = Vec::new();
    let mut problem = |severity, what: String| {
        let (file, path) = (file.display().to_string(), "cluster".to_owned());
        problems.push(Problem { severity, file, line: None, path, what });
    };
    match cluster::requirements::look(settings) {
        Ok(look) => {
            for fault in look.faults {
                let severity = if fault.refused { Severity::Error } else { Severity::Warning };
                problem(severity, format!("{}: {}", look.server, fault.what));
            }
            let differs = |member: &&Member| {
                member.name != settings.node && member.configuration != loaded.fingerprint
            };
            for member in look.members.iter().filter(differs) {
                let what = format!("{} has another configuration than this file", member.name);
                problem(Severity::Warning, what);
            }
        }
        Err(why) => problem(Severity::Warning, why),
    }
    loaded.warnings.0.extend(problems);
}

fn report(
    loaded: Result<Config, Problems>,
    strict: bool,
    json: bool,
    out: &mut impl Write,
) -> io::Result<u8> {
    let problems = match &loaded {
        Ok(config) => &config.warnings,
        Err(problems) => problems,
    };
    let fatal = |severity| strict || severity == Severity::Error;
    let ok = loaded.is_ok() && !problems.0.iter().any(|problem| fatal(problem.severity));
    let count = |of: fn(&Config) -> usize| loaded.as_ref().map_or(0, of);
    let channels = count(|config| config.channels.len());
    let hosts = count(|config| config.hosts.len());
    let sets = count(|config| config.own_threshold_sets);
    if json {
        let answer = json!({
            "ok": ok,
            "problems": problems.0,
            "channels": channels,
            "hosts": hosts,
            "threshold_sets": sets,
        });
        out.write_all(json_line(&answer).as_bytes())?;
    } else {
        for problem in &problems.0 {
            writeln!(out, "{problem}")?;
        }
        if ok {
            let (channels, hosts) = (counted(channels, "channel"), counted(hosts, "host"));
            writeln!(out, "OK: {channels}, {hosts}, {}", counted(sets, "threshold set"))?;
        }
    }
    Ok(if ok { 0 } else { CONFIGURATION })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_may_be_named_with_or_without_an_option() {
        let parsed = |words: &[&str]| {
            let parsed = parse_args(lexopt::Parser::from_args(words));
            parsed.map(Option::unwrap).map_err(|why| why.to_string())
        };
        let args = |strict, json| CheckArgs { config: Some("a.yaml".into()), strict, json };
        assert_eq!(parsed(&["a.yaml", "--strict"]), Ok(args(true, false)));
        assert_eq!(parsed(&["--json", "-c", "a.yaml"]), Ok(args(false, true)));
        assert_eq!(parsed(&[]), Ok(CheckArgs::default()));
        for twice in [&["a.yaml", "b.yaml"][..], &["a.yaml", "--config", "a.yaml"]] {
            assert!(parsed(twice).unwrap_err().contains("name one file"), "{twice:?}");
        }
    }

    fn checked(text: &str, strict: bool, json: bool) -> (u8, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        std::fs::write(&file, text).unwrap();
        let mut out = Vec::new();
        let code = check(&file, strict, json, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        (code, said.replace(&format!("{}/", directory.path().display()), ""))
    }

    const UNWATCHED: &str = "notification_channels: {log: {type: log}}\nhosts:\n  web1:\n";

    #[test]
    fn a_sound_file_is_counted() {
        let text = "notification_channels: {a: {type: log}, b: {type: log}}\ndefault_notification_channels: [a]\nthreshold_configs: {x: {}}\n";
        assert_eq!(
            checked(text, true, false),
            (0, "OK: 2 channels, 0 hosts, 1 threshold set\n".into())
        );
    }

    #[test]
    fn warnings_are_errors_only_when_strict() {
        let (code, said) = checked(UNWATCHED, false, false);
        assert!(code == 0 && said.ends_with("OK: 1 channel, 1 host, 0 threshold sets\n"), "{said}");
        let (code, said) = checked(UNWATCHED, true, false);
        assert!(
            code == 78 && said.contains("warning: hosts.web1") && !said.contains("OK"),
            "{said}"
        );
    }

    #[test]
    fn programs_get_one_json_object() {
        let (code, said) = checked("hots: 1\n", false, true);
        let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(code, 78);
        assert_eq!(answer["ok"], false);
        assert_eq!(
            answer["problems"][0],
            json!({"severity": "error", "file": "heartbeat.yaml", "line": 1, "path": "hots",
                "what": "unknown key, did you mean \"hosts\"?"})
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_with_a_remedy() {
        let mut out = Vec::new();
        let code = check(Path::new("/nowhere/hb.yaml"), false, false, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert_eq!(code, 78);
        assert!(said.starts_with("/nowhere/hb.yaml: cannot be read (No such file"), "{said}");
        assert!(said.contains("--config"), "{said}");
    }
}
