//! The commands of `hbd` that are not the daemon: one file each.

pub mod check;
