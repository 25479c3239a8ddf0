//! The context of one load of a configuration: the problems found so far, the secrets seen, and the
//! machine around the file (environment, other files).

use std::cell::{RefCell, RefMut};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::sources::Sources;
use crate::problem::{Problem, Problems, Severity};
use crate::secret::Secret;

/// The environment, by variable: injected, so that tests have their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The longest file of a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A problem, with the line by which it stands in the order of all files.
type FoundProblem = (usize, Problem);

/// The context of one load of a configuration file.
pub struct LoadContext<'a> {
    sources: RefCell<Sources>,
    directory: PathBuf,
    environment: Environment<'a>,
    found: RefCell<Vec<FoundProblem>>,
    secrets: RefCell<Vec<Secret>>,
}

impl<'a> LoadContext<'a> {
    /// The context of a load of `file`; other files are looked for beside it.
    pub fn new(file: &Path, environment: Environment<'a>) -> LoadContext<'a> {
        let sources = Sources::new(file);
        LoadContext {
            directory: sources.directory.clone(),
            sources: RefCell::new(sources),
            environment,
            found: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// The files of the configuration.
    pub(super) fn sources(&self) -> RefMut<'_, Sources> {
        self.sources.borrow_mut()
    }

    /// Records a problem.
    pub fn report(&self, severity: Severity, line: Option<usize>, path: String, what: String) {
        let place = line.unwrap_or(0);
        let sources = self.sources.borrow();
        let (file, line) = sources.place(line);
        let problem = Problem { severity, file: file.to_owned(), line, path, what };
        self.found.borrow_mut().push((place, problem));
    }

    /// Records an error.
    pub(super) fn report_error(&self, line: Option<usize>, path: &str, what: String) {
        self.report(Severity::Error, line, path.to_owned(), what);
    }

    /// What is said of a key at a line that is there already, at another one.
    pub(super) fn duplicate(&self, first: Option<usize>, line: Option<usize>) -> String {
        let first = first.and_then(|first| self.sources().place_seen_from(Some(first), line));
        let first = first.map_or(String::new(), |place| format!(", the first is {place}"));
        format!("duplicate key{first}")
    }

    /// All problems, in the order of the files.
    pub fn problems(&self) -> Problems {
        let mut found = self.found.borrow().clone();
        found.sort_by_key(|(place, _)| *place);
        Problems(found.into_iter().map(|(_, problem)| problem).collect())
    }

    /// All secrets that were read: they must never be printed.
    pub fn secrets(&self) -> Vec<Secret> {
        self.secrets.borrow().clone()
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// Resolves a path, which is relative to the directory of the file, also where an included one says
    /// it. A file that systemd has loaded as a
    /// credential is read from there: `LoadCredential=secrets:/etc/hbd/secrets` makes of
    /// `secrets/key` beside the file the credential `secrets_key` (systemd.exec(5)).
    ///
    /// A `~` at its beginning is the home of the user that runs the program.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let home = || self.variable("HOME").filter(|home| !home.is_empty());
        let below_home =
            path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some((rest, home)) = below_home.zip(home()) {
            return Path::new(&home).join(rest.trim_start_matches('/'));
        }
        let resolved = self.directory.join(path);
        let loaded = self.variable("CREDENTIALS_DIRECTORY").and_then(|directory| {
            let inside = resolved.strip_prefix(&self.directory).ok()?.to_str()?;
            let credential = Path::new(&directory).join(inside.replace('/', "_"));
            (inside.contains('/') && credential.is_file()).then_some(credential)
        });
        loaded.unwrap_or(resolved)
    }

    /// The path of a program: a name without a slash is searched in PATH.
    pub fn program(&self, name: &Path) -> Option<PathBuf> {
        if name.components().count() > 1 || name.is_absolute() {
            return is_program(name).then(|| name.to_owned());
        }
        let path = self.variable("PATH")?;
        std::env::split_paths(&path)
            .map(|directory| directory.join(name))
            .find(|file| is_program(file))
    }

    pub(super) fn keep_secret(&self, secret: &Secret) {
        self.secrets.borrow_mut().push(secret.clone());
    }

    /// A secret stands in a file itself, at that line.
    pub(super) fn note_secret_at(&self, line: Option<usize>) {
        self.sources().note_secret(line);
    }
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Whether everybody on the machine can read it.
pub fn open_to_others(data: &Metadata) -> bool {
    data.permissions().mode() & 0o004 != 0
}

/// The text of a file that holds a secret, without the byte order mark before it and the blanks and line
/// ends behind it that editors leave and nobody sees.
pub fn trim_secret(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim_end()
}

/// The text of a secret file ([`trim_secret`]), and whether others can read it.
pub(super) fn read_secret_file(path: &Path) -> io::Result<(String, bool)> {
    let file = File::open(path)?;
    let data = file.metadata()?;
    let mut text = String::new();
    if file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_SECRET_BYTES {
        return Err(io::Error::other("it is longer than 64 KiB"));
    }
    Ok((trim_secret(&text).to_owned(), data.is_file() && open_to_others(&data)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_mark_or_a_blank_that_nobody_sees_was_part_of_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        for (text, key) in [
            ("\u{feff}secret\r\n", "secret"),
            ("secret \t\n\n", "secret"),
            ("two words\n", "two words"),
            (" secret", " secret"),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(read_secret_file(&file).unwrap().0, key, "{text:?}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_of_the_user() {
        let environment = |name: &str| (name == "HOME").then(|| "/home/ann".to_owned());
        let context = LoadContext::new(Path::new("/etc/hbd/heartbeat.yaml"), &environment);
        for (path, resolved) in [
            ("~", "/home/ann"),
            ("~/state", "/home/ann/state"),
            ("~bob/state", "/etc/hbd/~bob/state"),
            ("a~", "/etc/hbd/a~"),
        ] {
            assert_eq!(context.resolve(path), Path::new(resolved));
        }
    }

    #[test]
    fn a_file_that_systemd_loaded_as_a_credential_is_read_from_there() {
        let directory = tempfile::tempdir().unwrap();
        let loaded = directory.path().to_str().unwrap().to_owned();
        fs::write(directory.path().join("secrets_key"), "x").unwrap();
        let environment = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| loaded.clone());
        let context = LoadContext::new(Path::new("/etc/hbd/heartbeat.yaml"), &environment);
        for path in ["secrets/key", "/etc/hbd/secrets/key"] {
            assert_eq!(context.resolve(path), directory.path().join("secrets_key"));
        }
        for (path, resolved) in [
            ("secrets/other", "/etc/hbd/secrets/other"),
            ("secrets_key", "/etc/hbd/secrets_key"),
            ("/secrets/key", "/secrets/key"),
        ] {
            assert_eq!(context.resolve(path), Path::new(resolved));
        }
    }
}
