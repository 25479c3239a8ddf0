//! A key that is turned on or off, or says more in a section of its own.

use super::Section;
use crate::yaml::Value;

/// What stands at such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch<T> {
    /// `true` or `false`.
    Flag(bool),
    /// What was read from the section.
    Section(T),
}

impl Section<'_> {
    /// Reads one; none when it is not there.
    pub fn switch<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section) -> T,
    ) -> Option<Switch<T>> {
        let node = self.node(key)?;
        match &node.value {
            Value::Map(_) => self.section(key, read).map(Switch::Section),
            Value::Scalar { .. } => self.flag(key).map(Switch::Flag),
            Value::List(_) => self.refuse(key, "must be true, false or a map, not a list"),
        }
    }

    /// Nobody will ask for this key, since what is wrong with it is reported already.
    pub fn ignore(&mut self, key: &str) {
        for (entry, taken) in self.entries.iter().zip(&mut self.taken) {
            *taken |= entry.key == key;
        }
    }
}
