//! Libraries that stand between a program and the C library (ld.so(8), `LD_PRELOAD`).

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The source of this name in tests/support, compiled; it is there as long as the folder lives.
pub fn compile(source: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support")).join(source);
    let library = directory.path().join("preload.so");
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(status.expect("cc can be started: apt-get install gcc").success());
    (directory, library)
}
