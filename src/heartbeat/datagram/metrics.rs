//! The metrics of a datagram: a nested object of numbers, read as dotted paths. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::BorrowedText;
use super::path_index::PathIndex;
use super::texts::{self, cleaned_text};

/// The most metrics that one datagram may carry, and that are kept of one host.
pub const MAX_METRICS: usize = 512;
/// How deep metrics may be nested.
const MAX_DEPTH: usize = 16;
/// The longest metric path, in bytes.
const MAX_PATH: usize = 200;

/// Numbers by dotted path; all paths lie in one text, so that reading them allocates little.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatagramMetrics {
    /// How many were left out because they cannot be used, and the path of the first of them.
    left_out: usize,
    first_left_out: Option<String>,
    paths: String,
    /// Where each path ends, and its value.
    leaves: Vec<(usize, f64)>,
    /// Where each path stands among them.
    index: PathIndex,
    /// Texts beside some of them, by path; of others, too, which mean nothing.
    texts: BTreeMap<String, String>,
}

impl DatagramMetrics {
    /// Metrics that are not parsed from JSON, under the same limits.
    pub fn from_pairs<'p>(pairs: impl IntoIterator<Item = (&'p str, f64)>) -> DatagramMetrics {
        let mut metrics = DatagramMetrics::default();
        for (path, value) in pairs {
            if is_key(path) && path.split('.').count() <= MAX_DEPTH {
                metrics.push(path, value);
            } else {
                metrics.leave_out(path);
            }
        }
        metrics.without_repeated()
    }

    /// The same with the texts beside them that this JSON holds.
    pub(super) fn with_texts(mut self, json: Option<&str>) -> DatagramMetrics {
        if let Some(json) = json {
            self.texts = texts::parse(json);
        }
        self
    }

    /// The same with these texts beside them, by path; cleaned and cut as if they were received.
    pub fn beside_texts(mut self, by_path: &[(String, String)]) -> DatagramMetrics {
        let usable = |(path, text): &(String, String)| Some((path.clone(), cleaned_text(text)?));
        self.texts = by_path.iter().filter_map(usable).collect();
        self
    }

    /// The text beside the metric of that path.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// How many were left out because they cannot be used, and the path of the first of them.
    pub fn left_out(&self) -> (usize, Option<&str>) {
        (self.left_out, self.first_left_out.as_deref())
    }

    fn leave_out(&mut self, path: &str) {
        self.left_out += 1;
        self.first_left_out.get_or_insert_with(|| path.chars().take(MAX_PATH).collect());
    }

    /// Path and value, in the order of the datagram.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        let mut begin = 0;
        self.leaves.iter().map(move |&(end, value)| {
            let path = &self.paths[begin..end];
            begin = end;
            (path, value)
        })
    }

    /// Where a path stands in that order, whatever the order is.
    pub fn position(&self, path: &str) -> Option<usize> {
        self.index.find(path, self.len(), |place| self.path(place))
    }

    fn path(&self, place: usize) -> &str {
        let begin = place.checked_sub(1).map_or(0, |before| self.leaves[before].0);
        &self.paths[begin..self.leaves[place].0]
    }

    fn push(&mut self, path: &str, value: f64) {
        if path.len() > MAX_PATH || !value.is_finite() || self.len() == MAX_METRICS {
            return self.leave_out(path);
        }
        self.paths.push_str(path);
        self.leaves.push((self.paths.len(), value));
    }

    /// Of metrics with one path the last one counts.
    fn without_repeated(mut self) -> DatagramMetrics {
        if let Some(index) = PathIndex::new(self.len(), |place| self.path(place)) {
            self.index = index;
            return self;
        }
        let (left_out, first_left_out) = (self.left_out, self.first_left_out.clone());
        let mut kept = DatagramMetrics { left_out, first_left_out, ..DatagramMetrics::default() };
        let mut known = HashMap::new();
        for (path, value) in self.iter() {
            let index = *known.entry(path).or_insert(kept.len());
            if index < kept.len() {
                kept.leaves[index].1 = value;
                kept.leave_out(path);
            } else {
                kept.push(path, value);
            }
        }
        kept.without_repeated()
    }
}

impl<'de> Deserialize<'de> for DatagramMetrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DatagramMetrics, D::Error> {
        let mut metrics = DatagramMetrics::default();
        let mut path = String::new();
        deserializer.deserialize_map(Flatten {
            metrics: &mut metrics,
            path: &mut path,
            depth: 0,
        })?;
        Ok(metrics.without_repeated())
    }
}

/// Walks the nested object and collects its leaves under their paths.
struct Flatten<'m> {
    metrics: &'m mut DatagramMetrics,
    path: &'m mut String,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number or an object of numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth == MAX_DEPTH {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return self.leave_out();
        }
        let parent = self.path.len();
        while let Some(BorrowedText(key)) = map.next_key()? {
            if parent > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            let (metrics, path) = (&mut *self.metrics, &mut *self.path);
            if is_key(&key) {
                map.next_value_seed(Flatten { metrics, path, depth: self.depth + 1 })?;
            } else {
                metrics.leave_out(path);
                map.next_value::<IgnoredAny>()?;
            }
            self.path.truncate(parent);
        }
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if self.depth == 0 {
            return self.leave_out();
        }
        self.metrics.push(self.path, value);
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.leave_out()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.leave_out()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.leave_out()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        self.leave_out()
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }
}

impl Flatten<'_> {
    /// A value that cannot be used costs only itself: its host beats all the same.
    fn leave_out<E: serde::de::Error>(self) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("metrics are no object"));
        }
        self.metrics.leave_out(self.path);
        Ok(())
    }
}

/// A key may itself be a dotted path, as long as none of its segments is empty.
fn is_key(key: &str) -> bool {
    !key.split('.').any(str::is_empty) && !key.contains(char::is_control)
}
