//! The sections `correlator` and `repo_check`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::plan::Plan;
use super::plan_tracker::{SuccessPolicy, TellingPolicy};
use crate::address::{percent_decoded_lossy, split_login};
use crate::btree::InsertAll;
use crate::config_file::Section;
use crate::redis_client::address::{UrlLogin, address_error, scheme_error};
use crate::secret::Secret;

/// Waiting longer than a day would outlast the alert.
const MAX_WAIT: Duration = Duration::from_secs(86_400);

/// Redis is not asked more often than this.
const MIN_RECHECK: Duration = Duration::from_secs(1);

/// The section `correlator`: where Redis is, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrelatorSettings {
    /// Whether the section is in the file: else the Redis is only guessed.
    pub written: bool,
    /// How long to wait after an alert, so that modules have written their status.
    pub wait: Duration,
    /// Where Redis is, without user and password: `redis://127.0.0.1:6379`.
    pub redis_url: String,
    /// The ACL user.
    pub redis_user: Option<String>,
    /// Its password.
    pub redis_password: Option<Secret>,
    /// For how long Redis is polled while modules are still running.
    pub max_wait: Duration,
    /// How old a status may be that an alert without a plan could be about; also for how long a
    /// success counts where the plan's schedule is not understood.
    pub recent: Duration,
    /// The labels that may hold the id of the plan; the first that is there counts.
    pub backup_id_labels: Vec<String>,
    /// How often a plan with an open trouble is looked at again; none: never.
    pub recheck: Option<Duration>,
    /// Whether every plan is looked at when its run should be over, without an alert.
    pub watch_plans: bool,
}

impl Default for CorrelatorSettings {
    fn default() -> CorrelatorSettings {
        CorrelatorSettings {
            written: false,
            wait: Duration::from_secs(30),
            redis_url: "redis://127.0.0.1:6379".into(),
            redis_user: None,
            redis_password: None,
            max_wait: Duration::from_secs(900),
            recent: Duration::from_secs(86_400),
            backup_id_labels: ["backup_id", "id"].map(String::from).into(),
            recheck: Some(Duration::from_secs(900)),
            watch_plans: false,
        }
    }
}

impl CorrelatorSettings {
    /// Reads the section.
    pub fn read(section: &mut Section) -> CorrelatorSettings {
        let defaults = CorrelatorSettings::default();
        let allowed_waits = Duration::ZERO..=MAX_WAIT;
        let mut correlator = CorrelatorSettings {
            written: true,
            wait: section
                .duration_within("wait_seconds", allowed_waits.clone())
                .unwrap_or(defaults.wait),
            redis_url: section.text("redis_url").unwrap_or(defaults.redis_url),
            redis_user: section.text("redis_user"),
            redis_password: section.secret("redis_password", "redis_password_file"),
            max_wait: section
                .duration_within("max_wait_seconds", allowed_waits)
                .unwrap_or(defaults.max_wait),
            recent: section.duration("recent_seconds").unwrap_or(defaults.recent),
            backup_id_labels: section
                .texts("backup_id_labels")
                .unwrap_or(defaults.backup_id_labels),
            recheck: match section.duration("recheck_seconds") {
                None => defaults.recheck,
                Some(time) => (!time.is_zero()).then_some(time.max(MIN_RECHECK)),
            },
            watch_plans: section.flag("watch_plans").unwrap_or(true),
        };
        correlator.check_redis(section);
        if correlator.recent.is_zero() {
            let what = "0: of plans that nobody names, none that is switched off is looked at";
            section.warning("recent_seconds", what);
        }
        if correlator.backup_id_labels.is_empty() {
            let what = "is empty: no alert names a plan, and each is about all of them";
            section.warning("backup_id_labels", what);
        }
        correlator
    }

    fn check_redis(&mut self, section: &mut Section) {
        match scheme_error(&self.redis_url) {
            Some(what) => section.error("redis_url", what),
            None => {
                self.take_login_out_of_url(section);
                if let Some(what) = address_error(&self.redis_url) {
                    section.error("redis_url", what);
                }
            }
        }
        let password_given =
            section.given("redis_password") || section.given("redis_password_file");
        if self.redis_user.is_some() && self.redis_password.is_none() && !password_given {
            section.error("redis_user", "needs redis_password or redis_password_file");
        }
    }

    /// Moves user and password from the URL into their fields, so that the URL may be shown.
    fn take_login_out_of_url(&mut self, section: &mut Section) {
        let login = UrlLogin::take_from(&mut self.redis_url);
        if !login.user.is_empty() {
            self.redis_user = Some(percent_decoded_lossy(&login.user));
        }
        if login.password.is_empty() {
            return;
        }
        if self.redis_password.is_some() {
            let what = "holds a password, and redis_password is given too: give one";
            section.error("redis_url", what);
        }
        section.keep_secret(&login.password);
        self.redis_password = Some(section.keep_secret(&percent_decoded_lossy(&login.password)));
    }
}

/// What is told of backup plans, and how often: a part of the section `notifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellingSettings {
    /// An unchanged trouble is told again after this time; none: never.
    pub renotify: Option<Duration>,
    /// Which successes are told.
    pub success: SuccessPolicy,
    /// The same for single plans, by id or name.
    pub plans: BTreeMap<String, SuccessPolicy>,
}

impl Default for TellingSettings {
    fn default() -> TellingSettings {
        TellingSettings {
            renotify: Some(Duration::from_secs(86_400)),
            success: SuccessPolicy::default(),
            plans: BTreeMap::new(),
        }
    }
}

impl TellingSettings {
    /// Reads its keys of the section.
    pub fn read(section: &mut Section) -> TellingSettings {
        let defaults = TellingSettings::default();
        let plans = section.entries("plans", |_, plan| read_success(plan));
        TellingSettings {
            renotify: match section.duration("renotify_interval") {
                None => defaults.renotify,
                Some(time) => (!time.is_zero()).then_some(time),
            },
            success: read_success(section).unwrap_or_default(),
            plans: plans.into_iter().filter_map(|(plan, own)| Some((plan, own?))).insert_all(),
        }
    }

    /// What holds for a plan.
    pub fn policy(&self, plan: &Plan) -> TellingPolicy {
        let named = || self.plans.get(plan.name.as_ref()?);
        let own = self.plans.get(&plan.id).or_else(named);
        TellingPolicy { renotify: self.renotify, success: own.copied().unwrap_or(self.success) }
    }
}

fn read_success(section: &mut Section) -> Option<SuccessPolicy> {
    let text = section.text("report_success")?;
    match text.as_str() {
        "always" => Some(SuccessPolicy::Always),
        "recovery" => Some(SuccessPolicy::Recovery),
        "never" => Some(SuccessPolicy::Never),
        _ => {
            let what = format!("must be always, recovery or never, not \"{text}\"");
            section.error("report_success", what);
            None
        }
    }
}

/// The section `repo_check`: how repositories are asked how they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoCheckSettings {
    /// restic; found in PATH when it has no slash.
    pub restic_path: PathBuf,
    /// How long the check of one repository may take.
    pub timeout: Duration,
    /// Whether to run `restic check`, too.
    pub deep: bool,
    /// By the id of the destination, or `default`.
    pub repositories: BTreeMap<String, RepositorySettings>,
}

/// How restic opens the repositories of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositorySettings {
    /// The address, as restic takes it; `{repository}` and `{path}` stand for destination and module.
    /// It may hold a password: texts that quote it must be scrubbed.
    pub repository: String,
    /// The password; none: it is in `env`, or read from Redis.
    pub password: Option<RepositoryPassword>,
    /// Environment variables for restic.
    pub env: BTreeMap<String, Secret>,
}

/// A repository's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryPassword {
    /// Given in the configuration.
    Clear(Secret),
    /// The path of a file that restic reads.
    File(PathBuf),
}

impl RepoCheckSettings {
    /// Reads the section.
    pub fn read(section: &mut Section) -> RepoCheckSettings {
        let timeouts = Duration::from_secs(1)..=MAX_WAIT;
        let repositories = section.entries("repositories", RepositorySettings::read);
        if repositories.is_empty() {
            let what = "names no repository: name a destination, or default; to have none asked, \
                        leave out repo_check";
            section.error("repositories", what);
        }
        RepoCheckSettings {
            restic_path: section.program("restic_path", "restic"),
            timeout: section
                .duration_within("timeout_seconds", timeouts)
                .unwrap_or(Duration::from_secs(120)),
            deep: section.flag("deep").unwrap_or(false),
            repositories: repositories.into_iter().insert_all(),
        }
    }
}

impl RepositorySettings {
    fn read(destination: &str, section: &mut Section) -> RepositorySettings {
        let env = section.secrets("env");
        let password = match (section.given("password"), section.given("password_file")) {
            (false, true) => section.secret_path("password_file").map(RepositoryPassword::File),
            (_, _) => section.secret("password", "password_file").map(RepositoryPassword::Clear),
        };
        let repository = section.required("repository");
        check_repository(section, &repository);
        check_env(section, &env);
        if destination == "default" && !repository.is_empty() && !repository.contains("{path}") {
            let what = "has no {path}: every module is then looked for in the same place";
            section.warning("repository", what);
        }
        RepositorySettings { repository, password, env }
    }
}

/// What in `env` would be in the way of the other keys.
fn check_env(section: &mut Section, env: &BTreeMap<String, Secret>) {
    for name in ["RESTIC_REPOSITORY", "RESTIC_REPOSITORY_FILE"] {
        if env.contains_key(name) {
            let what = format!(
                "{name} would be the same for every module: give the key repository instead"
            );
            section.error("env", what);
        }
    }
    let given = |key| section.given(key).then(|| key.to_owned());
    let keys = ["password", "password_file"].into_iter().filter_map(given);
    let names = ["RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND"];
    let names = names.into_iter().filter(|name| env.contains_key(*name)).map(str::to_owned);
    let passwords: Vec<String> = keys.chain(names.clone()).collect();
    // Of password and password_file together the two keys complain themselves.
    if names.count() > 0 && passwords.len() > 1 {
        section.error(
            "env",
            format!("the password is given twice, as {}: give one", passwords.join(" and ")),
        );
    }
}

fn check_repository(section: &mut Section, repository: &str) {
    for part in repository.split('{').skip(1) {
        let Some((name, _)) = part.split_once('}') else {
            section.error("repository", "a { is not closed: there are {repository} and {path}");
            continue;
        };
        if !matches!(name, "repository" | "path") {
            let what =
                format!("\"{{{name}}}\" stands for nothing: there are {{repository}} and {{path}}");
            section.error("repository", what);
        }
    }
    let login = repository.split_once("://").and_then(|(_, rest)| split_login(rest).0);
    if let Some((_, password)) = login.and_then(|login| login.split_once(':')) {
        section.keep_secret(password);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_where_they_are_meant() {
        assert_eq!(percent_decoded_lossy("a%40b%2"), "a@b%2");
        assert_eq!(percent_decoded_lossy("100%"), "100%");
    }
}
