//! How many processes there are, from the folders of proc(5) and proc_pid_stat(5).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The number of processes, and that of zombies: those that have ended and that nobody waits for.
///
/// Nothing where others are hidden (`hidepid` of proc(5)): our own few would look like all.
pub fn processes(proc: &Path) -> Vec<(String, f64)> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let (mut count, mut zombies, mut first) = (0_u64, Some(0_u64), false);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        match fs::read_to_string(entry.path().join("stat")) {
            Ok(stat) => zombies = zombies.map(|known| known + u64::from(is_zombie(&stat))),
            Err(why) if why.kind() == ErrorKind::PermissionDenied => zombies = None,
            // It has ended since: it is gone (ESRCH once its file was opened).
            Err(_) => continue,
        }
        count += 1;
        first |= id == 1;
    }
    if !first {
        return Vec::new();
    }
    let zombies = zombies.map(|zombies| ("zombies".to_owned(), zombies as f64));
    [("count".to_owned(), count as f64)].into_iter().chain(zombies).collect()
}

/// `26231 (name) Z 1 ...`: the name may hold anything, also blanks and parentheses.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(processes: &[(&str, &str)]) -> Vec<(String, f64)> {
        let folder = tempfile::tempdir().unwrap();
        for (id, stat) in processes {
            fs::create_dir(folder.path().join(id)).unwrap();
            fs::write(folder.path().join(id).join("stat"), stat).unwrap();
        }
        fs::write(folder.path().join("stat"), "cpu 1 2 3 4\n").unwrap();
        super::processes(folder.path())
    }

    #[test]
    fn zombies_are_known_by_their_state_and_not_by_their_names() {
        let processes = [
            ("1", "1 (systemd) S 0 1 1 0"),
            ("20", "20 (a) Z) S 1 2 3"),
            ("21", "21 (cron) Z 1 2 3"),
            ("22", "22 (x y (z)) Z 1 2 3"),
            ("self", "20 (a) S"),
        ];
        assert_eq!(told(&processes), [("count".into(), 4.0), ("zombies".into(), 2.0)]);
    }

    #[test]
    fn where_others_are_hidden_nothing_is_said() {
        assert_eq!(told(&[("812", "812 (hbc) R 1 2 3")]), []);
        assert_eq!(super::processes(Path::new("/nonexistent")), []);
    }

    #[test]
    fn a_state_that_cannot_be_found_is_no_zombie() {
        for stat in ["", "1", "1 (a", "1 (a)", "Z", ") "] {
            assert!(!is_zombie(stat), "{stat}");
        }
    }
}
