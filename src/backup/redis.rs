//! Redis, read and never written: every answer is bounded in time, and in size where Redis can do that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::{Client, Cmd, Connection, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError};

use super::settings::CorrelatorSettings;

/// How long one step may take: the connection, one answer.
const STEP: Duration = Duration::from_secs(5);

/// How many keys, fields or members are read of one sort.
const MOST: usize = 20_000;

/// How much of a single text is read, in bytes.
const LONGEST_TEXT: isize = 4096;

const WANTS_PASSWORD: &str = "it wants a password (redis_password)";

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisReadError {
    /// Redis cannot be asked at all.
    Down(String),
    /// It does not give this one key: of another type, or not for us.
    Key(String),
}

impl RedisReadError {
    /// Its words.
    pub fn into_why(self) -> String {
        match self {
            RedisReadError::Down(why) | RedisReadError::Key(why) => why,
        }
    }
}

/// A connection that is given up at a certain time.
pub struct RedisConnection {
    connection: Connection,
    /// Where it is, to be named in errors.
    place: String,
    until: Instant,
}

impl RedisConnection {
    /// Connects and logs in, to be done with all reading at `until`.
    ///
    /// # Errors
    /// Why it is down, without any password.
    pub fn connect(
        settings: &CorrelatorSettings,
        until: Instant,
    ) -> Result<RedisConnection, RedisReadError> {
        let place = place(&settings.redis_url);
        let down = |error: RedisError| RedisReadError::Down(format!("{place}: {}", words(&error)));
        let info = settings.redis_url.as_str().into_connection_info().map_err(down)?;
        // Debian's Redis 7.0 does not know the library's introduction of itself.
        let mut login = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) = &settings.redis_password {
            login = login.set_password(password.reveal());
            if let Some(user) = &settings.redis_user {
                login = login.set_username(user);
            }
        }
        if settings.redis_url.starts_with("rediss:") {
            // Only the first call counts; the daemon has made it long ago.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = Client::open(info.set_redis_settings(login)).map_err(down)?;
        let connection = client.get_connection_with_timeout(STEP).map_err(down)?;
        Ok(RedisConnection { connection, place, until })
    }

    fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisReadError> {
        let left = self.until.saturating_duration_since(Instant::now()).min(STEP);
        let down = |place: &str, why: String| RedisReadError::Down(format!("{place}: {why}"));
        if left.is_zero() {
            return Err(down(&self.place, "it takes too long to answer".into()));
        }
        let asked = self
            .connection
            .set_read_timeout(Some(left))
            .and_then(|()| self.connection.set_write_timeout(Some(left)))
            .and_then(|()| command.query(&mut self.connection));
        asked.map_err(|error| match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension if !concerns_all(&error) => {
                RedisReadError::Key(words(&error))
            }
            _ => down(&self.place, words(&error)),
        })
    }

    /// The names of all keys that match, in order; each once. With SCAN, which holds up nobody.
    pub fn keys(&mut self, pattern: &str) -> Result<Vec<String>, RedisReadError> {
        let scan = |cursor: u64| {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1000);
            command
        };
        let mut keys = self.scanned(scan)?;
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// A hash; empty when it is not there.
    pub fn hash(&mut self, key: &str) -> Result<BTreeMap<String, String>, RedisReadError> {
        let flat = self.scanned(|cursor| part_of("HSCAN", key, cursor))?;
        Ok(flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }

    /// The members of a set, in order; empty when it is not there.
    pub fn members(&mut self, key: &str) -> Result<Vec<String>, RedisReadError> {
        let mut members = self.scanned(|cursor| part_of("SSCAN", key, cursor))?;
        members.sort();
        members.dedup();
        Ok(members)
    }

    /// A text; none when it is not there or empty.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, RedisReadError> {
        let bytes: Vec<u8> =
            self.ask(redis::cmd("GETRANGE").arg(key).arg(0).arg(LONGEST_TEXT - 1))?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// One field of a hash.
    pub fn field(&mut self, key: &str, field: &str) -> Result<Option<String>, RedisReadError> {
        let bytes: Option<Vec<u8>> = self.ask(redis::cmd("HGET").arg(key).arg(field))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// All that a SCAN command goes through, from cursor to cursor.
    fn scanned(&mut self, command: impl Fn(u64) -> Cmd) -> Result<Vec<String>, RedisReadError> {
        let mut all = Vec::new();
        let mut cursor = 0;
        loop {
            let (next, items): (u64, Vec<Vec<u8>>) = self.ask(&command(cursor))?;
            all.extend(items.iter().map(|item| String::from_utf8_lossy(item).into_owned()));
            if all.len() > 2 * MOST {
                return Err(RedisReadError::Key(format!("holds more than {MOST} entries")));
            }
            cursor = next;
            if cursor == 0 {
                return Ok(all);
            }
        }
    }
}

fn part_of(scan: &str, key: &str, cursor: u64) -> Cmd {
    let mut command = redis::cmd(scan);
    command.arg(key).arg(cursor).arg("COUNT").arg(1000);
    command
}

/// Whether a server's error is not about the key: not logged in, still loading.
fn concerns_all(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN" | "BUSY"))
}

/// Scheme, host and port of the address, or the socket's path.
fn place(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = if scheme.ends_with("unix") { "?#" } else { "/?#" };
    let rest = rest.split(|c| end.contains(c)).next().unwrap_or_default();
    // The settings have taken the login out already; what is left of one must not be shown either.
    format!("Redis at {}", rest.rsplit('@').next().unwrap_or_default())
}

/// An error of the library in the operator's words.
fn words(error: &RedisError) -> String {
    match error.kind() {
        _ if error.is_timeout() => format!("no answer within {} s", STEP.as_secs()),
        ErrorKind::AuthenticationFailed => "user or password is wrong".into(),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            "the answer is not Redis'; is the address right?".into()
        }
        ErrorKind::Server(_) | ErrorKind::Extension => match (error.code(), error.detail()) {
            (Some("NOAUTH"), _) => WANTS_PASSWORD.into(),
            // What SELECT answers to those who have not logged in.
            (_, Some(detail)) if detail.contains("Authentication required") => {
                WANTS_PASSWORD.into()
            }
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            (code, detail) => code.or(detail).unwrap_or("refused").to_owned(),
        },
        _ => {
            let said = error.to_string();
            match said.split_once("invalid peer certificate: ") {
                Some((_, why)) => format!("its certificate is not trusted: {why}"),
                None => said,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_named_without_a_login() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379", "Redis at 127.0.0.1:6379"),
            ("redis://u:p@127.0.0.1:6379/2?x=1", "Redis at 127.0.0.1:6379"),
            ("redis+unix:///run/redis.sock?db=2", "Redis at /run/redis.sock"),
        ] {
            assert_eq!(place(url), expected);
        }
    }
}
