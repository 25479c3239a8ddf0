//! Signal through signal-cli, as a process or over the JSON-RPC of a running daemon
//! (<https://github.com/AsamK/signal-cli>, man/signal-cli-jsonrpc.5.adoc).

use std::path::PathBuf;
use std::time::Duration;

use super::{Delivered, Failure, Letter, Pace};
use crate::notify::text::{Unit, plain};
use crate::secret::Secret;

mod account;
mod command;
mod rpc;
mod verdict;

/// How long one attempt may take: a JVM starts slowly on a small machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A text of more bytes than 2000 becomes an attachment.
const TEXT_LIMIT: usize = 1999;

/// Where a running signal-cli daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rpc {
    /// `unix:/path`
    Unix(PathBuf),
    /// `http://host:port`
    Http(String),
}

/// A channel of `type: signal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The program; found in PATH when it has no slash.
    pub cli_path: PathBuf,
    /// The registered number, `+1234567890`.
    pub user: String,
    /// A number, `u:name.01`, a UUID, or `group:ID`.
    pub recipient: String,
    /// Talk to a daemon instead of starting the program.
    pub rpc: Option<Rpc>,
}

impl Signal {
    /// How fast it may be used, and for how long it is tried.
    pub const PACE: Pace = Pace {
        first_delay: Duration::from_secs(30),
        longest_delay: Duration::from_secs(30 * 60),
        per_minute: 6,
        burst: 1,
        give_up_critical: Duration::from_secs(24 * 3600),
        give_up_warning: Duration::from_secs(6 * 3600),
        give_up_rest: Duration::from_secs(3600),
    };

    /// What must never be shown: nothing, signal-cli keeps its keys to itself.
    pub fn secrets(&self) -> Vec<&Secret> {
        Vec::new()
    }

    /// Makes one attempt. Only one at a time is made per account.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver(&self, letter: &Letter) -> Result<Delivered, Failure> {
        self.deliver_within(letter, TIMEOUT)
    }

    /// [`Signal::deliver`] with a time limit of the caller's.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver_within(&self, letter: &Letter, limit: Duration) -> Result<Delivered, Failure> {
        let text = plain(letter, TEXT_LIMIT, Unit::Bytes);
        let (_turn, limit) = account::turn(&self.user, limit).ok_or_else(|| {
            let why = format!("another attempt for {} is still running", self.user);
            Failure::Unreachable { why, after: None }
        })?;
        match &self.rpc {
            None => self.run_command(&text, limit)?,
            Some(rpc) => self.call_daemon(rpc, &text, letter.message.event, limit)?,
        }
        Ok(Delivered::default())
    }

    /// Which signal-cli there is, `0.13.19`: for a look before the first alarm.
    ///
    /// # Errors
    /// Why there is none, in the operator's words.
    pub fn version(&self) -> Result<String, String> {
        self.version_within(TIMEOUT)
    }

    /// [`Signal::version`] with a time limit of the caller's.
    ///
    /// # Errors
    /// As [`Signal::version`].
    pub fn version_within(&self, limit: Duration) -> Result<String, String> {
        match &self.rpc {
            None => self.command_version(limit),
            Some(rpc) => self.daemon_version(rpc, limit),
        }
    }

    /// The group's id, when the recipient is a group.
    fn group(&self) -> Option<&str> {
        self.recipient.strip_prefix("group:")
    }

    /// Signal tells one's own devices nothing of a note to oneself, unless asked to.
    fn writes_to_itself(&self) -> bool {
        self.recipient == self.user
    }
}
