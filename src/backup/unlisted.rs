//! Alerts that seem to be about backups and that no list names: told to the log, once for each name.

use std::collections::BTreeSet;
use std::sync::Mutex;

use log::warn;

use crate::thread::lock;

/// How many names are remembered; what comes beyond is not told.
const MAX_NAMES: usize = 1000;

/// The names that were told.
#[derive(Debug, Default)]
pub struct UnlistedAlerts {
    told: Mutex<BTreeSet<String>>,
}

impl UnlistedAlerts {
    /// Tells those of these names that were not told yet.
    pub fn warn_once(&self, names: BTreeSet<String>) {
        for name in names.into_iter().filter(|name| self.is_new(name)) {
            warn!(
                "an alert {name:?} fires and seems to be about a backup: it is ignored, \
                 because receiver.alert_names does not list it"
            );
        }
    }

    fn is_new(&self, name: &str) -> bool {
        let mut told = lock(&self.told);
        told.len() < MAX_NAMES && told.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_told_once() {
        let unlisted = UnlistedAlerts::default();
        assert!(unlisted.is_new("backup_failed") && unlisted.is_new("PgBackup"));
        assert!(!unlisted.is_new("backup_failed"));
        let many = (0..2 * MAX_NAMES).filter(|n| unlisted.is_new(&n.to_string())).count();
        assert_eq!(many, MAX_NAMES - 2);
    }
}
