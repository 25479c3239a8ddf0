//! Heartbeat watches small servers and wakes people.
//!
//! The map of the house:
//!
//! - [`clock`], [`escape`], [`event`], [`problem`], [`secret`], [`token_bucket`], [`version`], [`view`]: the vocabulary that every room shares.
//! - [`config`]: the configuration; [`config_file`], [`duration`] and [`address`] read it.
//! - [`agent`]: what a host says about itself.
//! - [`dyndns`]: names in the DNS that follow their hosts.
//! - [`heartbeat`]: datagrams, hosts, connections, thresholds.
//! - [`history`]: what was: how hosts fared, their metrics over time, what happened.
//! - [`process`]: one run of another program; [`memory`]: what this one asks of the allocator and the kernel.
//! - [`notify`]: from an event to a delivered message.
//! - [`backup`]: what really happened to a backup.
//! - [`http`]: the webhook server: the front on the network, the routes, the metrics.
//! - [`store`], [`thread`], [`deadline`], [`tls`]: the state on disk, interruptible waiting, sockets with a deadline, whom TLS trusts.
//! - [`daemon`]: opens everything, starts the threads, stops them in order; [`logger`] and [`systemd`]
//!   are what it speaks through.
//! - [`cli`]: the commands, one file each.

pub mod address;
pub mod agent;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod config_file;
pub mod daemon;
pub mod deadline;
pub mod duration;
pub mod dyndns;
pub mod escape;
pub mod event;
pub mod heartbeat;
pub mod history;
pub mod http;
pub mod logger;
pub mod memory;
pub mod notify;
pub mod problem;
pub mod process;
pub mod secret;
pub mod store;
pub mod systemd;
pub mod thread;
pub mod tls;
pub mod token_bucket;
pub mod version;
pub mod view;

pub use config::Config;
pub use notify::notifier::Notifier;
