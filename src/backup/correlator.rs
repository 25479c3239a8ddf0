//! Reads the state of backup plans from Redis, and polls it while some modules are still running.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, bounded, select};
use log::warn;

use super::plan::{Destination, Module, ModuleState, Plan};
use super::plan_query::PlanQuery;
use super::redis::{RedisConnection, RedisReadError};
use super::redis_layout::{HashResult, RedisSnapshot, StatusKey};
use super::schedule::Zones;
use super::settings::CorrelatorSettings;
use crate::clock::{Now, Wall};
use crate::secret::Secret;
use crate::thread::Stop;

/// How long one read of everything may take in all.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The time between two reads while modules are running.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// For how long reading from an unreachable Redis is retried: it may be restarting.
const UNREACHABLE_GRACE: Duration = Duration::from_secs(30);

/// The time between two such attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How many plans are read beyond those that the query names: more than any cluster has.
const MAX_UNNAMED_PLANS: usize = 1000;

/// What Redis knows about the plans of a query.
#[derive(Clone, Debug, Default)]
pub struct RedisState {
    /// The plans, in order of their ids. A named one that Redis does not know has no modules.
    pub plans: Vec<Plan>,
    /// The passwords of the destinations' repositories, where we may read them.
    pub passwords: BTreeMap<String, Secret>,
    /// A sentence, when Redis became unreachable while modules were still running.
    pub connection_lost: Option<String>,
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
        polls.record(read_once(settings, query, stop)?, Now::read().wall);
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
#[derive(Default)]
struct Polls {
    /// The result of the last read that succeeded.
    last_state: Option<RedisState>,
    /// Since when every read fails, and why the last one did.
    unreachable: Option<(Wall, String)>,
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
            Some(state) if state.is_running() => (POLL_INTERVAL, max_wait),
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
    let (tx, rx) = bounded(1);
    let (own_settings, own_query) = (settings.clone(), query.clone());
    let work = move || {
        let until = Instant::now() + READ_TIMEOUT;
        // A panic of the library over garbage must not end the daemon.
        let read = catch_unwind(AssertUnwindSafe(|| read(&own_settings, &own_query, until)));
        let garbage = || Err("Redis answered what nobody understands".into());
        let _ = tx.send(read.unwrap_or_else(|_| garbage()));
    };
    // In a thread of its own: the library's timeouts bound each read only, so a server that sends
    // byte by byte would hold the pipeline.
    if let Err(why) = std::thread::Builder::new().name("redis".into()).spawn(work) {
        return Some(Err(format!("there is no thread to ask Redis with: {why}")));
    }
    let too_long = || Err(format!("no answer within {} s", READ_TIMEOUT.as_secs()));
    select! {
        recv(rx) -> state => Some(state.unwrap_or_else(|_| too_long())),
        recv(after(READ_TIMEOUT + Duration::from_secs(1))) -> _ => Some(too_long()),
        recv(stop.receiver()) -> _ => None,
    }
}

fn read(
    settings: &CorrelatorSettings,
    query: &PlanQuery,
    until: Instant,
) -> Result<RedisState, String> {
    let mut redis = RedisConnection::connect(settings, until).map_err(RedisReadError::into_why)?;
    let snapshot = read_snapshot(&mut redis, query)?;
    let now = Now::read().wall;
    let mut state = RedisState::default();
    for id in requested_plans(&snapshot, query, settings.recent, now) {
        let mut plan = snapshot.plan(&id, query.alert_time(&id), settings.recent, now);
        fill_module_names(&mut redis, &mut plan)?;
        if let Some(destination) = &mut plan.destination {
            fill_destination_name(&mut redis, destination)?;
            state.passwords.extend(read_password(&mut redis, &destination.id)?);
        }
        state.plans.push(plan);
    }
    Ok(state)
}

/// The ids of the plans to read: those that the query names, and the active ones where it is about
/// all.
fn requested_plans(
    snapshot: &RedisSnapshot,
    query: &PlanQuery,
    recent: Duration,
    now: Wall,
) -> BTreeSet<String> {
    let mut requested: BTreeSet<String> = query.plans.keys().cloned().collect();
    if query.all {
        let active = snapshot.active_plans(recent, now);
        if active.len() > MAX_UNNAMED_PLANS {
            warn!(
                "of {} backup plans only the first {MAX_UNNAMED_PLANS} are looked at",
                active.len()
            );
        }
        requested.extend(active.into_iter().take(MAX_UNNAMED_PLANS));
    }
    requested
}

fn read_snapshot(redis: &mut RedisConnection, query: &PlanQuery) -> Result<RedisSnapshot, String> {
    let is_requested = |plan: &str| query.all || query.plans.contains_key(plan);
    let mut snapshot = RedisSnapshot {
        module_node: required(redis, "cluster/module_node")?,
        module_uuid: required(redis, "cluster/module_uuid")?,
        zones: Zones::read(),
        ..RedisSnapshot::default()
    };
    for plan in plan_ids(redis, query)? {
        let fields = required(redis, &format!("cluster/backup/{plan}"))?;
        if !fields.is_empty() {
            snapshot.plans.insert(plan, fields);
        }
    }
    for key in redis.keys("*/backup_status/*").map_err(RedisReadError::into_why)? {
        let Some(status_key) =
            StatusKey::parse(&key).filter(|status_key| is_requested(status_key.plan()))
        else {
            continue;
        };
        let hash = status_hash(redis.hash(&key), &key)?;
        match status_key {
            StatusKey::Node { node, plan } => {
                snapshot.node_statuses.entry(plan).or_default().insert(node, hash)
            }
            StatusKey::Module { module, plan } => {
                snapshot.module_statuses.entry(plan).or_default().insert(module, hash)
            }
        };
    }
    if snapshot.plans.values().any(|plan| !plan.contains_key("instances")) {
        read_members(redis, &mut snapshot)?;
    }
    Ok(snapshot)
}

fn plan_ids(redis: &mut RedisConnection, query: &PlanQuery) -> Result<Vec<String>, String> {
    if !query.all {
        return Ok(query.plans.keys().cloned().collect());
    }
    let keys = redis.keys("cluster/backup/*").map_err(RedisReadError::into_why)?;
    let known = keys.iter().filter_map(|key| key.strip_prefix("cluster/backup/"));
    let named = query.plans.keys().map(String::as_str);
    Ok(known.chain(named).map(str::to_owned).collect())
}

/// In the older layout each module has the set of the plans that it belongs to.
fn read_members(redis: &mut RedisConnection, snapshot: &mut RedisSnapshot) -> Result<(), String> {
    for key in redis.keys("module/*/backups").map_err(RedisReadError::into_why)? {
        let module = key.strip_prefix("module/").and_then(|rest| rest.strip_suffix("/backups"));
        let plans = optional(redis.members(&key))?.unwrap_or_default();
        for plan in plans {
            snapshot.members.entry(plan).or_default().extend(module.map(str::to_owned));
        }
    }
    Ok(())
}

fn fill_module_names(redis: &mut RedisConnection, plan: &mut Plan) -> Result<(), String> {
    for module in &mut plan.modules {
        let key = format!("module/{}/ui_name", module.id);
        module.ui_name = optional(redis.text(&key))?.flatten();
    }
    Ok(())
}

fn fill_destination_name(
    redis: &mut RedisConnection,
    destination: &mut Destination,
) -> Result<(), String> {
    let key = format!("cluster/backup_repository/{}", destination.id);
    let mut fields = optional(redis.hash(&key))?.unwrap_or_default();
    let mut field = |name| fields.remove(name).filter(|text| !text.trim().is_empty());
    destination.name = field("name");
    destination.provider = field("provider");
    Ok(())
}

/// The password of a destination's repositories; none where our ACL user may not read it.
fn read_password(
    redis: &mut RedisConnection,
    destination: &str,
) -> Result<Option<(String, Secret)>, String> {
    let key = "private/agents/backup_destination/restic_password";
    let password = optional(redis.field(key, destination))?.flatten();
    Ok(password.map(|password| (destination.to_owned(), Secret::new(password))))
}

/// A hash without which nothing can be said about any plan.
fn required(redis: &mut RedisConnection, key: &str) -> Result<BTreeMap<String, String>, String> {
    redis.hash(key).map_err(|error| match error {
        RedisReadError::Unavailable(why) => why,
        RedisReadError::Key(why) => format!("{key} cannot be read: {why}"),
    })
}

/// None where this one key cannot be read: the value is a detail.
fn optional<T>(read: Result<T, RedisReadError>) -> Result<Option<T>, String> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(RedisReadError::Key(_)) => Ok(None),
        Err(RedisReadError::Unavailable(why)) => Err(why),
    }
}

/// The hash of a status key; one that cannot be read makes its modules unreadable.
fn status_hash(
    read: Result<BTreeMap<String, String>, RedisReadError>,
    key: &str,
) -> Result<HashResult, String> {
    match read {
        Ok(fields) => Ok(Ok(fields)),
        Err(RedisReadError::Key(why)) => Ok(Err(format!("{key} cannot be read: {why}"))),
        Err(RedisReadError::Unavailable(why)) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_with(state: ModuleState) -> RedisState {
        let module = Module {
            id: "mail1".into(),
            ui_name: None,
            uuid: None,
            node: None,
            state,
            why: None,
            run: None,
        };
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

    #[test]
    fn every_plan_that_was_named_is_looked_at() {
        let ids = (0..MAX_UNNAMED_PLANS + 5).map(|number| format!("{number:05}"));
        let mut snapshot = RedisSnapshot::default();
        snapshot.plans.extend(ids.clone().map(|id| (id, BTreeMap::new())));
        let mut query = PlanQuery::default();
        query.plans.extend(ids.map(|id| (id, None)));
        let count =
            |query: &PlanQuery| requested_plans(&snapshot, query, POLL_INTERVAL, Wall(0)).len();
        assert_eq!(count(&query), MAX_UNNAMED_PLANS + 5);
        assert_eq!(count(&PlanQuery::for_all()), MAX_UNNAMED_PLANS);
        query.plans.retain(|id, _| id.as_str() >= "01002");
        query.all = true;
        assert_eq!(count(&query), MAX_UNNAMED_PLANS + 3);
    }
}
