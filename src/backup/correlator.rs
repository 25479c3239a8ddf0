//! Reads the state of backup plans from Redis, and polls it while some modules are still running.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, bounded, select};

use super::plan::{Module, ModuleState, Plan};
use super::plan_query::PlanQuery;
use super::plan_reader;
use super::settings::CorrelatorSettings;
use crate::clock::{Now, Wall};
use crate::secret::Secret;
use crate::thread::Stop;

/// How long it may take to say what kind of Redis it is.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two reads while modules are running.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// That time is at least so many times as long as a read takes.
const PAUSE_FACTOR: u32 = 5;

/// For how long reading from an unreachable Redis is retried: it may be restarting.
const UNREACHABLE_GRACE: Duration = Duration::from_secs(30);

/// The time between two such attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// What Redis knows about the plans of a query.
#[derive(Clone, Debug, Default)]
pub struct RedisState {
    /// The plans, in order of their ids. A named one that Redis does not know has no modules.
    pub plans: Vec<Plan>,
    /// The passwords of the destinations' repositories, where we may read them.
    pub passwords: BTreeMap<String, Secret>,
    /// A sentence, when Redis became unreachable while modules were still running.
    pub connection_lost: Option<String>,
    /// Why there may be plans beside `plans`, where the query is about all: their list could not be
    /// read completely.
    pub incomplete: Option<String>,
}

impl RedisState {
    fn is_running(&self) -> bool {
        let modules = self.plans.iter().flat_map(|plan| &plan.modules);
        modules.into_iter().any(|module| module.state == ModuleState::Running)
    }
}

/// Reads the plans, again and again while modules are running, for `max_wait` at most; an
/// unreachable Redis is retried for half a minute of that. None at the stop. The error says why
/// Redis could not be read.
pub fn correlate(
    settings: &CorrelatorSettings,
    query: &PlanQuery,
    stop: &Stop,
) -> Option<Result<RedisState, String>> {
    let started = Now::read().mono;
    let mut polls = Polls::default();
    loop {
        let begin = Now::read().mono;
        polls.record(read_once(settings, query, stop)?, Now::read().wall);
        polls.longest_read = polls.longest_read.max(Now::read().mono.since(begin));
        let waited = Now::read().mono.since(started);
        let Some(pause) = polls.next_poll_in(settings.max_wait, waited) else {
            return Some(polls.outcome());
        };
        if stop.wait(pause) {
            return None;
        }
    }
}

/// What several reads of the same plans have shown.
#[derive(Clone, Default)]
struct Polls {
    /// The result of the last read that succeeded.
    last_state: Option<RedisState>,
    /// Since when every read fails, and why the last one did.
    unreachable: Option<(Wall, String)>,
    /// How long a read took at most: one that looks through all keys is a burden to Redis.
    longest_read: Duration,
}

impl Polls {
    fn record(&mut self, poll: Result<RedisState, String>, now: Wall) {
        match poll {
            Ok(state) => (self.last_state, self.unreachable) = (Some(state), None),
            Err(why) => {
                let since = self.unreachable.take().map_or(now, |(since, _)| since);
                self.unreachable = Some((since, why));
            }
        }
    }

    /// The time until the next read; none when there is to be no other. While modules are running,
    /// reads that fail do not shorten the wait for them.
    fn next_poll_in(&self, max_wait: Duration, waited: Duration) -> Option<Duration> {
        let (pause, longest) = match &self.last_state {
            Some(state) if state.is_running() => {
                (POLL_INTERVAL.max(self.longest_read * PAUSE_FACTOR), max_wait)
            }
            Some(_) => return None,
            None => (RETRY_INTERVAL, max_wait.min(UNREACHABLE_GRACE)),
        };
        let left = longest.saturating_sub(waited);
        (!left.is_zero()).then(|| pause.min(left))
    }

    /// The last state that was read. What may have changed since, because Redis became unreachable,
    /// is unknown: modules that were running are unreadable.
    fn outcome(self) -> Result<RedisState, String> {
        let (mut state, (since, why)) = match (self.last_state, self.unreachable) {
            (Some(state), None) => return Ok(state),
            (None, lost) => return Err(lost.map_or(String::new(), |(_, why)| why)),
            (Some(state), Some(lost)) => (state, lost),
        };
        for plan in &mut state.plans {
            let since = plan.zone.format_minute(since);
            let running = |module: &&mut Module| module.state == ModuleState::Running;
            for module in plan.modules.iter_mut().filter(running) {
                module.state = ModuleState::Unreadable;
                module.why =
                    Some(format!("was running when Redis could still be asked, before {since}"));
            }
        }
        state.connection_lost = Some(format!("Redis went away meanwhile: {why}"));
        Ok(state)
    }
}

/// Reads the plans once, in bounded time. None at the stop; the error says why Redis could not be
/// read, without any password.
pub fn read_once(
    settings: &CorrelatorSettings,
    query: &PlanQuery,
    stop: &Stop,
) -> Option<Result<RedisState, String>> {
    let (own_settings, own_query) = (settings.clone(), query.clone());
    let read =
        move || plan_reader::read_plans(&own_settings, &own_query).map_err(|error| error.why);
    ask(plan_reader::time_limit(query), stop, read).map(|answer| answer?)
}

/// Whether the Redis holds a cluster of NethServer 8, in a few seconds. None at the stop; the error
/// says why Redis could not be asked.
pub fn holds_cluster(settings: &CorrelatorSettings, stop: &Stop) -> Option<Result<bool, String>> {
    let (settings, until) = (settings.clone(), Instant::now() + CHECK_TIMEOUT);
    let look = move || plan_reader::holds_cluster(&settings, until).map_err(|error| error.why);
    ask(CHECK_TIMEOUT, stop, look).map(|answer| answer?)
}

/// What is wrong with the Redis, as far as it answers within a few seconds: the configuration may be
/// checked where, or when, it cannot be asked.
pub fn find_problem(settings: &CorrelatorSettings, stop: &Stop) -> Option<String> {
    let (settings, until) = (settings.clone(), Instant::now() + CHECK_TIMEOUT);
    let look = move || plan_reader::find_problem(&settings, until);
    ask(CHECK_TIMEOUT, stop, look)?.ok()?
}

/// Asks Redis in a thread of its own: the library's timeouts bound each read only, so a server that
/// sends byte by byte would hold the pipeline. None at the stop.
fn ask<T: Send + 'static>(
    limit: Duration,
    stop: &Stop,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<Result<T, String>> {
    let (tx, rx) = bounded(1);
    let work = move || {
        // A panic of the library over garbage must not end the daemon.
        let answer = catch_unwind(AssertUnwindSafe(question));
        let _ = tx.send(answer.map_err(|_| "Redis answered what nobody understands".to_owned()));
    };
    if let Err(why) = std::thread::Builder::new().name("redis".into()).spawn(work) {
        return Some(Err(format!("there is no thread to ask Redis with: {why}")));
    }
    let too_long = || Err(format!("Redis gave no answer within {} s", limit.as_secs()));
    select! {
        recv(rx) -> answer => Some(answer.unwrap_or_else(|_| too_long())),
        recv(after(limit + Duration::from_secs(1))) -> _ => Some(too_long()),
        recv(stop.receiver()) -> _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_with(state: ModuleState) -> RedisState {
        let module = Module { id: "mail1".into(), state, ..Module::default() };
        let plan = Plan { modules: vec![module], ..Plan::default() };
        RedisState { plans: vec![plan], ..RedisState::default() }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_redis_that_goes_away_while_we_wait_does_not_take_what_it_said() {
        let mut polls = Polls::default();
        polls.record(Ok(state_with(ModuleState::Running)), Wall(0));
        polls.record(Err("refused".into()), Wall(15_000));
        polls.record(Err("still refused".into()), Wall(30_000));
        assert_eq!(polls.next_poll_in(5 * MINUTE, MINUTE), Some(POLL_INTERVAL));
        let slow = Polls { longest_read: MINUTE / 2, ..polls.clone() };
        assert_eq!(slow.next_poll_in(5 * MINUTE, MINUTE), Some(5 * MINUTE / 2));
        assert_eq!(polls.next_poll_in(5 * MINUTE, 5 * MINUTE), None);
        let state = polls.outcome().unwrap();
        let module = &state.plans[0].modules[0];
        assert_eq!(module.state, ModuleState::Unreadable, "nobody knows whether it still runs");
        let since = "1970-01-01 00:00 UTC";
        let why = format!("was running when Redis could still be asked, before {since}");
        assert_eq!(module.why, Some(why));
        assert_eq!(
            state.connection_lost.as_deref(),
            Some("Redis went away meanwhile: still refused")
        );
    }

    #[test]
    fn a_redis_that_was_away_for_a_moment_was_given_up_at_once() {
        let mut polls = Polls::default();
        polls.record(Err("refused".into()), Wall(0));
        assert_eq!(polls.next_poll_in(10 * MINUTE, Duration::ZERO), Some(RETRY_INTERVAL));
        assert_eq!(polls.next_poll_in(10 * MINUTE, UNREACHABLE_GRACE), None);
        let short = Duration::from_secs(1);
        assert_eq!(
            polls.next_poll_in(short, Duration::ZERO),
            Some(short),
            "no longer than is allowed"
        );
        assert_eq!(polls.next_poll_in(Duration::ZERO, Duration::ZERO), None);
        polls.record(Ok(state_with(ModuleState::Success)), Wall(1));
        assert_eq!(polls.next_poll_in(10 * MINUTE, short), None);
        let state = polls.outcome().unwrap();
        assert_eq!((&state.plans[0].modules[0].why, &state.connection_lost), (&None, &None));
        let mut never = Polls::default();
        never.record(Err("refused".into()), Wall(0));
        assert_eq!(never.outcome().unwrap_err(), "refused");
    }
}
