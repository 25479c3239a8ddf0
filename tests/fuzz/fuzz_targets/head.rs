//! Fuzzes the head of a request and its chunks.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/head.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::run(bytes));
