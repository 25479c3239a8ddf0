//! The metrics of a datagram: a nested object of numbers, read as dotted paths. Pure.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::{BorrowedText, METRICS, Rejection, require};

/// The most metrics that one datagram may carry, and that are kept of one host.
pub const MAX_METRICS: usize = 512;
/// How deep metrics may be nested.
const MAX_DEPTH: usize = 16;
/// The longest metric path, in bytes.
const MAX_PATH: usize = 200;

/// Numbers by dotted path; all paths lie in one text, so that reading them allocates little.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatagramMetrics {
    /// How many were left out because they are no numbers, and the path of the first of them.
    left_out: usize,
    first_left_out: Option<String>,
    paths: String,
    /// Where each path ends, and its value.
    leaves: Vec<(usize, f64)>,
}

impl DatagramMetrics {
    /// Metrics that are not parsed from JSON, under the same limits.
    ///
    /// # Errors
    /// [`Rejection::BadField`] when a path or a value breaks them, or a path appears twice.
    pub fn from_pairs<'p>(
        pairs: impl IntoIterator<Item = (&'p str, f64)>,
    ) -> Result<DatagramMetrics, Rejection> {
        let mut metrics = DatagramMetrics::default();
        for (path, value) in pairs {
            let fits = is_key(path) && path.len() <= MAX_PATH;
            require(fits && path.split('.').count() <= MAX_DEPTH && value.is_finite(), METRICS)?;
            metrics.push(path, value);
        }
        require(!metrics.has_duplicates(), METRICS)?;
        Ok(metrics)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// How many were left out because they are no numbers, and the path of the first of them.
    pub fn left_out(&self) -> (usize, Option<&str>) {
        (self.left_out, self.first_left_out.as_deref())
    }

    fn leave_out(&mut self, path: &str) {
        self.left_out += 1;
        self.first_left_out.get_or_insert_with(|| path.to_owned());
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

    fn push(&mut self, path: &str, value: f64) {
        self.paths.push_str(path);
        self.leaves.push((self.paths.len(), value));
    }

    fn has_duplicates(&self) -> bool {
        let mut paths: Vec<&str> = self.iter().map(|(path, _)| path).collect();
        paths.sort_unstable();
        paths.windows(2).any(|pair| pair[0] == pair[1])
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
        if metrics.has_duplicates() {
            return Err(D::Error::custom("a metric appears twice"));
        }
        Ok(metrics)
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
            return Err(A::Error::custom("metrics are nested too deep"));
        }
        let parent = self.path.len();
        while let Some(BorrowedText(key)) = map.next_key()? {
            if parent > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if !is_key(&key) || self.path.len() > MAX_PATH {
                return Err(A::Error::custom("a metric path cannot be used"));
            }
            let (metrics, path) = (&mut *self.metrics, &mut *self.path);
            map.next_value_seed(Flatten { metrics, path, depth: self.depth + 1 })?;
            self.path.truncate(parent);
        }
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if !value.is_finite() {
            return Err(E::custom("a metric is not finite"));
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
    /// A value that is no number costs only itself: its host beats all the same.
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
