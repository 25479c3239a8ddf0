//! Heartbeats: datagrams come in, hosts are watched, events go out.

mod absence;
pub mod accounts;
mod blindness;
mod connection;
pub mod datagram;
mod deadlines;
mod diary;
pub mod fleet;
mod gauge;
mod hearing;
mod host;
mod keys;
pub mod listener;
mod metrics;
pub mod moves;
#[cfg(test)]
mod play;
mod presence;
mod profile;
mod recall;
pub mod rejection;
mod restore;
pub mod row;
pub mod settings;
#[cfg(test)]
mod survival;
pub mod threshold;
pub mod threshold_config;
mod trust;
mod view;
pub mod watch;
pub mod wire;
