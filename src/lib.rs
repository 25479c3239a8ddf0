//! Heartbeat watches small servers and wakes people.
//!
//! The map of the house:
//!
//! - [`clock`], [`event`], [`problem`], [`secret`], [`snapshot`]: the vocabulary that every room shares.
//! - [`heartbeat`]: datagrams, hosts, connections, thresholds.
//! - [`notify`]: from an event to a delivered message.
//! - [`web`]: the HTTP side: the gate, the routes, the metrics.
//! - [`stop`]: waiting that can be interrupted.

pub mod clock;
pub mod event;
pub mod heartbeat;
pub mod notify;
pub mod problem;
pub mod secret;
pub mod snapshot;
pub mod stop;
pub mod web;
