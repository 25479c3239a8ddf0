//! Backup alerts: what really happened to a backup that somebody complains about.

pub mod alert;
pub mod correlator;
pub mod examine;
pub mod facts;
pub mod intake;
mod kept;
pub mod pipeline;
pub mod plan;
pub mod poll;
pub mod pull;
pub mod question;
pub mod redis;
pub mod repo_check;
pub mod report;
pub mod restic;
pub mod schedule;
pub mod settings;
pub mod verdict;
