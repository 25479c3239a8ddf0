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
}

impl Restic {
    /// An empty one.
    pub fn new() -> Restic {
        Restic { directory: tempfile::tempdir().unwrap() }
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// restic with the password, for the repository at `path`.
    pub fn command(&self, path: &str) -> Command {
        let mut command = Command::new("restic");
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
        let child = self
            .command(path)
            .args(["backup", "--stdin", "--quiet"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let locks = self.path(path).join("locks");
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::read_dir(&locks).unwrap().next().is_none() {
            assert!(Instant::now() < deadline, "restic takes no lock");
            std::thread::yield_now();
        }
        Holder(child)
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
            restic_path: "restic".into(),
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
