//! Parses the files of proc(5): processors, load, uptime, memory, swap and processes. Pure.

use std::io::{self, ErrorKind};

use super::metric_name::{percent, round_hundredths};

/// The first line of `/proc/stat` (proc_stat(5)), in ticks since the boot: user, nice, system, idle, iowait, irq,
/// softirq, steal. Guests, the last two columns of newer kernels, are part of user and nice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    ticks: [u64; 8],
    /// How many of them this kernel has: 4 in Linux 2.4, 8 since 2.6.11.
    known: usize,
}

const IDLE: usize = 3;
const IOWAIT: usize = 4;
const STEAL: usize = 7;

/// Parses the line of all processors together.
pub fn parse_cpu(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut times = CpuTimes::default();
    for (slot, field) in times.ticks.iter_mut().zip(line.split_ascii_whitespace()) {
        *slot = field.parse().ok()?;
        times.known += 1;
    }
    (times.known > IDLE).then_some(times)
}

/// How many processors are online: the lines `cpu0`, `cpu1` ...
pub fn processor_count(stat: &str) -> usize {
    let numbered = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(numbered).count()
}

impl CpuTimes {
    /// Percentages of the time since an earlier reading. Nothing when there was none, as when the
    /// counters began anew.
    ///
    /// Busy is what is neither idle nor waiting for a disk. Time that was stolen by other virtual
    /// machines is busy, too: it could not be used here. Fields may go backwards a little (iowait
    /// is documented to), that counts as standing still.
    pub fn since(&self, earlier: &CpuTimes) -> Vec<(String, f64)> {
        let spent = |field: usize| self.ticks[field].saturating_sub(earlier.ticks[field]) as f64;
        let total: f64 = (0..self.known).map(spent).sum();
        if total <= 0.0 {
            return Vec::new();
        }
        let share = |ticks: f64| round_hundredths(percent(ticks, total));
        let busy = total - spent(IDLE) - spent(IOWAIT);
        let mut shares = vec![("cpu_percent".to_owned(), share(busy))];
        for (field, name) in [(IOWAIT, "iowait_percent"), (STEAL, "steal_percent")] {
            if self.known.min(earlier.known) > field {
                shares.push((name.to_owned(), share(spent(field))));
            }
        }
        shares
    }
}

/// From `/proc/loadavg` (proc_loadavg(5)) and `/proc/stat`: the load averages over 1, 5 and 15 minutes, and that over one minute for each processor.
///
/// One minute, because the limits of hbd ask for a minute beyond them already.
pub fn load(loadavg: &str, stat: &str) -> Vec<(String, f64)> {
    let averages: Vec<f64> =
        loadavg.split_ascii_whitespace().map_while(|field| field.parse().ok()).take(3).collect();
    let names = ["load1", "load5", "load15"];
    let mut metrics: Vec<(String, f64)> =
        names.iter().map(|name| (*name).to_owned()).zip(averages.iter().copied()).collect();
    if let (Some(load), processors @ 1..) = (averages.first(), processor_count(stat)) {
        metrics.push(("per_core".to_owned(), round_hundredths(load / processors as f64)));
    }
    metrics
}

/// From `/proc/uptime` (proc_uptime(5)): seconds since the boot; in a container since its start, where that is virtualised.
pub fn uptime(uptime: &str) -> Vec<(String, f64)> {
    let seconds = uptime.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
    seconds.map(|seconds: f64| ("seconds".to_owned(), seconds)).into_iter().collect()
}

/// A field of `/proc/meminfo` (proc_meminfo(5)), in bytes; `kB` there means 1,024 bytes.
fn bytes(meminfo: &str, field: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let number: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(number as f64 * 1024.0)
}

/// How much of the memory is not available to programs, and how much is. `reclaimable` bytes are a cache
/// that the kernel counts as used.
pub fn memory(meminfo: &str, reclaimable: f64) -> Vec<(String, f64)> {
    let of = |field| bytes(meminfo, field);
    let Some(total) = of("MemTotal").filter(|total| *total > 0.0) else { return Vec::new() };
    let Some(available) = of("MemAvailable").or_else(|| estimate(meminfo)) else {
        return Vec::new();
    };
    // What is more than all that is used is the cache of another machine, on which this one runs.
    let used = total - of("MemFree").unwrap_or(available);
    let reclaimable = if reclaimable > used { 0.0 } else { reclaimable };
    let available = (available + reclaimable).clamp(0.0, total);
    vec![
        ("available_bytes".to_owned(), available),
        ("percent".to_owned(), round_hundredths(percent(total - available, total))),
    ]
}

/// Before Linux 3.14 the file does not say what is available: what is free and what the kernel can drop.
/// Memory that is shared counts as cached there and cannot be dropped.
fn estimate(meminfo: &str) -> Option<f64> {
    let of = |field| bytes(meminfo, field).unwrap_or(0.0);
    let free = bytes(meminfo, "MemFree")?;
    Some(free + of("Buffers") + of("Cached") - of("Shmem") + of("SReclaimable"))
}

/// From `/proc/spl/kstat/zfs/arcstats` (zfs(4)): the bytes of the cache of ZFS that it gives back when
/// programs need them, all beyond its least size. 0 where there is no ZFS.
pub fn reclaimable_arc(arcstats: &str) -> f64 {
    let of = |field: &str| {
        let line =
            arcstats.lines().find(|line| line.split_ascii_whitespace().next() == Some(field));
        line?.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()
    };
    match (of("size"), of("c_min")) {
        (Some(size), Some(least)) => size.saturating_sub(least) as f64,
        _ => 0.0,
    }
}

/// Whether this is a container, by its mounts (proc_pid_mountinfo(5)): lxcfs shows it its own share of
/// the memory, or its root is made of layers.
pub fn is_container(mountinfo: &str) -> bool {
    let shows_it = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ").unwrap_or((line, ""));
        let kind = filesystem.split(' ').next().unwrap_or_default();
        match mount.split(' ').nth(4) {
            Some("/proc" | "/proc/meminfo") => kind.starts_with("fuse"),
            Some("/") => kind.contains("overlay"),
            _ => false,
        }
    };
    mountinfo.lines().any(shows_it)
}

/// How much of the swap space is in use; nothing where there is none.
pub fn swap(meminfo: &str) -> Vec<(String, f64)> {
    let of = |field| bytes(meminfo, field);
    match (of("SwapTotal"), of("SwapFree")) {
        (Some(total), Some(free)) if total > 0.0 => {
            vec![("percent".to_owned(), round_hundredths(percent((total - free).max(0.0), total)))]
        }
        _ => Vec::new(),
    }
}

/// The number of processes, and that of zombies: those that have ended and were not waited for.
///
/// `stats` is the id and the file `stat` of each (proc_pid_stat(5)). Nothing where those of other
/// users are hidden (`hidepid` of proc(5)): our own few would look like all.
pub fn processes(stats: impl Iterator<Item = (u32, io::Result<String>)>) -> Vec<(String, f64)> {
    let (mut count, mut zombies, mut first) = (0_u64, Some(0_u64), false);
    for (id, stat) in stats {
        match stat {
            Ok(stat) => zombies = zombies.map(|known| known + u64::from(is_zombie(&stat))),
            Err(why) if why.kind() == ErrorKind::PermissionDenied => zombies = None,
            // It has ended since: it is gone (ESRCH once its file was opened).
            Err(_) => continue,
        }
        count += 1;
        first |= id == 1;
    }
    if !first {
        return Vec::new();
    }
    let zombies = zombies.map(|zombies| ("zombies".to_owned(), zombies as f64));
    [("count".to_owned(), count as f64)].into_iter().chain(zombies).collect()
}

/// `26231 (name) Z 1 ...`: the name may hold anything, also blanks and parentheses.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::process_stats;
    use super::*;

    fn told(earlier: &str, later: &str) -> String {
        let (earlier, later) = (parse_cpu(earlier).unwrap(), parse_cpu(later).unwrap());
        let shares = later.since(&earlier);
        shares.iter().map(|(name, share)| format!("{name}={share} ")).collect()
    }

    #[test]
    fn busy_is_what_is_neither_idle_nor_waiting() {
        // A virtual machine, Linux 6.1. Its guests' 50 ticks are part of user already.
        let earlier =
            "cpu  1000 0 500 8000 100 0 20 30 50 0\ncpu0 1000 0 500 8000 100 0 20 30 50 0\n";
        let later = "cpu  1300 10 590 8500 150 0 30 70 100 0\ncpu0 1 2 3 4\n";
        assert_eq!(told(earlier, later), "cpu_percent=45 iowait_percent=5 steal_percent=4 ");
    }

    #[test]
    fn a_machine_without_a_column_has_no_such_share() {
        // An LXC container with an lxcfs that knows no more, and Linux 2.4.
        let lxc = ["cpu  100 0 50 850 0 0 0\n", "cpu  160 0 60 880 0 0 0\n"];
        assert_eq!(told(lxc[0], lxc[1]), "cpu_percent=70 iowait_percent=0 ");
        assert_eq!(told("cpu 100 0 50 850\n", "cpu 101 0 50 852\n"), "cpu_percent=33.33 ");
        for junk in
            ["", "cpu", "cpu \n", "cpu 1 2 3\n", "cpu  a b c d\n", "cpu0 1 2 3 4\n", "intr 1"]
        {
            assert_eq!(parse_cpu(junk), None, "{junk}");
        }
    }

    #[test]
    fn counters_that_go_backwards_give_no_nonsense() {
        let earlier = "cpu 1000 0 500 8000 100 0 20 30\n";
        // iowait falls, as it is documented to; then all begins anew; then nothing moves.
        let later = "cpu 1050 0 500 8050 60 0 20 30\n";
        assert_eq!(told(earlier, later), "cpu_percent=50 iowait_percent=0 steal_percent=0 ");
        assert_eq!(told(earlier, "cpu 1 0 1 1 1 0 0 0\n"), "");
        assert_eq!(told(earlier, earlier), "");
    }

    #[test]
    fn processors_are_counted() {
        // A Raspberry Pi 4, arm64.
        let pi = "cpu  139 0 271 3810 53 0 8 0 0 0\ncpu0 27 0 74 955 9 0 4 0 0 0\n\
                  cpu1 37 0 68 941 15 0 1 0 0 0\ncpu2 41 0 65 954 11 0 1 0 0 0\n\
                  cpu3 33 0 62 958 17 0 0 0 0 0\nintr 32312 0 10\nctxt 65443\nbtime 1795291928\n";
        assert_eq!((processor_count(pi), processor_count("cpufreq 1\ncpu 1 2\n")), (4, 0));
    }

    proptest! {
        #[test]
        fn junk_gives_shares_from_0_to_100(
            earlier in "(cpu[0-9]? {0,2}([0-9]{1,21} ){0,11}\n|\\PC*\n){0,3}",
            later in "(cpu[0-9]? {0,2}([0-9]{1,21} ){0,11}\n|\\PC*\n){0,3}",
        ) {
            processor_count(&later);
            if let (Some(earlier), Some(later)) = (parse_cpu(&earlier), parse_cpu(&later)) {
                for (_, share) in later.since(&earlier) {
                    prop_assert!((0.0..=100.0).contains(&share), "{share}");
                }
            }
        }
    }

    const TWO: &str = "cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu1 1 2 3 4\n";

    fn shown(metrics: &[(String, f64)]) -> String {
        metrics.iter().map(|(name, value)| format!("{name}={value} ")).collect()
    }

    #[test]
    fn the_load_is_divided_by_the_processors() {
        let metrics = load("1.03 1.10 1.44 1/97 5381\n", TWO);
        assert_eq!(shown(&metrics), "load1=1.03 load5=1.1 load15=1.44 per_core=0.52 ");
        assert_eq!(
            shown(&load("1.03 1.10 1.44 1/97 5381\n", "")),
            "load1=1.03 load5=1.1 load15=1.44 "
        );
    }

    #[test]
    fn junk_instead_of_a_load_is_left_out() {
        for junk in ["", "x 1 2", "\n"] {
            assert_eq!(shown(&load(junk, TWO)), "");
        }
        assert_eq!(shown(&load("1.5 x 2", TWO)), "load1=1.5 per_core=0.75 ");
    }

    #[test]
    fn the_uptime_is_the_first_number() {
        assert_eq!(shown(&uptime("11527.84 9452.71\n")), "seconds=11527.84 ");
        assert_eq!(shown(&uptime("")), "");
        assert_eq!(shown(&uptime("long ago")), "");
    }

    #[test]
    fn a_raspberry_pi_has_memory_and_a_little_swap() {
        let pi = "MemTotal:        3885396 kB\nMemFree:         2345678 kB\nMemAvailable:    2914047 kB\n\
                  Buffers:           45000 kB\nCached:           600000 kB\nSwapCached:            0 kB\n\
                  SwapTotal:        102396 kB\nSwapFree:          51198 kB\n";
        assert_eq!(shown(&memory(pi, 0.0)), "available_bytes=2983984128 percent=25 ");
        assert_eq!(shown(&swap(pi)), "percent=50 ");
    }

    #[test]
    fn a_machine_without_swap_has_no_share_of_it() {
        // An LXC container.
        let lxc = "MemTotal:  524288 kB\nMemFree:  400000 kB\nMemAvailable:  500000 kB\nSwapTotal:  0 kB\nSwapFree:  0 kB\n";
        assert_eq!(shown(&memory(lxc, 0.0)), "available_bytes=512000000 percent=4.63 ");
        assert_eq!(shown(&swap(lxc)), "");
    }

    #[test]
    fn an_old_kernel_does_not_say_what_is_available() {
        // Linux 3.2.
        let old = "MemTotal:  1000000 kB\nMemFree:  100000 kB\nBuffers:  50000 kB\nCached:  400000 kB\n\
                   Shmem:  100000 kB\nSReclaimable:  50000 kB\n";
        assert_eq!(shown(&memory(old, 0.0)), "available_bytes=512000000 percent=50 ");
    }

    /// OpenZFS 2.1.
    const ARCSTATS: &str = "\
13 1 0x01 123 33456 5238583563 8617862683361
name                            type data
hits                            4    1099511
c                               4    33554432000
c_min                           4    2147483648
c_max                           4    51539607552
size                            4    47244640256
compressed_size                 4    40000000000
";

    #[test]
    fn the_cache_of_zfs_was_memory_that_is_used() {
        assert_eq!(reclaimable_arc(ARCSTATS), 42.0 * 1024.0 * 1024.0 * 1024.0);
        let gib = |count: u64| count * 1024 * 1024;
        let meminfo = format!(
            "MemTotal: {} kB\nMemFree: {} kB\nMemAvailable: {} kB\n",
            gib(64),
            gib(3),
            gib(4)
        );
        let with_cache = shown(&memory(&meminfo, reclaimable_arc(ARCSTATS)));
        assert_eq!(with_cache, "available_bytes=49392123904 percent=28.13 ");
        assert!(shown(&memory(&meminfo, 0.0)).ends_with("percent=93.75 "));
    }

    #[test]
    fn a_cache_that_is_not_this_machine_s_is_not_available_to_it() {
        for text in ["", "size 4\nc_min 4 x\n", "size 4 5\n", "c_min 4 5\nsize 4 4\n"] {
            assert_eq!(reclaimable_arc(text), 0.0, "{text}");
        }
        let container = "MemTotal: 8388608 kB\nMemFree: 400000 kB\nMemAvailable: 838860 kB\n";
        let share = shown(&memory(container, reclaimable_arc(ARCSTATS)));
        assert!(share.ends_with("percent=90 "), "{share}");
        let lxcfs = "502 500 0:49 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw\n";
        let docker = "600 1 0:70 / / rw - overlay overlay rw,lowerdir=/x\n";
        assert!(is_container(lxcfs) && is_container(docker));
        let machine = "22 27 0:21 / /proc rw shared:14 - proc proc rw\n36 22 0:32 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n";
        assert!(!is_container(machine) && !is_container("x\n / overlay\n"));
    }

    #[test]
    fn odd_numbers_of_memory_give_no_nonsense() {
        let more = "MemTotal: 100 kB\nMemAvailable: 200 kB\nSwapTotal: 5 kB\nSwapFree: 9 kB\n";
        assert_eq!(shown(&memory(more, 0.0)), "available_bytes=102400 percent=0 ");
        assert_eq!(shown(&swap(more)), "percent=0 ");
        for junk in ["", "MemTotal:", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", "MemTotal: 5 kB\n"] {
            assert_eq!(shown(&memory(junk, 0.0)), "", "{junk}");
        }
    }

    proptest! {
        #[test]
        fn junk_gives_shares_of_memory_from_0_to_100(
            text in "((Mem|Swap)(Total|Free|Available): *[0-9]{0,22} kB\n|\\PC*\n){0,8}",
        ) {
            for (name, value) in memory(&text, 0.0).into_iter().chain(swap(&text)) {
                let most = if name == "percent" { 100.0 } else { f64::MAX };
                prop_assert!((0.0..=most).contains(&value), "{name} {value}");
            }
        }
    }

    fn counted(all: &[(&str, &str)]) -> Vec<(String, f64)> {
        let folder = tempfile::tempdir().unwrap();
        for (id, stat) in all {
            fs::create_dir(folder.path().join(id)).unwrap();
            fs::write(folder.path().join(id).join("stat"), stat).unwrap();
        }
        fs::write(folder.path().join("stat"), "cpu 1 2 3 4\n").unwrap();
        processes(process_stats(folder.path()))
    }

    #[test]
    fn zombies_are_known_by_their_state_and_not_by_their_names() {
        let processes = [
            ("1", "1 (systemd) S 0 1 1 0"),
            ("20", "20 (a) Z) S 1 2 3"),
            ("21", "21 (cron) Z 1 2 3"),
            ("22", "22 (x y (z)) Z 1 2 3"),
            ("self", "20 (a) S"),
        ];
        assert_eq!(counted(&processes), [("count".into(), 4.0), ("zombies".into(), 2.0)]);
    }

    #[test]
    fn where_others_are_hidden_nothing_is_said() {
        assert_eq!(counted(&[("812", "812 (hbc) R 1 2 3")]), []);
        assert_eq!(processes(process_stats(Path::new("/nonexistent"))), []);
    }

    #[test]
    fn a_state_that_cannot_be_found_is_no_zombie() {
        for stat in ["", "1", "1 (a", "1 (a)", "Z", ") "] {
            assert!(!is_zombie(stat), "{stat}");
        }
    }
}
