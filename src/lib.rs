//! Heartbeat watches small servers and wakes people.
//!
//! The map of the house:
//!
//! - [`clock`], [`event`], [`problem`], [`secret`], [`snapshot`]: the vocabulary that every room shares.
//! - [`heartbeat`]: datagrams, hosts, connections, thresholds.
//! - [`process`]: one run of another program.
//! - [`tls`]: whom TLS connections trust.
//! - [`notify`]: from an event to a delivered message.

pub mod clock;
pub mod event;
pub mod heartbeat;
pub mod notify;
pub mod problem;
pub mod process;
pub mod secret;
pub mod snapshot;
pub mod tls;
