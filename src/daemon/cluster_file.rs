//! What this node has seen of its cluster, in a small file of its state directory: the number of the
//! last takeover, since a Redis that went back to an older state must not give the same number again;
//! and the id of the cluster, since a Redis that has another one is the wrong one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The file.
const NAME: &str = "cluster";

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownCluster {
    /// The number of the last takeover; 0 when none is known.
    pub epoch: u64,
    /// Its id.
    pub id: Option<String>,
}

impl KnownCluster {
    /// What the file in `directory` says; nothing when it cannot be read.
    pub fn read(directory: &Path) -> KnownCluster {
        let text = fs::read_to_string(directory.join(NAME)).unwrap_or_default();
        let mut words = text.split_whitespace();
        let epoch = words.next().and_then(|word| word.parse().ok());
        match epoch {
            Some(epoch) => KnownCluster { epoch, id: words.next().map(str::to_owned) },
            None => KnownCluster::default(),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it is not on disk.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{NAME}.new"));
        let mut file = File::create(&new)?;
        writeln!(file, "{} {}", self.epoch, self.id.as_deref().unwrap_or_default())?;
        file.sync_all()?;
        fs::rename(new, directory.join(NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_read_back_and_what_is_damaged_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(KnownCluster::read(directory), KnownCluster::default());
        for id in [None, Some("ab12".to_owned())] {
            let known = KnownCluster { epoch: 8, id };
            known.write(directory).unwrap();
            assert_eq!(KnownCluster::read(directory), known);
        }
        fs::write(directory.join(NAME), "x").unwrap();
        assert_eq!(KnownCluster::read(directory), KnownCluster::default());
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
    }
}
