//! The client side of the datagrams: what is sent when, over which connection, until it is answered.

pub mod scheduler;
pub mod session;
pub mod split;
pub mod timestamp;

#[cfg(test)]
mod simulation;
