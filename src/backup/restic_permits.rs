//! Who may run restic when: a semaphore that knows which destination each run asks, so that one that
//! does not answer keeps only its own plans waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::thread::lock;

/// How many checks run at the same time: the machines are small.
const MAX_CONCURRENT: usize = 2;

/// How many there are together with those that have given their permit on.
const MAX_WITH_LATE: usize = 8;

/// After this time a check that has not ended gives its permit on.
const PATIENCE: Duration = Duration::from_secs(10);

/// The permits of all checks of a process. Cloned: all clones share the same permits.
#[derive(Clone, Debug, Default)]
pub struct ResticPermits(Arc<Mutex<PermitState>>);

#[derive(Debug, Default)]
struct PermitState {
    next_number: u64,
    running: Vec<Run>,
    /// Those who come first are first.
    queue: Vec<Waiter>,
    /// The destinations that answered when they were last asked.
    answered: BTreeSet<String>,
    /// Those that did not: when that was found, and the words for it.
    timed_out: BTreeMap<String, (Instant, String)>,
}

#[derive(Debug)]
struct Run {
    number: u64,
    destination: String,
    since: Instant,
}

impl Run {
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PATIENCE
    }
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    destinations: Vec<String>,
    wake: Sender<()>,
}

impl PermitState {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Which of these destinations may be asked now: its index. One at a time until it has answered,
    /// and no second one beside one that is late. One that nobody asks comes before one that somebody
    /// asks already, and last comes one that did not answer when it was last asked.
    fn choose(&self, destinations: &[String], now: Instant) -> Option<usize> {
        let in_time = self.running.iter().filter(|run| !run.is_late(now)).count();
        if in_time >= MAX_CONCURRENT || self.running.len() >= MAX_WITH_LATE {
            return None;
        }
        let asked = |destination: &String| {
            self.running.iter().filter(|run| run.destination == *destination).collect::<Vec<_>>()
        };
        let is_free = |destination: &String| match asked(destination)[..] {
            [] => true,
            [run] => self.answered.contains(destination) && !run.is_late(now),
            _ => false,
        };
        let free = destinations.iter().enumerate().filter(|(_, destination)| is_free(destination));
        let rank = |destination: &String| {
            (self.timed_out.contains_key(destination), asked(destination).len())
        };
        free.min_by_key(|(index, destination)| (rank(destination), *index)).map(|(index, _)| index)
    }

    /// When the next run is late.
    fn next_late(&self, now: Instant) -> Option<Instant> {
        let in_time = self.running.iter().filter(|run| !run.is_late(now));
        in_time.map(|run| run.since + PATIENCE).min()
    }

    fn wake_all(&self) {
        for waiter in &self.queue {
            // One that was woken already looks again in any case.
            let _ = waiter.wake.try_send(());
        }
    }
}

impl ResticPermits {
    /// A place in the queue.
    pub fn queue(&self) -> PermitQueue {
        let (wake, changed) = bounded(1);
        let number = lock(&self.0).number();
        PermitQueue { permits: self.clone(), number, wake, changed }
    }

    /// Why a destination did not answer, when that was found after `since`.
    pub fn timed_out_since(&self, destination: &str, since: Instant) -> Option<String> {
        let state = lock(&self.0);
        let (at, why) = state.timed_out.get(destination)?;
        (*at >= since).then(|| why.clone())
    }

    /// Waits until no restic runs any more, for `limit` at most. To be called after the stop.
    pub fn wait_for_end(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let queue = self.queue();
        loop {
            queue.enter(Vec::new());
            let left = until.saturating_duration_since(Instant::now());
            if lock(&self.0).running.is_empty() || left.is_zero() {
                return;
            }
            let _ = queue.changed.recv_timeout(left);
        }
    }
}

/// A place in the queue for permits; left when it is dropped.
#[derive(Debug)]
pub struct PermitQueue {
    permits: ResticPermits,
    number: u64,
    wake: Sender<()>,
    changed: Receiver<()>,
}

impl PermitQueue {
    /// A permit to ask one of these destinations, and the index of that one. After that the place is
    /// at the end of the queue.
    ///
    /// # Errors
    /// Nothing is free now: when to try again at the latest, if that is known. [`PermitQueue::changed`]
    /// says when earlier.
    pub fn try_acquire(
        &mut self,
        destinations: Vec<String>,
        now: Instant,
    ) -> Result<(usize, ResticPermit), Option<Instant>> {
        self.enter(destinations);
        let permits = self.permits.clone();
        let mut state = lock(&permits.0);
        let earlier = state.queue.iter().take_while(|waiter| waiter.number != self.number);
        let mine = state.queue.iter().find(|waiter| waiter.number == self.number);
        let another_s_turn =
            earlier.into_iter().any(|waiter| state.choose(&waiter.destinations, now).is_some());
        let found = mine.and_then(|waiter| {
            state.choose(&waiter.destinations, now).map(|at| (at, waiter.destinations[at].clone()))
        });
        let Some((index, destination)) = found.filter(|_| !another_s_turn) else {
            return Err(state.next_late(now));
        };
        state.queue.retain(|waiter| waiter.number != self.number);
        let number = state.number();
        state.running.push(Run { number, destination: destination.clone(), since: now });
        // Whoever waits learns when this one is late.
        state.wake_all();
        drop(state);
        Ok((index, ResticPermit { permits, number, destination }))
    }

    /// Takes a place at the end, or keeps the one that it has.
    fn enter(&self, destinations: Vec<String>) {
        let mut state = lock(&self.permits.0);
        let own = state.queue.iter_mut().find(|waiter| waiter.number == self.number);
        match own {
            Some(waiter) if waiter.destinations == destinations => {}
            Some(waiter) => {
                waiter.destinations = destinations;
                // It may be the turn of another one now.
                state.wake_all();
            }
            None => {
                let wake = self.wake.clone();
                state.queue.push(Waiter { number: self.number, destinations, wake });
            }
        }
    }

    /// Gives the place up until the next try: nothing is waited for.
    pub fn leave(&self) {
        let mut state = lock(&self.permits.0);
        let before = state.queue.len();
        state.queue.retain(|waiter| waiter.number != self.number);
        if state.queue.len() < before {
            state.wake_all();
        }
    }

    /// Is sent something when it is worth trying again.
    pub fn changed(&self) -> &Receiver<()> {
        &self.changed
    }
}

impl Drop for PermitQueue {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A permit to ask a destination, released when it is dropped.
#[derive(Debug)]
#[must_use = "it is released when dropped"]
pub struct ResticPermit {
    permits: ResticPermits,
    number: u64,
    destination: String,
}

impl ResticPermit {
    /// The destination has answered: others may ask it, too.
    pub fn answered(&self) {
        let mut state = lock(&self.permits.0);
        state.timed_out.remove(&self.destination);
        if state.answered.insert(self.destination.clone()) {
            state.wake_all();
        }
    }

    /// The destination did not answer: whoever waits for it need not ask it.
    pub fn timed_out(&self, why: String, now: Instant) {
        let mut state = lock(&self.permits.0);
        state.answered.remove(&self.destination);
        state.timed_out.insert(self.destination.clone(), (now, why));
        state.wake_all();
    }
}

impl Drop for ResticPermit {
    fn drop(&mut self) {
        let mut state = lock(&self.permits.0);
        state.running.retain(|run| run.number != self.number);
        state.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(destinations: &[&str]) -> Vec<String> {
        destinations.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Which destination is granted at a time, if any.
    fn acquire(
        queue: &mut PermitQueue,
        destinations: &[&str],
        now: Instant,
    ) -> Option<ResticPermit> {
        queue.try_acquire(names(destinations), now).ok().map(|(_, permit)| permit)
    }

    #[test]
    fn two_run_at_a_time_and_one_at_a_destination_that_has_not_answered() {
        let (permits, now) = (ResticPermits::default(), Instant::now());
        let mut queue = permits.queue();
        let first = acquire(&mut queue, &["a"; 3], now).unwrap();
        assert!(acquire(&mut queue, &["a"], now).is_none(), "it has not answered");
        first.answered();
        let second = acquire(&mut queue, &["a"], now).unwrap();
        assert!(acquire(&mut queue, &["a", "b"], now).is_none(), "two");
        drop(first);
        let third = acquire(&mut queue, &["a", "b"], now).unwrap();
        assert_eq!(third.destination, "b", "nobody asks that one");
        drop((second, third));
        assert!(acquire(&mut queue, &["a"], now).is_some());
    }

    #[test]
    fn who_is_late_keeps_nobody_else_waiting() {
        let (permits, begin) = (ResticPermits::default(), Instant::now());
        let mut queue = permits.queue();
        let _dead = ["a", "b"].map(|name| acquire(&mut queue, &[name], begin).unwrap());
        let next = queue.try_acquire(names(&["c"]), begin).unwrap_err();
        assert_eq!(next, Some(begin + PATIENCE));
        let late = begin + PATIENCE;
        let healthy = acquire(&mut queue, &["a", "b", "c"], late).unwrap();
        assert_eq!(healthy.destination, "c");
        healthy.answered();
        let _second = acquire(&mut queue, &["a", "b", "c"], late).unwrap();
        assert!(acquire(&mut queue, &["a", "b", "c", "d"], late).is_none());
    }

    #[test]
    fn one_that_answered_once_and_then_dies_gives_its_permits_on_too() {
        let (permits, begin) = (ResticPermits::default(), Instant::now());
        let mut queue = permits.queue();
        let one = acquire(&mut queue, &["a"], begin).unwrap();
        one.answered();
        let _other = acquire(&mut queue, &["a"], begin).unwrap();
        assert!(acquire(&mut queue, &["b"], begin + PATIENCE / 2).is_none());
        let late = begin + PATIENCE;
        assert!(acquire(&mut queue, &["a"], late).is_none(), "never more than two at one");
        let _healthy = acquire(&mut queue, &["a", "b"], late).unwrap();
    }

    #[test]
    fn there_are_never_more_than_eight() {
        let (permits, begin) = (ResticPermits::default(), Instant::now());
        let mut queue = permits.queue();
        let mut held = Vec::new();
        for number in 0..20 {
            let name = format!("d{number}");
            held.extend(acquire(&mut queue, &[&name], begin + PATIENCE * number));
        }
        assert_eq!(held.len(), MAX_WITH_LATE);
    }

    #[test]
    fn each_queue_has_its_turn() {
        let (permits, now) = (ResticPermits::default(), Instant::now());
        let (mut long, mut short) = (permits.queue(), permits.queue());
        let first = acquire(&mut long, &["a"; 9], now).unwrap();
        first.answered();
        let second = acquire(&mut long, &["a"; 8], now).unwrap();
        assert!(acquire(&mut long, &["a"; 7], now).is_none());
        assert!(acquire(&mut short, &["a"], now).is_none());
        drop(second);
        let third = acquire(&mut long, &["a"; 7], now).unwrap();
        assert!(acquire(&mut long, &["a"; 6], now).is_none());
        drop(third);
        assert!(acquire(&mut long, &["a"; 6], now).is_none(), "the other came before");
        let fourth = acquire(&mut short, &["a"], now).unwrap();
        drop((first, fourth));
        assert!(acquire(&mut long, &["a"; 6], now).is_some());
    }

    #[test]
    fn what_did_not_answer_is_known_to_all_who_wait_and_comes_last() {
        let (permits, begin) = (ResticPermits::default(), Instant::now());
        let (mut queue, mut other) = (permits.queue(), permits.queue());
        let probe = acquire(&mut queue, &["a"], begin).unwrap();
        assert!(acquire(&mut other, &["a"], begin).is_none());
        let later = begin + PATIENCE * 3;
        probe.timed_out("killed".into(), later);
        drop(probe);
        assert!(other.changed().try_recv().is_ok(), "it is woken");
        assert_eq!(permits.timed_out_since("a", begin), Some("killed".into()));
        assert_eq!(permits.timed_out_since("a", later + PATIENCE), None);
        drop(other);
        let next = acquire(&mut queue, &["a", "b"], later).unwrap();
        assert_eq!(next.destination, "b");
        drop(next);
        acquire(&mut queue, &["a"], later).unwrap().answered();
        assert_eq!(permits.timed_out_since("a", begin), None);
    }

    #[test]
    fn the_end_of_all_runs_is_waited_for() {
        let permits = ResticPermits::default();
        permits.wait_for_end(Duration::from_secs(60));
        let held = acquire(&mut permits.queue(), &["a"], Instant::now()).unwrap();
        permits.wait_for_end(Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| permits.wait_for_end(Duration::from_secs(60)));
            drop(held);
        });
    }
}
