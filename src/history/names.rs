//! The names of a host's metrics: rows of points speak of them by their place in a list. Pure.
//!
//! A list only grows, so that every row that was written by it stays true. One that has grown too
//! long, since a host invents ever new names, is left as it is, and a new one is begun: the next
//! epoch.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::points::MOST_NAMES;

/// A list of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Which of the host's lists it is.
    pub epoch: u16,
    /// The day on which it was last written by.
    pub day: u32,
    /// The names, in the order in which they came.
    pub paths: Vec<Arc<str>>,
}

impl Names {
    /// The key of a host's list.
    pub fn key(host: &str, epoch: u16) -> String {
        format!("{host}/{epoch:04x}")
    }

    /// What the keys of all lists of a host lie between.
    pub fn keys(host: &str) -> (String, String) {
        // The zero follows the slash.
        (format!("{host}/"), format!("{host}0"))
    }

    /// The places of these names, new ones added. True when the list changed.
    pub fn places(&mut self, paths: &[Arc<str>], day: u32) -> (Vec<u16>, bool) {
        let known: HashMap<&str, usize> =
            self.paths.iter().enumerate().map(|(place, path)| (&**path, place)).collect();
        let new: Vec<Arc<str>> =
            paths.iter().filter(|path| !known.contains_key(&***path)).cloned().collect();
        if self.paths.len() + new.len() > MOST_NAMES {
            let paths_now = paths.iter().take(MOST_NAMES).cloned().collect();
            *self = Names { epoch: self.epoch.wrapping_add(1), day, paths: paths_now };
            #[allow(clippy::cast_possible_truncation, reason = "names are fewer than 1024")]
            return ((0..self.paths.len() as u16).collect(), true);
        }
        let mut next = self.paths.len();
        let place = |path: &Arc<str>| {
            let place = known.get(&**path).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            u16::try_from(place).unwrap_or(u16::MAX)
        };
        let places = paths.iter().map(place).collect();
        let changed = !new.is_empty() || self.day != day;
        self.day = day;
        self.paths.extend(new);
        (places, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(range: std::ops::Range<usize>) -> Vec<Arc<str>> {
        range.map(|n| format!("m{n}").into()).collect()
    }

    #[test]
    fn a_list_grows_and_what_was_in_it_keeps_its_place() {
        let mut names = Names::default();
        assert_eq!(names.places(&paths(0..3), 1), (vec![0, 1, 2], true));
        assert_eq!(names.places(&paths(1..3), 1), (vec![1, 2], false));
        assert_eq!(names.places(&paths(2..5), 1), (vec![2, 3, 4], true));
        assert_eq!(names.places(&paths(0..1), 2), (vec![0], true), "another day");
        assert_eq!((names.epoch, names.paths.len()), (0, 5));
    }

    #[test]
    fn a_host_that_invents_names_begins_a_new_list() {
        let mut names = Names::default();
        for round in 0..10 {
            names.places(&paths(round * 300..(round + 1) * 300), 1);
            assert!(names.paths.len() <= MOST_NAMES);
        }
        assert_eq!(names.epoch, 3);
        let (places, _) = names.places(&paths(0..2000), 1);
        assert_eq!(places.len(), MOST_NAMES);
    }

    #[test]
    fn keys_belong_to_one_host() {
        let (from, to) = Names::keys("web1");
        let key = Names::key("web1", 7);
        assert!(from < key && key < to);
        assert!(Names::key("web10", 0) > to || Names::key("web10", 0) < from);
    }
}
