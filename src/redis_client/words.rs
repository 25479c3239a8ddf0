//! What a Redis that cannot be used says, in the operator's words and with a remedy. Pure.

use std::time::Duration;

use redis::{ErrorKind, RedisError};

/// What is said of bytes that no Redis sends.
pub const NOT_REDIS: &str = "the answer is not Redis'; is the address right?";

/// What the TLS library says of bytes that are not TLS.
pub const NO_TLS: &str = "received corrupt message";

const WRONG_LOGIN: &str = "user or password is wrong";

/// Where the remedies of a feature differ from those of another.
#[derive(Clone, Copy, Debug)]
pub struct ErrorWords {
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// The key of the configuration that holds the address.
    pub address: &'static str,
    /// That of the user.
    pub user: &'static str,
    /// That of the password.
    pub password: &'static str,
    /// Of a node of a Redis Cluster.
    pub cluster_node: &'static str,
    /// Of one that does not know a command.
    pub unknown_command: &'static str,
    /// Of a database that there is not.
    pub database: &'static str,
}

/// An error of the library in the operator's words.
pub fn describe_error(error: &RedisError, words: &ErrorWords) -> String {
    match error.kind() {
        _ if error.is_timeout() => format!("no answer within {} s", words.timeout.as_secs()),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => NOT_REDIS.into(),
        ErrorKind::Server(_) | ErrorKind::Extension => describe_refusal(
            error.code().unwrap_or_default(),
            error.detail().unwrap_or_default(),
            words,
        ),
        _ => {
            let said = error.to_string();
            if said.contains(NO_TLS) {
                return format!(
                    "it does not speak TLS: redis:// in {}, not rediss://?",
                    words.address
                );
            }
            match said.split_once("invalid peer certificate: ") {
                Some((_, why)) => format!("its certificate is not trusted: {why}"),
                None => said,
            }
        }
    }
}

/// What Redis says, with a remedy where there is one.
pub fn describe_refusal(code: &str, detail: &str, words: &ErrorWords) -> String {
    let says = |part: &str| detail.contains(part);
    match code {
        "NOAUTH" => format!("it wants a password ({})", words.password),
        "WRONGPASS" => WRONG_LOGIN.into(),
        _ if says("invalid password") => WRONG_LOGIN.into(),
        _ if says("without any password configured") || says("no password is set") => {
            format!("it has no password: leave out {}, or set one there", words.password)
        }
        _ if says("wrong number of arguments for 'auth'") => {
            format!("it knows no users (Redis before 6): leave out {}", words.user)
        }
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => words.cluster_node.into(),
        _ if says("not allowed in cluster mode") => words.cluster_node.into(),
        "DENIED" => format!(
            "it is in protected mode, which refuses other machines: give it a password ({}), or \
             reach it through 127.0.0.1 or its socket",
            words.password
        ),
        "LOADING" => "it is still loading its data (LOADING)".into(),
        "MASTERDOWN" => format!(
            "it is a replica without its master, and may not answer (MASTERDOWN): name the master \
             in {}",
            words.address
        ),
        "BUSY" => "it is busy with a script (BUSY), and answers when that is over".into(),
        "MISCONF" => "it cannot save its data (MISCONF): its log says why".into(),
        _ if says("unknown command") => words.unknown_command.into(),
        _ if says("DB index is out of range") || says("invalid DB index") => words.database.into(),
        _ if says("max number of clients") => {
            "it has as many clients as it takes (maxclients)".into()
        }
        _ => [code, detail].join(" ").trim().to_owned(),
    }
}
