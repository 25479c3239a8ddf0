//! What all that speak to a Redis have in common: how a connection is opened, what its address means,
//! and the words for its errors.

pub mod address;
pub mod words;

use std::time::Duration;

use redis::{
    Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates,
};

use crate::secret::Secret;

/// Opens a connection without logging in, in `timeout` once the name is known. Over TLS the authorities
/// in `ca`, in PEM form, are trusted and no others; without it those of the system.
///
/// # Errors
/// Those of the library.
pub fn open(
    info: ConnectionInfo,
    timeout: Duration,
    ca: Option<&[u8]>,
) -> Result<Connection, RedisError> {
    // Debian's Redis 7.0 does not know CLIENT SETINFO LIB-NAME, which the library sends.
    let info = info.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    if encrypted {
        // Only the first call counts; the daemon has made it long ago.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let client = match ca.filter(|_| encrypted) {
        None => Client::open(info)?,
        Some(ca) => {
            let root_cert = Some(ca.to_vec());
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
        }
    };
    client.get_connection_with_timeout(timeout)
}

/// The command that logs in.
pub fn auth(user: Option<&str>, password: &Secret) -> Cmd {
    let mut auth = redis::cmd("AUTH");
    auth.arg(user).arg(password.reveal());
    auth
}
