//! Rates of the network interfaces, from `/proc/net/dev` (proc_pid_net(5)). Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::metric_name::{matches_pattern, unique_segments};
use crate::btree::InsertAll;

/// The most interfaces: hosts of containers have hundreds, and hbd keeps 512 metrics of a host.
const MAX_INTERFACES: usize = 32;

/// The counters of an interface since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceCounters {
    received: u64,
    sent: u64,
    errors: u64,
}

/// The counters of each interface that is not excluded.
pub fn parse(dev: &str, excluded: &[String]) -> BTreeMap<String, InterfaceCounters> {
    let of_line = |line: &str| {
        // Old kernels leave no blank behind the colon; an alias has one in its name.
        let (name, rest) = line.rsplit_once(':')?;
        let fields: Vec<u64> =
            rest.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        let [received, _, errors_received, _, _, _, _, _, sent, _, errors_sent, ..] = fields[..]
        else {
            return None;
        };
        let errors = errors_received.saturating_add(errors_sent);
        Some((name.trim().to_owned(), InterfaceCounters { received, sent, errors }))
    };
    let included = |name: &str| !excluded.iter().any(|pattern| matches_pattern(pattern, name));
    dev.lines()
        .filter_map(of_line)
        .filter(|(name, _)| included(name))
        .take(MAX_INTERFACES)
        .insert_all()
}

/// Bytes per second and new errors of the interfaces that were there before, too.
///
/// A counter that went backwards belongs to an interface that was made anew, or passed its 32
/// bits; which one cannot be told, and there is no rate until the next reading.
pub fn rates(
    earlier: &BTreeMap<String, InterfaceCounters>,
    later: &BTreeMap<String, InterfaceCounters>,
    between: Duration,
) -> Vec<(String, f64)> {
    let seconds = between.as_secs_f64();
    let names = unique_segments(later.keys().map(String::as_str));
    let mut metrics = Vec::new();
    for ((interface, now), name) in later.iter().zip(names) {
        let Some(before) = earlier.get(interface).filter(|_| seconds > 0.0) else { continue };
        let mut add = |what: &str, value: Option<f64>| {
            metrics.extend(value.map(|value| (format!("{name}.{what}"), value)));
        };
        let rate = |before: u64, now: u64| {
            now.checked_sub(before).map(|bytes| (bytes as f64 / seconds).round())
        };
        add("rx_bytes_per_second", rate(before.received, now.received));
        add("tx_bytes_per_second", rate(before.sent, now.sent));
        add("errors", now.errors.checked_sub(before.errors).map(|errors| errors as f64));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVER: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 20714329023 25310621    0    0    0     0          0         0 20714329023 25310621    0    0    0     0       0          0
  eth0: 475465603   17410    3    0    0     0          0         0   993226   11627    4    0    0     0       0          0
eth0.100: 5000 10 0 0 0 0 0 0 6000 11 0 0 0 0 0 0
veth1a2b3c: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
";

    fn excluded() -> Vec<String> {
        vec!["lo".into(), "veth*".into()]
    }

    fn after(earlier: &str, later: &str, seconds: u64) -> Vec<(String, f64)> {
        let between = Duration::from_secs(seconds);
        rates(&parse(earlier, &excluded()), &parse(later, &excluded()), between)
    }

    #[test]
    fn a_rate_is_what_came_divided_by_the_time() {
        let later = SERVER
            .replace("475465603", "475475603")
            .replace("   993226", "   993726")
            .replace("    3    0", "    5    0");
        assert_eq!(
            after(SERVER, &later, 10),
            [
                ("eth0.rx_bytes_per_second".to_owned(), 1000.0),
                ("eth0.tx_bytes_per_second".to_owned(), 50.0),
                ("eth0.errors".to_owned(), 2.0),
                ("eth0_100.rx_bytes_per_second".to_owned(), 0.0),
                ("eth0_100.tx_bytes_per_second".to_owned(), 0.0),
                ("eth0_100.errors".to_owned(), 0.0),
            ]
        );
    }

    #[test]
    fn an_old_kernel_leaves_no_blank_behind_the_colon() {
        let line = |bytes| format!("  eth0:{bytes} 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n");
        assert_eq!(after(&line(100), &line(400), 3)[0].1, 100.0);
    }

    #[test]
    fn a_counter_that_began_anew_gives_no_rate() {
        let line = |rx: u64, tx: u64| format!("ppp0: {rx} 1 0 0 0 0 0 0 {tx} 1 0 0 0 0 0 0\n");
        // Made anew, and over the end of 32 bits.
        for (before, now) in [(4_000_000_000, 12), (u64::from(u32::MAX), 5)] {
            let rates = after(&line(before, 100), &line(now, 300), 2);
            assert_eq!(
                rates,
                [("ppp0.tx_bytes_per_second".to_owned(), 100.0), ("ppp0.errors".to_owned(), 0.0)]
            );
        }
    }

    #[test]
    fn an_interface_that_is_new_has_no_rate_yet() {
        assert_eq!(after("", SERVER, 10), []);
        assert_eq!(after(SERVER, "", 10), []);
        assert_eq!(after(SERVER, SERVER, 0), []);
    }

    #[test]
    fn a_host_of_a_thousand_containers_tells_of_some() {
        let line = |n: usize| format!("if{n}: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
        let dev: String = (0..1000).map(line).collect();
        assert_eq!(after(&dev, &dev, 1).len(), MAX_INTERFACES * 3);
    }

    proptest! {
        #[test]
        fn junk_gives_no_nonsense(
            earlier in "(eth[01]: ?([0-9]{1,21} ){9,18}\n|\\PC*\n){0,4}",
            later in "(eth[01]: ?([0-9]{1,21} ){9,18}\n|\\PC*\n){0,4}",
            seconds in 0_u64..1000,
        ) {
            for (path, value) in after(&earlier, &later, seconds) {
                prop_assert!(value >= 0.0 && value.is_finite(), "{path} {value}");
            }
        }
    }
}
