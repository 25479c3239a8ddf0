//! Dynamic DNS: a host's name follows the address that its signed heartbeats come from.

pub mod attempt;
pub mod keeper;
pub mod kept;
pub mod method;
pub mod names;
pub mod provider;
pub mod row;
pub mod settings;
pub mod show;
pub mod wire;
