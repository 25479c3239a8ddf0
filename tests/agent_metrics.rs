//! What hbc says about this machine, against what the kernel, df, free, uptime and ps say about it
//! at the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::agent::collect::{CollectSettings, Collector, MetricGroup};
use heartbeat::clock::Now;

type Metrics = BTreeMap<String, f64>;

/// The output of a program.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|why| panic!("{program}: {why}"));
    String::from_utf8(output.stdout).unwrap()
}

/// `hbc metrics` as an operator tries it, without own programs.
fn metrics() -> Metrics {
    let output = said(env!("CARGO_BIN_EXE_hbc"), &["metrics", "--metrics-dir", "/nonexistent"]);
    let metric = |line: &str| {
        let (path, value) = line.split_once(' ').expect(line);
        (path.to_owned(), value.parse().expect(line))
    };
    let metrics: Metrics = output.lines().map(metric).collect();
    assert_eq!(metrics.len(), output.lines().count(), "each path once: {output}");
    metrics
}

/// Others use this machine, too: what is compared moves. It is looked at before and after, with
/// some room, and again when it moved beyond that.
fn compare(look: impl Fn() -> Metrics, room: impl Fn(&str) -> f64) {
    let mut wrong = Vec::new();
    for _ in 0..20 {
        let before = look();
        let ours = metrics();
        let after = look();
        wrong.clear();
        for (path, first) in &before {
            let Some(last) = after.get(path) else { continue };
            let (low, high) = (first.min(*last) - room(path), first.max(*last) + room(path));
            match ours.get(path) {
                Some(value) if (low..=high).contains(value) => {}
                value => wrong.push(format!("{path}: {value:?} is not from {low} to {high}")),
            }
        }
        assert!(!before.is_empty());
        if wrong.is_empty() {
            return;
        }
    }
    panic!("{wrong:#?}");
}

fn one(path: &str, value: f64) -> (String, f64) {
    (path.to_owned(), value)
}

fn numbers(text: &str) -> Vec<f64> {
    text.split([' ', ',', '\n']).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn load_and_uptime_are_those_of_uptime_and_proc() {
    let look = || {
        let uptime = said("uptime", &[]);
        let (_, averages) = uptime.trim().rsplit_once("average: ").expect("load average:");
        let averages = numbers(averages);
        let processors: f64 = said("getconf", &["_NPROCESSORS_ONLN"]).trim().parse().unwrap();
        let proc = numbers(&fs::read_to_string("/proc/loadavg").unwrap());
        assert_eq!(proc.len() >= 3, averages.len() == 3);
        let up = numbers(&fs::read_to_string("/proc/uptime").unwrap())[0];
        Metrics::from([
            one("load_monitor.load1", averages[0]),
            one("load_monitor.load5", averages[1]),
            one("load_monitor.load15", averages[2]),
            one("load_monitor.per_core", averages[0] / processors),
            one("uptime_monitor.seconds", up),
        ])
    };
    compare(look, |path| if path.starts_with("load") { 0.011 } else { 0.02 });
}

#[test]
fn memory_and_swap_are_those_of_free() {
    let look = || {
        let free = said("free", &["-b"]);
        let line = |name: &str| {
            let line = free.lines().find_map(|line| line.strip_prefix(name));
            numbers(line.unwrap_or_else(|| panic!("{free}")))
        };
        let (memory, swap) = (line("Mem:"), line("Swap:"));
        let (total, available) = (memory[0], memory[5]);
        let mut metrics = Metrics::from([
            one("memory_monitor.available_bytes", available),
            one("memory_monitor.percent", (total - available) / total * 100.0),
        ]);
        if swap[0] > 0.0 {
            metrics.insert("swap_monitor.percent".into(), swap[1] / swap[0] * 100.0);
        }
        metrics
    };
    compare(look, |path| if path.ends_with("bytes") { 64e6 } else { 1.0 });
    let swap = numbers(said("free", &["-b"]).lines().last().unwrap())[0];
    assert_eq!(metrics().contains_key("swap_monitor.percent"), swap > 0.0);
}

/// Mount points and what df says of them: the disks here, each device once.
fn df(numbers_of: &str) -> Vec<(String, Vec<f64>)> {
    let archives = ["squashfs", "iso9660", "overlay", "tmpfs", "devtmpfs"];
    let columns = format!("--output={numbers_of},source,target");
    let mut arguments = vec!["--local", "-B1", &columns];
    arguments.extend(archives.map(|kind| ["-x", kind]).iter().flatten());
    let text = said("df", &arguments);
    let disk = |line: &str| {
        let mut words = line.split_whitespace();
        let found: Vec<f64> = words.by_ref().take(3).map_while(|word| word.parse().ok()).collect();
        let source = words.next()?.to_owned();
        let target = words.collect::<Vec<_>>().join(" ");
        let passing = ["/run/", "/snap/", "/var/lib/docker/", "/var/lib/containers/"];
        let told = source.starts_with("/dev/") && !passing.iter().any(|p| target.starts_with(p));
        (told && found.len() == 3).then_some((target.len(), source, target, found))
    };
    let mut disks: Vec<_> = text.lines().filter_map(disk).collect();
    disks.sort_by_key(|(length, ..)| *length);
    let mut devices = BTreeSet::new();
    disks.retain(|(_, source, ..)| devices.insert(source.clone()));
    disks.into_iter().map(|(_, _, target, found)| (target, found)).collect()
}

fn name(target: &str) -> String {
    match target.trim_matches('/') {
        "" => "root".into(),
        inner => inner.replace(|c: char| !c.is_alphanumeric() && c != '-', "_"),
    }
}

#[test]
fn disks_are_those_of_df() {
    let look = || {
        let mut metrics = Metrics::new();
        for (target, found) in df("size,used,avail") {
            let (used, available) = (found[1], found[2]);
            let name = name(&target);
            metrics.insert(format!("disk_monitor.{name}.free_bytes"), available);
            let share = used / (used + available) * 100.0;
            metrics.insert(format!("disk_monitor.{name}.percent"), share);
        }
        for (target, found) in
            df("itotal,iused,iavail").into_iter().filter(|(_, found)| found[0] > 0.0)
        {
            let share = found[1] / found[0] * 100.0;
            metrics.insert(format!("disk_monitor.{}.inodes_percent", name(&target)), share);
        }
        metrics
    };
    compare(look, |path| if path.ends_with("bytes") { 256e6 } else { 0.5 });
    let ours = metrics();
    let disks: Vec<&str> = ours
        .keys()
        .filter_map(|path| path.strip_prefix("disk_monitor.")?.split('.').next())
        .collect();
    assert!(disks.contains(&"root"), "{disks:?}");
}

#[test]
fn the_percentage_that_df_prints_is_ours_rounded_up() {
    let printed = || {
        let text = said("df", &["-P", "-B1", "/"]);
        let capacity = text.lines().nth(1).unwrap().split_whitespace().nth(4).unwrap().to_owned();
        capacity.trim_end_matches('%').parse::<f64>().unwrap()
    };
    let mut last = String::new();
    for _ in 0..20 {
        let (before, ours, after) = (printed(), metrics()["disk_monitor.root.percent"], printed());
        // Hundredths are rounded to the nearest, df rounds up.
        if (before.min(after)..=before.max(after)).contains(&(ours - 0.005).ceil()) {
            return;
        }
        last = format!("{ours} between {before} and {after}");
    }
    panic!("{last}");
}

/// The ticks of all processors together.
fn ticks() -> Vec<f64> {
    numbers(fs::read_to_string("/proc/stat").unwrap().lines().next().unwrap())
}

#[test]
fn the_processors_are_as_busy_as_proc_says() {
    let mut wrong = Vec::new();
    for _ in 0..20 {
        let mut collector = Collector::new(&CollectSettings::default());
        let now = Now::read();
        let first = ticks();
        collector.collect(now);
        spin(Duration::from_millis(1500));
        let last = ticks();
        let ours: Metrics =
            collector.collect(now.later(Duration::from_secs(2))).into_iter().collect();
        let spent: Vec<f64> = first.iter().zip(&last).map(|(first, last)| last - first).collect();
        let total: f64 = spent[..8].iter().sum();
        let expected = [
            ("cpu_monitor.cpu_percent", total - spent[3] - spent[4]),
            ("cpu_monitor.iowait_percent", spent[4]),
            ("cpu_monitor.steal_percent", spent[7]),
        ];
        wrong = expected
            .iter()
            .filter(|(path, ticks)| (ours[*path] - ticks / total * 100.0).abs() > 3.0)
            .map(|(path, ticks)| {
                format!("{path}: {} is not {}", ours[*path], ticks / total * 100.0)
            })
            .collect();
        if wrong.is_empty() {
            return;
        }
    }
    panic!("{wrong:#?}");
}

/// Keeps one processor busy for half of the time.
fn spin(duration: Duration) {
    let end = Instant::now() + duration;
    let mut turns = 0_u64;
    while Instant::now() < end {
        turns = std::hint::black_box(turns + 1);
        if turns.is_multiple_of(50_000) {
            thread::yield_now();
        }
    }
}

#[test]
fn processes_and_zombies_are_those_of_ps() {
    // One that has ended, and is not waited for until the end of the test.
    let mut zombie = Command::new("true").spawn().unwrap();
    let look = || {
        let states = said("ps", &["-e", "-o", "stat="]);
        let zombies = states.lines().filter(|state| state.starts_with('Z')).count();
        Metrics::from([
            one("process_monitor.count", states.lines().count() as f64),
            one("process_monitor.zombies", zombies as f64),
        ])
    };
    let end = Instant::now() + Duration::from_secs(30);
    while look()["process_monitor.zombies"] < 1.0 {
        assert!(Instant::now() < end, "a child that has ended is a zombie");
    }
    compare(look, |path| if path.ends_with("count") { 25.0 } else { 2.0 });
    assert!(metrics()["process_monitor.zombies"] >= 1.0);
    zombie.wait().unwrap();
}

fn carried(interface: &str, counter: &str) -> f64 {
    let path = format!("/sys/class/net/{interface}/statistics/{counter}");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn an_interface_carries_what_was_sent() {
    let settings = CollectSettings { excluded_interfaces: vec![], ..CollectSettings::default() };
    let mut collector = Collector::new(&settings);
    let begin = (carried("lo", "rx_bytes"), carried("lo", "tx_bytes"));
    let now = Now::read();
    collector.collect(now);
    let (here, there) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (datagrams, length) = (200, 1000);
    for _ in 0..datagrams {
        here.send_to(&vec![7; length], there.local_addr().unwrap()).unwrap();
    }
    let seconds = 10.0;
    let ours: Metrics =
        collector.collect(now.later(Duration::from_secs_f64(seconds))).into_iter().collect();
    let end = (carried("lo", "rx_bytes"), carried("lo", "tx_bytes"));
    let sent = (datagrams * length) as f64;
    for (what, begin, end) in
        [("rx_bytes_per_second", begin.0, end.0), ("tx_bytes_per_second", begin.1, end.1)]
    {
        let bytes = ours[&format!("network_monitor.lo.{what}")] * seconds;
        assert!((sent - seconds..=end - begin + seconds).contains(&bytes), "{what}: {bytes}");
    }
    assert_eq!(ours["network_monitor.lo.errors"], 0.0);
}

#[test]
fn what_this_machine_does_not_have_is_left_out() {
    let ours = metrics();
    let has = |monitor: MetricGroup| ours.keys().any(|path| path.starts_with(monitor.name()));
    for monitor in [
        MetricGroup::Cpu,
        MetricGroup::Disk,
        MetricGroup::Load,
        MetricGroup::Memory,
        MetricGroup::Uptime,
    ] {
        assert!(has(monitor), "{monitor}: {ours:?}");
    }
    let booted = Path::new("/run/systemd/system").is_dir();
    if !booted {
        assert!(!has(MetricGroup::Systemd));
    }
    if !Path::new("/sys/class/hwmon").exists()
        && !Path::new("/sys/class/thermal/thermal_zone0").exists()
    {
        assert!(!has(MetricGroup::Temperature));
    }
    assert!(ours.values().all(|value| value.is_finite() && *value >= -60.0));
}

#[test]
fn own_metrics_are_shown_and_refusals_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let write = "printf '#!/bin/sh\\necho \"load 0.5\"; echo oil.pressure 7\\n' > good; cp good open; \
                 chmod 755 good; chmod 757 open";
    let done = Command::new("sh").args(["-c", write]).current_dir(&folder).status().unwrap();
    assert!(done.success());
    assert_eq!(
        fs::metadata(folder.path().join("open")).unwrap().permissions().mode() & 0o777,
        0o757
    );
    let output = Command::new(env!("CARGO_BIN_EXE_hbc"))
        .args(["metrics", "--metrics-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let (out, log) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for line in ["load 0.5", "oil.pressure 7", "own_monitor.good.exit_code 0"] {
        assert!(out.lines().any(|found| found == line), "{out}");
    }
    assert!(!out.contains("open"), "{out}");
    assert!(log.contains("open can be written by everybody: chmod o-w; it is not run"), "{log}");
}

#[test]
fn an_own_metric_was_given_the_environment_and_the_open_files_of_hbc() {
    let folder = tempfile::tempdir().unwrap();
    let write = "printf '#!/bin/sh\n{ env; ls -l /proc/self/fd; } >%s\necho load 1\n' $PWD/seen >one; \
                 chmod 755 one";
    let done = Command::new("sh").args(["-c", write]).current_dir(&folder).status().unwrap();
    assert!(done.success());
    let start = "exec 9</dev/zero; exec \"$0\" metrics --metrics-dir \"$1\"";
    let output = Command::new("sh")
        .args(["-c", start, env!("CARGO_BIN_EXE_hbc")])
        .arg(folder.path())
        .envs([("HBC_KEY", "hunter22"), ("https_proxy", "http://proxy:3128")])
        .output()
        .unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("load 1"));
    let seen = fs::read_to_string(folder.path().join("seen")).unwrap();
    assert!(seen.contains("PATH=") && seen.contains("https_proxy=http://proxy:3128"), "{seen}");
    assert!(!seen.contains("hunter22") && !seen.contains("/dev/zero"), "{seen}");
}

#[test]
fn a_full_image_was_an_alarm_and_a_disk_that_cannot_be_entered_was_missing_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Filesystems of memory that are called disks. In the sandbox of the unit each mount is read-only.
    let script = "
        mkdir -p image data closed/disk && chmod 700 closed &&
        mount -t tmpfs -o ro,size=1m /dev/image image &&
        mount -t tmpfs -o size=1m /dev/data data &&
        { head -c 2m /dev/zero > data/file 2>&1; mount -o remount,bind,ro data; } &&
        mount -t tmpfs -o size=1m /dev/closed closed/disk &&
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" metrics --metrics-dir /nonexistent";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, env!("CARGO_BIN_EXE_hbc")])
        .current_dir(&folder)
        .output()
        .unwrap();
    let (out, log) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    if !output.status.success() {
        println!("no namespace can be made here: {log}");
        return;
    }
    let path = folder.path().to_str().unwrap();
    let full = format!("disk_monitor.{}.percent 100", name(&format!("{path}/data")));
    assert!(out.lines().any(|line| line == full), "{out}");
    assert!(!out.contains("_image.percent") && !out.contains("_closed_disk"), "{out}");
    let warning = format!("the disk at {path}/closed/disk cannot be read: Permission denied");
    assert_eq!(log.matches(&warning).count(), 1, "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}
