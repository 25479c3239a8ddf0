//! Backup alerts: what really happened to a backup that somebody complains about.

pub mod settings;
