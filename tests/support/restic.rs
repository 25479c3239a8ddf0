//! A real restic repository, thrown away after the test. Each test file uses some of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heartbeat::backup::settings::{RepoCheckSettings, RepositoryPassword, RepositorySettings};
use heartbeat::secret::Secret;

/// The password of all these repositories.
pub const PASSWORD: &str = "correct-horse";

/// A directory of repositories, one below the other as NethServer 8 has them.
pub struct Restic {
    directory: tempfile::TempDir,
    /// The program that makes and reads the repositories.
    pub program: PathBuf,
}

/// The restic of a newer Debian, where `tests/newer-restic` has unpacked it: other words, other exit
/// codes, and minutes of patience.
pub fn newer_program() -> Option<PathBuf> {
    let path = "target/newer-restic/usr/bin/restic";
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if !program.exists() {
        eprintln!("there is no {path}, only the restic in PATH is tested: run tests/newer-restic");
        return None;
    }
    Some(program)
}

impl Restic {
    /// An empty one.
    pub fn new() -> Restic {
        Restic::with("restic".into())
    }

    fn with(program: PathBuf) -> Restic {
        Restic { directory: tempfile::tempdir().unwrap(), program }
    }

    /// One for each version of restic that there is.
    pub fn each() -> Vec<Restic> {
        let programs = [Some("restic".into()), newer_program()].into_iter().flatten();
        programs.map(Restic::with).collect()
    }

    /// The only file, or the newest, below a folder of the repository at `path`.
    pub fn newest_file(&self, path: &str, folder: &str) -> PathBuf {
        let entries = std::fs::read_dir(self.path(path).join(folder)).unwrap();
        let time = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
        entries.map(|entry| entry.unwrap().path()).max_by_key(time).unwrap()
    }

    /// Takes one more snapshot.
    pub fn back_up(&self, path: &str, arguments: &[&str]) {
        let file = self.path("file").display().to_string();
        let arguments: Vec<&str> =
            ["backup", "--quiet"].iter().chain(arguments).copied().chain([file.as_str()]).collect();
        self.run(path, &arguments);
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// restic with the password, for the repository at `path`.
    pub fn command(&self, path: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_REPOSITORY", self.path(path))
            .arg("--no-cache")
            .stdout(Stdio::null());
        command
    }

    fn run(&self, path: &str, arguments: &[&str]) {
        let status = self.command(path).args(arguments).status();
        let status = status.expect("restic can be started: apt-get install restic");
        assert!(status.success(), "restic {arguments:?}");
    }

    /// Makes a repository with one snapshot.
    pub fn make(&self, path: &str) {
        let file = self.path("file");
        std::fs::write(&file, "some words").unwrap();
        self.run(path, &["init", "--quiet"]);
        self.run(path, &["backup", "--quiet", file.to_str().unwrap()]);
    }

    /// Locks a repository: a backup that waits for its input until it is dropped.
    pub fn lock(&self, path: &str) -> Holder {
        let before = self.lock_count(path);
        let child = self
            .command(path)
            .args(["backup", "--stdin", "--quiet"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.lock_count(path) == before {
            assert!(Instant::now() < deadline, "restic takes no lock");
            std::thread::yield_now();
        }
        Holder(child)
    }

    /// How many locks are there, without those that are being written.
    fn lock_count(&self, path: &str) -> usize {
        let locks = std::fs::read_dir(self.path(path).join("locks")).unwrap();
        locks.filter(|lock| lock.as_ref().unwrap().file_name().len() == 64).count()
    }

    /// Settings that find the repositories here.
    pub fn settings(&self) -> RepoCheckSettings {
        let template = self.path("{repository}/{path}").display().to_string();
        let repository = RepositorySettings {
            repository: template,
            password: Some(RepositoryPassword::Clear(Secret::new(PASSWORD))),
            env: BTreeMap::new(),
        };
        RepoCheckSettings {
            restic_path: self.program.clone(),
            timeout: Duration::from_secs(60),
            deep: false,
            repositories: BTreeMap::from([("default".into(), repository)]),
        }
    }

    /// A program of ours in restic's place.
    pub fn script(&self, text: &str) -> PathBuf {
        let path = self.path("script");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// Overwrites a byte of a file that restic has made read-only, or empties it.
pub fn damage(file: &Path, how: Damage) {
    let mut bytes = std::fs::read(file).unwrap();
    match how {
        Damage::Empty => bytes.clear(),
        Damage::Short => bytes.truncate(10),
        Damage::Flipped => bytes[20] ^= 0xff,
    }
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Damage {
    Empty,
    Short,
    Flipped,
}

/// Whether a process is there and not merely waiting to be reaped.
pub fn lives(id: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Somebody who holds a lock.
pub struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
