//! Queries of the history: events by page, and the metrics of a host over time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::HistorySource;
use super::retention::RetentionSettings;
use super::samples::{MetricNames, MetricPoint, SampleRow};
use super::slots::Resolution;
use crate::btree::InsertAll;
use crate::clock::Wall;
use crate::event::{EventId, Level};
use crate::store::{RawRow, Snapshot, Table};
use crate::view::query::EventQuery;
use crate::view::{EventView, PointView, RemindedView, SeriesView};

/// How many events are read at a time: the courier, which reads them, must get on with its work.
const ROWS_PER_READ: usize = 200;
/// How many events are searched for one page: people wait for it, and may ask for the next one.
const MAX_SEARCHED: usize = 10_000;

/// The events that a query matches, the newest first, and where the next page begins.
///
/// # Errors
/// A sentence, when the disk cannot be read.
pub fn events(
    source: &dyn HistorySource,
    query: &EventQuery,
) -> Result<(Vec<EventView>, Option<EventId>), String> {
    let mut found = EventList::default();
    let (mut before, mut searched) = (query.before, 0);
    // Ids are derived from the time and never smaller: all events that are too old have lower ones.
    let oldest = query.since.map(|since| EventId::default().next(since));
    loop {
        let key = before.map(|id| id.to_string());
        let rows = source.newest(Table::Events, key.as_deref(), ROWS_PER_READ)?;
        let more_rows = rows.len() == ROWS_PER_READ;
        for (id, event) in rows.iter().filter_map(parse_event) {
            if oldest.is_some_and(|oldest| id < oldest) {
                return Ok((found.events(), None));
            }
            if found.count >= query.limit {
                return Ok((found.events(), before));
            }
            before = Some(id);
            if query.matches(&event) {
                found.push(event, query.fold_reminders);
            }
        }
        // A corrupt row is left out, but the next page begins after it.
        before = rows.last().and_then(|(key, _)| event_id(key)).or(before);
        searched += rows.len();
        if !more_rows {
            return Ok((found.events(), None));
        }
        if query.fold_reminders && searched >= MAX_SEARCHED {
            return Ok((found.events(), before));
        }
    }
}

/// The events of a page, the newest first.
#[derive(Default)]
struct EventList {
    /// None in place of a reminder that was added to what it repeats.
    all: Vec<Option<EventView>>,
    count: usize,
    /// Where the reminders stand whose alarm was not met yet.
    reminders: Vec<usize>,
}

impl EventList {
    /// Adds the next older event. A reminder stands for those before it, and what they repeat stands for
    /// all of them.
    fn push(&mut self, mut event: EventView, fold_reminders: bool) {
        if fold_reminders && event.level > Level::Ok {
            let is_of = |at: &usize| {
                let newer = self.all[*at].as_ref();
                newer.is_some_and(|newer| newer.trouble_name() == event.trouble_name())
            };
            let place = self.reminders.iter().position(is_of);
            match (event.is_reminder(), place) {
                (true, Some(place)) => {
                    let newer = self.all[self.reminders[place]].as_mut();
                    if let Some(reminded) = newer.and_then(|newer| newer.reminded.as_mut()) {
                        reminded.count += 1;
                    }
                    return;
                }
                (true, None) => {
                    event.reminded = Some(RemindedView { count: 1, last: event.at });
                    self.reminders.push(self.all.len());
                }
                (false, Some(place)) => {
                    let newer = self.all[self.reminders.swap_remove(place)].take();
                    event.reminded = newer.and_then(|newer| newer.reminded);
                    self.count -= 1;
                }
                (false, None) => {}
            }
        }
        self.all.push(Some(event));
        self.count += 1;
    }

    fn events(self) -> Vec<EventView> {
        self.all.into_iter().flatten().collect()
    }
}

fn event_id(key: &str) -> Option<EventId> {
    u64::from_str_radix(key, 16).ok().map(EventId)
}

fn parse_event((key, value): &RawRow) -> Option<(EventId, EventView)> {
    Some((event_id(key)?, serde_json::from_slice(value).ok()?))
}

/// How many series are returned, the first by name.
const MAX_SERIES: usize = 100;

/// Reads the metrics of one host.
pub struct SeriesReader<'a> {
    /// The store.
    pub snapshot: &'a Snapshot,
    /// The host.
    pub host: &'a str,
    /// The end of the range.
    pub now: Wall,
}

impl SeriesReader<'_> {
    /// The series of the metrics that match (all when there is no pattern) for the last `range`, at
    /// the finest resolution that is kept for so long.
    pub fn series(
        &self,
        metrics: &[String],
        range: Duration,
        settings: &RetentionSettings,
    ) -> Vec<SeriesView> {
        let range = range.min(settings.metrics);
        let resolution = Resolution::reaching(range);
        let lists = self.lists();
        let mut series: BTreeMap<Arc<str>, Vec<PointView>> = BTreeMap::new();
        for (slot, row) in self.rows(resolution, resolution.slot(self.now - range)) {
            let Some(names) = lists.get(&row.epoch) else { continue };
            for (index, point) in row.points {
                let Some(path) = names.paths.get(usize::from(index)) else { continue };
                if metrics.is_empty() || metrics.iter().any(|pattern| matches(pattern, path)) {
                    series.entry(path.clone()).or_default().push(view(resolution, slot, point));
                }
            }
        }
        let step = Duration::from_secs(resolution.step().into());
        let shown = series.into_iter().take(MAX_SERIES);
        shown.map(|(path, points)| SeriesView { path: path.to_string(), step, points }).collect()
    }

    /// The lists of metric names, by epoch.
    fn lists(&self) -> BTreeMap<u16, MetricNames> {
        let (from, to) = MetricNames::keys(self.host);
        let rows = self.snapshot.range(Table::Names, &from, &to, usize::from(u16::MAX));
        let names = rows.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok());
        names.map(|names: MetricNames| (names.epoch, names)).insert_all()
    }

    /// The rows from a slot on, in order. The last slots may not have been rolled up yet.
    fn rows(&self, resolution: Resolution, first: u32) -> Vec<(u32, SampleRow)> {
        let last = resolution.slot(self.now);
        let keys: Vec<String> =
            (first..=last).map(|slot| resolution.key(slot, self.host)).collect();
        let rows = self.snapshot.get_all(Table::Metrics, keys.iter().map(String::as_str));
        let rows = (first..=last).zip(rows).filter_map(|(slot, bytes)| {
            let stored = bytes.and_then(|bytes| SampleRow::decode(&bytes));
            Some((slot, stored.or_else(|| self.roll_up(resolution, slot, last))?))
        });
        rows.collect()
    }

    fn roll_up(&self, resolution: Resolution, slot: u32, last: u32) -> Option<SampleRow> {
        let finer = resolution.finer().filter(|_| slot + 1 >= last)?;
        let parts = resolution.parts(slot);
        let rows = self.rows(finer, parts.start).into_iter();
        let own = rows.filter(|(part, _)| parts.contains(part)).map(|(_, row)| row);
        own.reduce(SampleRow::merge)
    }
}

fn view(resolution: Resolution, slot: u32, point: MetricPoint) -> PointView {
    let MetricPoint { mean, least, most } = point;
    PointView { at: resolution.start(slot), mean, least, most }
}

/// Whether a pattern matches a path: `*` matches one part, and by itself everything.
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

    fn event(text: &str, at: i64, reminder: bool) -> EventView {
        EventView {
            id: String::new(),
            at: Wall(at),
            level: if text.starts_with("OK") { Level::Ok } else { Level::Critical },
            host: None,
            subject: String::new(),
            kind: "threshold".into(),
            text: text.into(),
            details: Vec::new(),
            told: Vec::new(),
            held_by: Vec::new(),
            trouble: None,
            reminder,
            reminded: None,
        }
    }

    /// What is shown of events, the newest first: what it says, how often that was repeated, when last.
    fn folded(events: &[(&str, bool)]) -> Vec<String> {
        let mut list = EventList::default();
        for (at, (text, reminder)) in (0..).zip(events) {
            list.push(event(text, -at, *reminder), true);
        }
        let count = list.count;
        let shown = list.events();
        assert_eq!(shown.len(), count);
        let words = |event: EventView| match event.reminded {
            Some(RemindedView { count, last }) => format!("{}, {count} x, {}", event.text, -last.0),
            None => event.text,
        };
        shown.into_iter().map(words).collect()
    }

    #[test]
    fn sixty_seven_reminders_pushed_everything_else_off_the_page() {
        let (alarm, other) = ("CRITICAL: web1 - m = 95.5 (> 90.0)", "CRITICAL: web2 - m = 91.0");
        let over = "OK: web1 - m = 10.0";
        let mut events = vec![("CRITICAL: web1 - m = 97.0 (> 90.0)", true); 67];
        events.insert(30, (other, true));
        events.extend([(other, false), (alarm, false), (over, false), (alarm, true)]);
        assert_eq!(
            folded(&events),
            [
                format!("{other}, 1 x, 30"),
                format!("{alarm}, 67 x, 0"),
                over.into(),
                format!("{alarm}, 1 x, 71")
            ]
        );
        assert_eq!(folded(&[(other, true), (alarm, true)]).len(), 2, "of different troubles");
    }

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
