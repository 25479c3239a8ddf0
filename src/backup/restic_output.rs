//! The output of restic, parsed: its JSON, error messages and exit codes. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::alert::moment;
use crate::clock::Wall;

/// A lock that was not refreshed for this time is stale, as restic has it (`staleTimeout`).
const STALE_AFTER: Duration = Duration::from_secs(30 * 60);

/// Why a repository could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "why")]
pub enum RepoError {
    /// There is no repository at this address.
    #[serde(rename = "gone")]
    NotFound,
    /// The password is wrong, or no key of the repository fits it.
    WrongPassword,
    /// The address cannot be reached, or another error.
    Unreachable(String),
}

/// Why restic failed. Before version 0.17 only the messages tell the reasons apart.
pub fn classify_failure(code: Option<i32>, stderr: &str) -> RepoError {
    let says = |words: &str| stderr.contains(words);
    match code {
        Some(10) => RepoError::NotFound,
        Some(12) => RepoError::WrongPassword,
        _ if says("wrong password or no key found") => RepoError::WrongPassword,
        _ if is_not_found(stderr) => RepoError::NotFound,
        _ => RepoError::Unreachable(error_line(stderr)),
    }
}

/// Whether the config file, which every repository has, does not exist.
fn is_not_found(stderr: &str) -> bool {
    const MESSAGES: [&str; 4] =
        ["no such file or directory", "does not exist", "(404)", "404 Not Found"];
    let config = stderr.lines().find(|line| line.contains("unable to open config file"));
    config.is_some_and(|line| MESSAGES.iter().any(|message| line.contains(message)))
}

/// The line of stderr that says what is wrong.
pub fn error_line(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let fatal = lines().find_map(|line| line.strip_prefix("Fatal: "));
    let line = fatal.or_else(|| lines().next_back()).unwrap_or("it did not say why");
    // Since restic 0.17 with `--json` messages are JSON.
    let json = serde_json::from_str::<Value>(line).unwrap_or_default();
    let line = json["message"].as_str().unwrap_or(line);
    line.trim_start_matches("Fatal: ").chars().take(300).collect()
}

/// The newest snapshot of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewestSnapshot {
    /// When it was taken; none when the list is empty.
    pub newest: Option<Wall>,
    /// Its id.
    pub id: Option<String>,
    /// How many bytes it holds; restic writes it into snapshots since version 0.17.
    pub size: Option<u64>,
}

/// Parses the output of `restic snapshots --json`, also when its end was cut off.
pub fn parse_snapshots(stdout: &str) -> Option<NewestSnapshot> {
    #[derive(Deserialize)]
    struct SnapshotJson {
        time: String,
        #[serde(default)]
        id: String,
        summary: Option<SummaryJson>,
    }
    #[derive(Deserialize)]
    struct SummaryJson {
        total_bytes_processed: Option<u64>,
    }
    let text = stdout.trim();
    if text == "null" {
        return Some(NewestSnapshot::default());
    }
    let list: Vec<SnapshotJson> = match serde_json::from_str(text) {
        Ok(list) => list,
        Err(_) => return parse_cut_off_snapshots(text),
    };
    let newest = list
        .into_iter()
        .filter_map(|snapshot| Some((moment(&snapshot.time)?, snapshot)))
        .max_by_key(|(time, _)| *time);
    Some(match newest {
        Some((time, SnapshotJson { id, summary, .. })) => NewestSnapshot {
            newest: Some(time),
            id: is_id(&id).then_some(id),
            size: summary.and_then(|summary| summary.total_bytes_processed),
        },
        None => NewestSnapshot::default(),
    })
}

fn parse_cut_off_snapshots(text: &str) -> Option<NewestSnapshot> {
    let times = text.split("\"time\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let newest = times.filter_map(moment).max()?;
    Some(NewestSnapshot { newest: Some(newest), ..NewestSnapshot::default() })
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

/// Parses the output of `restic cat lock`.
pub fn parse_lock(stdout: &str, now: Wall) -> Option<RepoLock> {
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
    let since = moment(&raw.time);
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

fn is_id(text: &str) -> bool {
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
            (1, "", RepoError::Unreachable("it did not say why".into())),
            (1, "a\nb\n", RepoError::Unreachable("b".into())),
            (
                1,
                "{\"message_type\":\"exit_error\",\"code\":1,\"message\":\"Fatal: no\"}\n",
                RepoError::Unreachable("no".into()),
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
    fn the_newest_snapshot_is_found_whatever_the_order_and_the_end() {
        let list = r#"[{"time":"2026-11-21T22:53:42.563588977Z","paths":["/a"]},
            {"time":"2026-11-21T23:53:43+01:00","summary":{"total_bytes_processed":7}},
            {"time":"2026-11-20T22:53:42Z"}]"#;
        let found = parse_snapshots(list).unwrap();
        assert_eq!(found.newest.unwrap().to_string(), "2026-11-21T22:53:43.000Z");
        assert_eq!((found.id, found.size), (None, Some(7)));
        let cut = &list[..list.find("\"summary").unwrap()];
        assert_eq!(parse_snapshots(&cut.replace(" ", "")).unwrap().newest, found.newest);
        assert_eq!(parse_snapshots("[]"), Some(NewestSnapshot::default()));
        assert_eq!(parse_snapshots("null\n"), Some(NewestSnapshot::default()));
        assert_eq!(parse_snapshots("nonsense"), None);
    }

    #[test]
    fn the_size_of_a_snapshot_of_an_older_restic_is_asked_for_by_its_id() {
        let id = "0f".repeat(32);
        let list = |id: &str| format!(r#"[{{"time":"2026-11-20T22:53:42Z","id":"{id}"}}]"#);
        let found = parse_snapshots(&list(&id)).unwrap();
        assert_eq!((found.id, found.size), (Some(id), None));
        assert_eq!(parse_snapshots(&list("--help")).unwrap().id, None, "no argument of its own");
        let stats = r#"{"total_size":5000000000,"total_file_count":2}"#;
        assert_eq!(parse_restore_size(&format!("{stats}\n")), Some(5_000_000_000));
        for odd in ["", "null", "{}", r#"{"total_size":-1}"#] {
            assert_eq!(parse_restore_size(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_lock_says_who_since_when_and_whether_it_is_stale() {
        let json = r#"{"time": "2026-11-21T22:54:23.710558659Z", "exclusive": false,
            "hostname": "vm", "username": "root", "pid": 7172}"#;
        let taken = moment("2026-11-21T22:54:23Z").unwrap();
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
