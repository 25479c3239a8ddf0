//! A module's repository, what restic needs to open it, and restic run on it. What is secret of that is
//! on no command line and in no error.

use std::collections::BTreeMap;
use std::path::{Path, absolute};
use std::process::Command;
use std::time::{Duration, Instant};

use super::gateway::KeysRequest;
use super::plan::{Module, Plan};
use super::restic_output;
use super::settings::{RepoCheckSettings, RepositoryPassword, RepositorySettings};
use crate::address::{percent_decoded_lossy, split_login};
use crate::clock;
use crate::escape::PercentEncoded;
use crate::process::{self, OutputReader, ProgramOutput};
use crate::secret::{Secret, scrub};
use crate::thread::Stop;

/// Why a repository that came too late was not checked.
pub const NO_TIME_LEFT: &str = "no time was left";

/// Added before seconds are cut off, so that 999 ms become a second.
const HALF_SECOND: Duration = Duration::from_millis(500);

/// Why restic gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It was not run.
    NotRun(String),
    /// It was killed because its time was up.
    TimedOut(String),
}

impl NoAnswer {
    /// The reason.
    pub fn why(self) -> String {
        match self {
            NoAnswer::NotRun(why) | NoAnswer::TimedOut(why) => why,
        }
    }
}

/// A repository, and what restic needs to open it.
#[derive(Debug)]
pub struct Repository<'a> {
    /// How it is checked.
    pub settings: &'a RepoCheckSettings,
    configured: &'a RepositorySettings,
    /// The id of the destination that it is at.
    pub destination: &'a str,
    /// The address, its template filled in and the login of a REST server put into it.
    address: Secret,
    password: Option<&'a Secret>,
    stop: &'a Stop,
}

impl<'a> Repository<'a> {
    /// The repository of a module. `passwords` are those of the destinations as Redis has them, for
    /// repositories that are configured without one.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn locate(
        settings: &'a RepoCheckSettings,
        plan: &'a Plan,
        module: &Module,
        passwords: &'a BTreeMap<String, Secret>,
        stop: &'a Stop,
    ) -> Result<Repository<'a>, String> {
        let destination = plan.destination.as_ref().ok_or("the plan's destination is not known")?;
        let uuid = module.uuid.as_ref().ok_or("the module's UUID is not known")?;
        let configured = settings.repositories.get(&destination.id);
        let configured =
            configured.or_else(|| settings.repositories.get("default")).ok_or_else(|| {
                format!("neither {} nor default is in repo_check.repositories", destination.id)
            })?;
        let password_in_env = configured.env.keys().any(|name| name.starts_with("RESTIC_PASSWORD"));
        let password = passwords.get(&destination.id).filter(|_| !password_in_env);
        if configured.password.is_none() && password.is_none() && !password_in_env {
            return Err("its password is neither configured nor readable in Redis".into());
        }
        let without_number = module.id.trim_end_matches(|c: char| c.is_ascii_digit());
        let image = module.image.as_deref().unwrap_or(without_number);
        let address = configured
            .repository
            .replace("{path}", &format!("{image}/{uuid}"))
            .replace("{repository}", &destination.id);
        let address = Secret::new(with_login(address, &configured.env));
        Ok(Repository {
            settings,
            configured,
            destination: &destination.id,
            address,
            password,
            stop,
        })
    }

    /// Runs restic, read-only: without a lock, and without a cache, which would cost a small machine
    /// more disk than it saves.
    ///
    /// # Errors
    /// It was not run, or killed because its time was up.
    pub fn run(&self, arguments: &[&str], until: Instant) -> Result<ProgramOutput, NoAnswer> {
        let begin = Instant::now();
        let finished = self.run_until(arguments, None, until)?;
        if finished.timed_out {
            let limit = until.saturating_duration_since(begin);
            return Err(NoAnswer::TimedOut(self.describe_timeout(&finished, limit)));
        }
        Ok(finished)
    }

    /// The same, also when its time was up; `reader` is given the whole standard output.
    ///
    /// # Errors
    /// It was not run.
    pub fn run_until(
        &self,
        arguments: &[&str],
        reader: Option<OutputReader>,
        until: Instant,
    ) -> Result<ProgramOutput, NoAnswer> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoAnswer::NotRun(NO_TIME_LEFT.into()));
        }
        let path = self.settings.restic_path.as_path();
        let mut command = process::command(path, process::NETWORK_VARIABLES);
        command.args(arguments).args(["--no-lock", "--no-cache"]);
        self.set_environment(&mut command);
        let finished = match reader {
            Some(reader) => process::run_reading(&mut command, reader, left, Some(self.stop)),
            None => process::run_until(&mut command, "", left, Some(self.stop)),
        };
        finished.map_err(|why| NoAnswer::NotRun(describe_start_error(path, &why)))
    }

    /// The words for a restic that was killed after `limit`.
    pub fn describe_timeout(&self, finished: &ProgramOutput, limit: Duration) -> String {
        let error_line = if finished.stderr.trim().is_empty() {
            "it said nothing".into()
        } else {
            self.error_line(finished)
        };
        let after = clock::format_duration(Duration::from_secs((limit + HALF_SECOND).as_secs()));
        format!("killed after {after}: {error_line}")
    }

    /// Hands repository and password to restic (its manual, "Environment Variables"). Of its variables in
    /// our own environment it gets none: `RESTIC_HOST` hides the snapshots of other hosts.
    fn set_environment(&self, command: &mut Command) {
        match (&self.configured.password, self.password) {
            (Some(RepositoryPassword::Clear(password)), _) => {
                command.env("RESTIC_PASSWORD", password.reveal());
            }
            (Some(RepositoryPassword::File(path)), _) => {
                // It runs in another directory.
                command.env("RESTIC_PASSWORD_FILE", absolute(path).unwrap_or(path.clone()));
            }
            (None, Some(password)) => {
                command.env("RESTIC_PASSWORD", password.reveal());
            }
            (None, None) => {}
        }
        for (name, value) in &self.configured.env {
            command.env(name, value.reveal());
        }
        command.env("RESTIC_REPOSITORY", self.address.reveal());
    }

    /// The request that tells whether nothing is there or nothing could be asked, where there is one. A
    /// certificate of restic's own cannot be shown.
    pub fn keys_request(&self) -> Option<KeysRequest> {
        let needs_certificate = self.configured.env.contains_key("RESTIC_TLS_CLIENT_CERT");
        KeysRequest::new(self.address.reveal()).filter(|_| !needs_certificate)
    }

    /// Whether restic runs an rclone of its own, which nobody else can ask.
    pub fn is_behind_rclone(&self) -> bool {
        self.address.reveal().starts_with("rclone:")
    }

    /// Whether it is a directory of this machine in which there are keys.
    pub fn has_keys_here(&self) -> bool {
        let address = self.address.reveal();
        let path = Path::new(address.strip_prefix("local:").unwrap_or(address)).join("keys");
        path.is_absolute() && path.read_dir().is_ok_and(|mut keys| keys.next().is_some())
    }

    /// The file of certificate authorities that restic is told to trust.
    pub fn ca_file(&self) -> Option<&str> {
        self.configured.env.get("RESTIC_CACERT").map(Secret::reveal)
    }

    /// The line that says what is wrong.
    pub fn error_line(&self, finished: &ProgramOutput) -> String {
        self.scrub_secrets(&restic_output::error_line(&finished.stderr))
    }

    /// A text of restic's without what is secret.
    pub fn scrub_secrets(&self, text: &str) -> String {
        let inline = match &self.configured.password {
            Some(RepositoryPassword::Clear(password)) => Some(password),
            Some(RepositoryPassword::File(_)) | None => None,
        };
        let url_passwords = url_passwords(self.address.reveal());
        let secrets = self.configured.env.values().chain(inline).chain(self.password);
        scrub(text, secrets.chain(&url_passwords))
    }
}

/// Puts the login of a REST server into the address, where it is in `env` only: a restic before 0.16
/// does not look for it there.
fn with_login(address: String, env: &BTreeMap<String, Secret>) -> String {
    let user = env.get("RESTIC_REST_USERNAME");
    let Some((user, (scheme, rest))) = user.zip(address.split_once("://")) else { return address };
    if !matches!(scheme, "rest:http" | "rest:https") || split_login(rest).0.is_some() {
        return address;
    }
    let password = env.get("RESTIC_REST_PASSWORD").map_or("", Secret::reveal);
    let [user, password] = [user.reveal(), password].map(PercentEncoded);
    format!("{scheme}://{user}:{password}@{rest}")
}

/// The password in the address of a repository, as it stands there and as it is meant. One that is not
/// encoded may hold a slash.
fn url_passwords(address: &str) -> Vec<Secret> {
    let Some((_, rest)) = address.split_once("://") else { return Vec::new() };
    let to_last_at = rest.rsplit_once('@').map(|(login, _)| login);
    let logins = [split_login(rest).0, to_last_at].into_iter().flatten();
    let passwords = logins.filter_map(|login| login.split_once(':')).map(|(_, text)| text);
    passwords
        .flat_map(|text| [text.to_owned(), percent_decoded_lossy(text)])
        .map(Secret::new)
        .collect()
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

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
    }

    #[test]
    fn the_login_of_a_rest_server_travels_in_the_address() {
        let login = env(&[("RESTIC_REST_USERNAME", "node/1"), ("RESTIC_REST_PASSWORD", "p@ss:ü")]);
        for (address, expected) in [
            (
                "rest:http://[::1]:4694/d1/mail/u",
                "rest:http://node%2F1:p%40ss%3A%C3%BC@[::1]:4694/d1/mail/u",
            ),
            ("rest:https://x", "rest:https://node%2F1:p%40ss%3A%C3%BC@x"),
            ("rest:http://ops:pw@x/y", "rest:http://ops:pw@x/y"),
            ("s3:http://x/y", "s3:http://x/y"),
            ("/srv/x", "/srv/x"),
        ] {
            assert_eq!(with_login(address.into(), &login), expected);
        }
        let none = env(&[("AWS_ACCESS_KEY_ID", "x")]);
        assert_eq!(with_login("rest:http://x/".into(), &none), "rest:http://x/");
        let nameless = env(&[("RESTIC_REST_USERNAME", "node")]);
        assert_eq!(with_login("rest:http://x/".into(), &nameless), "rest:http://node:@x/");
    }

    #[test]
    fn a_password_in_an_address_is_found_however_it_is_written() {
        let found = |address: &str| {
            url_passwords(address).iter().map(|one| one.reveal().to_owned()).collect::<Vec<_>>()
        };
        assert!(found("rest:http://o:p%40ss@x/y").contains(&"p@ss".to_owned()));
        assert!(found("rest:http://o:p%40ss@x/y").contains(&"p%40ss".to_owned()));
        assert!(found("rest:http://o:pa/ss@x/y").contains(&"pa/ss".to_owned()));
        assert_eq!(found("rest:http://x/y"), Vec::<String>::new());
        assert_eq!(found("/srv/x"), Vec::<String>::new());
    }
}
