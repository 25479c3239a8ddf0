//! Beats: what is said when, over which path, and what came of it.

pub mod scheduler;
pub mod session;
pub mod split;
pub mod timestamp;

#[cfg(test)]
mod simulation;
