//! The HTTP server against its own OpenAPI description, by a tester that knows nothing else:
//! schemathesis, which `tests/run` puts below `target`.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod hbd;
    pub mod http_double;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::hbd::Hbd;
use tempfile::TempDir;

/// Where the tester is: SCHEMATHESIS, else where tests/run puts it.
fn tester() -> PathBuf {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schemathesis/bin/schemathesis");
    std::env::var_os("SCHEMATHESIS").map_or(usual, PathBuf::from)
}

/// A daemon with hosts that have something to show.
fn daemon(directory: &TempDir, receiver: &str) -> Hbd {
    let config = directory.path().join("heartbeat.yaml");
    let state = directory.path().join("state");
    let text = format!(
        "notification_channels: {{log: {{type: log}}}}\n\
         default_notification_channels: [log]\n\
         heartbeat: {{port: 0, unknown_hosts: accept, max_unknown_hosts: 20}}\n\
         receiver: {{port: 0{receiver}}}\nstate_dir: {}\n\
         hosts: {{web1: {{watch: true}}, web2: {{}}}}\ncalm: {{longest_host_silence: 366d}}\n",
        state.display()
    );
    fs::write(&config, text).unwrap();
    Hbd::start(&config)
}

/// Lets the tester loose; its report when it found something.
fn tested(address: &str, options: &[&str]) -> Result<(), String> {
    // It leaves notes where it stands.
    let notes = tempfile::tempdir().unwrap();
    let output = Command::new(tester())
        .arg("--config-file")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis.toml"))
        .args(["run", &format!("http://{address}/api/v1/openapi.json"), "--no-color"])
        .args(options)
        .current_dir(&notes)
        .output()
        .expect("schemathesis is below target: tests/run puts it there");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(report) }
}

#[test]
fn the_api_is_what_its_description_says() {
    let directory = tempfile::tempdir().unwrap();
    let hbd = daemon(&directory, "");
    for beat in [
        r#"{"host":"web1","metrics":{"cpu_monitor":{"cpu_percent":42}}}"#,
        r#"{"host":"web1","event":"message","message":"<script>\u0001\" is hot"}"#,
        r#"{"host":"web2","event":"shutdown"}"#,
    ] {
        assert_eq!(hbd.request("POST", "/api/v1/heartbeat", beat.as_bytes()).0, 200, "{beat}");
    }
    if let Err(report) = tested(&hbd.address.to_string(), &[]) {
        panic!("{report}");
    }
    // It is still there, and has found nothing that is a bug.
    assert_eq!(hbd.request("GET", "/-/ready", b"").0, 200);
    let log = hbd.log().join("\n");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn what_is_behind_the_token_stays_there() {
    let directory = tempfile::tempdir().unwrap();
    let hbd = daemon(&directory, ", token: a-long-random-word");
    let header = ["--header", "Authorization: Bearer a-long-random-word"];
    let quick = ["--phases", "coverage", "--max-examples", "5"];
    if let Err(report) = tested(&hbd.address.to_string(), &[&header[..], &quick].concat()) {
        panic!("{report}");
    }
    assert_eq!(hbd.request("GET", "/api/v1/openapi.json", b"").0, 401);
}
