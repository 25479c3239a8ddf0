//! The Debian packages: built by the documented command, looked at by lintian, installed, upgraded
//! and purged in a throw-away Debian, booted there, and run on other machines' instruction sets.
//!
//! They are built with the development profile here, which is quick; what differs in a release is
//! only the compiler's options.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What cargo tells its tests is not meant for the cargo that they call.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "CARGO_INCREMENTAL"];
        if name.starts_with("CARGO_") && !kept.contains(&&*name) {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH").env_remove("RUSTFLAGS");
    command.current_dir(project());
    command
}

fn run(command: &mut Command) -> String {
    let output: Output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The directory with hbd and hbc for `arch`.
fn packages(arch: &str) -> PathBuf {
    let out = project().join("target/packages").join(arch);
    let mut build = command("packaging/build");
    run(build.args(["--arch", arch, "--profile", "dev", "--out"]).arg(&out));
    out
}

fn for_this_machine() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| packages(here()))
}

fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "armhf",
        other => panic!("packages are built on amd64, arm64 and armhf, this is {other}"),
    }
}

/// The packages of this machine as version 0.1.0 and, as if it were a later one, 0.1.1.
fn two_versions(to: &Path) {
    fs::create_dir(to).unwrap();
    for name in ["hbd", "hbc"] {
        let file = for_this_machine().join(format!("{name}_0.1.0_{}.deb", here()));
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        let tree = to.join(name);
        run(command("dpkg-deb").arg("-R").arg(&file).arg(&tree));
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control).unwrap();
        fs::write(&control, text.replace("Version: 0.1.0", "Version: 0.1.1")).unwrap();
        run(command("dpkg-deb").args(["-Znone", "--root-owner-group", "-b"]).arg(&tree).arg(to));
        fs::remove_dir_all(&tree).unwrap();
    }
}

/// A fresh Debian with the packages and a script in it.
fn debian(script: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    run(command("tests/packages/root").arg(&root));
    two_versions(&root.join("packages"));
    fs::copy(project().join("tests/packages").join(script), root.join(script)).unwrap();
    (place, root)
}

#[test]
fn lintian_finds_nothing() {
    let mut lintian = command("lintian");
    // Root may look at packages, too.
    lintian.args(["--fail-on", "error,warning", "--display-info", "--allow-root"]);
    for name in ["hbd", "hbc"] {
        lintian.arg(for_this_machine().join(format!("{name}_0.1.0_{}.deb", here())));
    }
    let found = run(&mut lintian);
    assert!(!found.contains("unused-override"), "{found}");
}

#[test]
fn the_packages_are_the_same_however_often_they_are_made() {
    let again = tempfile::tempdir().unwrap();
    let mut build = command("packaging/build");
    run(build.args(["--profile", "dev", "--out"]).arg(again.path()));
    for name in ["hbd", "hbc"] {
        let file = format!("{name}_0.1.0_{}.deb", here());
        let (first, second) = (for_this_machine().join(&file), again.path().join(&file));
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap(), "{file}");
    }
}

#[test]
fn they_are_installed_upgraded_removed_and_purged_without_a_trace() {
    let (_place, root) = debian("life.sh");
    let mut proc = OsString::from("--mount-proc=");
    proc.push(root.join("proc"));
    let mut life = command("unshare");
    life.args(["--mount", "--pid", "--fork"]).arg(proc).arg("chroot").arg(&root).arg("/life.sh");
    let lived = run(&mut life);
    assert!(lived.ends_with("fine\n"), "{lived}");
}

#[test]
fn on_a_running_system_they_start_survive_and_go() {
    let (_place, root) = debian("boot.sh");
    let nspawn = |root: &Path| {
        let mut nspawn = command("systemd-nspawn");
        nspawn.args(["--quiet", "--register=no", "--keep-unit", "--private-network", "-D"]);
        nspawn.arg(root);
        nspawn
    };
    let able = nspawn(&root).arg("/bin/true").output().unwrap();
    if !able.status.success() {
        // Where no container may be started, only the other test's chroot is left.
        println!("systemd-nspawn: {}", String::from_utf8_lossy(&able.stderr));
        return;
    }
    let unit = "[Unit]\nAfter=multi-user.target\n[Service]\nType=simple\nExecStart=/boot.sh\n";
    fs::write(root.join("etc/systemd/system/try.service"), unit).unwrap();
    let wants = root.join("etc/systemd/system/graphical.target.wants");
    fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("../try.service", wants.join("try.service")).unwrap();
    let booted = command("timeout")
        .args(["--kill-after=10", "300"])
        .arg("systemd-nspawn")
        .args(nspawn(&root).get_args())
        .arg("--boot")
        .output()
        .unwrap();
    let result = fs::read_to_string(root.join("result")).unwrap_or_else(|why| {
        panic!("no result: {why}: {}", String::from_utf8_lossy(&booted.stdout))
    });
    println!("{result}");
    assert!(result.ends_with("fine\n"), "{result}");
}

#[test]
fn the_other_machines_packages_run_as_well() {
    for (arch, emulator, library) in [
        ("arm64", "qemu-aarch64-static", "/usr/aarch64-linux-gnu"),
        ("armhf", "qemu-arm-static", "/usr/arm-linux-gnueabihf"),
    ] {
        let out = packages(arch);
        let tree = tempfile::tempdir().unwrap();
        for name in ["hbd", "hbc"] {
            let file = out.join(format!("{name}_0.1.0_{arch}.deb"));
            run(command("lintian").args(["--fail-on", "error,warning", "--allow-root"]).arg(&file));
            run(command("dpkg-deb").arg("-x").arg(&file).arg(tree.path()));
        }
        let emulated = |name: &str| {
            let mut emulated = command(emulator);
            emulated.args(["-L", library]).arg(tree.path().join("usr/bin").join(name));
            emulated
        };
        for name in ["hbd", "hbc"] {
            let version = run(emulated(name).arg("--version"));
            assert!(version.starts_with(&format!("{name} 0.1.0 (")), "{version}");
        }
        let config = tree.path().join("etc/hbd/heartbeat.yaml");
        let checked = run(emulated("hbd").arg("check").arg("--config").arg(config));
        assert!(checked.starts_with("OK: "), "{arch}: {checked}");
    }
}

#[test]
fn the_units_may_do_little() {
    for unit in ["hbd", "hbc"] {
        let file = format!("packaging/systemd/{unit}.service");
        run(command("systemd-analyze").args([
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=15",
            &file,
        ]));
    }
}

#[test]
fn the_rules_for_prometheus_and_the_receiver_for_alertmanager_are_taken() {
    run(command("promtool").args(["check", "rules", "packaging/examples/hbd.rules.yml"]));
    run(command("promtool").args(["test", "rules", "tests/packages/rules.yml"]));
    run(command("amtool").args(["check-config", "packaging/examples/alertmanager.yml"]));
}
