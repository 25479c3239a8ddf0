//! Backup alerts: for an alert about a backup, reads from Redis and restic what happened, and reports it.

pub mod alert;
pub mod alert_poller;
pub mod alert_start;
pub mod analysis;
pub mod annotations;
pub mod correlator;
pub mod lenient_json;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod plan_query;
pub mod queue;
pub mod redis;
pub mod redis_layout;
pub mod repo_check;
pub mod report;
pub mod restic_output;
pub mod schedule;
pub mod settings;
pub mod unlisted;
