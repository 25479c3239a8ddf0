//! Several hbd as one service: one of them leads, and all of them hear. A Redis holds the state, the
//! lease that says who leads, and the token that every change of the state is checked against.

pub mod connection;
pub mod deposits;
pub mod inbox;
pub mod inbox_entry;
pub mod keys;
pub mod lease;
pub mod lease_scripts;
mod lease_shared;
pub mod lease_state;
mod lease_thread;
pub mod members;
pub mod relay;
pub mod relay_format;
pub mod relay_listener;
pub mod relay_order;
pub mod requirements;
pub mod script;
pub mod settings;
mod subscriber;
mod table_rows;
pub mod tables;
pub mod token;
