//! The last time that was told, kept for the next start of the agent where systemd gives a place for
//! that: hbd believes no earlier one, and the clock may have been set back meanwhile.

use std::fs;
use std::path::PathBuf;

use log::debug;

use crate::clock::Wall;

/// Milliseconds since 1970 as text, in `$RUNTIME_DIRECTORY` (systemd.exec(5)): it lies in memory and
/// does not outlive the boot.
pub struct Keepsake {
    file: Option<PathBuf>,
    kept: Wall,
}

impl Keepsake {
    /// What an earlier agent kept in `directory`; nothing is kept where there is none.
    pub fn open(directory: Option<PathBuf>) -> Keepsake {
        let file = directory.map(|directory| directory.join("told"));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let kept = text.and_then(|text| text.trim().parse().ok()).map(Wall).unwrap_or_default();
        Keepsake { file, kept }
    }

    /// The last time that was told.
    pub fn told(&self) -> Wall {
        self.kept
    }

    /// Keeps it.
    pub fn keep(&mut self, told: Wall) {
        if told == self.kept {
            return;
        }
        self.kept = told;
        if let Some(file) = &self.file
            && let Err(why) = fs::write(file, told.0.to_string())
        {
            debug!("{} cannot be written: {why}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_agent_knows_what_was_told_last() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Keepsake::open(Some(directory.path().to_owned()));
        assert_eq!(open().told(), Wall(0), "nothing was");
        open().keep(Wall(1_700_000_000_123));
        assert_eq!(open().told(), Wall(1_700_000_000_123));
        fs::write(directory.path().join("told"), "").unwrap();
        assert_eq!(open().told(), Wall(0), "that was cut off");
    }

    #[test]
    fn without_a_place_it_is_known_until_the_end() {
        let mut keepsake = Keepsake::open(None);
        keepsake.keep(Wall(5));
        assert_eq!(keepsake.told(), Wall(5));
        let mut keepsake = Keepsake::open(Some("/nonexistent".into()));
        keepsake.keep(Wall(5));
        assert_eq!(keepsake.told(), Wall(5));
    }
}
