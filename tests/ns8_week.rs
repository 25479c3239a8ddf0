//! Weeks of NethServer 8 with a clock that is moved by hand: what `hbd` tells of the backups is
//! compared with the truth, minute by minute.

mod support {
    pub mod ns8_daemon;
    pub mod ns8_oracle;
    pub mod ns8_world;
}

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use heartbeat::backup::schedule::Zones;
use support::ns8_daemon::{Daemon, Disk, now};
use support::ns8_oracle::Oracle;
use support::ns8_world::{DAY, HOUR, MINUTE, World};

const SEEDS: u64 = 24;
const MINUTES: i64 = 7 * DAY / MINUTE;
/// In the last hours nothing new goes wrong.
const QUIET: i64 = 20 * HOUR / MINUTE;
/// Seven past noon, UTC: 6 March 2026, the Friday before summer begins, that before it ends, and 2 November.
const BEGINS: [i64; 4] =
    [1_772_798_820_000, 1_774_613_220_000, 1_792_757_220_000, 1_793_621_220_000];

/// One week: the story of it, where something was told that is wrong.
fn week(seed: u64) -> Result<usize, String> {
    let zones = Zones::with_local("Europe/Rome").unwrap();
    let watch = !seed.is_multiple_of(3);
    let mut world = World::new(seed, BEGINS[(seed / 2 % 4) as usize]);
    let (mut disk, mut oracle) = (Disk::default(), Oracle::new(watch, &zones));
    let mut daemon: Option<Daemon> = None;
    for minute in 0..MINUTES {
        world.step(minute > MINUTES - QUIET);
        oracle.observe(&world);
        if !world.hbd_runs() {
            daemon = None;
            continue;
        }
        let now = now(&world);
        let daemon = daemon.get_or_insert_with(|| Daemon::start(&disk, watch, &zones, now));
        if world.site.polled {
            daemon.poll(&world.api(), &mut disk, now);
        } else {
            for delivery in world.deliveries() {
                daemon.webhook(&delivery.body, &mut disk, now);
                world.delivered(delivery);
            }
        }
        for event in daemon.work(&world, &mut disk, now) {
            oracle.hear(&mut world, &event);
        }
        if minute % 5 == 0 {
            oracle.check(&mut world);
        }
        if oracle.silence_untold(&world) {
            oracle
                .violations
                .push(format!("minute {minute}: Redis is silent, and that is not told"));
        }
        if !oracle.violations.is_empty() {
            break;
        }
    }
    match oracle.violations.first() {
        None => Ok(oracle.messages),
        Some(first) => {
            let skipped = world.story.len().saturating_sub(if std::env::var("WEEK_SEED").is_ok() {
                100_000
            } else {
                150
            });
            Err(format!(
                "seed {seed}, watch {watch}: {first}\n{}",
                world.story[skipped..].join("\n")
            ))
        }
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("WEEK_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn no_false_word_is_told_in_any_week_and_nothing_is_left_open_that_is_over() {
    let (seeds, next, failed) = (seeds(), AtomicU64::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match week(*seed) {
                        Ok(messages) => println!("seed {seed}: {messages} messages"),
                        Err(story) => failed.lock().unwrap().push(story),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let first: Vec<_> = failed.iter().filter_map(|story| story.lines().next()).collect();
    assert!(failed.is_empty(), "{}\n\n{}", failed[0], first.join("\n"));
}
