//! Heartbeats: datagrams come in, hosts are watched, events go out.

pub mod settings;
pub mod threshold;
pub mod threshold_config;
