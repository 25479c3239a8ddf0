//! Lua scripts of Redis, called by their hash: it is asked for where Redis does not know it.

use std::sync::{Mutex, PoisonError};

use redis::FromRedisValue;

use super::connection::{MasterConnection, RedisFault};

/// A script, and its SHA-1 once Redis has told it.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    hash: Mutex<Option<String>>,
}

impl Script {
    /// One of this text.
    pub const fn new(text: &'static str) -> Script {
        Script { text, hash: Mutex::new(None) }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Those of Redis; what the script answers with `redis.error_reply('FENCED')` has that code.
    pub fn call<T: FromRedisValue>(
        &self,
        redis: &mut MasterConnection,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, RedisFault> {
        let known = self.hash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(hash) = known {
            match self.evaluate(redis, &hash, keys, arguments) {
                Err(fault) if fault.code() == "NOSCRIPT" => {}
                result => return result,
            }
        }
        // This Redis has forgotten it (a restart, SCRIPT FLUSH), or never saw it (a failover).
        let hash: String = redis.ask(redis::cmd("SCRIPT").arg("LOAD").arg(self.text))?;
        *self.hash.lock().unwrap_or_else(PoisonError::into_inner) = Some(hash.clone());
        self.evaluate(redis, &hash, keys, arguments)
    }

    fn evaluate<T: FromRedisValue>(
        &self,
        redis: &mut MasterConnection,
        hash: &str,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, RedisFault> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(hash).arg(keys.len()).arg(keys).arg(arguments);
        redis.ask(&command)
    }
}
