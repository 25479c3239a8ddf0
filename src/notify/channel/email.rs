//! Mail over SMTP (RFC 5321, RFC 5322), one envelope per recipient.

use std::path::PathBuf;

use crate::secret::Secret;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, required (RFC 3207).
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// None at all.
    None,
}

/// A channel of `type: email`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// To whom; at least one.
    pub recipients: Vec<String>,
    /// From whom.
    pub sender: String,
    /// The server's name or address.
    pub smtp_server: String,
    /// Its port.
    pub smtp_port: u16,
    /// Only together with `smtp_password`.
    pub smtp_user: Option<String>,
    /// Only together with `smtp_user`.
    pub smtp_password: Option<Secret>,
    /// How the connection is protected.
    pub tls: Tls,
    /// Further certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// The name to say in EHLO.
    pub helo: Option<String>,
}
