//! How a host fared since somebody last asked: what the fleet gives to the history. Pure.

use std::sync::Arc;
use std::time::Duration;

/// How a host fared since the last account of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UptimeSample {
    /// Its name.
    pub host: Arc<str>,
    /// It was never heard or has said goodbye: while that is so, nobody misses it.
    pub apart: bool,
    /// For how long all was well.
    pub up: Duration,
    /// For how long it was up, but a connection was overdue or a metric beyond its limit.
    pub degraded: Duration,
    /// For how long it was overdue.
    pub down: Duration,
    /// The metrics that were heard.
    pub metrics: Vec<MetricSummary>,
}

/// The values of one metric since the last account.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSummary {
    /// Its dotted path.
    pub path: Arc<str>,
    /// How many values came.
    pub count: u32,
    /// Their mean.
    pub mean: f32,
    /// The least of them.
    pub least: f32,
    /// The greatest of them.
    pub most: f32,
}
