//! The agent: a host speaks for itself.

mod ack;
pub mod collect;
pub mod exec;
mod machine;
mod name;
pub mod options;
pub mod own;
pub mod send;
mod server;
pub mod show;
