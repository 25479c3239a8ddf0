//! The scripts that give, renew and take back the lease.
//!
//! A fence of a lower epoch than ours was brought back by a failover that lost ours. It is put right,
//! unless the older leader lives and holds the lease again. The number of the last commit is removed
//! then, and it rises with each new leader: so the next commit sees that Redis went back, even if an
//! older leader has brought the number to where it was.

use std::time::Duration;

use super::connection::{MasterConnection, RedisFault};
use super::keys::Keys;
use super::script::Script;
use super::token::Token;

/// The version of rows and scripts. A node leads only where no higher one was in use.
pub const FORMAT: u32 = 1;

/// KEYS lease, fence, format, id, seq. ARGV node, `node:incarnation`, ttl in ms, whether every other process of
/// the node is dead (1), the highest epoch known here, the format, the id known here or nothing, a new id.
static ACQUIRE: Script = Script::new(
    r"
local cur = redis.call('GET', KEYS[1])
if cur then
  local n = string.match(cur, '^%d+:([^:]*):')
  if not (n == ARGV[1] and ARGV[4] == '1') then return {0, redis.call('PTTL', KEYS[1]), cur} end
end
local format = tonumber(redis.call('GET', KEYS[3]) or '0')
if format > tonumber(ARGV[6]) then return {2, format, ''} end
local id = redis.call('GET', KEYS[4])
if id and ARGV[7] ~= '' and id ~= ARGV[7] then return {3, 0, id} end
if not id then
  id = ARGV[7]
  if id == '' then id = ARGV[8] end
  redis.call('SET', KEYS[4], id)
end
if format < tonumber(ARGV[6]) then redis.call('SET', KEYS[3], ARGV[6]) end
local e = tonumber(string.match(redis.call('GET', KEYS[2]) or '0:', '^%d+') or '0')
if tonumber(ARGV[5]) > e then e = tonumber(ARGV[5]) end
local token = string.format('%.0f', e + 1) .. ':' .. ARGV[2]
redis.call('SET', KEYS[2], token)
redis.call('SET', KEYS[1], token, 'PX', ARGV[3])
redis.call('INCR', KEYS[5])
return {1, e + 1, token}",
);

/// KEYS lease, fence, seq. ARGV token, ttl in ms, epoch, the node if every other process of it is dead. 1:
/// renewed; 2: and the fence was put right.
static RENEW: Script = Script::new(
    r"
local f, l = redis.call('GET', KEYS[2]) or '0:', redis.call('GET', KEYS[1])
local answer = 1
if f ~= ARGV[1] then
  local held = l and l ~= ARGV[1] and string.match(l, '^%d+:([^:]*):') ~= ARGV[4]
  if held or tonumber(string.match(f, '^%d+') or '0') >= tonumber(ARGV[3]) then
    return redis.error_reply('FENCED ' .. f)
  end
  redis.call('SET', KEYS[2], ARGV[1])
  redis.call('DEL', KEYS[3])
  answer = 2
end
-- A Redis that is full still does PEXPIRE.
if l == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return answer",
);

/// KEYS lease. ARGV token. Whether it was ours.
static RELEASE: Script = Script::new(
    r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])",
);

/// What a node that asks for the lease says of itself.
#[derive(Clone, Debug)]
pub struct LeaseRequest<'a> {
    /// `cluster.node`.
    pub node: &'a str,
    /// Which process of it asks.
    pub incarnation: &'a str,
    /// How long the lease is valid.
    pub ttl: Duration,
    /// Whether every other process of the node is known to be dead.
    pub predecessor_dead: bool,
    /// The highest epoch that was seen here.
    pub highest_epoch: u64,
    /// The id of the cluster, as it was seen here.
    pub known_id: Option<&'a str>,
    /// The id that a new cluster gets.
    pub new_id: &'a str,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// It is given.
    Acquired(Token),
    /// Another one holds it, for so long still.
    Held(String, Duration),
    /// A newer version was in use.
    NewerFormat(u64),
    /// The cluster there is another one, with this id.
    OtherCluster(String),
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Asks for the lease.
///
/// # Errors
/// Those of Redis.
pub fn acquire(
    redis: &mut MasterConnection,
    keys: &Keys,
    request: &LeaseRequest,
) -> Result<LeaseAnswer, RedisFault> {
    let LeaseRequest { node, incarnation, known_id, new_id, .. } = *request;
    let tail = format!("{node}:{incarnation}");
    let (ttl, epoch) = (millis(request.ttl), request.highest_epoch.to_string());
    let (dead, format) = (if request.predecessor_dead { "1" } else { "0" }, FORMAT.to_string());
    let known_id = known_id.unwrap_or_default();
    let arguments = [node, &tail, &ttl, dead, &epoch, &format, known_id, new_id];
    let (code, number, text): (u8, i64, String) = ACQUIRE.call(
        redis,
        &[&keys.lease(), &keys.fence(), &keys.format(), &keys.id(), &keys.seq()],
        &arguments.map(str::as_bytes),
    )?;
    let number = u64::try_from(number).unwrap_or(0);
    Ok(match code {
        1 => LeaseAnswer::Acquired(text.parse().map_err(|why: String| redis.unusable(&why))?),
        2 => LeaseAnswer::NewerFormat(number),
        3 => LeaseAnswer::OtherCluster(text),
        _ => LeaseAnswer::Held(text, Duration::from_millis(number)),
    })
}

/// Renews the lease; whether the fence had to be put right, after a failover. `predecessor_dead`: every
/// other process of this node is known to be dead.
///
/// # Errors
/// `FENCED` when another one leads, and those of Redis.
pub fn renew(
    redis: &mut MasterConnection,
    keys: &Keys,
    token: &Token,
    ttl: Duration,
    predecessor_dead: bool,
) -> Result<bool, RedisFault> {
    let (text, ttl, epoch) = (token.to_string(), millis(ttl), token.epoch.to_string());
    let own = if predecessor_dead { token.node.as_str() } else { "" };
    let arguments = [&text, &ttl, &epoch, own].map(str::as_bytes);
    let answer: u8 = RENEW.call(redis, &[&keys.lease(), &keys.fence(), &keys.seq()], &arguments)?;
    Ok(answer == 2)
}

/// Gives the lease back; whether it was ours.
///
/// # Errors
/// Those of Redis.
pub fn release(
    redis: &mut MasterConnection,
    keys: &Keys,
    token: &Token,
) -> Result<bool, RedisFault> {
    RELEASE.call(redis, &[&keys.lease()], &[token.to_string().as_bytes()])
}
