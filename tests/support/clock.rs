//! A program whose clocks are shifted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::preload::compile;

/// What shifts the clocks of a program: tests/support/clock.c, compiled.
static LIBRARY: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| compile("clock.c"));

/// hbd, whose clock is ahead by the seconds in a file, which may change while it runs.
#[allow(dead_code, reason = "each test file uses some of them")]
pub fn hbd_ahead_by(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
    command.env("LD_PRELOAD", &LIBRARY.1).env("WALL_SHIFT", format!("@{}", file.display()));
    command
}

/// hbd, whose clock shows so many seconds since 1970 when this is called.
#[allow(dead_code, reason = "each test file uses some of them")]
pub fn hbd_at(seconds: i64) -> Command {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
    command.env("LD_PRELOAD", &LIBRARY.1).env("WALL_SHIFT", (seconds - now).to_string());
    command
}
