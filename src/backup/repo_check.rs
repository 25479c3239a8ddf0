//! Checks with restic the repositories of the modules that did not succeed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, at, never, select, unbounded};
use serde::Serialize;

use super::gateway::{self, Probe};
use super::plan::{ModuleState, Plan};
use super::repository::{NO_TIME_LEFT, NoAnswer, Repository};
use super::restic_output::{self, LockFile, NO_CONFIG, RepoError, RepoLock};
use super::restic_permits::{PermitQueue, ResticPermit, ResticPermits};
use super::settings::RepoCheckSettings;
use super::snapshot_list::{NewestSnapshot, SnapshotList};
use crate::clock::{Now, Wall};
use crate::process::ProgramOutput;
use crate::secret::Secret;
use crate::thread::{Stop, lock};

/// All repositories together may take this many times as long as one of them.
const TOTAL_TIMEOUT_FACTOR: u32 = 3;

/// The size may take this fraction of a repository's time: one figure must not use up the time of
/// the repositories after it.
const SIZE_TIMEOUT_DIVISOR: u32 = 4;

/// How long the server before a destination may take for its list of keys.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one lock may take, unless the list of them took half as long already: a restic before 0.17
/// looks for a quarter of an hour for one that was released meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// When its newest snapshot was taken, of those that can be read; none when there is no snapshot.
    #[serde(serialize_with = "crate::view::rfc3339")]
    pub newest: Option<Wall>,
    /// Why that is not known, if so.
    pub newest_unknown: Option<String>,
    /// That there are snapshots that cannot be read, in half a sentence.
    pub unreadable_snapshots: Option<String>,
    /// The damage that was met.
    pub damage: Option<String>,
    /// How many bytes that snapshot holds, where restic could tell in time.
    pub size: Option<u64>,
    /// Its locks: first those whose holders live, and of these the newest.
    pub locks: Vec<RepoLock>,
    /// How many files of locks are damaged. Beside one a newer restic does not back up.
    pub damaged_locks: usize,
    /// Why the locks, or some of them, could not be read, if so.
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
    /// Held by each check. All checks of a process share them.
    pub permits: &'a ResticPermits,
}

impl RepoChecker<'_> {
    /// Checks the repository of each module of these plans that did not succeed. `passwords` are those
    /// of the destinations as Redis has them, for repositories that are configured without one.
    /// `on_done` is called in this thread with the index of a plan and its results as soon as that plan
    /// is done: a destination that does not answer keeps no other plan waiting. None at the stop.
    pub fn check_plans(
        &self,
        plans: &[&Plan],
        passwords: &BTreeMap<String, Secret>,
        stop: &Stop,
        on_done: impl FnMut(usize, Vec<RepoCheckResult>),
    ) -> Option<()> {
        let mut results = PlanResults { plans: vec![(0, Vec::new()); plans.len()], on_done };
        let mut jobs = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            for module in plan.due_modules().filter(|one| one.state != ModuleState::Success) {
                results.plans[index].0 += 1;
                match Repository::locate(self.settings, plan, module, passwords, stop) {
                    Ok(repository) => {
                        jobs.push(Job { plan: index, module: &module.id, repository })
                    }
                    Err(why) => results.plans[index].1.push(not_checked(&module.id, why)),
                }
            }
        }
        for index in 0..plans.len() {
            results.tell_if_done(index);
        }
        let begin = Instant::now();
        let until = begin + self.settings.timeout * TOTAL_TIMEOUT_FACTOR;
        let permits = self.permits;
        CheckPass { permits, jobs, results, begin, until }.run(stop);
        (!stop.stopped()).then_some(())
    }
}

/// The results of plans.
struct PlanResults<F> {
    /// Of each plan how many results there will be, and those that are there.
    plans: Vec<(usize, Vec<RepoCheckResult>)>,
    on_done: F,
}

impl<F: FnMut(usize, Vec<RepoCheckResult>)> PlanResults<F> {
    fn add(&mut self, plan: usize, result: RepoCheckResult) {
        self.plans[plan].1.push(result);
        self.tell_if_done(plan);
    }

    fn tell_if_done(&mut self, plan: usize) {
        let (count, results) = &mut self.plans[plan];
        if results.len() == *count {
            let mut results = std::mem::take(results);
            results.sort_unstable_by(|one, other| one.module.cmp(&other.module));
            (self.on_done)(plan, results);
        }
    }
}

/// A repository that waits for its check.
struct Job<'a> {
    /// The index of its plan.
    plan: usize,
    module: &'a str,
    repository: Repository<'a>,
}

/// The check of all repositories of some plans.
struct CheckPass<'a, F> {
    permits: &'a ResticPermits,
    jobs: Vec<Job<'a>>,
    results: PlanResults<F>,
    begin: Instant,
    until: Instant,
}

impl<F: FnMut(usize, Vec<RepoCheckResult>)> CheckPass<'_, F> {
    /// Runs each job in a thread of its own as soon as there is a permit for its destination.
    fn run(mut self, stop: &Stop) {
        let mut queue = self.permits.queue();
        let (tx, finished) = unbounded();
        std::thread::scope(|scope| {
            let mut running = 0;
            while !stop.stopped() {
                self.drop_hopeless();
                let (started, next_try) = self.start(scope, &mut queue, &tx);
                running += started;
                if running == 0 && self.jobs.is_empty() {
                    return;
                }
                let wake = if self.jobs.is_empty() { never() } else { at(next_try) };
                select! {
                    recv(finished) -> one => if let Ok((plan, result)) = one {
                        running -= 1;
                        self.results.add(plan, result);
                    },
                    recv(queue.changed()) -> _ => {}
                    recv(wake) -> _ => {}
                    recv(stop.receiver()) -> _ => {}
                }
            }
        });
    }

    /// Starts what may run now: how many, and when to try again.
    fn start<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        queue: &mut PermitQueue,
        tx: &Sender<(usize, RepoCheckResult)>,
    ) -> (usize, Instant)
    where
        Self: 'scope,
    {
        let mut started = 0;
        while !self.jobs.is_empty() {
            let destinations = self.jobs.iter().map(|job| job.repository.destination.to_owned());
            let (index, permit) = match queue.try_acquire(destinations.collect(), Instant::now()) {
                Ok(granted) => granted,
                Err(next) => {
                    return (started, next.map_or(self.until, |next| next.min(self.until)));
                }
            };
            let (job, until, tx) = (self.jobs.remove(index), self.until, tx.clone());
            let (plan, module) = (job.plan, job.module);
            let work = move || {
                let state = job.run(permit, until);
                // Fails when it is time to stop.
                let _ = tx.send((plan, RepoCheckResult { module: module.to_owned(), state }));
            };
            match std::thread::Builder::new().name("restic".into()).spawn_scoped(scope, work) {
                Ok(_) => started += 1,
                Err(why) => self.results.add(plan, not_checked(module, why.to_string())),
            }
        }
        queue.leave();
        (started, self.until)
    }

    /// Gives up what has no time left, or is at a destination that has not answered meanwhile.
    fn drop_hopeless(&mut self) {
        let is_late = Instant::now() >= self.until;
        for job in std::mem::take(&mut self.jobs) {
            let silent = self.permits.timed_out_since(job.repository.destination, self.begin);
            match silent.map(|why| format!("not asked again: {why}")) {
                Some(why) => self.results.add(job.plan, not_checked(job.module, why)),
                None if is_late => {
                    self.results.add(job.plan, not_checked(job.module, NO_TIME_LEFT.into()));
                }
                None => self.jobs.push(job),
            }
        }
    }
}

fn not_checked(module: &str, why: String) -> RepoCheckResult {
    RepoCheckResult { module: module.to_owned(), state: RepoState::NotChecked(why) }
}

impl Job<'_> {
    fn run(&self, permit: ResticPermit, all_until: Instant) -> RepoState {
        let timeout = self.repository.settings.timeout;
        let check = RepositoryCheck {
            repository: &self.repository,
            module: self.module,
            permit,
            until: all_until.min(Instant::now() + timeout),
        };
        // A result is awaited, also of what is a mistake of ours.
        catch_unwind(AssertUnwindSafe(|| check.run()))
            .unwrap_or_else(|_| RepoState::NotChecked("the check failed, see the log".into()))
    }
}

/// The check of one repository.
struct RepositoryCheck<'a> {
    repository: &'a Repository<'a>,
    module: &'a str,
    permit: ResticPermit,
    until: Instant,
}

impl RepositoryCheck<'_> {
    fn run(&self) -> RepoState {
        let begin = Instant::now();
        let (listed, output) = match self.snapshots() {
            Ok(found) => found,
            Err(none) => return RepoState::NotChecked(none.why()),
        };
        if output.timed_out {
            return self.silent(&output, begin);
        }
        self.permit.answered();
        if output.code != Some(0) {
            return self.refused(&output);
        }
        let mut details = RepoDetails::default();
        if let Some((what, is_damage)) =
            restic_output::unreadable_snapshots(&output.stderr, output.stderr_cut)
        {
            let what = self.repository.scrub_secrets(&what);
            details.damage = is_damage.then(|| what.clone());
            details.unreadable_snapshots = Some(what);
        }
        let found = listed.unwrap_or_else(|why| {
            details.newest_unknown = Some(why);
            NewestSnapshot::default()
        });
        (details.newest, details.size) = (found.newest, found.size);
        self.read_locks(&mut details);
        if self.repository.settings.deep {
            details.check = Some(self.deep_check(&details));
        }
        // The size comes last: it matters least.
        if let (None, Some(id)) = (details.size, &found.id) {
            self.read_size(id, &mut details);
        }
        RepoState::Open(details)
    }

    /// The newest snapshot, read from a list that may be long, and how restic ended.
    fn snapshots(&self) -> Result<(Result<NewestSnapshot, String>, ProgramOutput), NoAnswer> {
        let list = Arc::new(Mutex::new(SnapshotList::default()));
        let reading = Arc::clone(&list);
        let reader = Box::new(move |bytes: &[u8]| lock(&reading).read(bytes));
        let arguments = ["snapshots", "--latest", "1", "--json"];
        let output = self.repository.run_until(&arguments, Some(reader), self.until)?;
        let listed = std::mem::take(&mut *lock(&list)).finish();
        Ok((listed, output))
    }

    /// The state of a repository whose first restic had to be killed.
    fn silent(&self, output: &ProgramOutput, begin: Instant) -> RepoState {
        let refused = self.classify(output);
        if matches!(refused, RepoError::Damaged(_)) || restic_output::is_web_page(&output.stderr) {
            self.permit.answered();
            return RepoState::Refused(refused);
        }
        let why =
            self.repository.describe_timeout(output, self.until.saturating_duration_since(begin));
        let had_its_time = begin.elapsed() >= self.repository.settings.timeout;
        if had_its_time && !restic_output::had_opened(&output.stderr) {
            self.give_up(&why);
        }
        RepoState::TimedOut(why)
    }

    /// The destination's other repositories need not be asked.
    fn give_up(&self, why: &str) {
        let why = format!("its destination did not answer for {} ({why})", self.module);
        self.permit.timed_out(why, Instant::now());
    }

    /// Why restic could not open the repository. That it is not there is not taken from a server that may
    /// not have been able to look.
    fn refused(&self, output: &ProgramOutput) -> RepoState {
        let error = self.classify(output);
        if error == RepoError::NotFound && self.repository.has_keys_here() {
            return RepoState::Refused(RepoError::Damaged(NO_CONFIG.into()));
        }
        if error == RepoError::NotFound && self.repository.is_behind_rclone() {
            return RepoState::Refused(RepoError::Unreachable(gateway::EITHER.into()));
        }
        let request = self.repository.keys_request().filter(|_| error == RepoError::NotFound);
        let Some(request) = request else { return RepoState::Refused(error) };
        let left = self.until.saturating_duration_since(Instant::now()).min(PROBE_TIMEOUT);
        match request.send(self.repository.ca_file(), left) {
            Probe::Told(RepoError::Unreachable(why)) => {
                RepoState::Refused(RepoError::Unreachable(self.repository.scrub_secrets(&why)))
            }
            Probe::Told(error) => RepoState::Refused(error),
            Probe::TimedOut => {
                let why = "its server does not say whether the destination can be asked";
                self.give_up(why);
                RepoState::TimedOut(why.into())
            }
        }
    }

    fn classify(&self, output: &ProgramOutput) -> RepoError {
        let scrub = |why: String| self.repository.scrub_secrets(&why);
        match restic_output::classify_failure(output.code, &output.stderr) {
            RepoError::Unreachable(why) => RepoError::Unreachable(scrub(why)),
            RepoError::Damaged(why) => RepoError::Damaged(scrub(why)),
            RepoError::Failed(why) => RepoError::Failed(scrub(why)),
            error @ (RepoError::NotFound | RepoError::WrongPassword) => error,
        }
    }

    /// How many bytes a snapshot holds, where the snapshot itself does not say it, as before restic
    /// 0.17: restic reads all its folders. It stays unknown where that takes too long or fails.
    fn read_size(&self, id: &str, details: &mut RepoDetails) {
        let limit = self.repository.settings.timeout / SIZE_TIMEOUT_DIVISOR;
        let until = self.until.min(Instant::now() + limit);
        let arguments = ["stats", "--mode", "restore-size", "--json", id];
        let Ok(output) = self.repository.run(&arguments, until) else { return };
        if output.code == Some(0) {
            details.size = restic_output::parse_restore_size(&output.stdout);
        } else if let (None, Some(damage)) =
            (&details.damage, restic_output::damage(&output.stderr))
        {
            details.damage = Some(self.repository.scrub_secrets(&damage));
        }
    }

    /// Reads every lock.
    fn read_locks(&self, details: &mut RepoDetails) {
        let begin = Instant::now();
        let ids = match self.lock_ids() {
            Ok(ids) => ids,
            Err(why) => return details.locks_unknown = Some(why),
        };
        let limit = LOCK_TIMEOUT.max(2 * begin.elapsed());
        let (mut gone, mut unknown) = (Vec::new(), Vec::new());
        for id in &ids {
            match self.read_lock(id, limit) {
                LockFile::Held(lock) => details.locks.push(lock),
                LockFile::Damaged => details.damaged_locks += 1,
                LockFile::Gone => gone.push(id),
                LockFile::Unknown(why) => unknown.push(why),
            }
        }
        details.locks.sort_unstable_by_key(|lock| (lock.stale, Reverse(lock.since)));
        // One that was released meanwhile is no longer listed.
        let still_listed = |left: Vec<String>| gone.iter().filter(|id| left.contains(id)).count();
        if !gone.is_empty() {
            match self.lock_ids().map(still_listed) {
                Ok(0) => {}
                Ok(count) => {
                    unknown.resize(unknown.len() + count, "listed, but not to be had".into())
                }
                Err(why) => unknown.push(why),
            }
        }
        if let Some(why) = unknown.first() {
            details.locks_unknown = Some(format!("{} of {}: {why}", unknown.len(), ids.len()));
        }
    }

    fn lock_ids(&self) -> Result<Vec<String>, String> {
        let output = self.repository.run(&["list", "locks"], self.until).map_err(NoAnswer::why)?;
        if output.code != Some(0) {
            return Err(self.repository.error_line(&output));
        }
        if output.stdout_cut {
            return Err("there are too many".into());
        }
        Ok(restic_output::parse_lock_ids(&output.stdout).into_iter().map(str::to_owned).collect())
    }

    fn read_lock(&self, id: &str, limit: Duration) -> LockFile {
        let until = self.until.min(Instant::now() + limit);
        match self.repository.run_until(&["cat", "lock", id, "--json"], None, until) {
            Ok(output) => {
                let code = output.code.filter(|_| !output.timed_out);
                let now = Now::read().wall;
                match LockFile::parse(code, &output.stdout, &output.stderr, now) {
                    LockFile::Unknown(why) => {
                        LockFile::Unknown(self.repository.scrub_secrets(&why))
                    }
                    told => told,
                }
            }
            Err(none) => LockFile::Unknown(none.why()),
        }
    }

    fn deep_check(&self, details: &RepoDetails) -> IntegrityCheck {
        if details.locks.iter().any(|lock| !lock.stale) {
            return IntegrityCheck::Undecided(
                "not done while somebody holds the repository".into(),
            );
        }
        let begin = Instant::now();
        let output = match self.repository.run_until(&["check"], None, self.until) {
            Err(none) => return IntegrityCheck::Undecided(none.why()),
            Ok(output) => output,
        };
        let is_sound = output.code == Some(0) && !output.timed_out;
        match restic_output::damage(&output.stderr).filter(|_| !is_sound) {
            _ if is_sound => IntegrityCheck::Sound,
            Some(damage) => IntegrityCheck::Damaged(self.repository.scrub_secrets(&damage)),
            None if output.timed_out => {
                let limit = self.until.saturating_duration_since(begin);
                IntegrityCheck::Undecided(self.repository.describe_timeout(&output, limit))
            }
            None => IntegrityCheck::Undecided(self.repository.error_line(&output)),
        }
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
            r#"{"newest":null,"newest_unknown":null,"unreadable_snapshots":null,"damage":null,"#
                .to_owned()
                + r#""size":null,"locks":[],"damaged_locks":0,"locks_unknown":null,"check":"sound"}"#;
        assert_eq!(open, condition(&format!(r#"{{"open":{details}}}"#)));
    }
}
