//! Tells the program which commit it was built from.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    // `tests/fuzz` is built with it, as `cargo fuzz` does.
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    println!("cargo::rerun-if-env-changed=HEARTBEAT_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // A new commit must not make every development build begin anew.
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let found = || if release { commit() } else { Some("development".into()) };
    let commit = env::var("HEARTBEAT_COMMIT").ok().or_else(found);
    let commit = commit.unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=HEARTBEAT_COMMIT={commit}");
    println!(
        "cargo::rustc-env=HEARTBEAT_TARGET={}",
        env::var("TARGET").expect("cargo names the target")
    );
}

/// The commit of the work tree, with a `+` behind it when tracked files differ from it; none
/// outside of a repository, as in an unpacked source archive.
fn commit() -> Option<String> {
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    for file in ["HEAD", "index"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"])
        .and_then(|name| git(&["rev-parse", "--git-path", &name]));
    if let Some(path) = branch.filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { head } else { format!("{head}+") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
