//! Asks Redis how the modules of backup plans fared, and asks again while some are still running.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, bounded, select};
use log::warn;

use super::plan::{Destination, ModuleState, Plan};
use super::question::PlanQuery;
use super::redis::{RedisConnection, RedisReadError};
use super::redis_layout::{HashResult, RedisSnapshot, StatusKey};
use super::settings::CorrelatorSettings;
use crate::clock::{Now, Wall};
use crate::secret::Secret;
use crate::thread::Stop;

/// How long one look at Redis may take in all.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// How long to wait before looking again at modules that are running.
const PAUSE: Duration = Duration::from_secs(15);

/// A Redis that cannot be asked is asked again for so long: it may be starting anew.
const GRACE: Duration = Duration::from_secs(30);

/// How long to wait before asking it again.
const SHORT_PAUSE: Duration = Duration::from_secs(2);

/// How many plans are looked at that nobody named: more than anybody has.
const MOST_PLANS: usize = 1000;

/// What Redis knows about the plans in question.
#[derive(Clone, Debug, Default)]
pub struct RedisState {
    /// The plans, in order of their ids. A named one that Redis does not know has no modules.
    pub plans: Vec<Plan>,
    /// The passwords of the destinations' repositories, where we may read them.
    pub passwords: BTreeMap<String, Secret>,
    /// What is to be said where Redis went away while we waited.
    pub lost: Option<String>,
}

impl RedisState {
    fn is_running(&self) -> bool {
        let modules = self.plans.iter().flat_map(|plan| &plan.modules);
        modules.into_iter().any(|module| module.state == ModuleState::Running)
    }
}

/// Looks, and looks again while modules are running, for `max_wait` at most; also while Redis
/// cannot be asked, but for no more than half a minute of it. None when it was told to stop meanwhile.
pub fn correlate(
    settings: &CorrelatorSettings,
    question: &PlanQuery,
    stop: &Stop,
) -> Option<Result<RedisState, String>> {
    let begin = Now::read().mono;
    let mut looks = Polls::default();
    loop {
        looks.add(look(settings, question, stop)?, Now::read().wall);
        let waited = Now::read().mono.since(begin);
        let Some(pause) = looks.pause(settings.max_wait, waited) else {
            return Some(looks.outcome());
        };
        if stop.wait(pause) {
            return None;
        }
    }
}

/// What several looks have shown.
#[derive(Default)]
struct Polls {
    /// The last that was answered.
    good: Option<RedisState>,
    /// Since when none is answered, and why.
    away: Option<(Wall, String)>,
}

impl Polls {
    fn add(&mut self, look: Result<RedisState, String>, now: Wall) {
        match look {
            Ok(answer) => (self.good, self.away) = (Some(answer), None),
            Err(why) => {
                let since = self.away.take().map_or(now, |(since, _)| since);
                self.away = Some((since, why));
            }
        }
    }

    /// How long until the next look, if there is to be one. While we wait for modules, a Redis that
    /// is away is waited for as well.
    fn pause(&self, max_wait: Duration, waited: Duration) -> Option<Duration> {
        let (pause, most) = match &self.good {
            Some(answer) if answer.is_running() => (PAUSE, max_wait),
            Some(_) => return None,
            None => (SHORT_PAUSE, max_wait.min(GRACE)),
        };
        let left = most.saturating_sub(waited);
        (!left.is_zero()).then(|| pause.min(left))
    }

    /// The last good answer. What may have changed while Redis could not be asked is not known.
    fn outcome(self) -> Result<RedisState, String> {
        let (mut answer, (since, why)) = match (self.good, self.away) {
            (Some(answer), None) => return Ok(answer),
            (None, away) => return Err(away.map_or(String::new(), |(_, why)| why)),
            (Some(answer), Some(away)) => (answer, away),
        };
        let modules = answer.plans.iter_mut().flat_map(|plan| &mut plan.modules);
        for module in modules.filter(|module| module.state == ModuleState::Running) {
            module.state = ModuleState::Unreadable;
            module.why =
                Some(format!("was running when Redis could still be asked, before {since}"));
        }
        answer.lost = Some(format!("Redis went away meanwhile: {why}"));
        Ok(answer)
    }
}

/// Looks once. None when it was told to stop meanwhile; an error is why Redis could not be asked,
/// in bounded time and without a password.
pub fn look(
    settings: &CorrelatorSettings,
    question: &PlanQuery,
    stop: &Stop,
) -> Option<Result<RedisState, String>> {
    let (tx, rx) = bounded(1);
    let (own_settings, own_question) = (settings.clone(), question.clone());
    let look = move || {
        let until = Instant::now() + LONGEST_LOOK;
        // What the library makes of garbage must not be the end of the daemon.
        let seen = catch_unwind(AssertUnwindSafe(|| read(&own_settings, &own_question, until)));
        let garbage = || Err("Redis answered what nobody understands".into());
        let _ = tx.send(seen.unwrap_or_else(|_| garbage()));
    };
    // In a thread, for the library's deadlines are per read: a trickling server would hold it.
    if let Err(why) = std::thread::Builder::new().name("redis".into()).spawn(look) {
        return Some(Err(format!("there is no thread to ask Redis with: {why}")));
    }
    let too_long = || Err(format!("no answer within {} s", LONGEST_LOOK.as_secs()));
    select! {
        recv(rx) -> answer => Some(answer.unwrap_or_else(|_| too_long())),
        recv(after(LONGEST_LOOK + Duration::from_secs(1))) -> _ => Some(too_long()),
        recv(stop.receiver()) -> _ => None,
    }
}

fn read(
    settings: &CorrelatorSettings,
    question: &PlanQuery,
    until: Instant,
) -> Result<RedisState, String> {
    let mut redis = RedisConnection::connect(settings, until).map_err(RedisReadError::into_why)?;
    let facts = facts(&mut redis, question)?;
    let now = Now::read().wall;
    let mut answer = RedisState::default();
    for id in asked(&facts, question, settings.recent, now) {
        let mut plan = facts.plan(&id, question.complaint(&id), settings.recent, now);
        name_modules(&mut redis, &mut plan)?;
        if let Some(destination) = &mut plan.destination {
            name_destination(&mut redis, destination)?;
            answer.passwords.extend(password(&mut redis, &destination.id)?);
        }
        answer.plans.push(plan);
    }
    Ok(answer)
}

/// The plans in question: all that were named, and where everything is asked about some more.
fn asked(
    facts: &RedisSnapshot,
    question: &PlanQuery,
    recent: Duration,
    now: Wall,
) -> BTreeSet<String> {
    let mut asked: BTreeSet<String> = question.named.keys().cloned().collect();
    if question.everything {
        let alive = facts.alive(recent, now);
        if alive.len() > MOST_PLANS {
            warn!("of {} backup plans only the first {MOST_PLANS} are looked at", alive.len());
        }
        asked.extend(alive.into_iter().take(MOST_PLANS));
    }
    asked
}

fn facts(redis: &mut RedisConnection, question: &PlanQuery) -> Result<RedisSnapshot, String> {
    let asked = |plan: &str| question.everything || question.named.contains_key(plan);
    let mut facts = RedisSnapshot {
        module_node: needed(redis, "cluster/module_node")?,
        module_uuid: needed(redis, "cluster/module_uuid")?,
        ..RedisSnapshot::default()
    };
    for plan in plan_ids(redis, question)? {
        let fields = needed(redis, &format!("cluster/backup/{plan}"))?;
        if !fields.is_empty() {
            facts.plans.insert(plan, fields);
        }
    }
    for key in redis.keys("*/backup_status/*").map_err(RedisReadError::into_why)? {
        let Some(place) = StatusKey::parse(&key).filter(|place| asked(place.plan())) else {
            continue;
        };
        let hash = damaged_or(redis.hash(&key), &key)?;
        match place {
            StatusKey::Node { node, plan } => {
                facts.of_nodes.entry(plan).or_default().insert(node, hash)
            }
            StatusKey::Module { module, plan } => {
                facts.of_modules.entry(plan).or_default().insert(module, hash)
            }
        };
    }
    if facts.plans.values().any(|plan| !plan.contains_key("instances")) {
        read_members(redis, &mut facts)?;
    }
    Ok(facts)
}

fn plan_ids(redis: &mut RedisConnection, question: &PlanQuery) -> Result<Vec<String>, String> {
    if !question.everything {
        return Ok(question.named.keys().cloned().collect());
    }
    let keys = redis.keys("cluster/backup/*").map_err(RedisReadError::into_why)?;
    let known = keys.iter().filter_map(|key| key.strip_prefix("cluster/backup/"));
    let named = question.named.keys().map(String::as_str);
    Ok(known.chain(named).map(str::to_owned).collect())
}

/// In the older layout each module says of which plans it is a part.
fn read_members(redis: &mut RedisConnection, facts: &mut RedisSnapshot) -> Result<(), String> {
    for key in redis.keys("module/*/backups").map_err(RedisReadError::into_why)? {
        let module = key.strip_prefix("module/").and_then(|rest| rest.strip_suffix("/backups"));
        let plans = optional(redis.members(&key))?.unwrap_or_default();
        for plan in plans {
            facts.members.entry(plan).or_default().extend(module.map(str::to_owned));
        }
    }
    Ok(())
}

fn name_modules(redis: &mut RedisConnection, plan: &mut Plan) -> Result<(), String> {
    for module in &mut plan.modules {
        let key = format!("module/{}/ui_name", module.id);
        module.ui_name = optional(redis.text(&key))?.flatten();
    }
    Ok(())
}

fn name_destination(
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

/// The password of a destination's repositories; it takes privileges to read it.
fn password(
    redis: &mut RedisConnection,
    destination: &str,
) -> Result<Option<(String, Secret)>, String> {
    let key = "private/agents/backup_destination/restic_password";
    let password = optional(redis.field(key, destination))?.flatten();
    Ok(password.map(|password| (destination.to_owned(), Secret::new(password))))
}

/// What nothing can be said without.
fn needed(redis: &mut RedisConnection, key: &str) -> Result<BTreeMap<String, String>, String> {
    redis.hash(key).map_err(|trouble| match trouble {
        RedisReadError::Down(why) => why,
        RedisReadError::Key(why) => format!("{key} cannot be read: {why}"),
    })
}

/// What can be done without.
fn optional<T>(asked: Result<T, RedisReadError>) -> Result<Option<T>, String> {
    match asked {
        Ok(value) => Ok(Some(value)),
        Err(RedisReadError::Key(_)) => Ok(None),
        Err(RedisReadError::Down(why)) => Err(why),
    }
}

/// What is reported as damaged.
fn damaged_or(
    asked: Result<BTreeMap<String, String>, RedisReadError>,
    key: &str,
) -> Result<HashResult, String> {
    match asked {
        Ok(fields) => Ok(Ok(fields)),
        Err(RedisReadError::Key(why)) => Ok(Err(format!("{key} cannot be read: {why}"))),
        Err(RedisReadError::Down(why)) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Module;
    use super::*;

    fn answer(state: ModuleState) -> RedisState {
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
        let mut looks = Polls::default();
        looks.add(Ok(answer(ModuleState::Running)), Wall(0));
        looks.add(Err("refused".into()), Wall(15_000));
        looks.add(Err("still refused".into()), Wall(30_000));
        assert_eq!(looks.pause(5 * MINUTE, MINUTE), Some(PAUSE));
        assert_eq!(looks.pause(5 * MINUTE, 5 * MINUTE), None);
        let answer = looks.outcome().unwrap();
        let module = &answer.plans[0].modules[0];
        assert_eq!(module.state, ModuleState::Unreadable, "nobody knows whether it still runs");
        let since = "1970-01-01T00:00:15.000Z";
        let why = format!("was running when Redis could still be asked, before {since}");
        assert_eq!(module.why, Some(why));
        assert_eq!(answer.lost.as_deref(), Some("Redis went away meanwhile: still refused"));
    }

    #[test]
    fn a_redis_that_was_away_for_a_moment_was_given_up_at_once() {
        let mut looks = Polls::default();
        looks.add(Err("refused".into()), Wall(0));
        assert_eq!(looks.pause(10 * MINUTE, Duration::ZERO), Some(SHORT_PAUSE));
        assert_eq!(looks.pause(10 * MINUTE, GRACE), None);
        let short = Duration::from_secs(1);
        assert_eq!(looks.pause(short, Duration::ZERO), Some(short), "no longer than is allowed");
        assert_eq!(looks.pause(Duration::ZERO, Duration::ZERO), None);
        looks.add(Ok(answer(ModuleState::Success)), Wall(1));
        assert_eq!(looks.pause(10 * MINUTE, short), None);
        let answer = looks.outcome().unwrap();
        assert_eq!((&answer.plans[0].modules[0].why, &answer.lost), (&None, &None));
        let mut never = Polls::default();
        never.add(Err("refused".into()), Wall(0));
        assert_eq!(never.outcome().unwrap_err(), "refused");
    }

    #[test]
    fn every_plan_that_was_named_is_looked_at() {
        let ids = (0..MOST_PLANS + 5).map(|number| format!("{number:05}"));
        let mut facts = RedisSnapshot::default();
        facts.plans.extend(ids.clone().map(|id| (id, BTreeMap::new())));
        let mut question = PlanQuery::default();
        question.named.extend(ids.map(|id| (id, None)));
        let count = |question: &PlanQuery| asked(&facts, question, PAUSE, Wall(0)).len();
        assert_eq!(count(&question), MOST_PLANS + 5);
        assert_eq!(count(&PlanQuery::about_everything()), MOST_PLANS);
        question.named.retain(|id, _| id.as_str() >= "01002");
        question.everything = true;
        assert_eq!(count(&question), MOST_PLANS + 3);
    }
}
