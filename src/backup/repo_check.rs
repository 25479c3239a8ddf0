//! Checks with restic the repositories of the modules that did not succeed.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::plan::{Module, ModuleState, Plan};
use super::restic_output::{self, RepoError, RepoLock};
use super::settings::{RepoCheckSettings, RepositoryPassword, RepositorySettings};
use crate::clock::{self, Now, Wall};
use crate::process::{self, ProgramOutput};
use crate::secret::{Secret, scrub};
use crate::thread::{Permit, Semaphore, Stop, lock};

/// How many restic run at the same time: the machines are small.
const MAX_CONCURRENT: usize = 2;

/// All repositories together may take this many times as long as one of them.
const TOTAL_TIMEOUT_FACTOR: u32 = 3;

/// The size may take this fraction of a repository's time: one figure must not use up the time of
/// the repositories after it.
const SIZE_TIMEOUT_DIVISOR: u32 = 4;

/// Why a repository that came too late was not checked.
const NO_TIME_LEFT: &str = "no time was left";

/// Added before seconds are cut off, so that 999 ms become a second.
const HALF_SECOND: Duration = Duration::from_millis(500);

/// How many locks of a repository are read.
const MAX_LOCKS: usize = 5;

/// The state of the repository of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepoCheckResult {
    /// The module's id.
    pub module: String,
    /// The state of its repository.
    #[serde(rename = "condition")]
    pub state: RepoState,
}

/// The state of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepoState {
    /// It was opened and read.
    Open(RepoDetails),
    /// restic could not open it.
    Refused(RepoError),
    /// restic was killed after its time; the last line that it wrote.
    TimedOut(String),
    /// restic was not run, and why.
    #[serde(rename = "not_asked")]
    NotChecked(String),
}

/// What was read from an open repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepoDetails {
    /// When its newest snapshot was taken; none when there is no snapshot.
    #[serde(serialize_with = "crate::view::rfc3339")]
    pub newest: Option<Wall>,
    /// How many bytes that snapshot holds, where restic could tell in time.
    pub size: Option<u64>,
    /// Its locks.
    pub locks: Vec<RepoLock>,
    /// Why the locks could not be read, if so.
    pub locks_unknown: Option<String>,
    /// The result of `restic check`, where that is configured.
    pub check: Option<IntegrityCheck>,
}

/// The result of `restic check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IntegrityCheck {
    /// No errors.
    Sound,
    /// It found errors; the first of them.
    Damaged(String),
    /// It came to no result, and why not.
    Undecided(String),
}

/// Checks repositories with restic.
#[derive(Clone, Copy, Debug)]
pub struct RepoChecker<'a> {
    /// How they are checked.
    pub settings: &'a RepoCheckSettings,
    /// Held by each run of restic. All checks of a process share one semaphore ([`permits`]).
    pub permits: &'a Semaphore,
}

/// As many permits as restic may run at the same time.
pub fn permits() -> Semaphore {
    Semaphore::new(MAX_CONCURRENT)
}

/// Waits until no restic runs any more, for `limit` at most. To be called after the stop.
pub fn wait_for_end(permits: &Semaphore, limit: Duration) {
    let until = Instant::now() + limit;
    let ended = || permits.acquire_timeout(until.saturating_duration_since(Instant::now()));
    // All permits are held at the same time, else one of them could be acquired by another run.
    let _all: Vec<Permit> = (0..MAX_CONCURRENT).map_while(|_| ended()).collect();
}

impl RepoChecker<'_> {
    /// The moment when all checks that start now have ended.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout * TOTAL_TIMEOUT_FACTOR
    }

    /// Checks the repository of each module that did not succeed, until `until` at most.
    /// `passwords` are those of the destinations as Redis has them, for repositories that are
    /// configured without one. None at the stop.
    pub fn check(
        &self,
        plan: &Plan,
        passwords: &BTreeMap<String, Secret>,
        until: Instant,
        stop: &Stop,
    ) -> Option<Vec<RepoCheckResult>> {
        let modules = plan.modules.iter().filter(|module| module.state != ModuleState::Success);
        let waiting: Mutex<VecDeque<&Module>> = Mutex::new(modules.collect());
        let results = Mutex::new(Vec::new());
        let work = || {
            while let Some(module) = lock(&waiting).pop_front() {
                if stop.stopped() {
                    return;
                }
                let state = match locate(self.settings, plan, module, passwords, stop) {
                    Err(why) => RepoState::NotChecked(why),
                    Ok(location) => location.check(self.permits, until),
                };
                lock(&results).push(RepoCheckResult { module: module.id.clone(), state });
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..MAX_CONCURRENT {
                // Without a second thread this one does all of it.
                let _ = std::thread::Builder::new().name("restic".into()).spawn_scoped(scope, work);
            }
            work();
        });
        let mut results = std::mem::take(&mut *lock(&results));
        results.sort_by(|one, other| one.module.cmp(&other.module));
        (!stop.stopped()).then_some(results)
    }
}

/// A repository, and what restic needs to open it.
struct RepositoryLocation<'a> {
    settings: &'a RepoCheckSettings,
    configured: &'a RepositorySettings,
    /// The address, its template filled in. It may hold a password.
    repository: String,
    password: Option<&'a Secret>,
    stop: &'a Stop,
}

fn locate<'a>(
    settings: &'a RepoCheckSettings,
    plan: &Plan,
    module: &Module,
    passwords: &'a BTreeMap<String, Secret>,
    stop: &'a Stop,
) -> Result<RepositoryLocation<'a>, String> {
    let destination = plan.destination.as_ref().ok_or("the plan's destination is not known")?;
    let uuid = module.uuid.as_ref().ok_or("the module's UUID is not known")?;
    let configured = settings.repositories.get(&destination.id);
    let configured =
        configured.or_else(|| settings.repositories.get("default")).ok_or_else(|| {
            format!("neither {} nor default is in repo_check.repositories", destination.id)
        })?;
    let password = passwords.get(&destination.id);
    let in_env = || configured.env.keys().any(|name| name.starts_with("RESTIC_PASSWORD"));
    if configured.password.is_none() && password.is_none() && !in_env() {
        return Err("its password is neither configured nor readable in Redis".into());
    }
    let without_number = module.id.trim_end_matches(|c: char| c.is_ascii_digit());
    let image = module.image.as_deref().unwrap_or(without_number);
    let repository = configured
        .repository
        .replace("{path}", &format!("{image}/{uuid}"))
        .replace("{repository}", &destination.id);
    Ok(RepositoryLocation { settings, configured, repository, password, stop })
}

impl RepositoryLocation<'_> {
    fn check(&self, permits: &Semaphore, all_until: Instant) -> RepoState {
        let Some(_permit) = permits.acquire_until(all_until, self.stop) else {
            return RepoState::NotChecked(NO_TIME_LEFT.into());
        };
        let until = all_until.min(Instant::now() + self.settings.timeout);
        let output = match self.run(&["snapshots", "--latest", "1", "--json"], until) {
            Ok(finished) => finished,
            Err(state) => return state,
        };
        if output.code != Some(0) {
            return RepoState::Refused(self.classify(&output));
        }
        let Some(snapshots) = restic_output::parse_snapshots(&output.stdout) else {
            let why = "restic's list of snapshots is not what it should be";
            return RepoState::Refused(RepoError::Unreachable(why.into()));
        };
        let mut details = RepoDetails {
            newest: snapshots.newest,
            size: snapshots.size,
            ..RepoDetails::default()
        };
        match self.locks(until) {
            Ok(locks) => details.locks = locks,
            Err(why) => details.locks_unknown = Some(why),
        }
        if self.settings.deep {
            details.check = Some(self.deep_check(&details, until));
        }
        // The size comes last: it matters least.
        if let (None, Some(id)) = (details.size, &snapshots.id) {
            details.size = self.size(id, until);
        }
        RepoState::Open(details)
    }

    /// How many bytes a snapshot holds, where the snapshot itself does not say it, as before restic
    /// 0.17: restic reads all its folders. None where that takes too long or fails.
    fn size(&self, id: &str, until: Instant) -> Option<u64> {
        let until = until.min(Instant::now() + self.settings.timeout / SIZE_TIMEOUT_DIVISOR);
        let output = self.run(&["stats", "--mode", "restore-size", "--json", id], until).ok()?;
        restic_output::parse_restore_size(&output.stdout).filter(|_| output.code == Some(0))
    }

    fn locks(&self, until: Instant) -> Result<Vec<RepoLock>, String> {
        let output = self.run(&["list", "locks"], until).map_err(describe)?;
        if output.code != Some(0) {
            return Err(self.error_line(&output));
        }
        let mut locks = Vec::new();
        for id in restic_output::parse_lock_ids(&output.stdout).into_iter().take(MAX_LOCKS) {
            let output = self.run(&["cat", "lock", id, "--json"], until).map_err(describe)?;
            // A lock that was released meanwhile cannot be parsed, and is left out.
            locks.extend(restic_output::parse_lock(&output.stdout, Now::read().wall));
        }
        Ok(locks)
    }

    fn deep_check(&self, details: &RepoDetails, until: Instant) -> IntegrityCheck {
        if details.locks.iter().any(|lock| !lock.stale) {
            return IntegrityCheck::Undecided(
                "not done while somebody holds the repository".into(),
            );
        }
        match self.run(&["check"], until) {
            Err(state) => IntegrityCheck::Undecided(describe(state)),
            Ok(finished) if finished.code == Some(0) => IntegrityCheck::Sound,
            Ok(finished) if finished.stderr.contains("repository contains errors") => {
                IntegrityCheck::Damaged(self.damage(&finished))
            }
            Ok(finished) => IntegrityCheck::Undecided(self.error_line(&finished)),
        }
    }

    /// The first error that `restic check` found.
    fn damage(&self, finished: &ProgramOutput) -> String {
        let is_error = |line: &&str| !line.is_empty() && !line.starts_with("Fatal:");
        let first = finished.stderr.lines().map(str::trim).find(is_error);
        self.scrub_secrets(first.unwrap_or("the repository contains errors"))
    }

    /// Runs restic, read-only: without a lock, and without a cache, which would cost a small machine
    /// more disk than it saves. Nothing secret is on the command line.
    fn run(&self, arguments: &[&str], until: Instant) -> Result<ProgramOutput, RepoState> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(RepoState::NotChecked(NO_TIME_LEFT.into()));
        }
        let path = self.settings.restic_path.as_path();
        let mut command = Command::new(path);
        command.args(arguments).args(["--no-lock", "--no-cache"]);
        self.set_environment(&mut command);
        let finished = process::run_until(&mut command, "", left, Some(self.stop))
            .map_err(|why| RepoState::NotChecked(describe_start_error(path, &why)))?;
        if finished.timed_out {
            let error_line = if finished.stderr.trim().is_empty() {
                "it said nothing".into()
            } else {
                self.error_line(&finished)
            };
            let after = clock::format_duration(Duration::from_secs((left + HALF_SECOND).as_secs()));
            return Err(RepoState::TimedOut(format!("killed after {after}: {error_line}")));
        }
        Ok(finished)
    }

    /// Hands repository and password to restic (its manual, "Environment Variables").
    fn set_environment(&self, command: &mut Command) {
        for name in ["RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND"] {
            command.env_remove(name);
        }
        command.env_remove("RESTIC_REPOSITORY_FILE").env("RESTIC_REPOSITORY", &self.repository);
        match (&self.configured.password, self.password) {
            (Some(RepositoryPassword::Clear(password)), _) => {
                command.env("RESTIC_PASSWORD", password.reveal());
            }
            (Some(RepositoryPassword::File(path)), _) => {
                command.env("RESTIC_PASSWORD_FILE", path);
            }
            (None, Some(password)) => {
                command.env("RESTIC_PASSWORD", password.reveal());
            }
            (None, None) => {}
        }
        for (name, value) in &self.configured.env {
            command.env(name, value.reveal());
        }
    }

    fn classify(&self, finished: &ProgramOutput) -> RepoError {
        match restic_output::classify_failure(finished.code, &finished.stderr) {
            RepoError::Unreachable(why) => RepoError::Unreachable(self.scrub_secrets(&why)),
            other => other,
        }
    }

    fn error_line(&self, finished: &ProgramOutput) -> String {
        self.scrub_secrets(&restic_output::error_line(&finished.stderr))
    }

    fn scrub_secrets(&self, text: &str) -> String {
        let inline = match &self.configured.password {
            Some(RepositoryPassword::Clear(password)) => Some(password),
            Some(RepositoryPassword::File(_)) | None => None,
        };
        let url_password = url_password(&self.repository);
        let secrets = self.configured.env.values().chain(inline).chain(self.password);
        scrub(text, secrets.chain(&url_password))
    }
}

/// The password in the address of a repository, if there is one.
fn url_password(repository: &str) -> Option<Secret> {
    let authority = repository.split_once("://")?.1.split('/').next()?;
    let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    Some(Secret::new(password))
}

fn describe(state: RepoState) -> String {
    match state {
        RepoState::TimedOut(why) | RepoState::NotChecked(why) => why,
        RepoState::Refused(RepoError::Unreachable(why)) => why,
        RepoState::Refused(RepoError::NotFound | RepoError::WrongPassword) | RepoState::Open(_) => {
            String::new()
        }
    }
}

fn describe_start_error(path: &Path, why: &std::io::Error) -> String {
    let path = path.display();
    match why.kind() {
        std::io::ErrorKind::NotFound => {
            format!("there is no program {path}: install restic, or set repo_check.restic_path")
        }
        _ => format!("{path} cannot be started: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_result_keeps_its_names() {
        let json = |state| {
            let result = RepoCheckResult { module: "mail1".into(), state };
            serde_json::to_string(&result).unwrap()
        };
        let condition = |text: &str| format!(r#"{{"module":"mail1","condition":{text}}}"#);
        let not_asked = json(RepoState::NotChecked("x".into()));
        assert_eq!(not_asked, condition(r#"{"not_asked":"x"}"#));
        let gone = json(RepoState::Refused(RepoError::NotFound));
        assert_eq!(gone, condition(r#"{"refused":{"kind":"gone"}}"#));
        let check = Some(IntegrityCheck::Sound);
        let open = json(RepoState::Open(RepoDetails { check, ..RepoDetails::default() }));
        let details =
            r#"{"newest":null,"size":null,"locks":[],"locks_unknown":null,"check":"sound"}"#;
        assert_eq!(open, condition(&format!(r#"{{"open":{details}}}"#)));
    }
}
