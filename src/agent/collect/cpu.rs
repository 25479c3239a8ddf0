//! What the processors did, from `/proc/stat` (proc_stat(5)). Pure.

use crate::agent::name::{hundredths, percent};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(earlier: &str, later: &str) -> String {
        let (earlier, later) = (parse(earlier).unwrap(), parse(later).unwrap());
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
            assert_eq!(parse(junk), None, "{junk}");
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
        assert_eq!((count(pi), count("cpufreq 1\ncpu 1 2\n")), (4, 0));
    }

    proptest! {
        #[test]
        fn junk_gives_shares_from_0_to_100(
            earlier in "(cpu[0-9]? {0,2}([0-9]{1,21} ){0,11}\n|\\PC*\n){0,3}",
            later in "(cpu[0-9]? {0,2}([0-9]{1,21} ){0,11}\n|\\PC*\n){0,3}",
        ) {
            count(&later);
            if let (Some(earlier), Some(later)) = (parse(&earlier), parse(&later)) {
                for (_, share) in later.since(&earlier) {
                    prop_assert!((0.0..=100.0).contains(&share), "{share}");
                }
            }
        }
    }
}
