//! Maps from free names to names that must be known.

use std::collections::BTreeMap;

use super::{Names, Section};

impl Section<'_> {
    /// A map whose values are names, each of them among the known ones of that sort; empty when it
    /// is not there.
    pub fn names_by_key(
        &mut self,
        key: &'static str,
        sort: &str,
        known: &Names,
    ) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        self.section(key, |section| {
            section.ignore_rest();
            for entry in section.entries {
                let text = section.word_of(&entry.key, &entry.node);
                if let Some(name) = text.and_then(|text| section.clean(&entry.key, text)) {
                    section.check_name(&entry.key, entry.line, sort, known, &name);
                    names.insert(entry.key.clone(), name);
                }
            }
        });
        names
    }
}
