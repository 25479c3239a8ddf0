//! Backup alerts: what really happened to a backup that somebody complains about.

pub mod alert;
pub mod settings;
