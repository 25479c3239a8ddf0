//! The five steps of the README, word for word, on a Debian that was never used before.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The steps write alarms into the log: there is no network here, and no phone.
const PHONE: &str = "  phone: {type: log}";

/// What holds when they are done; what is not said in time fails.
const AFTERWARDS: &str = r#"
until_it() {
    local tries
    for tries in $(seq 100); do
        if bash -c "$1" >/dev/null 2>&1; then return; fi
        read -rt 0.2 <> <(:) || true
    done
    echo "WRONG: never: $1"
    exit 1
}
until_it 'hbd status --all | grep -q "^web1 *up"'
systemctl stop hbc
until_it 'hbd log | grep -q "phone *delivered.*web1 ipv4 shutdown"'
journalctl -u hbd | grep -F 'Sent notification to phone'
echo "The steps took the machine $SECONDS s."
echo fine
"#;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// As a shell would run it: what cargo tells its tests is not meant for the cargo that they call.
fn run(command: &mut Command) -> String {
    let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "CARGO_INCREMENTAL"];
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_") && !kept.contains(&&*name) {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH").env_remove("RUSTFLAGS");
    let output = command.current_dir(project()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The block of the README with the steps, as one script for one machine that is both.
fn script() -> String {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let (_, steps) = readme.split_once("## A phone that rings").unwrap();
    let (_, steps) = steps.split_once("```sh\n").unwrap();
    let (steps, _) = steps.split_once("```").unwrap();
    let mut script = String::from(
        "#!/bin/bash\nexport DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         exec >/result 2>&1 </dev/null\ntrap 'systemctl --no-block poweroff' EXIT\nset -eo pipefail\n\
         cd /packages\n",
    );
    let mut steps_found = 0;
    for line in steps.lines() {
        let step = line.split_once("# ").filter(|(prompt, _)| matches!(*prompt, "server" | "web1"));
        steps_found += usize::from(step.is_some());
        let line = step.map_or(line, |(_, line)| line);
        if line.starts_with("  phone: ") {
            script.push_str(PHONE);
        } else {
            let key = line.contains("hbc.yaml").then_some("KEY=$(sed -n 's/^key: //p' /key)\n");
            script.push_str(key.unwrap_or_default());
            script.push_str(
                &line
                    .replace("apt install", "apt-get install -y")
                    .replace("/etc/hbd/secrets/key", "/etc/hbd/secrets/key | tee /key")
                    .replace("<<'END'", "<<END")
                    .replace("SERVER", "127.0.0.1")
                    .replace("key: KEY", "key: $KEY"),
            );
        }
        script.push('\n');
    }
    assert_eq!(steps_found, 5, "{steps}");
    script + AFTERWARDS
}

#[test]
fn the_steps_are_a_script() {
    run(Command::new("bash").args(["-n", "-c", &script()]));
}

#[test]
#[ignore = "boots a Debian 12: half a minute"]
fn the_five_steps_of_the_readme_end_with_a_message() {
    follow_the_steps("12");
}

#[test]
#[ignore = "fetches and boots a Debian 13: two minutes"]
fn the_five_steps_of_the_readme_end_with_a_message_on_the_next_debian() {
    follow_the_steps("13");
}

fn follow_the_steps(debian: &str) {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    run(Command::new("tests/packages/root").env("DEBIAN", debian).arg(&root));
    let out = root.join("packages");
    run(Command::new("packaging/build").args(["--profile", "dev", "--out"]).arg(&out));
    let file = root.join("steps.sh");
    fs::write(&file, script()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let units = root.join("etc/systemd/system");
    let unit = "[Unit]\nAfter=multi-user.target\n[Service]\nType=simple\nExecStart=/steps.sh\n";
    fs::write(units.join("steps.service"), unit).unwrap();
    fs::create_dir_all(units.join("graphical.target.wants")).unwrap();
    symlink("../steps.service", units.join("graphical.target.wants/steps.service")).unwrap();
    let booted = boot(&root);
    let result =
        fs::read_to_string(root.join("result")).unwrap_or_else(|why| panic!("{why}: {booted}"));
    println!("{result}");
    assert!(result.ends_with("fine\n"), "{result}");
}

fn boot(root: &Path) -> String {
    let booted = Command::new("timeout")
        .args(["--kill-after=10", "300", "systemd-nspawn", "--quiet", "--register=no"])
        .args(["--keep-unit", "--private-network", "--boot", "-D"])
        .arg(root)
        .output()
        .expect("systemd-nspawn is there: the package systemd-container");
    String::from_utf8_lossy(&[booted.stdout, booted.stderr].concat()).into_owned()
}
