//! Dynamic DNS: a host's name follows the address that its signed heartbeats come from.

pub mod attempt;
pub mod dns_update;
pub mod method;
pub mod names;
pub mod provider;
pub mod record;
pub mod settings;
pub mod show;
pub mod updater;
