//! The history as people and programs ask for it.

use std::time::Duration;

use super::bars::Kind;
use super::chronicle::Chronicle;
use super::read::Reader;
use super::{Row, Sources};
use crate::clock::{Now, Wall};
use crate::event::{EventId, Level};
use crate::store::Table;
use crate::view::{EventView, PastView, SeriesView};

/// So many rows are looked at before the courier goes on with its work.
const PIECE: usize = 200;

/// Which events are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// How many at most.
    pub limit: usize,
    /// Only what is older than this one.
    pub before: Option<EventId>,
    /// Only about this host.
    pub host: Option<String>,
    /// Only of these levels; all when there is none.
    pub levels: Vec<Level>,
    /// Only of these kinds; all when there is none.
    pub kinds: Vec<String>,
    /// Nothing older.
    pub since: Option<Wall>,
    /// Only what is older than this moment.
    pub until: Option<Wall>,
}

impl Question {
    fn wants(&self, event: &EventView) -> bool {
        self.host.as_ref().is_none_or(|host| event.host.as_ref() == Some(host))
            && (self.levels.is_empty() || self.levels.contains(&event.level))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
    }
}

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
    pub fn events(&self, question: &Question) -> Result<(Vec<EventView>, Option<EventId>), String> {
        events(&*self.sources, question)
    }
}

fn events(
    sources: &dyn Sources,
    question: &Question,
) -> Result<(Vec<EventView>, Option<EventId>), String> {
    let mut found = Vec::new();
    let mut before = question.before;
    // Numbers are made of the time, and never smaller: all that is too old lies below.
    let oldest = question.since.map(|since| EventId::default().next(since));
    loop {
        let key = before.map(|id| id.to_string());
        let rows = sources.newest(Table::Events, key.as_deref(), PIECE)?;
        let whole = rows.len() == PIECE;
        for (id, event) in rows.iter().filter_map(event) {
            if oldest.is_some_and(|oldest| id < oldest) {
                return Ok((found, None));
            }
            if found.len() >= question.limit {
                return Ok((found, before));
            }
            before = Some(id);
            if question.wants(&event) {
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
