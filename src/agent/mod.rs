//! The agent: a host speaks for itself.

mod ack;
pub mod beat;
pub mod check;
mod ear;
pub mod gather;
mod machine;
mod names;
pub mod options;
mod path;
pub mod run;
pub mod send;
mod server;
pub mod settings;
mod signals;
mod socket;
