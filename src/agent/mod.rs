//! The agent: a host speaks for itself.

mod ack;
mod machine;
pub mod options;
pub mod send;
mod server;
