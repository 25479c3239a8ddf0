//! Beats: what is said when, over which path, and what came of it.

pub mod sender;
pub mod session;
pub mod split;
pub mod timestamp;

#[cfg(test)]
mod simulation;
