//! Mail over SMTP (RFC 5321, RFC 5322), one envelope per recipient.

use std::path::PathBuf;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;

use super::{Delivered, Failure, Letter, Pace};
use crate::secret::{Secret, scrub};

mod clean;
mod compose;
mod judge;
mod smtp;
mod wire;

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

/// How long an attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Each wait for the network.
    pub read: Duration,
    /// Everything together.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { read: Duration::from_secs(60), total: Duration::from_secs(150) }
    }
}

impl Email {
    /// How fast mail is sent, and for how long it is tried.
    pub const PACE: Pace = Pace {
        first_delay: Duration::from_secs(15),
        longest_delay: Duration::from_secs(15 * 60),
        per_minute: 30,
        burst: 10,
        give_up_critical: Duration::from_secs(48 * 3600),
        give_up_warning: Duration::from_secs(24 * 3600),
        give_up_rest: Duration::from_secs(6 * 3600),
    };

    /// To whom: each gets a delivery, and so an envelope, of its own.
    pub fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// What must not be shown.
    pub fn secrets(&self) -> Vec<&Secret> {
        self.smtp_password.iter().collect()
    }

    /// Sends the letter to its recipient, or in one envelope to all where it names none.
    ///
    /// # Errors
    /// How the attempt ended, in words that tell the operator what to mend and hold no secret.
    pub fn deliver(&self, letter: &Letter) -> Result<Delivered, Failure> {
        self.deliver_within(letter, Limits::default())
    }

    /// As [`Email::deliver`], with other limits.
    ///
    /// # Errors
    /// As [`Email::deliver`].
    pub fn deliver_within(&self, letter: &Letter, limits: Limits) -> Result<Delivered, Failure> {
        let hostname = match ClientId::default() {
            ClientId::Domain(name) => Some(name),
            _ => None,
        };
        let hello = compose::hello(self.helo.as_deref(), hostname.as_deref());
        let sent = compose::compose(self, letter, hello.as_deref()).and_then(|mail| {
            smtp::send(self, &mail, hello.as_deref(), limits).map_err(|stop| {
                let server = format!("{}:{}", clean::one_line(&self.smtp_server), self.smtp_port);
                judge::judge(&stop, &self.circumstances(letter, &server, limits))
            })
        });
        sent.map(|()| Delivered::default()).map_err(|failure| self.without_secrets(failure))
    }

    fn circumstances<'a>(
        &'a self,
        letter: &'a Letter,
        server: &'a str,
        limits: Limits,
    ) -> judge::Circumstances<'a> {
        judge::Circumstances {
            server,
            port: self.smtp_port,
            tls: self.tls,
            logs_in: self.smtp_password.is_some(),
            recipient: letter.recipient.unwrap_or("one of the recipients"),
            plain: letter.plain,
            limits,
        }
    }

    fn without_secrets(&self, failure: Failure) -> Failure {
        let clean = |why: String| scrub(&why, self.secrets());
        match failure {
            Failure::Unreachable { why, after } => Failure::Unreachable { why: clean(why), after },
            Failure::MessageRefused(why) => Failure::MessageRefused(clean(why)),
            Failure::ChannelRefused { why, after } => {
                Failure::ChannelRefused { why: clean(why), after }
            }
            Failure::FormRefused(why) => Failure::FormRefused(clean(why)),
            Failure::Unknown(why) => Failure::Unknown(clean(why)),
        }
    }
}
