//! Fuzzes a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/yaml.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::run(bytes));
