//! Backup alerts: for an alert about a backup, reads from Redis and restic what happened, and reports it.

pub mod alert;
pub mod alert_poller;
pub mod analysis;
pub mod correlator;
pub mod gateway;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod plan_query;
pub mod queue;
pub mod redis;
pub mod redis_layout;
pub mod repo_check;
pub mod report;
pub mod repository;
pub mod restic_output;
pub mod restic_permits;
pub mod schedule;
pub mod settings;
pub mod snapshot_list;
