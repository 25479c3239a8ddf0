//! The metrics of a host over time, from the rows of whichever tier reaches back far enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::names::Names;
use super::points::{Point, Row};
use super::settings::Settings;
use super::slots::Tier;
use crate::clock::Wall;
use crate::store::{Snapshot, Table};
use crate::view::{PointView, SeriesView};

/// So many series are shown at once, the first by name.
const MOST_SERIES: usize = 100;

/// Reads the rows of one host.
pub struct Reader<'a> {
    /// The store.
    pub snapshot: &'a Snapshot,
    /// The host.
    pub host: &'a str,
    /// The time.
    pub now: Wall,
}

impl Reader<'_> {
    /// The series of these metrics (patterns; all when there is none) as far back as `range`.
    pub fn series(
        &self,
        metrics: &[String],
        range: Duration,
        settings: &Settings,
    ) -> Vec<SeriesView> {
        let range = range.min(settings.metrics);
        let tier = Tier::reaching(range);
        let lists = self.lists();
        let mut series: BTreeMap<Arc<str>, Vec<PointView>> = BTreeMap::new();
        for (slot, row) in self.rows(tier, tier.slot(self.now - range)) {
            let Some(names) = lists.get(&row.epoch) else { continue };
            for (place, point) in row.points {
                let Some(path) = names.paths.get(usize::from(place)) else { continue };
                if metrics.is_empty() || metrics.iter().any(|pattern| matches(pattern, path)) {
                    series.entry(path.clone()).or_default().push(view(tier, slot, point));
                }
            }
        }
        let step = Duration::from_secs(tier.step().into());
        let shown = series.into_iter().take(MOST_SERIES);
        shown.map(|(path, points)| SeriesView { path: path.to_string(), step, points }).collect()
    }

    /// Its lists of names, by epoch.
    fn lists(&self) -> BTreeMap<u16, Names> {
        let (from, to) = Names::keys(self.host);
        let rows = self.snapshot.range(Table::Names, &from, &to, usize::from(u16::MAX));
        let names = rows.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok());
        names.map(|names: Names| (names.epoch, names)).collect()
    }

    /// The rows from a slot on, in order. The last slots may not have been made of finer ones yet.
    fn rows(&self, tier: Tier, first: u32) -> Vec<(u32, Row)> {
        let last = tier.slot(self.now);
        let keys: Vec<String> = (first..=last).map(|slot| tier.key(slot, self.host)).collect();
        let rows = self.snapshot.get_all(Table::Metrics, keys.iter().map(String::as_str));
        let rows = (first..=last).zip(rows).filter_map(|(slot, bytes)| {
            let stored = bytes.and_then(|bytes| Row::decode(&bytes));
            Some((slot, stored.or_else(|| self.made(tier, slot, last))?))
        });
        rows.collect()
    }

    fn made(&self, tier: Tier, slot: u32, last: u32) -> Option<Row> {
        let finer = tier.finer().filter(|_| slot + 1 >= last)?;
        let parts = tier.parts(slot);
        let rows = self.rows(finer, parts.start).into_iter();
        let own = rows.filter(|(part, _)| parts.contains(part)).map(|(_, row)| row);
        own.reduce(Row::with)
    }
}

fn view(tier: Tier, slot: u32, point: Point) -> PointView {
    let Point { mean, least, most } = point;
    PointView { at: tier.start(slot), mean, least, most }
}

/// Whether a path is meant by a pattern: `*` stands for one part, and by itself for everything.
fn matches(pattern: &str, path: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let mut parts = path.split('.');
    pattern
        .split('.')
        .all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_part() {
        for (pattern, path, meant) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("*", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b", false),
            ("a", "a.b", false),
        ] {
            assert_eq!(matches(pattern, path), meant, "{pattern} {path}");
        }
    }
}
