//! Fuzzes what an SMTP server says.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/smtp.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::run(bytes));
