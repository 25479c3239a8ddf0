//! Asks Redis how the modules of backup plans fared, and asks again while some are still running.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::facts::{Facts, Hash, StatusKey};
use super::plan::{Destination, ModuleState, Plan};
use super::question::Question;
use super::redis::{Redis, Trouble};
use super::settings::Correlator;
use crate::clock::Now;
use crate::secret::Secret;
use crate::stop::Stop;

/// How long one look at Redis may take in all.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// How long to wait before looking again at modules that are running.
const PAUSE: Duration = Duration::from_secs(15);

/// More plans than anybody has.
const MOST_PLANS: usize = 1000;

/// What Redis knows about the plans in question.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The plans, in order of their ids. A named one that Redis does not know has no modules.
    pub plans: Vec<Plan>,
    /// The passwords of the destinations' repositories, where we may read them.
    pub passwords: BTreeMap<String, Secret>,
}

impl Answer {
    fn is_running(&self) -> bool {
        let modules = self.plans.iter().flat_map(|plan| &plan.modules);
        modules.into_iter().any(|module| module.state == ModuleState::Running)
    }
}

/// Looks, and looks again while modules are running, for `max_wait` at most. None when it was
/// told to stop meanwhile.
pub fn correlate(
    settings: &Correlator,
    question: &Question,
    stop: &Stop,
) -> Option<Result<Answer, String>> {
    let begin = Now::read().mono;
    let mut waits = false;
    loop {
        let answer = look(settings, question);
        let left = settings.max_wait.saturating_sub(Now::read().mono.since(begin));
        let goes_on = match &answer {
            Ok(answer) => answer.is_running(),
            // While we wait for modules, a Redis that is away for a moment is waited for as well.
            Err(_) => waits,
        };
        if !goes_on || left.is_zero() {
            return Some(answer);
        }
        waits = true;
        if stop.wait(PAUSE.min(left)) {
            return None;
        }
    }
}

/// Looks once.
///
/// # Errors
/// Why Redis could not be asked, in bounded time and without a password.
pub fn look(settings: &Correlator, question: &Question) -> Result<Answer, String> {
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
    std::thread::Builder::new()
        .name("redis".into())
        .spawn(look)
        .map_err(|why| format!("there is no thread to ask Redis with: {why}"))?;
    let answer = rx.recv_timeout(LONGEST_LOOK + Duration::from_secs(1));
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", LONGEST_LOOK.as_secs())))
}

fn read(settings: &Correlator, question: &Question, until: Instant) -> Result<Answer, String> {
    let mut redis = Redis::connect(settings, until).map_err(Trouble::into_why)?;
    let facts = facts(&mut redis, question)?;
    let now = Now::read().wall;
    let mut answer = Answer::default();
    for id in facts.asked(question, settings.recent, now).into_iter().take(MOST_PLANS) {
        let mut plan = facts.plan(&id, question.alarmed(&id), settings.recent, now);
        name_modules(&mut redis, &mut plan)?;
        if let Some(destination) = &mut plan.destination {
            name_destination(&mut redis, destination)?;
            answer.passwords.extend(password(&mut redis, &destination.id)?);
        }
        answer.plans.push(plan);
    }
    Ok(answer)
}

fn facts(redis: &mut Redis, question: &Question) -> Result<Facts, String> {
    let asked = |plan: &str| question.everything || question.named.contains_key(plan);
    let mut facts = Facts {
        module_node: needed(redis, "cluster/module_node")?,
        module_uuid: needed(redis, "cluster/module_uuid")?,
        ..Facts::default()
    };
    for plan in plan_ids(redis, question)? {
        let fields = needed(redis, &format!("cluster/backup/{plan}"))?;
        if !fields.is_empty() {
            facts.plans.insert(plan, fields);
        }
    }
    for key in redis.keys("*/backup_status/*").map_err(Trouble::into_why)? {
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

fn plan_ids(redis: &mut Redis, question: &Question) -> Result<Vec<String>, String> {
    if !question.everything {
        return Ok(question.named.keys().cloned().collect());
    }
    let keys = redis.keys("cluster/backup/*").map_err(Trouble::into_why)?;
    let known = keys.iter().filter_map(|key| key.strip_prefix("cluster/backup/"));
    let named = question.named.keys().map(String::as_str);
    Ok(known.chain(named).map(str::to_owned).collect())
}

/// In the older layout each module says of which plans it is a part.
fn read_members(redis: &mut Redis, facts: &mut Facts) -> Result<(), String> {
    for key in redis.keys("module/*/backups").map_err(Trouble::into_why)? {
        let module = key.strip_prefix("module/").and_then(|rest| rest.strip_suffix("/backups"));
        let plans = optional(redis.members(&key))?.unwrap_or_default();
        for plan in plans {
            facts.members.entry(plan).or_default().extend(module.map(str::to_owned));
        }
    }
    Ok(())
}

fn name_modules(redis: &mut Redis, plan: &mut Plan) -> Result<(), String> {
    for module in &mut plan.modules {
        let key = format!("module/{}/ui_name", module.id);
        module.ui_name = optional(redis.text(&key))?.flatten();
    }
    Ok(())
}

fn name_destination(redis: &mut Redis, destination: &mut Destination) -> Result<(), String> {
    let key = format!("cluster/backup_repository/{}", destination.id);
    let mut fields = optional(redis.hash(&key))?.unwrap_or_default();
    let mut field = |name| fields.remove(name).filter(|text| !text.trim().is_empty());
    destination.name = field("name");
    destination.provider = field("provider");
    Ok(())
}

/// The password of a destination's repositories; it takes privileges to read it.
fn password(redis: &mut Redis, destination: &str) -> Result<Option<(String, Secret)>, String> {
    let key = "private/agents/backup_destination/restic_password";
    let password = optional(redis.field(key, destination))?.flatten();
    Ok(password.map(|password| (destination.to_owned(), Secret::new(password))))
}

/// What nothing can be said without.
fn needed(redis: &mut Redis, key: &str) -> Result<BTreeMap<String, String>, String> {
    redis.hash(key).map_err(|trouble| match trouble {
        Trouble::Down(why) => why,
        Trouble::Key(why) => format!("{key} cannot be read: {why}"),
    })
}

/// What can be done without.
fn optional<T>(asked: Result<T, Trouble>) -> Result<Option<T>, String> {
    match asked {
        Ok(value) => Ok(Some(value)),
        Err(Trouble::Key(_)) => Ok(None),
        Err(Trouble::Down(why)) => Err(why),
    }
}

/// What is reported as damaged.
fn damaged_or(asked: Result<BTreeMap<String, String>, Trouble>, key: &str) -> Result<Hash, String> {
    match asked {
        Ok(fields) => Ok(Ok(fields)),
        Err(Trouble::Key(why)) => Ok(Err(format!("{key} cannot be read: {why}"))),
        Err(Trouble::Down(why)) => Err(why),
    }
}
