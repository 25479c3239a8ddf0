//! The sections `correlator` and `repo_check`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;
use crate::section::Section;

/// Waiting longer than a day would outlive the alert.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// The section `correlator`: where the truth about backups is, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlator {
    /// How long modules get to write their status before it is looked at.
    pub wait: Duration,
    /// Where Redis is, without user and password: `redis://127.0.0.1:6379`.
    pub redis_url: String,
    /// The ACL user.
    pub redis_user: Option<String>,
    /// Its password.
    pub redis_password: Option<Secret>,
    /// How long to look again while modules are still running.
    pub max_wait: Duration,
    /// How old a status may be that an alert without a plan could be about.
    pub recent: Duration,
    /// The labels that may hold the id of the plan; the first that is there counts.
    pub backup_id_labels: Vec<String>,
}

impl Default for Correlator {
    fn default() -> Correlator {
        Correlator {
            wait: Duration::from_secs(30),
            redis_url: "redis://127.0.0.1:6379".into(),
            redis_user: None,
            redis_password: None,
            max_wait: Duration::from_secs(900),
            recent: Duration::from_secs(86_400),
            backup_id_labels: ["backup_id", "id"].map(String::from).into(),
        }
    }
}

impl Correlator {
    /// Reads the section.
    pub fn read(section: &mut Section) -> Correlator {
        let usual = Correlator::default();
        let waits = Duration::ZERO..=LONGEST_WAIT;
        let mut correlator = Correlator {
            wait: section.duration_within("wait_seconds", waits.clone()).unwrap_or(usual.wait),
            redis_url: section.text("redis_url").unwrap_or(usual.redis_url),
            redis_user: section.text("redis_user"),
            redis_password: section.secret("redis_password", "redis_password_file"),
            max_wait: section.duration_within("max_wait_seconds", waits).unwrap_or(usual.max_wait),
            recent: section.duration("recent_seconds").unwrap_or(usual.recent),
            backup_id_labels: section.texts("backup_id_labels").unwrap_or(usual.backup_id_labels),
        };
        correlator.take_login_out_of_url(section);
        if correlator.redis_user.is_some() && correlator.redis_password.is_none() {
            let given = section.given("redis_password") || section.given("redis_password_file");
            if !given {
                section.error("redis_user", "needs redis_password or redis_password_file");
            }
        }
        correlator
    }

    /// A password in the URL becomes a secret, and the URL may be shown.
    fn take_login_out_of_url(&mut self, section: &mut Section) {
        const SCHEMES: [&str; 4] = ["redis", "rediss", "redis+unix", "unix"];
        let Some((scheme, rest)) = self.redis_url.split_once("://") else {
            return section.error("redis_url", "must be such as redis://127.0.0.1:6379");
        };
        if !SCHEMES.contains(&scheme) {
            return section
                .error("redis_url", "must begin with redis://, rediss:// or redis+unix:///");
        }
        let end = rest.find('/').unwrap_or(rest.len());
        let Some(at) = rest[..end].rfind('@') else { return };
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        if !user.is_empty() {
            self.redis_user = Some(percent_decoded(user));
        }
        if !password.is_empty() {
            if self.redis_password.is_some() {
                section.error(
                    "redis_url",
                    "holds a password, and redis_password is given too: give one",
                );
            }
            section.keep_secret(password);
            self.redis_password = Some(section.keep_secret(&percent_decoded(password)));
        }
        self.redis_url = format!("{scheme}://{}", &rest[at + 1..]);
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The section `repo_check`: how repositories are asked how they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoCheck {
    /// restic; found in PATH when it has no slash.
    pub restic_path: PathBuf,
    /// How long one repository may take.
    pub timeout: Duration,
    /// Whether to run `restic check`, too.
    pub deep: bool,
    /// By destination id, or `default`.
    pub repositories: BTreeMap<String, Repository>,
}

/// How restic gets at the repositories of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// As restic takes it; `{repository}` and `{path}` stand for destination and module. It may hold
    /// a password: what shows it must be scrubbed.
    pub repository: String,
    /// None: restic finds it in `env`, or it is read from Redis.
    pub password: Option<Password>,
    /// Variables for restic.
    pub env: BTreeMap<String, Secret>,
}

/// A repository's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// As it stands.
    Clear(Secret),
    /// In a file that restic reads.
    File(PathBuf),
}

impl RepoCheck {
    /// Reads the section.
    pub fn read(section: &mut Section) -> RepoCheck {
        let timeouts = Duration::from_secs(1)..=LONGEST_WAIT;
        let repositories = section.entries("repositories", |_, section| Repository::read(section));
        RepoCheck {
            restic_path: section.program("restic_path", "restic"),
            timeout: section
                .duration_within("timeout_seconds", timeouts)
                .unwrap_or(Duration::from_secs(120)),
            deep: section.flag("deep").unwrap_or(false),
            repositories: repositories.into_iter().collect(),
        }
    }
}

impl Repository {
    fn read(section: &mut Section) -> Repository {
        let env = section.secrets("env");
        let password = match (section.given("password"), section.given("password_file")) {
            (false, true) => section.secret_path("password_file").map(Password::File),
            (_, _) => section.secret("password", "password_file").map(Password::Clear),
        };
        let repository = section.required("repository");
        check_repository(section, &repository);
        Repository { repository, password, env }
    }
}

fn check_repository(section: &mut Section, repository: &str) {
    for part in repository.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or_default();
        if !matches!(name, "repository" | "path") {
            let what =
                format!("\"{{{name}}}\" stands for nothing: there are {{repository}} and {{path}}");
            section.error("repository", what);
        }
    }
    let login = repository.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let login = login.and_then(|authority| authority.rsplit_once('@'));
    if let Some((_, password)) = login.and_then(|(login, _)| login.split_once(':')) {
        section.keep_secret(password);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_where_they_are_meant() {
        assert_eq!(percent_decoded("a%40b%2"), "a@b%2");
        assert_eq!(percent_decoded("100%"), "100%");
    }
}
