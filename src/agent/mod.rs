//! The agent: a host speaks for itself.

mod ack;
pub mod beat;
pub mod cli;
pub mod collect;
mod endpoint;
pub mod exec;
pub mod host_info;
pub mod plugins;
mod poll;
mod resolver;
pub mod run;
pub mod sampler;
pub mod send;
mod server;
pub mod settings;
mod signals;
