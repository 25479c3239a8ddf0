//! Backup alerts: for an alert about a backup, reads from Redis and restic what happened, and reports it.

pub mod alert;
pub mod alert_poller;
pub mod alert_start;
pub mod analysis;
pub mod annotations;
pub mod correlator;
pub mod lenient_json;
pub mod look_schedule;
pub mod notice;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod plan_query;
mod plan_reader;
pub mod plan_records;
pub mod plan_reporter;
pub mod plan_summary;
pub mod plan_tracker;
pub mod plan_watch;
pub mod queue;
pub mod redis;
pub mod redis_layout;
pub mod repo_check;
pub mod report;
pub mod restic_output;
pub mod schedule;
pub mod settings;
