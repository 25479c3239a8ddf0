//! The tables of the store in Redis: a hash each, for those of the history a sorted set with their keys
//! in order, and one script that writes a commit as one and checks first who leads.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Cmd, cmd};

use super::connection::{Connector, MasterConnection, RedisFault};
use super::keys::Keys;
use super::script::Script;
use super::table_rows::{chunks, flatten};
use super::token::Token;
use crate::store::shared::{
    KeyRange, SharedCommit, SharedCommitError, SharedPosition, SharedTables,
};
use crate::store::{HistoryBytes, RawRow, Table};
use crate::thread::lock;

/// How long a commit waits for its replicas.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the answer to a commit of more rows than [`SMALL_COMMIT_ROWS`] may take: over a thin line they
/// are not there within a second.
const LARGE_COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
const SMALL_COMMIT_ROWS: usize = 500;
/// How many rows, keys or ranges are asked for in one command: Redis does nothing else meanwhile.
const PER_COMMAND: usize = 1000;

/// Compares the whole token, then writes. KEYS: fence, number, bytes, begin of the tables, begin of the
/// indexes, what was staged. ARGV: token, the last number that is known, how many calls were staged, how
/// many tables are emptied first, and which; rows. Answers what it did, the number of the last commit,
/// and the bytes of the history.
///
/// A fence of an earlier epoch is one that a failover has rolled back: the next renewal of the lease
/// writes it again. Rows: table, whether its bytes and keys are kept, how many are put, how many removed;
/// keys and values; keys.
static COMMIT: Script = Script::new(
    r"
local fence = redis.call('GET', KEYS[1]) or ''
if fence ~= ARGV[1] then
  if tonumber(string.match(fence, '^%d+') or 0) < tonumber(string.match(ARGV[1], '^%d+')) then
    return redis.error_reply('UNFENCED the fence was rolled back')
  end
  return redis.error_reply('FENCED another node leads')
end
local number, known = tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(ARGV[2])
local staged, emptied = tonumber(ARGV[3]), tonumber(ARGV[4])
if emptied == 0 and number < known then return {0, number, {}} end
if staged > 0 and redis.call('LLEN', KEYS[6]) ~= staged then
  return redis.error_reply('UNSTAGED a part of the commit is gone')
end
local function apply(rows, i)
  while rows[i] do
    local name, puts, removes = rows[i], tonumber(rows[i + 2]), tonumber(rows[i + 3])
    local hash, bytes = KEYS[4] .. name, 0
    local indexed, index = rows[i + 1] == '1', KEYS[5] .. name
    i = i + 4
    local last = i + 2 * puts
    while i < last do
      local to = math.min(i + 1000, last) - 1
      if indexed then
        to = i + 1
        local key, old = rows[i], redis.call('HSTRLEN', hash, rows[i])
        bytes = bytes + #rows[to] - old
        if redis.call('HSET', hash, key, rows[to]) == 1 then
          redis.call('ZADD', index, 0, key)
          bytes = bytes + #key
        end
      else
        redis.call('HSET', hash, unpack(rows, i, to))
      end
      i = to + 1
    end
    last = i + removes
    while i < last do
      local to = math.min(i + 1000, last) - 1
      if indexed then
        to = i
        local old = redis.call('HSTRLEN', hash, rows[i])
        if redis.call('HDEL', hash, rows[i]) == 1 then
          redis.call('ZREM', index, rows[i])
          bytes = bytes - old - #rows[i]
        end
      else
        redis.call('HDEL', hash, unpack(rows, i, to))
      end
      i = to + 1
    end
    if bytes ~= 0 then redis.call('HINCRBY', KEYS[3], name, bytes) end
  end
end
for i = 5, 4 + emptied do redis.call('UNLINK', KEYS[4] .. ARGV[i]) end
for i = 0, staged - 1 do apply(cmsgpack.unpack(redis.call('LINDEX', KEYS[6], i)), 2) end
if staged > 0 then redis.call('UNLINK', KEYS[6]) end
apply(ARGV, 5 + emptied)
if number < known then redis.call('SET', KEYS[2], known) end
return {1, redis.call('INCR', KEYS[2]), redis.call('HGETALL', KEYS[3])}",
);

/// Keeps rows of a commit that is too large for one call. KEYS: what was staged. ARGV: whether it is the
/// first call; rows as in [`COMMIT`].
static STAGE: Script = Script::new(
    r"
if ARGV[1] == '1' then redis.call('UNLINK', KEYS[1]) end
redis.call('RPUSH', KEYS[1], cmsgpack.pack(ARGV))
redis.call('PEXPIRE', KEYS[1], 60000)
return 1",
);

/// The token of this node while it leads.
pub type TokenSource = Arc<dyn Fn() -> Option<Token> + Send + Sync>;

/// What a commit answers: what it did, the number of the last commit, the bytes of the history.
type CommitAnswer = (u64, u64, Vec<(String, u64)>);

/// The tables of one cluster. One connection commits and another one reads; each is made when it is
/// needed, and never used again after an answer that did not come.
pub struct RedisTables {
    connector: Connector,
    keys: Keys,
    token: TokenSource,
    writer: Mutex<Option<MasterConnection>>,
    reader: Mutex<Option<MasterConnection>>,
}

impl RedisTables {
    /// Connects to nothing yet. Without a token commits are those of a node that was deposed.
    pub fn new(connector: Connector, keys: Keys, token: TokenSource) -> RedisTables {
        let (writer, reader) = (Mutex::new(None), Mutex::new(None));
        RedisTables { connector, keys, token, writer, reader }
    }

    /// Asks over the connection that reads: over a new one where the last one has ended meanwhile.
    fn read<T>(
        &self,
        ask: impl Fn(&mut MasterConnection) -> Result<T, RedisFault>,
    ) -> Result<T, String> {
        let kept = lock(&self.reader).take().filter(|redis| !redis.is_broken());
        if let Some(mut redis) = kept {
            match ask(&mut redis) {
                Ok(answer) => {
                    *lock(&self.reader) = Some(redis);
                    return Ok(answer);
                }
                Err(RedisFault::Lost(_)) => {}
                Err(fault) if !fault.is_one_of(&PASSING) => return Err(fault.to_string()),
                // It may be a replica by now.
                Err(RedisFault::Refused { .. }) => {}
            }
        }
        let mut redis = self.connector.connect().map_err(|fault| fault.to_string())?;
        let answer = ask(&mut redis).map_err(|fault| fault.to_string())?;
        *lock(&self.reader) = Some(redis);
        Ok(answer)
    }

    fn write(
        &self,
        redis: &mut MasterConnection,
        token: &Token,
        commit: &SharedCommit,
    ) -> Result<CommitAnswer, RedisFault> {
        let token = token.to_string();
        let staged_key = self.keys.staged(&token);
        let keys = [
            self.keys.fence(),
            self.keys.seq(),
            self.keys.bytes(),
            self.keys.tables_prefix(),
            self.keys.indexes_prefix(),
            staged_key.clone(),
        ];
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut calls = chunks(commit.rows);
        let last = if calls.len() > 1 { Vec::new() } else { calls.pop().unwrap_or_default() };
        if commit.rows.len() > SMALL_COMMIT_ROWS || !calls.is_empty() {
            redis.set_timeout(LARGE_COMMIT_TIMEOUT)?;
        }
        for (index, rows) in calls.iter().enumerate() {
            let first = if index == 0 { "1" } else { "0" };
            let rows = flatten(rows);
            let arguments = std::iter::once(first.as_bytes()).chain(rows.iter().map(|row| &**row));
            STAGE.call::<u64>(redis, &[&staged_key], &arguments.collect::<Vec<_>>())?;
        }
        let emptied =
            Table::ALL.into_iter().filter(|table| commit.rewrites && table.is_known_whole());
        let emptied: Vec<&str> = emptied.map(Table::name).collect();
        let numbers =
            [commit.known.to_string(), calls.len().to_string(), emptied.len().to_string()];
        let rows = flatten(&last);
        let arguments = std::iter::once(token.as_bytes())
            .chain(numbers.iter().map(String::as_bytes))
            .chain(emptied.iter().map(|name| name.as_bytes()))
            .chain(rows.iter().map(|row| &**row));
        COMMIT.call(redis, &keys, &arguments.collect::<Vec<_>>())
    }

    fn commit_over(
        &self,
        redis: &mut MasterConnection,
        token: &Token,
        commit: &SharedCommit,
    ) -> Result<SharedPosition, SharedCommitError> {
        let (done, number, bytes) = self.write(redis, token, commit).map_err(on_fault)?;
        if done == 0 {
            return Err(SharedCommitError::WentBack { to: number });
        }
        let replicas = self.connector.required_replicas();
        match redis.wait_for_replicas(replicas, REPLICA_TIMEOUT).map_err(on_fault)? {
            true => Ok(SharedPosition { number, history: history_bytes(&bytes) }),
            false => Err(SharedCommitError::Unconfirmed(format!(
                "{}: fewer than {replicas} replicas have what was written: are they running, and \
                 connected? (cluster.replicas)",
                redis.server()
            ))),
        }
    }

    /// The keys of a table that has no index, in their order.
    fn scan_keys(&self, table: Table) -> Result<Vec<String>, String> {
        Ok(self.rows(table)?.into_iter().map(|(key, _)| key).collect())
    }
}

impl SharedTables for RedisTables {
    fn position(&self) -> Result<SharedPosition, String> {
        self.read(|redis| {
            let number: Option<u64> = redis.ask(cmd("GET").arg(self.keys.seq()))?;
            let bytes: Vec<(String, u64)> = redis.ask(cmd("HGETALL").arg(self.keys.bytes()))?;
            Ok(SharedPosition { number: number.unwrap_or(0), history: history_bytes(&bytes) })
        })
    }

    fn rows(&self, table: Table) -> Result<Vec<RawRow>, String> {
        let key = self.keys.table(table.name());
        let mut rows = self.read(|redis| {
            let (mut rows, mut cursor): (Vec<RawRow>, u64) = (Vec::new(), 0);
            loop {
                let mut scan = cmd("HSCAN");
                scan.arg(&key).arg(cursor).arg("COUNT").arg(PER_COMMAND);
                let (next, some): (u64, Vec<RawRow>) = redis.ask(&scan)?;
                rows.extend(some);
                cursor = next;
                if cursor == 0 {
                    return Ok(rows);
                }
            }
        })?;
        // A row may be told twice.
        rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        rows.dedup_by(|one, other| one.0 == other.0);
        Ok(rows)
    }

    fn get_all(&self, table: Table, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String> {
        let hash = self.keys.table(table.name());
        self.read(|redis| {
            let mut rows = Vec::with_capacity(keys.len());
            for some in keys.chunks(PER_COMMAND) {
                let found: Vec<Option<Vec<u8>>> = redis.ask(cmd("HMGET").arg(&hash).arg(some))?;
                rows.extend(found);
            }
            Ok(rows)
        })
    }

    fn keys_in(
        &self,
        table: Table,
        ranges: &[KeyRange],
        count: usize,
    ) -> Result<Vec<Vec<String>>, String> {
        if !table.is_history() {
            let keys = self.scan_keys(table)?;
            return Ok(ranges.iter().map(|range| range.select(&keys, count)).collect());
        }
        let index = self.keys.index(table.name());
        self.read(|redis| {
            let mut found = Vec::with_capacity(ranges.len());
            for some in ranges.chunks(PER_COMMAND) {
                let mut asked = redis::Pipeline::with_capacity(some.len());
                for range in some {
                    asked.add_command(keys_of(&index, range, count));
                }
                for answer in redis.ask_all(&mut asked)? {
                    let keys = redis::from_redis_value(answer?);
                    found.push(keys.map_err(|why| RedisFault::Lost(why.to_string()))?);
                }
            }
            Ok(found)
        })
    }

    fn commit(&self, commit: &SharedCommit) -> Result<SharedPosition, SharedCommitError> {
        let token = (self.token)().ok_or(SharedCommitError::Deposed)?;
        let kept = lock(&self.writer).take().filter(|redis| !redis.is_broken());
        let mut redis = match kept {
            Some(redis) => redis,
            None => self.connector.connect().map_err(on_fault)?,
        };
        let committed = self.commit_over(&mut redis, &token, commit);
        // After anything else it may lead to one that is no master, or have another time limit.
        let goes_on = matches!(committed, Ok(_) | Err(SharedCommitError::WentBack { .. }));
        if goes_on && !redis.is_broken() && commit.rows.len() <= SMALL_COMMIT_ROWS {
            *lock(&self.writer) = Some(redis);
        }
        committed
    }
}

/// `count` keys of a range.
fn keys_of(index: &str, range: &KeyRange, count: usize) -> Cmd {
    let from = match range.from.as_str() {
        "" => "-".to_owned(),
        from => format!("[{from}"),
    };
    let to = range.to.as_ref().map_or_else(|| "+".to_owned(), |to| format!("({to}"));
    let mut command = cmd("ZRANGE");
    command.arg(index);
    match range.last_first {
        true => command.arg(to).arg(from).arg("BYLEX").arg("REV"),
        false => command.arg(from).arg(to).arg("BYLEX"),
    };
    command.arg("LIMIT").arg(0).arg(i64::try_from(count).unwrap_or(-1));
    command
}

fn history_bytes(stored: &[(String, u64)]) -> HistoryBytes {
    let of = |table: Table| stored.iter().find(|(name, _)| name == table.name());
    HistoryBytes::of_tables(|table| of(table).map_or(0, |(_, bytes)| *bytes))
}

/// What says that this Redis takes nothing at this moment, and perhaps another one does.
const PASSING: [&str; 8] =
    ["UNFENCED", "UNSTAGED", "NOREPLICAS", "READONLY", "LOADING", "MASTERDOWN", "BUSY", "UNUSABLE"];

/// What an error is to one that commits.
fn on_fault(fault: RedisFault) -> SharedCommitError {
    match &fault {
        RedisFault::Lost(why) => SharedCommitError::Unconfirmed(why.clone()),
        RedisFault::Refused { code, .. } if code == "FENCED" => SharedCommitError::Deposed,
        RedisFault::Refused { why, .. } if fault.is_one_of(&PASSING) => {
            SharedCommitError::Unconfirmed(why.clone())
        }
        RedisFault::Refused { why, .. } => SharedCommitError::Refused(why.clone()),
    }
}
