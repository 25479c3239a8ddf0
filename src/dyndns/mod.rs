//! Dynamic DNS: the records of a host follow the address that its signed heartbeats come from.

pub mod attempt;
pub mod dns_update;
pub mod dry_run;
pub mod method;
pub mod names;
pub mod provider;
pub mod record;
pub mod settings;
pub mod updater;
