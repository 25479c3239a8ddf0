//! What is logged once: hosts that are not known, and connections with a previous key. Pure.

use std::collections::BTreeSet;

use crate::heartbeat::fleet::KeyUsage;

/// The most unknown hosts, and connections with an old key, that are named in the log.
const MAX_LOGGED: usize = 100;

/// What was logged already.
#[derive(Debug, Default)]
pub struct LoggedOnce {
    hosts: BTreeSet<String>,
    /// The hosts and connections that sign with the previous key.
    previous_key_users: BTreeSet<(String, String)>,
}

impl LoggedOnce {
    /// Whether a host that is not known is to be logged now.
    pub fn is_first(&mut self, host: &str) -> bool {
        self.hosts.len() < MAX_LOGGED && self.hosts.insert(host.to_owned())
    }

    /// Whether it was not logged yet that this connection signs with the previous key, or no longer
    /// does.
    pub fn key_usage_changed(&mut self, key: &KeyUsage) -> bool {
        let user = (key.host.clone(), key.connection.clone());
        if !key.previous {
            self.previous_key_users.remove(&user);
            return true;
        }
        self.previous_key_users.len() < MAX_LOGGED && self.previous_key_users.insert(user)
    }
}
