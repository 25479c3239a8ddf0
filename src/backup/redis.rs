//! A read-only Redis client: every answer is bounded in time, and in size where Redis has a command
//! for that. Many keys are asked for at once, in pipelines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis::{
    Cmd, Connection, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, Value,
};

use super::settings::CorrelatorSettings;
use crate::btree::InsertAll;
use crate::redis_client;
use crate::redis_client::address::describe_server;
use crate::redis_client::words::{ErrorWords, NO_TLS, NOT_REDIS, describe_error};

/// How long connecting and each answer may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many fields or members one key may have.
const MAX_ENTRIES: usize = 20_000;

/// How many keys are kept of a look through all of them.
const MAX_KEYS: usize = 200_000;

/// How many keys Redis looks at for one SCAN: its other clients wait for some milliseconds.
const KEYS_PER_SCAN: usize = 10_000;

/// How many commands are sent before their answers are read.
const BATCH: usize = 100;

/// How many bytes a key may take, where Redis says so.
const MAX_KEY_BYTES: u64 = 4 << 20;

/// How many bytes all answers over one connection may take.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// How many bytes of a string value are read.
const MAX_TEXT_BYTES: isize = 4096;

const WORDS: ErrorWords = ErrorWords {
    timeout: STEP_TIMEOUT,
    address: "redis_url",
    user: "redis_user",
    password: "redis_password",
    cluster_node: "it is a node of a Redis Cluster, where NethServer 8 keeps nothing: redis_url must \
                   name the Redis of NethServer 8",
    unknown_command: "it does not know a command that reads: a Sentinel, which holds no data? \
                      redis_url must name the Redis itself",
    database: "it has no database of the number in redis_url; NethServer 8 uses 0",
};

/// The fields of a hash.
pub type Fields = BTreeMap<String, String>;

/// What was read of one key.
pub type KeyResult<T> = Result<T, KeyError>;

/// Why nothing could be read at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUnavailable {
    /// A sentence for people, without any password.
    pub why: String,
    /// Whether there was an answer: then Redis refuses everything, or it is no Redis.
    pub answers: bool,
}

/// Why one key could not be read; a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Our ACL user may not read it, and cannot know whether it exists.
    Hidden(String),
    /// It exists, and it has another type or is too big.
    Unusable(String),
}

impl KeyError {
    /// The sentence, with the name of the key.
    pub fn describe(&self, key: &str) -> String {
        let (KeyError::Hidden(why) | KeyError::Unusable(why)) = self;
        format!("{key} cannot be read: {why}")
    }
}

/// The keys that a look through all of them found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyScan {
    /// Those that were wanted.
    pub keys: BTreeSet<String>,
    /// Why there may be more of them.
    pub incomplete: Option<String>,
}

/// A connection with a deadline for everything that is read over it.
pub struct RedisConnection {
    connection: Connection,
    /// The address as it is shown in errors.
    server: String,
    database: i64,
    until: Instant,
    /// How many bytes the answers may still take.
    left: usize,
}

impl RedisConnection {
    /// Connects and logs in; no answer is waited for after `until`.
    pub fn connect(
        settings: &CorrelatorSettings,
        until: Instant,
    ) -> Result<RedisConnection, RedisUnavailable> {
        let server = describe_server(&settings.redis_url);
        let down = |error: RedisError| unavailable(&server, &error);
        let info = settings.redis_url.as_str().into_connection_info().map_err(down)?;
        let database = info.redis_settings().db();
        // Login and database are sent by us, since the library keeps for itself why they are refused.
        let connection = redis_client::open(info, STEP_TIMEOUT, None).map_err(down)?;
        let mut redis =
            RedisConnection { connection, server, database, until, left: MAX_ANSWER_BYTES };
        redis.log_in(settings)?;
        Ok(redis)
    }

    fn log_in(&mut self, settings: &CorrelatorSettings) -> Result<(), RedisUnavailable> {
        let mut commands = Vec::new();
        if let Some(password) = &settings.redis_password {
            commands.push(redis_client::auth(settings.redis_user.as_deref(), password));
        }
        if self.database != 0 {
            commands.push(redis::cmd("SELECT").arg(self.database).to_owned());
        }
        for command in &commands {
            if let Err(KeyError::Hidden(why) | KeyError::Unusable(why)) = self.ask::<()>(command)? {
                return Err(self.refused(&why));
            }
        }
        Ok(())
    }

    /// The error for what can be read, and is not what it should be.
    pub fn refused(&self, why: &str) -> RedisUnavailable {
        RedisUnavailable { why: format!("{}: {why}", self.server), answers: true }
    }

    fn too_much(&self) -> RedisUnavailable {
        let most = MAX_ANSWER_BYTES >> 20;
        self.refused(&format!("it holds more than {most} MB about backups, too much to read"))
    }

    /// The error for a database without anything of NethServer 8.
    pub fn no_cluster(&self) -> RedisUnavailable {
        self.refused(&format!(
            "database {} holds no cluster; are the address and the number in redis_url right?",
            self.database
        ))
    }

    /// How many of these keys exist.
    pub fn count_existing(&mut self, keys: &[&str]) -> Result<KeyResult<u64>, RedisUnavailable> {
        self.ask(redis::cmd("EXISTS").arg(keys))
    }

    /// The keys that contain `part` and are wanted, from one look through all keys, until `until` at
    /// most. With SCAN: KEYS would block the other clients of Redis.
    pub fn scan_keys(
        &mut self,
        part: &str,
        until: Instant,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<KeyScan, RedisUnavailable> {
        let mut scan = KeyScan::default();
        let mut cursor = 0;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(format!("*{part}*"));
            let (next, keys): (u64, Vec<Vec<u8>>) =
                match self.ask(command.arg("COUNT").arg(KEYS_PER_SCAN))? {
                    Ok(page) => page,
                    Err(error) => {
                        scan.incomplete = Some(error.describe("the list of all keys"));
                        return Ok(scan);
                    }
                };
            let keys = keys.iter().map(|key| String::from_utf8_lossy(key).into_owned());
            scan.keys.extend(keys.filter(|key| wanted(key)));
            cursor = next;
            if cursor == 0 {
                return Ok(scan);
            }
            if scan.keys.len() > MAX_KEYS {
                scan.incomplete = Some(format!("there are more than {MAX_KEYS} keys of backups"));
                return Ok(scan);
            }
            if Instant::now() >= until {
                scan.incomplete = Some("there are too many keys to look at all in time".into());
                return Ok(scan);
            }
        }
    }

    /// The fields of a hash, with a single question as long as it is small: of something that is no Redis
    /// a second answer would be waited for. None when there is no such key.
    pub fn hash(&mut self, key: &str) -> Result<KeyResult<Fields>, RedisUnavailable> {
        let mut hashes = self.entries("HSCAN", &[key.to_owned()], vec![Ok(Vec::new())])?;
        hashes.pop().map(|flat| flat.map(fields)).ok_or_else(|| self.refused(NOT_REDIS))
    }

    /// The fields of each hash; none when there is no such key.
    pub fn hashes(&mut self, keys: &[String]) -> Result<Vec<KeyResult<Fields>>, RedisUnavailable> {
        let begun = self.refuse_large(keys)?;
        let hashes = self.entries("HSCAN", keys, begun)?;
        Ok(hashes.into_iter().map(|flat| flat.map(fields)).collect())
    }

    /// The members of each set; none when there is no such key.
    pub fn sets(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<KeyResult<Vec<String>>>, RedisUnavailable> {
        let begun = self.refuse_large(keys)?;
        self.entries("SSCAN", keys, begun)
    }

    /// The string values without the space around them; none when there is none, it is empty, or it
    /// cannot be read.
    pub fn texts(&mut self, keys: &[String]) -> Result<Vec<Option<String>>, RedisUnavailable> {
        let command = |key: &String| {
            redis::cmd("GETRANGE").arg(key).arg(0).arg(MAX_TEXT_BYTES - 1).to_owned()
        };
        self.optional_texts(keys.iter().map(command).collect())
    }

    /// One field of each hash; none when there is none, it is empty, or it cannot be read.
    pub fn fields(
        &mut self,
        keys_and_fields: &[(String, &str)],
    ) -> Result<Vec<Option<String>>, RedisUnavailable> {
        let ask = |command: &str, (key, field): &(String, &str)| {
            redis::cmd(command).arg(key).arg(*field).to_owned()
        };
        let lengths = keys_and_fields.iter().map(|field| ask("HSTRLEN", field));
        let lengths = self.sizes(lengths.collect())?;
        let is_short = |length: &u64| *length <= MAX_TEXT_BYTES as u64;
        let short = keys_and_fields.iter().zip(&lengths).filter(|(_, length)| is_short(length));
        let commands = short.map(|(field, _)| ask("HGET", field)).collect();
        let mut texts = self.optional_texts(commands)?.into_iter();
        let text = |length| if is_short(length) { texts.next().flatten() } else { None };
        Ok(lengths.iter().map(text).collect())
    }

    fn optional_texts(
        &mut self,
        commands: Vec<Cmd>,
    ) -> Result<Vec<Option<String>>, RedisUnavailable> {
        let text = |answer: KeyResult<Option<Vec<u8>>>| {
            let bytes = answer.ok().flatten()?;
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            Some(text).filter(|text| !text.is_empty())
        };
        Ok(self.ask_all(commands)?.into_iter().map(text).collect())
    }

    /// For each key an empty list, or an error where it takes too many bytes: a scan would give all of
    /// a value, however large it is. A user that may not ask for that reads on.
    fn refuse_large(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<KeyResult<Vec<String>>>, RedisUnavailable> {
        let usage = |key| redis::cmd("MEMORY").arg("USAGE").arg(key).to_owned();
        let sizes = self.sizes(keys.iter().map(usage).collect())?;
        let refused =
            || KeyError::Unusable(format!("it takes more than {} MB", MAX_KEY_BYTES >> 20));
        let result = |size| if size > MAX_KEY_BYTES { Err(refused()) } else { Ok(Vec::new()) };
        Ok(sizes.into_iter().map(result).collect())
    }

    /// The sizes that these commands give; 0 where Redis does not say.
    fn sizes(&mut self, commands: Vec<Cmd>) -> Result<Vec<u64>, RedisUnavailable> {
        // A Redis may not know the command: then the size is not known, either.
        let is_unknown = |error: &RedisError| {
            error.detail().is_some_and(|said| said.contains("unknown command"))
        };
        let size = |redis: &mut Self, answer: Result<Value, RedisError>| match answer {
            Err(error) if is_unknown(&error) => Ok(0),
            answer => Ok(redis.judge::<Option<u64>>(answer)?.ok().flatten().unwrap_or(0)),
        };
        let mut sizes = self.read_all(&commands, size)?;
        sizes.resize(commands.len(), 0);
        Ok(sizes)
    }

    /// All that HSCAN or SSCAN gives for each key, page by page, added to `all` where that is no error.
    fn entries(
        &mut self,
        scan: &str,
        keys: &[String],
        mut all: Vec<KeyResult<Vec<String>>>,
    ) -> Result<Vec<KeyResult<Vec<String>>>, RedisUnavailable> {
        let small = |index: &usize| all[*index].is_ok();
        let mut cursors: Vec<_> = (0..keys.len()).filter(small).map(|index| (index, 0)).collect();
        while !cursors.is_empty() {
            let command =
                |&(index, cursor): &(usize, u64)| scan_command(scan, &keys[index], cursor);
            let pages = self.ask_all(cursors.iter().map(command).collect())?;
            let mut open = Vec::new();
            for ((index, _), page) in cursors.into_iter().zip(pages) {
                let added = page.and_then(|page| add_page(&mut all[index], page));
                match added {
                    Ok(0) => {}
                    Ok(next) => open.push((index, next)),
                    Err(error) => all[index] = Err(error),
                }
            }
            cursors = open;
        }
        Ok(all)
    }

    fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<KeyResult<T>, RedisUnavailable> {
        let mut answers = self.ask_all(vec![command.clone()])?;
        answers.pop().ok_or_else(|| self.refused(NOT_REDIS))
    }

    /// The answers to all commands.
    fn ask_all<T: FromRedisValue>(
        &mut self,
        commands: Vec<Cmd>,
    ) -> Result<Vec<KeyResult<T>>, RedisUnavailable> {
        self.read_all(&commands, |redis, answer| {
            let size = answer.as_ref().map_or(0, size_of_value);
            let left = redis.left.checked_sub(size);
            redis.left = left.ok_or_else(|| redis.too_much())?;
            redis.judge(answer)
        })
    }

    /// What `read` makes of the answer to each command, as they come.
    fn read_all<T>(
        &mut self,
        commands: &[Cmd],
        read: impl Fn(&mut Self, Result<Value, RedisError>) -> Result<T, RedisUnavailable>,
    ) -> Result<Vec<T>, RedisUnavailable> {
        let mut results = Vec::with_capacity(commands.len());
        for batch in commands.chunks(BATCH) {
            let mut pipeline = Pipeline::with_capacity(batch.len());
            for command in batch {
                pipeline.add_command(command.clone());
            }
            for answer in self.send(pipeline.ignore_errors())? {
                results.push(read(self, answer)?);
            }
        }
        Ok(results)
    }

    fn send(
        &mut self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisUnavailable> {
        let left = self.until.saturating_duration_since(Instant::now()).min(STEP_TIMEOUT);
        if left.is_zero() {
            let why = format!("{}: it takes too long to answer", self.server);
            return Err(RedisUnavailable { why, answers: false });
        }
        self.connection
            .set_read_timeout(Some(left))
            .and_then(|()| self.connection.set_write_timeout(Some(left)))
            .and_then(|()| pipeline.query(&mut self.connection))
            .map_err(|error| unavailable(&self.server, &error))
    }

    /// What an answer says, or whether its error is about the key or about the whole server.
    fn judge<T: FromRedisValue>(
        &self,
        answer: Result<Value, RedisError>,
    ) -> Result<KeyResult<T>, RedisUnavailable> {
        match answer {
            Ok(value) => match redis::from_redis_value(value) {
                Ok(value) => Ok(Ok(value)),
                Err(error) => Err(unavailable(&self.server, &error.into())),
            },
            Err(error) => match error.kind() {
                ErrorKind::Server(_) | ErrorKind::Extension if !is_about_server(&error) => {
                    Ok(Err(key_error(&error)))
                }
                _ => Err(unavailable(&self.server, &error)),
            },
        }
    }
}

/// About how many bytes an answer takes in memory.
fn size_of_value(value: &Value) -> usize {
    let inner = match value {
        Value::BulkString(bytes) => bytes.len(),
        Value::SimpleString(text) => text.len(),
        Value::Array(values) | Value::Set(values) => values.iter().map(size_of_value).sum(),
        _ => 0,
    };
    size_of::<Value>() + inner
}

fn fields(flat: Vec<String>) -> Fields {
    let pair = |pair: &[String]| (pair[0].clone(), pair[1].clone());
    flat.chunks_exact(2).map(pair).insert_all()
}

/// Adds a page to what is known of a key; gives the cursor of the next.
fn add_page(
    all: &mut KeyResult<Vec<String>>,
    (next, items): (u64, Vec<Vec<u8>>),
) -> KeyResult<u64> {
    let Ok(all) = all else { return Ok(0) };
    all.extend(items.iter().map(|item| String::from_utf8_lossy(item).into_owned()));
    if all.len() > 2 * MAX_ENTRIES {
        return Err(KeyError::Unusable(format!("it holds more than {MAX_ENTRIES} entries")));
    }
    Ok(next)
}

fn scan_command(scan: &str, key: &str, cursor: u64) -> Cmd {
    redis::cmd(scan).arg(key).arg(cursor).arg("COUNT").arg(1000).to_owned()
}

fn key_error(error: &RedisError) -> KeyError {
    match error.code() {
        Some("NOPERM") => KeyError::Hidden(describe_error(error, &WORDS)),
        _ => KeyError::Unusable(describe_error(error, &WORDS)),
    }
}

fn unavailable(server: &str, error: &RedisError) -> RedisUnavailable {
    let answers = match error.kind() {
        ErrorKind::Io => {
            let said = error.to_string();
            said.contains("certificate") || said.contains(NO_TLS)
        }
        _ => !error.is_timeout(),
    };
    RedisUnavailable { why: format!("{server}: {}", describe_error(error, &WORDS)), answers }
}

/// Whether an error of Redis is about the server or the login, not about the key.
fn is_about_server(error: &RedisError) -> bool {
    const CODES: [&str; 12] = [
        "NOAUTH",
        "WRONGPASS",
        "LOADING",
        "MASTERDOWN",
        "BUSY",
        "MISCONF",
        "DENIED",
        "MOVED",
        "ASK",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "TRYAGAIN",
    ];
    error.code().is_some_and(|code| CODES.contains(&code))
        || error.detail().is_some_and(|said| {
            said.contains("unknown command") || said.contains("max number of clients")
        })
}
