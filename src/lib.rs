//! Heartbeat watches small servers and wakes people.
//!
//! The map of the house:
//!
//! - [`clock`], [`effect`], [`event`], [`problem`], [`secret`], [`snapshot`], [`version`]: the vocabulary that every room shares.
//! - [`config`]: the configuration; [`section`], [`yaml`], [`duration`] and [`address`] read it.
//! - [`agent`]: what a host says about itself.
//! - [`dyndns`]: names in the DNS that follow their hosts.
//! - [`heartbeat`]: datagrams, hosts, connections, thresholds.
//! - [`history`]: what was: how hosts fared, their metrics over time, what happened.
//! - [`process`]: one run of another program.
//! - [`notify`]: from an event to a delivered message.
//! - [`backup`]: what really happened to a backup.
//! - [`web`]: the HTTP side: the gate, the routes, the metrics.
//! - [`store`], [`stop`], [`tls`]: the state on disk, interruptible waiting, whom TLS trusts.
//! - [`daemon`]: opens everything, starts the threads, stops them in order; [`logger`] and [`systemd`]
//!   are what it speaks through.
//! - [`cli`]: the commands, one file each.

pub mod address;
pub mod agent;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod duration;
pub mod dyndns;
pub mod effect;
pub mod event;
pub mod heartbeat;
pub mod history;
pub mod logger;
pub mod notify;
pub mod problem;
pub mod process;
pub mod secret;
pub mod section;
pub mod snapshot;
pub mod stop;
pub mod store;
pub mod systemd;
pub mod tls;
pub mod version;
pub mod web;
pub mod yaml;

pub use config::Config;
pub use notify::direct::Notifier;
