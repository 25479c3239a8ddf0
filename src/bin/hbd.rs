//! `hbd`, the daemon and its own admin tool.

fn main() {}
