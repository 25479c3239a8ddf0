//! The output of restic, parsed: its JSON, error messages and exit codes. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Wall, parse_rfc3339};

/// A lock that was not refreshed for this time is stale, as restic has it (`staleTimeout`).
const STALE_AFTER: Duration = Duration::from_secs(30 * 60);

/// Why a repository could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "why")]
pub enum RepoError {
    /// There is no repository at this address.
    #[serde(rename = "gone")]
    NotFound,
    /// No key of the repository fits the password.
    WrongPassword,
    /// The address cannot be reached, or what answers there refuses.
    Unreachable(String),
    /// A part of it that is needed to open it is damaged.
    Damaged(String),
    /// restic failed for another reason.
    Failed(String),
}

/// The words for a repository without the file that says what it is.
pub const NO_CONFIG: &str = "its keys are there, its config file is not";

/// What restic says of data that are not what was written.
const DAMAGE: [&str; 7] = [
    "ciphertext verification failed",
    "is damaged",
    "config file has zero size",
    "invalid data returned",
    "Unmarshal: ",
    "slice bounds out of range",
    "not found in repository",
];

/// What restic says of a destination that cannot be reached, or refuses.
const UNREACHABLE: [&str; 21] = [
    "unexpected HTTP response",
    "dial ",
    "lookup ",
    "connection refused",
    "connection reset",
    "no such host",
    "no route to host",
    "network is unreachable",
    "timeout",
    "timed out",
    "deadline exceeded",
    "x509",
    "tls: ",
    "EOF",
    "broken pipe",
    "ermission denied",
    "ccess denied",
    "ccess Denied",
    "orbidden",
    "input/output error",
    "client.",
];

/// A web page in place of restic's JSON.
const WEB_PAGE: &str = "invalid character '<'";

/// What restic says of a file that is not there.
const ABSENT: [&str; 4] = ["no such file or directory", "does not exist", "(404)", "404 Not Found"];

/// Why restic failed. Before version 0.17 only the messages tell the reasons apart.
pub fn classify_failure(code: Option<i32>, stderr: &str) -> RepoError {
    match code {
        Some(10) => RepoError::NotFound,
        Some(12) => RepoError::WrongPassword,
        _ if stderr.contains("wrong password or no key found") => RepoError::WrongPassword,
        _ if is_not_found(stderr) => RepoError::NotFound,
        _ if is_web_page(stderr) => {
            RepoError::Unreachable("what answers there is a web page, and no restic server".into())
        }
        _ if is_damage(stderr) => RepoError::Damaged(error_line(stderr)),
        _ if says_any(stderr, &UNREACHABLE) => RepoError::Unreachable(error_line(stderr)),
        _ => RepoError::Failed(error_line(stderr)),
    }
}

fn says_any(text: &str, messages: &[&str]) -> bool {
    messages.iter().any(|message| text.contains(message))
}

fn is_damage(stderr: &str) -> bool {
    says_any(stderr, &DAMAGE) && !is_web_page(stderr)
}

/// Whether what answered is a web page.
pub fn is_web_page(stderr: &str) -> bool {
    stderr.contains(WEB_PAGE)
}

/// Whether the config file, which every repository has, does not exist.
fn is_not_found(stderr: &str) -> bool {
    let config = stderr.lines().find(|line| line.contains("unable to open config file"));
    config.is_some_and(|line| says_any(line, &ABSENT))
}

/// Whether restic was reading what is behind config and keys when it was killed: the destination had
/// answered then.
pub fn had_opened(stderr: &str) -> bool {
    says_any(stderr, &["<snapshot/", "<index/", "<data/", "<lock/"])
}

/// The line of stderr that says what is wrong: never one of a stack.
pub fn error_line(stderr: &str) -> String {
    let lines = message_lines(stderr);
    let fatal = lines.iter().find_map(|line| line.strip_prefix("Fatal: ").map(str::to_owned));
    let is_crash =
        |line: &&String| ["panic: ", "fatal error: "].iter().any(|word| line.starts_with(word));
    let crash = || lines.iter().find(is_crash).map(|line| format!("restic crashed: {line}"));
    let last = || without_stack(&lines).pop().map(|line| cause(line).to_owned());
    let line = fatal.or_else(crash).or_else(last);
    line.unwrap_or_else(|| "it did not say why".into()).chars().take(300).collect()
}

/// The lines that are not empty. Since restic 0.17 with `--json` messages are JSON.
fn message_lines(stderr: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in stderr.lines() {
        let json = serde_json::from_str::<Value>(line).unwrap_or_default();
        let text = json["message"].as_str().unwrap_or(line);
        lines.extend(text.lines().map(|line| line.trim().to_owned()));
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// The lines without those of a stack: each of its frames is a function and below it a place in the
/// source.
fn without_stack(lines: &[String]) -> Vec<&str> {
    let is_place = |line: &str| {
        let place = line.split(" +0x").next().unwrap_or_default();
        let (file, number) = place.rsplit_once(':').unwrap_or_default();
        (file.ends_with(".go") || file.ends_with(".s")) && number.parse::<u32>().is_ok()
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut stack = false;
    for line in lines {
        if is_place(line) {
            // Above the first frame is the message.
            if stack || kept.len() > 1 {
                kept.pop();
            }
            stack = true;
        } else {
            kept.push(line);
        }
    }
    kept
}

/// The reason in a line that says that restic tries once more.
fn cause(line: &str) -> &str {
    let cause = line
        .split_once("returned error, retrying after ")
        .and_then(|(_, rest)| rest.split_once(": "));
    cause.map_or(line, |(_, cause)| cause)
}

/// The snapshots that restic listed and could not read, which it passes over: a sentence, and whether
/// they are damaged.
pub fn unreadable_snapshots(stderr: &str, cut: bool) -> Option<(String, bool)> {
    let lines = message_lines(stderr);
    let is_one =
        |line: &&String| says_any(line, &["could not load snapshot ", "failed to load snapshot "]);
    let unread: Vec<&String> = lines.iter().filter(is_one).collect();
    let first = unread.iter().find(|line| is_damage(line)).or_else(|| unread.first())?;
    let why: String = first.splitn(3, ": ").last().unwrap_or(first).chars().take(200).collect();
    let count = match (unread.len(), cut) {
        (count, true) => format!("more than {count} snapshots"),
        (1, false) => "1 snapshot".into(),
        (count, false) => format!("{count} snapshots"),
    };
    Some((format!("{count} cannot be read: {why}"), is_damage(first)))
}

/// The first damage that `restic check` or `restic stats` found. A destination that fails meanwhile is
/// no damage.
pub fn damage(stderr: &str) -> Option<String> {
    let lines = message_lines(stderr);
    let is_lost_pack = |line: &str| line.starts_with("pack ") && line.ends_with(": does not exist");
    let is_proof = |line: &&String| is_damage(line) || is_lost_pack(line);
    let is_error = |line: &&String| {
        let is_chatter =
            ["Fatal: ", "Load(", "List(", "Stat("].iter().any(|word| line.starts_with(word));
        !is_chatter && !says_any(line, &UNREACHABLE)
    };
    let says_so = || says_any(stderr, &["repository contains errors", "LoadIndex returned errors"]);
    let found = lines.iter().find(is_proof).cloned().or_else(|| {
        let fails = says_any(stderr, &UNREACHABLE);
        let first =
            lines.iter().find(is_error).map_or("the repository contains errors", |line| line);
        (says_so() && !fails).then(|| first.to_owned())
    });
    found.map(|line| line.chars().take(300).collect())
}

/// Parses the output of `restic stats --mode restore-size --json`: the bytes.
pub fn parse_restore_size(stdout: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct StatsJson {
        total_size: u64,
    }
    serde_json::from_str(stdout.trim()).ok().map(|stats: StatsJson| stats.total_size)
}

/// A lock on a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepoLock {
    /// User, host and process: `root at web1 (process 7172)`.
    pub holder: String,
    /// When it was taken, or last refreshed.
    #[serde(serialize_with = "crate::view::rfc3339")]
    pub since: Option<Wall>,
    /// Whether it excludes readers, too.
    pub exclusive: bool,
    /// Whether it was not refreshed for so long that its holder must have died.
    pub stale: bool,
}

/// What became of the attempt to read a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockFile {
    /// It was read.
    Held(RepoLock),
    /// It is not there, at least not any more.
    Gone,
    /// It is damaged.
    Damaged,
    /// It could not be read, and why.
    Unknown(String),
}

impl LockFile {
    /// Reads what `restic cat lock` answered; the code is none when it was killed.
    pub fn parse(code: Option<i32>, stdout: &str, stderr: &str, now: Wall) -> LockFile {
        match parse_lock(stdout, now) {
            _ if code != Some(0) && is_damage(stderr) => LockFile::Damaged,
            _ if code != Some(0) && says_any(stderr, &ABSENT) => LockFile::Gone,
            _ if code != Some(0) => LockFile::Unknown(error_line(stderr)),
            Some(lock) => LockFile::Held(lock),
            None => LockFile::Damaged,
        }
    }
}

fn parse_lock(stdout: &str, now: Wall) -> Option<RepoLock> {
    #[derive(Deserialize)]
    struct LockJson {
        time: String,
        #[serde(default)]
        exclusive: bool,
        #[serde(default)]
        hostname: String,
        #[serde(default)]
        username: String,
        #[serde(default)]
        pid: i64,
    }
    let raw: LockJson = serde_json::from_str(stdout.trim()).ok()?;
    let since = parse_rfc3339(&raw.time).ok();
    Some(RepoLock {
        holder: format!("{} at {} (process {})", raw.username, raw.hostname, raw.pid),
        since,
        exclusive: raw.exclusive,
        stale: since.is_some_and(|since| now.since(since) > STALE_AFTER),
    })
}

/// Parses the output of `restic list locks`: the ids.
pub fn parse_lock_ids(stdout: &str) -> Vec<&str> {
    stdout.lines().map(str::trim).filter(|line| is_id(line)).collect()
}

/// Whether it is the whole id of something in a repository.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        let gone = "Fatal: unable to open config file: stat /x/config: no such file or directory\n\
                    Is there a repository at the following location?\n/x";
        let refused = "Fatal: unable to open config file: client.Head: Head \"http://127.0.0.1:1/x/config\": \
                       dial tcp 127.0.0.1:1: connect: connection refused\nIs there a repository";
        let login =
            "Fatal: unable to open config file: unexpected HTTP response (401): 401 Unauthorized";
        for (code, stderr, expected) in [
            (1, "Fatal: wrong password or no key found\n", RepoError::WrongPassword),
            (12, "", RepoError::WrongPassword),
            (10, "", RepoError::NotFound),
            (1, gone, RepoError::NotFound),
            (1, "Fatal: unable to open config file: <config/> does not exist", RepoError::NotFound),
            (1, "", RepoError::Failed("it did not say why".into())),
            (1, "a\nb\n", RepoError::Failed("b".into())),
            (
                1,
                "{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"Fatal: no\"}\n",
                RepoError::Failed("no".into()),
            ),
            (
                1,
                "Fatal: config cannot be loaded: unsupported repository version",
                RepoError::Failed("config cannot be loaded: unsupported repository version".into()),
            ),
            (
                1,
                "Fatal: an empty password is not a password",
                RepoError::Failed("an empty password is not a password".into()),
            ),
        ] {
            assert_eq!(classify_failure(Some(code), stderr), expected, "{stderr}");
        }
        for stderr in [refused, login] {
            let RepoError::Unreachable(why) = classify_failure(Some(1), stderr) else {
                panic!("{stderr}")
            };
            assert!(why.starts_with("unable to open config file: "), "{why}");
        }
    }

    #[test]
    fn a_stack_is_told_by_the_message_above_it() {
        let zero = "config file has zero size, invalid repository?\nmain.open\n\t\
                    github.com/restic/restic/cmd/restic/global.go:760\nmain.OpenRepository\n\t\
                    github.com/restic/restic/cmd/restic/global.go:432\nruntime.goexit\n\t\
                    runtime/asm_amd64.s:1594\n";
        let json = serde_json::json!({"message_type": "exit_error", "code": 1, "message": zero});
        let panic = "panic: runtime error: slice bounds out of range [16:10]\n\ngoroutine 1 [running]:\n\
                     github.com/restic/restic/internal/repository.(*Repository).LoadUnpacked(0xc000)\n\t\
                     github.com/restic/restic/internal/repository/repository.go:206 +0x674\n";
        let plain = "config file has zero size, invalid repository?";
        for (stderr, expected) in [
            (zero.to_owned(), plain),
            (format!("a warning\n{zero}"), plain),
            (json.to_string(), plain),
            (
                panic.into(),
                "restic crashed: panic: runtime error: slice bounds out of range [16:10]",
            ),
        ] {
            assert_eq!(error_line(&stderr), expected);
            let damaged = RepoError::Damaged(expected.into());
            assert_eq!(classify_failure(Some(1), &stderr), damaged, "{stderr}");
        }
        let memory = "fatal error: runtime: out of memory\n\nruntime stack:\nruntime.throw({0x1})\n\t\
                      runtime/panic.go:1047 +0x5d\n";
        let expected = "restic crashed: fatal error: runtime: out of memory";
        assert_eq!(classify_failure(Some(2), memory), RepoError::Failed(expected.into()));
        let retry = "List(key) returned error, retrying after 1.2s: unexpected HTTP response (503): 503 x\n";
        assert_eq!(error_line(retry), "unexpected HTTP response (503): 503 x");
    }

    #[test]
    fn a_destination_that_fails_during_a_check_is_no_damage() {
        let fatal = "Fatal: repository contains errors\n";
        for (stderr, expected) in [
            (format!("pack 0a: does not exist\n{fatal}"), Some("pack 0a: does not exist")),
            (
                format!("Load(<data/0a>, 1, 2) failed: x\nerror for tree 0a:\n{fatal}"),
                Some("error for tree 0a:"),
            ),
            (
                "error: error loading index 0a: load <index/0a>: invalid data returned\n\
              Fatal: LoadIndex returned errors\n"
                    .into(),
                Some("error: error loading index 0a: load <index/0a>: invalid data returned"),
            ),
            (
                format!(
                    "error for tree 0a:\n  Get \"http://x/\": dial tcp: connection refused\n{fatal}"
                ),
                None,
            ),
            ("Fatal: unable to open repository\n".into(), None),
            (fatal.into(), Some("the repository contains errors")),
            (
                format!("error for tree 0a:\n{}\n{fatal}", "x\n".repeat(9)),
                Some("error for tree 0a:"),
            ),
        ] {
            assert_eq!(damage(&stderr).as_deref(), expected, "{stderr}");
        }
    }

    #[test]
    fn snapshots_that_restic_passes_over_are_counted() {
        let old =
            "could not load snapshot 25e3817c: load <snapshot/25e3817c91>: invalid data returned\n";
        let new = "Ignoring \"25e3\": failed to load snapshot 25e3817c: LoadRaw(<snapshot/25e3817c91>): \
                   invalid data returned\n";
        let forgotten =
            "Ignoring \"25e3\": failed to load snapshot 25e3817c: open x: no such file\n";
        for (stderr, cut, expected) in [
            ("", false, None),
            (old, false, Some(("1 snapshot cannot be read: invalid data returned", true))),
            (
                new,
                false,
                Some((
                    "1 snapshot cannot be read: LoadRaw(<snapshot/25e3817c91>): invalid data returned",
                    true,
                )),
            ),
            (forgotten, false, Some(("1 snapshot cannot be read: open x: no such file", false))),
            (
                &old.repeat(3),
                false,
                Some(("3 snapshots cannot be read: invalid data returned", true)),
            ),
            (
                &old.repeat(3),
                true,
                Some(("more than 3 snapshots cannot be read: invalid data returned", true)),
            ),
        ] {
            let expected = expected.map(|(what, damage)| (what.to_owned(), damage));
            assert_eq!(unreadable_snapshots(stderr, cut), expected, "{stderr}");
        }
    }

    #[test]
    fn the_size_of_a_snapshot_is_read() {
        let stats = r#"{"total_size":5000000000,"total_file_count":2}"#;
        assert_eq!(parse_restore_size(&format!("{stats}\n")), Some(5_000_000_000));
        for odd in ["", "null", "{}", r#"{"total_size":-1}"#] {
            assert_eq!(parse_restore_size(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_became_of_a_lock_is_told_apart() {
        let now = parse_rfc3339("2026-11-21T22:54:23Z").unwrap();
        let json = r#"{"time": "2026-11-21T22:54:23Z", "hostname": "vm", "username": "root"}"#;
        let held = LockFile::parse(Some(0), json, "", now);
        assert!(matches!(held, LockFile::Held(_)), "{held:?}");
        for (code, stdout, stderr, expected) in [
            (Some(0), "{}", "", LockFile::Damaged),
            (Some(1), "", "load <lock/0000000000>: invalid data returned\nx\n", LockFile::Damaged),
            (Some(1), "", "LoadRaw(<lock/0000000000>): invalid data returned", LockFile::Damaged),
            (Some(1), "", "open /x/locks/00: no such file or directory", LockFile::Gone),
            (
                None,
                "",
                "Load(<lock/00>, 0, 0) returned error, retrying after 1s: <lock/00> does not exist",
                LockFile::Gone,
            ),
            (
                Some(1),
                "",
                "Fatal: connection refused",
                LockFile::Unknown("connection refused".into()),
            ),
            (None, "", "", LockFile::Unknown("it did not say why".into())),
        ] {
            assert_eq!(LockFile::parse(code, stdout, stderr, now), expected, "{stderr}");
        }
    }

    #[test]
    fn a_lock_says_who_since_when_and_whether_it_is_stale() {
        let json = r#"{"time": "2026-11-21T22:54:23.710558659Z", "exclusive": false,
            "hostname": "vm", "username": "root", "pid": 7172}"#;
        let taken = parse_rfc3339("2026-11-21T22:54:23Z").unwrap();
        let fresh = parse_lock(json, taken + Duration::from_secs(60)).unwrap();
        assert_eq!(fresh.holder, "root at vm (process 7172)");
        assert!(!fresh.stale && !fresh.exclusive);
        assert!(parse_lock(json, taken + Duration::from_secs(1900)).unwrap().stale);
        assert_eq!(parse_lock("{}", taken), None);
        assert_eq!(parse_lock_ids("repository opened\nabc\n"), Vec::<&str>::new());
        let id = "a".repeat(64);
        assert_eq!(parse_lock_ids(&format!("{id}\n")), [id.as_str()]);
    }
}
