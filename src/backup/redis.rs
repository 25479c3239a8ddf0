//! A read-only Redis client: every answer is bounded in time, and in size where Redis has a command
//! for that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::{Client, Cmd, Connection, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError};

use super::settings::CorrelatorSettings;

/// How long connecting and each answer may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many keys, fields or members one scan may return.
const MAX_ENTRIES: usize = 20_000;

/// How many bytes of a string value are read.
const MAX_TEXT_BYTES: isize = 4096;

const WANTS_PASSWORD: &str = "it wants a password (redis_password)";

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisReadError {
    /// Redis is unreachable, or refuses everything.
    Unavailable(String),
    /// This one key cannot be read: it has another type, or our ACL user may not read it.
    Key(String),
}

impl RedisReadError {
    /// The reason, a sentence for people.
    pub fn into_why(self) -> String {
        match self {
            RedisReadError::Unavailable(why) | RedisReadError::Key(why) => why,
        }
    }
}

/// A connection with a deadline for everything that is read over it.
pub struct RedisConnection {
    connection: Connection,
    /// The address as it is shown in errors.
    server: String,
    until: Instant,
}

impl RedisConnection {
    /// Connects and logs in; no answer is waited for after `until`.
    ///
    /// # Errors
    /// Why Redis is unavailable, without any password.
    pub fn connect(
        settings: &CorrelatorSettings,
        until: Instant,
    ) -> Result<RedisConnection, RedisReadError> {
        let server = describe_server(&settings.redis_url);
        let down = |error: RedisError| {
            RedisReadError::Unavailable(format!("{server}: {}", describe_error(&error)))
        };
        let info = settings.redis_url.as_str().into_connection_info().map_err(down)?;
        // Debian's Redis 7.0 does not know CLIENT SETINFO LIB-NAME, which the library sends.
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
        let connection = client.get_connection_with_timeout(STEP_TIMEOUT).map_err(down)?;
        Ok(RedisConnection { connection, server, until })
    }

    fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisReadError> {
        let left = self.until.saturating_duration_since(Instant::now()).min(STEP_TIMEOUT);
        let down =
            |server: &str, why: String| RedisReadError::Unavailable(format!("{server}: {why}"));
        if left.is_zero() {
            return Err(down(&self.server, "it takes too long to answer".into()));
        }
        let result = self
            .connection
            .set_read_timeout(Some(left))
            .and_then(|()| self.connection.set_write_timeout(Some(left)))
            .and_then(|()| command.query(&mut self.connection));
        result.map_err(|error| match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension if !is_about_server(&error) => {
                RedisReadError::Key(describe_error(&error))
            }
            _ => down(&self.server, describe_error(&error)),
        })
    }

    /// The names of all keys that match, sorted, each once. With SCAN: KEYS would block the other
    /// clients of Redis.
    pub fn keys(&mut self, pattern: &str) -> Result<Vec<String>, RedisReadError> {
        let scan = |cursor: u64| {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1000);
            command
        };
        let mut keys = self.scan_all(scan)?;
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// The fields of a hash; empty when there is no such key.
    pub fn hash(&mut self, key: &str) -> Result<BTreeMap<String, String>, RedisReadError> {
        let flat = self.scan_all(|cursor| scan_command("HSCAN", key, cursor))?;
        Ok(flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }

    /// The members of a set, sorted; empty when there is no such key.
    pub fn members(&mut self, key: &str) -> Result<Vec<String>, RedisReadError> {
        let mut members = self.scan_all(|cursor| scan_command("SSCAN", key, cursor))?;
        members.sort();
        members.dedup();
        Ok(members)
    }

    /// A string value without the space around it; none when there is none, or it is empty.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, RedisReadError> {
        let bytes: Vec<u8> =
            self.query(redis::cmd("GETRANGE").arg(key).arg(0).arg(MAX_TEXT_BYTES - 1))?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// One field of a hash.
    pub fn field(&mut self, key: &str, field: &str) -> Result<Option<String>, RedisReadError> {
        let bytes: Option<Vec<u8>> = self.query(redis::cmd("HGET").arg(key).arg(field))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// All items of a SCAN command, page by page.
    fn scan_all(&mut self, command: impl Fn(u64) -> Cmd) -> Result<Vec<String>, RedisReadError> {
        let mut all = Vec::new();
        let mut cursor = 0;
        loop {
            let (next, items): (u64, Vec<Vec<u8>>) = self.query(&command(cursor))?;
            all.extend(items.iter().map(|item| String::from_utf8_lossy(item).into_owned()));
            if all.len() > 2 * MAX_ENTRIES {
                return Err(RedisReadError::Key(format!("holds more than {MAX_ENTRIES} entries")));
            }
            cursor = next;
            if cursor == 0 {
                return Ok(all);
            }
        }
    }
}

fn scan_command(scan: &str, key: &str, cursor: u64) -> Cmd {
    let mut command = redis::cmd(scan);
    command.arg(key).arg(cursor).arg("COUNT").arg(1000);
    command
}

/// Whether an error of Redis is about the server or the login, not about the key.
fn is_about_server(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN" | "BUSY"))
}

/// Scheme, host and port of the address, or the socket's path.
fn describe_server(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = if scheme.ends_with("unix") { "?#" } else { "/?#" };
    let rest = rest.split(|c| end.contains(c)).next().unwrap_or_default();
    // The settings have taken the login out already; what is left of one must not be shown either.
    format!("Redis at {}", rest.rsplit('@').next().unwrap_or_default())
}

/// An error of the library in the operator's words.
fn describe_error(error: &RedisError) -> String {
    match error.kind() {
        _ if error.is_timeout() => format!("no answer within {} s", STEP_TIMEOUT.as_secs()),
        ErrorKind::AuthenticationFailed => "user or password is wrong".into(),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            "the answer is not Redis'; is the address right?".into()
        }
        ErrorKind::Server(_) | ErrorKind::Extension => match (error.code(), error.detail()) {
            (Some("NOAUTH"), _) => WANTS_PASSWORD.into(),
            // The answer to SELECT without a login.
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
            assert_eq!(describe_server(url), expected);
        }
    }
}
