//! Memory and swap, from `/proc/meminfo` (proc_meminfo(5)). Pure.

use crate::agent::name::{hundredths, percent};

/// A field, in bytes; `kB` of the file means 1,024 bytes.
fn bytes(meminfo: &str, field: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let number: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(number as f64 * 1024.0)
}

/// How much of the memory is not available to programs, and how much is.
pub fn memory(meminfo: &str) -> Vec<(String, f64)> {
    let of = |field| bytes(meminfo, field);
    let Some(total) = of("MemTotal").filter(|total| *total > 0.0) else { return Vec::new() };
    let Some(available) = of("MemAvailable").or_else(|| estimate(meminfo)) else {
        return Vec::new();
    };
    let available = available.clamp(0.0, total);
    vec![
        ("available_bytes".to_owned(), available),
        ("percent".to_owned(), hundredths(percent(total - available, total))),
    ]
}

/// Before Linux 3.14 nobody said what is available: what is free and what the kernel can drop.
/// Memory that is shared counts as cached there and cannot be dropped.
fn estimate(meminfo: &str) -> Option<f64> {
    let of = |field| bytes(meminfo, field).unwrap_or(0.0);
    let free = bytes(meminfo, "MemFree")?;
    Some(free + of("Buffers") + of("Cached") - of("Shmem") + of("SReclaimable"))
}

/// How much of the swap space is in use; nothing where there is none.
pub fn swap(meminfo: &str) -> Vec<(String, f64)> {
    let of = |field| bytes(meminfo, field);
    match (of("SwapTotal"), of("SwapFree")) {
        (Some(total), Some(free)) if total > 0.0 => {
            vec![("percent".to_owned(), hundredths(percent((total - free).max(0.0), total)))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(metrics: &[(String, f64)]) -> String {
        metrics.iter().map(|(name, value)| format!("{name}={value} ")).collect()
    }

    #[test]
    fn a_raspberry_pi_has_memory_and_a_little_swap() {
        let pi = "MemTotal:        3885396 kB\nMemFree:         2345678 kB\nMemAvailable:    2914047 kB\n\
                  Buffers:           45000 kB\nCached:           600000 kB\nSwapCached:            0 kB\n\
                  SwapTotal:        102396 kB\nSwapFree:          51198 kB\n";
        assert_eq!(shown(&memory(pi)), "available_bytes=2983984128 percent=25 ");
        assert_eq!(shown(&swap(pi)), "percent=50 ");
    }

    #[test]
    fn a_machine_without_swap_has_no_share_of_it() {
        // An LXC container.
        let lxc = "MemTotal:  524288 kB\nMemFree:  400000 kB\nMemAvailable:  500000 kB\nSwapTotal:  0 kB\nSwapFree:  0 kB\n";
        assert_eq!(shown(&memory(lxc)), "available_bytes=512000000 percent=4.63 ");
        assert_eq!(shown(&swap(lxc)), "");
    }

    #[test]
    fn an_old_kernel_does_not_say_what_is_available() {
        // Linux 3.2.
        let old = "MemTotal:  1000000 kB\nMemFree:  100000 kB\nBuffers:  50000 kB\nCached:  400000 kB\n\
                   Shmem:  100000 kB\nSReclaimable:  50000 kB\n";
        assert_eq!(shown(&memory(old)), "available_bytes=512000000 percent=50 ");
    }

    #[test]
    fn odd_numbers_give_no_nonsense() {
        let more = "MemTotal: 100 kB\nMemAvailable: 200 kB\nSwapTotal: 5 kB\nSwapFree: 9 kB\n";
        assert_eq!(shown(&memory(more)), "available_bytes=102400 percent=0 ");
        assert_eq!(shown(&swap(more)), "percent=0 ");
        for junk in ["", "MemTotal:", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", "MemTotal: 5 kB\n"] {
            assert_eq!(shown(&memory(junk)), "", "{junk}");
        }
    }

    proptest! {
        #[test]
        fn junk_gives_shares_from_0_to_100(
            text in "((Mem|Swap)(Total|Free|Available): *[0-9]{0,22} kB\n|\\PC*\n){0,8}",
        ) {
            for (name, value) in memory(&text).into_iter().chain(swap(&text)) {
                let most = if name == "percent" { 100.0 } else { f64::MAX };
                prop_assert!((0.0..=most).contains(&value), "{name} {value}");
            }
        }
    }
}
