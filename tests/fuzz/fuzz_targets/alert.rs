//! Fuzzes what is read of alerts.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/alert.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::run(bytes));
