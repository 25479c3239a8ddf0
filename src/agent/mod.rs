//! The agent of one host: sends beats and metrics to hbd, and runs jobs that it reports.

mod ack;
pub mod beat;
pub mod cli;
pub mod collect;
mod endpoint;
pub mod exec;
pub mod help;
pub mod host_info;
pub mod plugins;
mod poll;
mod resolver;
pub mod run;
pub mod sampler;
pub mod send;
mod server;
pub mod settings;
mod shutdown_reason;
mod signals;
