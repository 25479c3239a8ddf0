//! `hbc`, the agent of one host.

fn main() {}
