//! Heartbeats: datagrams come in, hosts are watched, events go out.

mod auth;
mod connection;
pub mod datagram;
pub mod encode;
pub mod fleet;
mod host;
pub mod listener;
mod metric;
pub mod monitor;
pub mod persistence;
#[cfg(test)]
mod property_tests;
pub mod settings;
#[cfg(test)]
mod test_fleet;
pub mod threshold;
mod uptime;
