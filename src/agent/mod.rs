//! The agent: a host speaks for itself.

mod ack;
pub mod beat;
pub mod check;
pub mod collect;
mod ear;
pub mod exec;
pub mod gather;
mod keepsake;
pub mod local;
pub mod machine;
mod name;
mod names;
pub mod options;
pub mod own;
mod path;
pub mod run;
pub mod send;
mod server;
pub mod settings;
pub mod show;
mod signals;
mod slim;
mod socket;
