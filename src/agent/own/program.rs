//! The programs in the directory of own metrics: which may be run, and which are refused and why.

use std::fs::{self, DirEntry, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What editors and package managers leave behind.
const LEFTOVERS: &[&str] =
    &["~", ".bak", ".old", ".orig", ".swp", ".disabled", ".rpmsave", ".rpmnew", ".rpmorig", ",v"];

/// Anybody may write to it.
const WRITABLE: u32 = 0o002;
/// Somebody may run it.
const EXECUTABLE: u32 = 0o111;

/// What a directory holds.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// What may be run, in order of their names.
    pub programs: Vec<PathBuf>,
    /// What may not, why, and the remedy.
    pub refused: Vec<(PathBuf, String)>,
}

/// Looks into the directory. One that is not there has nothing in it.
pub fn find(directory: &Path) -> Found {
    let mut found = Found::default();
    let refused =
        |why: String| Found { refused: vec![(directory.into(), why)], ..Found::default() };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return found,
        Err(why) => return refused(format!("cannot be read: {why}")),
    };
    match fs::metadata(directory) {
        Err(why) => return refused(format!("cannot be looked at: {why}")),
        Ok(about) => {
            if let Some(why) = is_open(&about) {
                return refused(why);
            }
        }
    }
    let mut entries: Vec<DirEntry> =
        entries.flatten().filter(|entry| !is_leftover(entry)).collect();
    entries.sort_by_key(DirEntry::file_name);
    for path in entries.iter().map(DirEntry::path) {
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() => {}
            Ok(about) => match refusal(&about) {
                None => found.programs.push(path),
                Some(why) => found.refused.push((path, why)),
            },
            Err(why) => found.refused.push((path, format!("cannot be looked at: {why}"))),
        }
    }
    found
}

fn is_leftover(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    let ends = |end: &str| name.ends_with(end);
    name.starts_with(['.', '#']) || name.contains(".dpkg-") || LEFTOVERS.iter().any(|end| ends(end))
}

fn refusal(about: &Metadata) -> Option<String> {
    if !about.is_file() {
        return Some("is no file".into());
    }
    if about.mode() & EXECUTABLE == 0 {
        return Some("is not executable: chmod +x, or take it away".into());
    }
    is_open(about)
}

/// Why others than root and ourselves could have us run what they like.
fn is_open(about: &Metadata) -> Option<String> {
    // SAFETY: geteuid(2) takes nothing and never fails.
    let us = unsafe { libc::geteuid() };
    if about.mode() & WRITABLE != 0 {
        Some("can be written by everybody: chmod o-w".into())
    } else if about.uid() != 0 && about.uid() != us {
        Some("belongs to another user: chown root".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn put(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn programs_are_run_in_order_and_leftovers_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["raid.sh", "10-dns", "check_ups", "raid.sh~", ".hidden", "a.dpkg-old", "b.bak"]
        {
            put(path, name, 0o755);
        }
        fs::create_dir(path.join("lib")).unwrap();
        symlink("/bin/true", path.join("true")).unwrap();
        let found = find(path);
        assert_eq!(names(&found.programs), ["10-dns", "check_ups", "raid.sh", "true"]);
        assert_eq!(found.refused, []);
    }

    #[test]
    fn what_others_could_have_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        put(path, "open", 0o757);
        put(path, "plain", 0o644);
        put(path, "good", 0o775);
        symlink("/nonexistent", path.join("dangling")).unwrap();
        symlink("/dev/null", path.join("null")).unwrap();
        let found = find(path);
        assert_eq!(names(&found.programs), ["good"]);
        let why = |name: &str| {
            let refused = found.refused.iter().find(|(path, _)| path.ends_with(name));
            refused.unwrap().1.as_str()
        };
        assert_eq!(why("open"), "can be written by everybody: chmod o-w");
        assert_eq!(why("plain"), "is not executable: chmod +x, or take it away");
        assert!(why("dangling").starts_with("cannot be looked at: "));
        assert_eq!(why("null"), "is no file");
    }

    #[test]
    fn a_directory_that_everybody_may_write_to_holds_nothing_to_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.d");
        fs::create_dir(&path).unwrap();
        put(&path, "good", 0o755);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        let why = "can be written by everybody: chmod o-w".to_owned();
        assert_eq!(find(&path), Found { programs: vec![], refused: vec![(path, why)] });
    }

    #[test]
    fn a_program_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = put(folder.path(), "theirs", 0o755);
        // Only root can give files away; for others theirs is ours.
        if chown(&theirs, Some(4711), None).is_ok() {
            let found = find(folder.path());
            assert_eq!(found.refused, [(theirs, "belongs to another user: chown root".to_owned())]);
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty() {
        assert_eq!(find(Path::new("/nonexistent/metrics.d")), Found::default());
        assert_eq!(find(Path::new("/bin/true")).refused.len(), 1);
    }
}
