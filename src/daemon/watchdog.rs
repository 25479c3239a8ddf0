//! Tells systemd that the daemon lives, as long as it really does its work.
//!
//! A thread that dies ends the process; one that hangs is noticed here: each is asked for a sign of
//! life, and only when all have given one does systemd hear of it (`WatchdogSec=`, systemd.service(5)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use super::house::Rooms;
use super::{Failure, spawn};
use crate::http::HealthProbe;
use crate::notify::courier::Order;
use crate::systemd;
use crate::thread::ProgressCounter;
use crate::thread::Stop;

/// The longest time between two looks, and the shortest.
const LOOKS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_millis(100));
/// A thread may be held up for so long before the log says so.
const SLOW: u32 = 2;

/// The signs of life of the threads that turn by themselves.
#[derive(Clone, Default)]
pub struct Pulses {
    /// Of the UDP side.
    pub udp: ProgressCounter,
    /// Of the clock.
    pub deadlines: ProgressCounter,
}

/// Watches over the threads, where systemd wants to know.
///
/// # Errors
/// When no thread can be started.
pub fn start(
    pulses: Pulses,
    rooms: &Arc<Rooms>,
    probe: HealthProbe,
    stop: &Stop,
) -> Result<(), Failure> {
    let Some(wanted) = systemd::watchdog() else { return Ok(()) };
    let look = (wanted / 4).clamp(LOOKS.1, LOOKS.0);
    info!("systemd is told every {look:?} that all threads do their work");
    let (rooms, stop) = (Arc::clone(rooms), stop.clone());
    spawn("watchdog", move || {
        let mut watched = Watched::new(pulses, rooms);
        let mut late = 0;
        loop {
            match watched.look(&probe, look) {
                Ok(()) => {
                    systemd::tell("WATCHDOG=1");
                    late = 0;
                }
                Err(who) => {
                    late += 1;
                    if late == SLOW {
                        error!("{who} gives no sign of life; systemd will end hbd when that lasts");
                    }
                }
            }
            if stop.wait(look) {
                return;
            }
        }
    })
}

/// What was seen of each thread.
struct Watched {
    pulses: Pulses,
    rooms: Arc<Rooms>,
    seen: (u64, u64),
    /// Of the courier: how often it was asked, and how often it answered.
    asked: u64,
    answered: ProgressCounter,
}

impl Watched {
    fn new(pulses: Pulses, rooms: Arc<Rooms>) -> Watched {
        Watched { pulses, rooms, seen: (0, 0), asked: 0, answered: ProgressCounter::default() }
    }

    /// Whether every thread made a turn since the last look that found it so; else which did not.
    fn look(&mut self, probe: &HealthProbe, patience: Duration) -> Result<(), &'static str> {
        // Whoever hangs with this lock in its hand keeps us from telling anything.
        let _ = self.rooms.watch.count();
        if self.answered.count() == self.asked {
            self.asked += 1;
            let answer = self.answered.clone();
            self.rooms.courier.order(Order::Look(Box::new(move |_, _| answer.increment())));
        }
        let turned = (self.pulses.udp.count(), self.pulses.deadlines.count());
        if turned.0 == self.seen.0 {
            return Err("the thread udp");
        }
        if turned.1 == self.seen.1 {
            return Err("the thread deadlines");
        }
        let end = Instant::now() + patience;
        if !probe.answers(end) {
            return Err("the HTTP side");
        }
        if self.answered.count() != self.asked {
            return Err("the courier");
        }
        self.seen = turned;
        Ok(())
    }
}
