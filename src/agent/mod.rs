//! The agent: a host speaks for itself.

mod ack;
pub mod collect;
mod machine;
pub mod options;
pub mod send;
mod server;
