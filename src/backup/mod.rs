//! Backup alerts: for an alert about a backup, reads from Redis and restic what happened, and reports it.
//!
//! ```text
//! alert -> queue -> pipeline ---+                   +-> analysis: Redis (correlator, plan_reader,
//!                               +-> plan_reporter --+     redis_layout, plan), restic (repo_check)
//! look_schedule -> plan_watch --+                   +-> plan_records: is it told (plan_tracker), and
//!                                                         in which words (report, notice)
//! ```
//!
//! A *pass* is one run of all modules of a plan, which an *elapse* of its schedule begins. A *look* is one
//! analysis of a plan, whose result is compared with what was *told* of it. A *trouble* is an outcome
//! other than a success that was told, until its end is told.

pub mod alert;
mod alert_json;
pub mod alert_poller;
pub mod alert_start;
pub mod analysis;
pub mod annotations;
pub mod correlator;
pub mod gateway;
pub mod lenient_json;
pub mod look_schedule;
pub mod notice;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod plan_changes;
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
pub mod repository;
pub mod restic_output;
pub mod restic_permits;
pub mod schedule;
pub mod settings;
pub mod snapshot_list;
pub mod unlisted;
