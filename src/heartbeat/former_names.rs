//! The key `was` of hosts: the name that a host had before. Pure.

use std::collections::BTreeMap;

use crate::config_file::{NameSet, Section};

/// The names that hosts had before, and who has them now.
#[derive(Default)]
pub struct FormerNames {
    hosts: BTreeMap<String, String>,
}

impl FormerNames {
    /// Reads the key of the host `name`; `names` are all that are configured.
    pub fn read(&mut self, name: &str, section: &mut Section, names: &NameSet) -> Option<String> {
        let was = section.text("was")?;
        if was == name {
            section.error("was", format!("{name} cannot take over from itself"));
        } else if names.contains(&was) {
            let what = format!("{was} is still among the hosts: take it out, or this line");
            section.error("was", what);
        } else if let Some(other) = self.hosts.insert(was.clone(), name.to_owned()) {
            section.error("was", format!("{other} takes over from {was} already: only one can"));
        }
        Some(was)
    }
}
