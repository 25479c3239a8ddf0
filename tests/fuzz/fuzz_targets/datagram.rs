//! Fuzzes datagrams.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/datagram.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::run(bytes));
