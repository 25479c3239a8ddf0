//! The packages: built by the documented command, looked at by lintian, installed, upgraded and purged
//! in a throw-away Debian, booted there, and run on other machines' instruction sets; the tarball with its
//! static programs, and an image for containers of it.
//!
//! They are built with the development profile here, which is quick; what differs in a release is
//! only the compiler's options.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What cargo tells its tests is not meant for the cargo that they call: with it, that builds half of the
/// dependencies anew, and so does the next one without it.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "CARGO_INCREMENTAL"];
        if name.starts_with("CARGO_") && !kept.contains(&&*name) {
            command.env_remove(name);
        }
    }
    for name in ["LD_LIBRARY_PATH", "OUT_DIR", "HEARTBEAT_COMMIT", "HEARTBEAT_TARGET", "RUSTFLAGS"]
    {
        command.env_remove(name);
    }
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

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Those with the programs that cargo builds for the tests as well.
const PACKAGES: &[&str] = &["deb", "rpm"];
const NAMES: [&str; 2] = ["hbd", "hbc"];

fn build(formats: &[&str], arch: &str, out: &Path) {
    let mut build = command("packaging/build");
    for format in formats {
        build.args(["--format", format]);
    }
    run(build.args(["--arch", arch, "--profile", "dev", "--out"]).arg(out));
}

fn for_this_machine() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = project().join("target/packages").join(here());
        build(PACKAGES, here(), &out);
        out
    })
}

fn debian_file(name: &str, arch: &str) -> String {
    format!("{name}_{VERSION}_{arch}.deb")
}

fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "armhf",
        other => panic!("packages are built on amd64, arm64 and armhf, this is {other}"),
    }
}

/// The packages of this machine as three versions: `before` has the configuration as a conffile, as
/// packages once had it; `now`; and `later`, whose example is another.
fn three_versions(to: &Path) {
    for (name, config) in [("hbd", "heartbeat.yaml"), ("hbc", "hbc.yaml")] {
        let file = for_this_machine().join(debian_file(name, here()));
        let made = |when: &str| to.join(when).join(format!("{name}.deb"));
        let tree = to.join(name);
        for when in ["before", "now", "later"] {
            fs::create_dir_all(to.join(when)).unwrap();
        }
        fs::copy(&file, made("now")).unwrap();
        run(command("dpkg-deb").arg("-R").arg(&file).arg(&tree));
        let pack = |when, version| {
            let control = tree.join("DEBIAN/control");
            let text = fs::read_to_string(&control).unwrap();
            let (before, rest) = text.split_once("Version: ").unwrap();
            let (_, rest) = rest.split_once('\n').unwrap();
            fs::write(&control, format!("{before}Version: {version}\n{rest}")).unwrap();
            let mut build = command("dpkg-deb");
            build.args(["-Znone", "--root-owner-group", "-b"]);
            run(build.arg(&tree).arg(made(when)));
        };
        let example = tree.join("usr/share").join(name).join(config);
        let text = fs::read_to_string(&example).unwrap();
        fs::write(&example, format!("{text}# Something new.\n")).unwrap();
        pack("later", "999");
        let conffile = tree.join("etc").join(name).join(config);
        let secrets = conffile.parent().unwrap().join("secrets");
        fs::create_dir_all(&secrets).unwrap();
        run(command("chmod").arg("0700").arg(secrets));
        fs::write(&conffile, format!("# As it was.\n{text}")).unwrap();
        run(command("chmod").arg("0640").arg(&conffile));
        fs::write(tree.join("DEBIAN/conffiles"), format!("/etc/{name}/{config}\n")).unwrap();
        let postinst = tree.join("DEBIAN/postinst");
        let script = fs::read_to_string(&postinst).unwrap();
        let owners = format!(
            "chown root:{name} /etc/{name}/{config}\nchown root:root /etc/{name}/secrets\n\
             chmod 00700 /etc/{name}/secrets\n"
        );
        fs::write(&postinst, script + &owners).unwrap();
        pack("before", "0.0.1");
        fs::remove_dir_all(&tree).unwrap();
    }
}

/// A fresh Debian with the packages and a script in it.
fn debian(script: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    run(command("tests/packages/root").arg(&root));
    three_versions(&root.join("packages"));
    fs::copy(project().join("tests/packages").join(script), root.join(script)).unwrap();
    (place, root)
}

#[test]
fn a_program_that_needs_a_newer_c_library_than_its_system_has_was_packed() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    // A C library of the year 2099, and what was linked with that.
    let versions = file("versions", "GLIBC_2.99 { global: newer; };\n");
    let (library, program) = (place.path().join("libnewer.so"), place.path().join("program"));
    let cc = |source: &Path, to: &Path| {
        let mut cc = command("cc");
        cc.arg(source).arg("-o").arg(to);
        cc
    };
    let mut shared = cc(&file("newer.c", "void newer(void) {}\n"), &library);
    let script = format!("-Wl,--version-script={}", versions.display());
    run(shared.args(["-shared", "-fPIC"]).arg(script));
    let uses = file("uses.c", "void newer(void); int main(void) { newer(); return 0; }\n");
    run(cc(&uses, &program).arg(&library));
    let usual = place.path().join("usual");
    run(&mut cc(
        &file("usual.c", "#include <stdio.h>\nint main(void) { return puts(\"\"); }\n"),
        &usual,
    ));
    let libc = |words: &[&OsStr]| {
        let output = command("packaging/libc").args(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let limit = |program: &Path, version: &str| {
        libc(&[program.as_os_str(), version.as_ref(), "Enterprise Linux 9".as_ref()])
    };
    let (code, out, error) = limit(&program, "2.34");
    assert_eq!((code, out.as_str()), (Some(2), ""));
    let refused = "needs glibc 2.99, Enterprise Linux 9 has 2.34: build on Debian 12 (bookworm)";
    assert!(error.contains(refused), "{error}");
    assert_eq!(limit(&program, "2.99").1, "2.99\n");
    assert_eq!(limit(&program, "2.100").1, "2.99\n", "not as a decimal");
    assert_eq!(limit(&usual, "2.34").0, Some(0));
    let (code, _, error) = libc(&[file("text", "no program").as_os_str()]);
    assert!(code == Some(2) && !error.is_empty(), "{error}");
}

#[test]
fn lintian_finds_nothing() {
    let mut lintian = command("lintian");
    // Root may look at packages, too.
    lintian.args(["--fail-on", "error,warning", "--display-info", "--allow-root"]);
    lintian.args(NAMES.map(|name| for_this_machine().join(debian_file(name, here()))));
    let found = run(&mut lintian);
    assert!(!found.contains("unused-override"), "{found}");
}

#[test]
fn the_packages_are_the_same_however_often_they_are_made() {
    same_again(PACKAGES, for_this_machine());
}

/// The formats are built again, and are the files of `first`.
fn same_again(formats: &[&str], first: &Path) {
    let again = tempfile::tempdir().unwrap();
    build(formats, here(), again.path());
    let files: Vec<_> = fs::read_dir(again.path()).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), formats.len() * NAMES.len(), "{files:?}");
    for file in files {
        let before = fs::read(first.join(file.file_name())).unwrap();
        assert!(before == fs::read(file.path()).unwrap(), "{file:?} is another one");
    }
}

#[test]
fn they_are_installed_upgraded_removed_and_purged_without_a_trace() {
    let (_place, root) = debian("life.sh");
    let lived = run(inside(&root).arg("/life.sh"));
    assert!(lived.ends_with("fine\n"), "{lived}");
}

/// A command in a root, with processes and mounts of its own.
fn inside(root: &Path) -> Command {
    let mut proc = OsString::from("--mount-proc=");
    proc.push(root.join("proc"));
    let mut inside = command("unshare");
    inside.args(["--mount", "--pid", "--fork"]).arg(proc).arg("chroot").arg(root);
    inside
}

#[test]
fn by_rpm_they_are_installed_upgraded_and_erased() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    run(command("tests/packages/root").arg(&root));
    let lived = run(command("tests/packages/rpm.sh").arg(&root).arg(for_this_machine()));
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
#[ignore = "the packages of other machines, which are built anew"]
fn the_other_machines_packages_run_as_well() {
    for (arch, emulator, library) in [
        ("arm64", "qemu-aarch64-static", "/usr/aarch64-linux-gnu"),
        ("armhf", "qemu-arm-static", "/usr/arm-linux-gnueabihf"),
    ] {
        let out = project().join("target/packages").join(arch);
        build(&["deb"], arch, &out);
        let tree = tempfile::tempdir().unwrap();
        for name in NAMES {
            let file = out.join(debian_file(name, arch));
            run(command("lintian").args(["--fail-on", "error,warning", "--allow-root"]).arg(&file));
            run(command("dpkg-deb").arg("-x").arg(&file).arg(tree.path()));
        }
        let emulated = |name: &str| {
            let mut emulated = command(emulator);
            emulated.args(["-L", library]).arg(tree.path().join("usr/bin").join(name));
            emulated
        };
        for name in NAMES {
            let version = run(emulated(name).arg("--version"));
            assert!(version.starts_with(&format!("{name} {VERSION} (")), "{version}");
        }
        let config = tree.path().join("usr/share/hbd/heartbeat.yaml");
        let checked = run(emulated("hbd").arg("check").arg("--config").arg(config));
        assert!(checked.starts_with("OK: "), "{arch}: {checked}");
    }
}

#[test]
fn the_units_may_do_little() {
    for unit in NAMES {
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

#[test]
#[ignore = "the static programs, which are built anew, in a system of BusyBox alone"]
fn the_tarballs_are_installed_and_run_where_there_is_nothing_else() {
    let out = project().join("target/packages/static");
    build(&["tar"], here(), &out);
    same_again(&["tar"], &out);
    let place = tempfile::tempdir().unwrap();
    let lived = run(command("tests/packages/static.sh").arg(place.path()).arg(&out));
    assert!(lived.ends_with("fine\n"), "{lived}");
}

#[test]
#[ignore = "the static programs of other machines, which are built anew"]
fn the_other_machines_static_programs_run_as_well() {
    for (arch, emulator) in [("arm64", "qemu-aarch64-static"), ("armhf", "qemu-arm-static")] {
        let out = tempfile::tempdir().unwrap();
        build(&["tar"], arch, out.path());
        for name in NAMES {
            let base = format!("{name}-{VERSION}-linux-{arch}");
            let tarball = out.path().join(format!("{base}.tar.gz"));
            run(command("tar").arg("-C").arg(out.path()).arg("-xzf").arg(tarball));
            let program = out.path().join(base).join("usr/bin").join(name);
            let version = run(command(emulator).arg(program).arg("--version"));
            assert!(version.starts_with(&format!("{name} {VERSION} (")), "{version}");
        }
    }
}

#[test]
#[ignore = "an image for containers, built and run by podman"]
fn in_a_container_hbd_runs_without_a_shell() {
    let place = tempfile::tempdir().unwrap();
    let lived = run(command("tests/packages/image.sh").arg(place.path()));
    assert!(lived.ends_with("fine\n"), "{lived}");
}
