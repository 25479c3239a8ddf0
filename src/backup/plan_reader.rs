//! Reads the plans of a query from Redis, once: a few plans by their keys, all plans after one look
//! through all keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::warn;

use super::correlator::RedisState;
use super::plan::Plan;
use super::plan_query::PlanQuery;
use super::redis::{Fields, KeyResult, RedisConnection, RedisUnavailable};
use super::redis_layout::{KeyListing, RedisSnapshot, StatusKey, members_key, plan_key};
use super::schedule::Zones;
use super::settings::CorrelatorSettings;
use crate::btree::InsertAll;
use crate::clock::{Now, Wall};
use crate::secret::Secret;

/// How long reading the plans may take, beside the look through all keys.
const PLANS_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the look through all keys may take: a small machine takes a minute for 12 million.
const SCAN_TIMEOUT: Duration = Duration::from_secs(90);

/// How many plans are read beyond those that the query names: more than any cluster has.
const MAX_UNNAMED_PLANS: usize = 1000;

const MODULE_NODE: &str = "cluster/module_node";
const MODULE_UUID: &str = "cluster/module_uuid";
const PASSWORDS: &str = "private/agents/backup_destination/restic_password";

/// How long one read of a query may take in all.
pub fn time_limit(query: &PlanQuery) -> Duration {
    if query.all { SCAN_TIMEOUT + PLANS_TIMEOUT } else { PLANS_TIMEOUT }
}

/// Reads the plans that a query is about.
pub fn read_plans(
    settings: &CorrelatorSettings,
    query: &PlanQuery,
) -> Result<RedisState, RedisUnavailable> {
    let begin = Instant::now();
    let mut redis = RedisConnection::connect(settings, begin + time_limit(query))?;
    let mut snapshot = read_modules(&mut redis)?;
    snapshot.last_looks.clone_from(&query.last_looks);
    let listing = match query.all {
        true => Some(list_keys(&mut redis, begin + SCAN_TIMEOUT)?),
        false => None,
    };
    let incomplete = listing.as_ref().and_then(|(_, incomplete)| incomplete.clone());
    let listing = listing.map(|(listing, _)| listing);
    read_requested(&mut redis, query, &mut snapshot, listing.as_ref())?;
    let listing = listing.filter(|_| incomplete.is_none());
    read_members(&mut redis, &mut snapshot, listing.as_ref())?;
    read_statuses(&mut redis, query, &mut snapshot, listing)?;
    if snapshot.is_empty() {
        return Err(redis.no_cluster());
    }
    let now = Now::read().wall;
    let requested = requested_plans(&snapshot, query, settings.recent, now);
    let plan = |id: String| snapshot.plan(&id, query.alert_time(&id), settings.recent, now);
    let mut state = RedisState {
        plans: requested.into_iter().map(plan).collect(),
        incomplete,
        ..RedisState::default()
    };
    fill_module_details(&mut redis, &mut state.plans)?;
    fill_destinations(&mut redis, &mut state)?;
    Ok(state)
}

/// Whether the database holds a cluster.
pub fn holds_cluster(
    settings: &CorrelatorSettings,
    until: Instant,
) -> Result<bool, RedisUnavailable> {
    let mut redis = RedisConnection::connect(settings, until)?;
    match redis.count_existing(&[MODULE_NODE, MODULE_UUID])? {
        Ok(count) => Ok(count > 0),
        Err(error) => Err(redis.refused(&error.describe(MODULE_NODE))),
    }
}

/// What is wrong with the Redis, if it answers.
pub fn find_problem(settings: &CorrelatorSettings, until: Instant) -> Option<String> {
    let look = || {
        let mut redis = RedisConnection::connect(settings, until)?;
        let modules = read_modules(&mut redis)?;
        if modules.is_empty() { Err(redis.no_cluster()) } else { Ok(()) }
    };
    look().err().filter(|error: &RedisUnavailable| error.answers).map(|error| error.why)
}

/// Which modules there are: without that nothing can be said about any plan. Their UUIDs, which are
/// read with them, can be done without.
fn read_modules(redis: &mut RedisConnection) -> Result<RedisSnapshot, RedisUnavailable> {
    // One after the other: of something that is no Redis the second answer would be waited for.
    let module_node = redis.hash(MODULE_NODE)?;
    let module_node = module_node.map_err(|error| redis.refused(&error.describe(MODULE_NODE)))?;
    let module_uuid = match redis.hash(MODULE_UUID)? {
        Err(error) if module_node.is_empty() => {
            return Err(redis.refused(&error.describe(MODULE_UUID)));
        }
        read => read.unwrap_or_default(),
    };
    let zones = Zones::read();
    Ok(RedisSnapshot { module_node, module_uuid, zones, ..RedisSnapshot::default() })
}

/// The keys about backups, and why there may be more.
fn list_keys(
    redis: &mut RedisConnection,
    until: Instant,
) -> Result<(KeyListing, Option<String>), RedisUnavailable> {
    // Part of all the keys that are wanted, so that the others are not sent.
    let scan = redis.scan_keys("/backup", until, KeyListing::is_about_backups)?;
    let mut listing = KeyListing::default();
    for key in &scan.keys {
        listing.insert(key);
    }
    Ok((listing, scan.incomplete))
}

/// Reads the keys of the plans that the query names, and of those that were listed.
fn read_requested(
    redis: &mut RedisConnection,
    query: &PlanQuery,
    snapshot: &mut RedisSnapshot,
    listing: Option<&KeyListing>,
) -> Result<(), RedisUnavailable> {
    let listed = listing.into_iter().flat_map(|listing| &listing.plans);
    let ids: BTreeSet<&String> = query.plans.keys().chain(listed).insert_all();
    let keys: Vec<String> = ids.iter().map(|id| plan_key(id)).collect();
    for (id, read) in ids.into_iter().zip(redis.hashes(&keys)?) {
        snapshot.add_plan(id, read, query.plans.contains_key(id));
    }
    Ok(())
}

/// In the older layout each module has the set of the plans that it belongs to.
fn read_members(
    redis: &mut RedisConnection,
    snapshot: &mut RedisSnapshot,
    listing: Option<&KeyListing>,
) -> Result<(), RedisUnavailable> {
    if snapshot.plans.values().all(|plan| plan.contains_key("instances")) {
        return Ok(());
    }
    let modules = match listing {
        Some(listing) => listing.members.clone(),
        None => snapshot.known_modules(),
    };
    let keys: Vec<String> = modules.iter().map(|module| members_key(module)).collect();
    for (module, plans) in modules.into_iter().zip(redis.sets(&keys)?) {
        for plan in plans.unwrap_or_default() {
            snapshot.members.entry(plan).or_default().insert(module.clone());
        }
    }
    Ok(())
}

/// Reads the statuses that were listed; without a whole list those that there may be of the plans.
fn read_statuses(
    redis: &mut RedisConnection,
    query: &PlanQuery,
    snapshot: &mut RedisSnapshot,
    listing: Option<KeyListing>,
) -> Result<(), RedisUnavailable> {
    let possible = |snapshot: &RedisSnapshot| -> Vec<StatusKey> {
        let plans: BTreeSet<&String> = query.plans.keys().chain(snapshot.plans.keys()).insert_all();
        plans.into_iter().flat_map(|plan| snapshot.status_keys(plan)).collect()
    };
    let status_keys = match listing {
        Some(listing) => listing.statuses.into_iter().collect(),
        None => possible(snapshot),
    };
    let keys: Vec<String> = status_keys.iter().map(StatusKey::to_string).collect();
    let read: Vec<(StatusKey, KeyResult<Fields>)> =
        status_keys.into_iter().zip(redis.hashes(&keys)?).collect();
    let (nodes, modules): (Vec<_>, Vec<_>) =
        read.into_iter().partition(|(key, _)| matches!(key, StatusKey::Node { .. }));
    for (key, hash) in nodes.into_iter().chain(modules) {
        snapshot.add_status(key, hash);
    }
    Ok(())
}

/// The ids of the plans that are told: those that the query names, and the active ones where it is
/// about all.
fn requested_plans(
    snapshot: &RedisSnapshot,
    query: &PlanQuery,
    recent: Duration,
    now: Wall,
) -> BTreeSet<String> {
    let mut requested: BTreeSet<String> = query.plans.keys().cloned().insert_all();
    if query.all {
        let active = snapshot.listed_plans(query, recent, now);
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

/// What is told of modules beside their state, and is not there for each.
fn fill_module_details(
    redis: &mut RedisConnection,
    plans: &mut [Plan],
) -> Result<(), RedisUnavailable> {
    let modules: Vec<_> = plans.iter_mut().flat_map(|plan| &mut plan.modules).collect();
    let names: Vec<String> =
        modules.iter().map(|module| format!("module/{}/ui_name", module.id)).collect();
    let images: Vec<(String, &str)> = modules
        .iter()
        .map(|module| (format!("module/{}/environment", module.id), "IMAGE_URL"))
        .collect();
    let (names, images) = (redis.texts(&names)?, redis.fields(&images)?);
    for ((module, name), image) in modules.into_iter().zip(names).zip(images) {
        module.ui_name = name;
        module.image = image.as_deref().and_then(image_name).map(str::to_owned);
    }
    Ok(())
}

/// The name of an image in its URL: `mail` in `ghcr.io:443/nethserver/mail:1.2@sha256:...`.
fn image_name(url: &str) -> Option<&str> {
    let url = url.split('@').next()?;
    let name = url.rsplit('/').next()?.split(':').next()?.trim();
    (!name.is_empty()).then_some(name)
}

/// The names of the destinations, and the passwords of their repositories where our user may read
/// them.
fn fill_destinations(
    redis: &mut RedisConnection,
    state: &mut RedisState,
) -> Result<(), RedisUnavailable> {
    let destinations = || state.plans.iter().filter_map(|plan| plan.destination.as_ref());
    let ids: BTreeSet<String> =
        destinations().map(|destination| destination.id.clone()).insert_all();
    let keys: Vec<String> =
        ids.iter().map(|id| format!("cluster/backup_repository/{id}")).collect();
    let passwords: Vec<(String, &str)> =
        ids.iter().map(|id| (PASSWORDS.to_owned(), id.as_str())).collect();
    let passwords = redis.fields(&passwords)?;
    let fields: BTreeMap<&String, Fields> = ids
        .iter()
        .zip(redis.hashes(&keys)?.into_iter().map(Result::unwrap_or_default))
        .insert_all();
    for destination in state.plans.iter_mut().filter_map(|plan| plan.destination.as_mut()) {
        let field =
            |name| fields.get(&destination.id)?.get(name).filter(|it| !it.trim().is_empty());
        (destination.name, destination.provider) =
            (field("name").cloned(), field("provider").cloned());
    }
    let known = ids.into_iter().zip(passwords);
    state.passwords =
        known.filter_map(|(id, password)| Some((id, Secret::new(password?)))).insert_all();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_what_the_url_says_without_registry_tag_and_digest() {
        for (url, name) in [
            ("ghcr.io/nethserver/mail:1.2", Some("mail")),
            ("ghcr.io/nethserver/mail", Some("mail")),
            ("mail", Some("mail")),
            ("ghcr.io/nethserver/mail@sha256:0123", Some("mail")),
            ("ghcr.io/nethserver/mail:1.2@sha256:0123", Some("mail")),
            ("registry.example.com:5000/mail", Some("mail")),
            ("localhost:5000/a/b/web-top5:v1", Some("web-top5")),
            ("docker://ghcr.io/nethserver/nextcloud:latest", Some("nextcloud")),
            ("", None),
            ("ghcr.io/nethserver/", None),
            ("@sha256:0123", None),
        ] {
            assert_eq!(image_name(url), name, "{url}");
        }
    }

    #[test]
    fn every_plan_that_was_named_is_looked_at() {
        let ids = (0..MAX_UNNAMED_PLANS + 5).map(|number| format!("{number:05}"));
        let mut snapshot = RedisSnapshot::default();
        snapshot.plans.extend(ids.clone().map(|id| (id, BTreeMap::new())));
        let mut query = PlanQuery::default();
        query.plans.extend(ids.map(|id| (id, None)));
        let count =
            |query: &PlanQuery| requested_plans(&snapshot, query, Duration::ZERO, Wall(0)).len();
        assert_eq!(count(&query), MAX_UNNAMED_PLANS + 5);
        assert_eq!(count(&PlanQuery::for_all()), MAX_UNNAMED_PLANS);
        query.plans.retain(|id, _| id.as_str() >= "01002");
        query.all = true;
        assert_eq!(count(&query), MAX_UNNAMED_PLANS + 3);
    }
}
