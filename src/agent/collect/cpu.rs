//! What the processors did, from `/proc/stat` (proc_stat(5)). Pure.

use super::name::{hundredths, percent};

/// The fields of the first line, in ticks since the boot: user, nice, system, idle, iowait, irq,
/// softirq, steal. Guests, the last two columns of newer kernels, are part of user and nice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    ticks: [u64; 8],
    /// How many of them this kernel has: 4 in Linux 2.4, 8 since 2.6.11.
    known: usize,
}

const IDLE: usize = 3;
const IOWAIT: usize = 4;
const STEAL: usize = 7;

/// Reads the line of all processors together.
pub fn parse(stat: &str) -> Option<Times> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut times = Times::default();
    for (place, field) in times.ticks.iter_mut().zip(line.split_ascii_whitespace()) {
        *place = field.parse().ok()?;
        times.known += 1;
    }
    (times.known > IDLE).then_some(times)
}

/// How many processors are online: the lines `cpu0`, `cpu1` ...
pub fn count(stat: &str) -> usize {
    let numbered = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(numbered).count()
}

impl Times {
    /// Percentages of the time since an earlier reading. Nothing when there was none, as when the
    /// counters began anew.
    ///
    /// Busy is what is neither idle nor waiting for a disk. Time that was stolen by other virtual
    /// machines is busy, too: it could not be used here. Fields may go backwards a little (iowait
    /// is documented to), that counts as standing still.
    pub fn since(&self, earlier: &Times) -> Vec<(String, f64)> {
        let spent = |field: usize| self.ticks[field].saturating_sub(earlier.ticks[field]) as f64;
        let total: f64 = (0..self.known).map(spent).sum();
        if total <= 0.0 {
            return Vec::new();
        }
        let share = |ticks: f64| hundredths(percent(ticks, total));
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
