//! Memory and swap, from `/proc/meminfo` (proc_meminfo(5)). Pure.

use super::name::{hundredths, percent};

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
