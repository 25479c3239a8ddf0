//! Beats: what is said when, over which path, and what came of it.

pub mod aim;
pub mod line;
pub mod parts;
pub mod quality;
pub mod speaker;
pub mod stamp;

#[cfg(test)]
mod simulation;
