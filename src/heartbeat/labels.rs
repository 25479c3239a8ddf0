//! The keys `note`, `link` and `groups` of a host: what people are shown beside it.

use crate::address::BaseUrl;
use crate::config_file::Section;
use crate::view::HostLabels;

/// The longest note, in characters.
const MAX_NOTE: usize = 500;
/// The longest name of a group, in characters.
const MAX_GROUP: usize = 40;
/// How many groups a host may be in.
const MAX_GROUPS: usize = 20;

/// Reads them.
pub fn read(section: &mut Section) -> HostLabels {
    let note = section.text("note");
    if note.as_ref().is_some_and(|note| note.chars().count() > MAX_NOTE) {
        section.error("note", format!("is longer than {MAX_NOTE} characters"));
    }
    let link = section.text("link");
    if let Some(what) = link.as_deref().and_then(link_error) {
        section.error("link", what);
    }
    HostLabels { note, link, groups: read_groups(section) }
}

fn read_groups(section: &mut Section) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for group in section.texts("groups").unwrap_or_default() {
        if group.chars().count() > MAX_GROUP {
            let what = format!("the name of a group has at most {MAX_GROUP} characters");
            section.error("groups", what);
        } else if groups.contains(&group) {
            section.warning("groups", format!("names \"{group}\" twice"));
        } else {
            groups.push(group);
        }
    }
    if groups.len() > MAX_GROUPS {
        section.error("groups", format!("a host may be in {MAX_GROUPS} groups at most"));
    }
    groups
}

/// What is wrong with a link: only what a browser opens as a page is one.
fn link_error(link: &str) -> Option<String> {
    if !link.contains("://") {
        return Some("must begin with https:// or http://".into());
    }
    let (address, rest) = link.split_at(link.find(['?', '#']).unwrap_or(link.len()));
    let bad = rest.contains(char::is_whitespace).then(|| "must not hold spaces".into());
    BaseUrl::parse(address).err().or(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_a_page_and_runs_nothing() {
        for link in [
            "https://wiki.example/web1",
            "http://192.0.2.1:8080/",
            "https://[2001:db8::1]/a?b=c&d#e",
        ] {
            assert_eq!(link_error(link), None, "{link}");
        }
        for link in [
            "wiki.example/web1",
            "javascript:alert(1)",
            "javascript://wiki.example/%0aalert(1)",
            "data://x,<script>",
            "https://ann:secret@wiki.example/",
            "https:///web1",
            "https://wiki.example/?a b",
            "file:///etc/passwd",
        ] {
            assert!(link_error(link).is_some(), "{link}");
        }
    }
}
