//! The history as people and programs ask for it.

use std::time::Duration;

use super::bars::Kind;
use super::chronicle::Chronicle;
use super::read::Reader;
use super::{Row, Sources};
use crate::clock::{Now, Wall};
use crate::event::EventId;
use crate::store::Table;
use crate::view::query::EventQuery;
use crate::view::{EventView, PastView, SeriesView};

/// So many rows are looked at before the courier goes on with its work.
const PIECE: usize = 200;

impl Chronicle {
    /// How these hosts fared, in their order; none where nothing is recorded.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn pasts(&self, hosts: &[&str], now: Now) -> Result<Vec<Option<PastView>>, String> {
        let bars = self.bars(hosts, now.wall)?.into_iter().zip(hosts);
        let past = bars.map(|(bars, host)| {
            let running = self.sources.running(host, now);
            if bars.is_none() && running.is_none() {
                return None;
            }
            let mut bars = bars.unwrap_or_default();
            if let Some(account) = running {
                bars.add(now.wall, Kind::Up, account.up);
                bars.add(now.wall, Kind::Degraded, account.degraded);
                bars.add(now.wall, Kind::Down, account.down);
            }
            Some(bars.view(now.wall))
        });
        Ok(past.collect())
    }

    /// The metrics of a host over time. `metrics` are patterns, all when there is none.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn series(
        &self,
        host: &str,
        metrics: &[String],
        range: Duration,
        now: Wall,
    ) -> Result<Vec<SeriesView>, String> {
        let snapshot = self.sources.snapshot()?;
        let reader = Reader { snapshot: &snapshot, host, now };
        Ok(reader.series(metrics, range, &self.settings()))
    }

    /// What happened, the newest first, and where to go on.
    ///
    /// # Errors
    /// A sentence, when the disk cannot be read.
    pub fn events(&self, query: &EventQuery) -> Result<(Vec<EventView>, Option<EventId>), String> {
        events(&*self.sources, query)
    }
}

fn events(
    sources: &dyn Sources,
    query: &EventQuery,
) -> Result<(Vec<EventView>, Option<EventId>), String> {
    let mut found = Vec::new();
    let mut before = query.before;
    // Numbers are made of the time, and never smaller: all that is too old lies below.
    let oldest = query.since.map(|since| EventId::default().next(since));
    loop {
        let key = before.map(|id| id.to_string());
        let rows = sources.newest(Table::Events, key.as_deref(), PIECE)?;
        let whole = rows.len() == PIECE;
        for (id, event) in rows.iter().filter_map(event) {
            if oldest.is_some_and(|oldest| id < oldest) {
                return Ok((found, None));
            }
            if found.len() >= query.limit {
                return Ok((found, before));
            }
            before = Some(id);
            if query.matches(&event) {
                found.push(event);
            }
        }
        // A row that is damaged is left out, but gone on from.
        before = rows.last().and_then(|(key, _)| number(key)).or(before);
        if !whole {
            return Ok((found, None));
        }
    }
}

fn number(key: &str) -> Option<EventId> {
    u64::from_str_radix(key, 16).ok().map(EventId)
}

fn event((key, value): &Row) -> Option<(EventId, EventView)> {
    Some((number(key)?, serde_json::from_slice(value).ok()?))
}
