//! Signal through signal-cli, as a process or over the JSON-RPC of a running daemon
//! (<https://github.com/AsamK/signal-cli>, man/signal-cli-jsonrpc.5.adoc).

use crate::address::BaseUrl;
use crate::config_file::Section;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::NOT_SENT;
use super::attempt::{Delivered, Failure, OutgoingMessage, RetryPolicy};
use crate::notify::text::{TextLimit, TextUnit};
use crate::secret::Secret;
use crate::thread::lock;

mod result;
mod transport;

/// How long one attempt may take: a JVM starts slowly on a small machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// In bytes: signal-cli sends a text of more than 2000 as an attachment.
const MAX_TEXT: usize = 1999;

/// Where a running signal-cli daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcAddress {
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
    pub rpc: Option<RpcAddress>,
}

impl Signal {
    /// Rate, retries and expiry.
    pub const RETRY_POLICY: RetryPolicy = RetryPolicy {
        first_delay: Duration::from_secs(30),
        max_delay: Duration::from_secs(30 * 60),
        per_minute: 6,
        burst: 1,
        give_up_critical: Duration::from_secs(24 * 3600),
        give_up_warning: Duration::from_secs(6 * 3600),
        give_up_other: Duration::from_secs(3600),
        digest: Some(TextLimit { max: 1800, unit: TextUnit::Bytes }),
    };

    /// Its secrets: none, signal-cli keeps its own keys.
    pub fn secrets(&self) -> Vec<&Secret> {
        Vec::new()
    }

    /// Makes one attempt, as soon as no other one uses the account and if it may then.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver(
        &self,
        outgoing: &OutgoingMessage,
        accounts: &AccountLocks,
        may_send: &dyn Fn() -> bool,
    ) -> Result<Delivered, Failure> {
        self.attempt(outgoing, accounts, TIMEOUT, may_send)
    }

    /// [`Signal::deliver`] with another time limit. It bounds the wait for the account and the
    /// attempt each, so that a slow attempt before this one does not break this one off in
    /// mid-send.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver_within(
        &self,
        outgoing: &OutgoingMessage,
        accounts: &AccountLocks,
        limit: Duration,
    ) -> Result<Delivered, Failure> {
        self.attempt(outgoing, accounts, limit, &|| true)
    }

    fn attempt(
        &self,
        outgoing: &OutgoingMessage,
        accounts: &AccountLocks,
        limit: Duration,
        may_send: &dyn Fn() -> bool,
    ) -> Result<Delivered, Failure> {
        let text = outgoing.linked_text(MAX_TEXT, TextUnit::Bytes);
        let _lock = accounts.acquire(&self.user, limit).ok_or_else(|| {
            Failure::unreachable(format!("another attempt for {} is still running", self.user))
        })?;
        if !may_send() {
            return Err(Failure::unreachable(NOT_SENT));
        }
        match &self.rpc {
            None => self.run_program(&text, limit)?,
            Some(rpc) => self.call_daemon(rpc, &text, outgoing.message.event, limit)?,
        }
        Ok(Delivered::default())
    }

    /// The version of signal-cli, `0.13.19`: asked for at start-up, before the first alarm.
    ///
    /// # Errors
    /// Why there is none, in the operator's words.
    pub fn version(&self) -> Result<String, String> {
        self.version_within(TIMEOUT)
    }

    /// [`Signal::version`] with another time limit.
    ///
    /// # Errors
    /// As [`Signal::version`].
    pub fn version_within(&self, limit: Duration) -> Result<String, String> {
        match &self.rpc {
            None => self.program_version(limit),
            Some(rpc) => self.daemon_version(rpc, limit),
        }
    }

    /// The group's id, when the recipient is a group.
    fn group(&self) -> Option<&str> {
        self.recipient.strip_prefix("group:")
    }

    /// Signal does not notify one's own devices of a note to oneself, unless asked to.
    fn is_note_to_self(&self) -> bool {
        self.recipient == self.user
    }
}

impl Signal {
    /// Reads the section of such a channel.
    pub fn read(section: &mut Section) -> Signal {
        let rpc = section.text("rpc").and_then(|text| {
            RpcAddress::parse(&text).map_err(|what| section.error("rpc", what)).ok()
        });
        let cli_path = if section.given("rpc") {
            section.program_unchecked("cli_path", "signal-cli")
        } else {
            section.program("cli_path", "signal-cli")
        };
        let user = section.required("user");
        if !user.is_empty() {
            match check_number(&user) {
                NumberCheck::Valid => {}
                NumberCheck::Doubtful(what) => section.warning("user", what),
                NumberCheck::Invalid(what) => section.error("user", what),
            }
        }
        let recipient = section.required("recipient");
        Signal { cli_path, user, recipient: check_recipient(section, recipient), rpc }
    }
}

impl RpcAddress {
    fn parse(text: &str) -> Result<RpcAddress, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(RpcAddress::Unix(path.into())),
                false => {
                    Err("must be unix: and an absolute path, such as unix:/run/signal-cli/socket"
                        .into())
                }
            };
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err("must be unix:/path or http://host:port".into());
        }
        BaseUrl::parse(text).map(|url| RpcAddress::Http(url.text))
    }
}

enum NumberCheck {
    Valid,
    Doubtful(String),
    Invalid(String),
}

/// Checks a phone number: E.164, `^\+[1-9][0-9]{6,14}$`. signal-cli takes anything else, and turns
/// it into another person's number.
fn check_number(text: &str) -> NumberCheck {
    let digits = text.strip_prefix('+');
    match digits {
        None => NumberCheck::Invalid(format!(
            "must be a number with + and country code, such as +12025551234, not \"{text}\""
        )),
        Some(digits) if digits.contains(|c: char| !c.is_ascii_digit()) => {
            NumberCheck::Invalid(format!("must be + and digits alone, not \"{text}\""))
        }
        Some(digits) if !(7..=15).contains(&digits.len()) => NumberCheck::Invalid(format!(
            "must be + and 7 to 15 digits, \"{text}\" has {}",
            digits.len()
        )),
        Some(digits) if digits.starts_with('0') => {
            NumberCheck::Doubtful(format!("\"{text}\": no country code begins with 0"))
        }
        Some(_) => NumberCheck::Valid,
    }
}

/// The recipient, a group with its prefix; reports what is wrong with it.
fn check_recipient(section: &Section, text: String) -> String {
    if text.is_empty() || is_uuid(&text) {
        return text;
    }
    if let Some(name) = text.strip_prefix("u:") {
        if !is_username(name) {
            section.error(
                "recipient",
                format!("must be u: and a name with a number, such as u:bob.01, not \"{text}\""),
            );
        }
        return text;
    }
    if let Some(id) = text.strip_prefix("group:") {
        if !is_group_id(id) {
            section.error(
                "recipient",
                "must be group: and the group's id as signal-cli lists it (listGroups)",
            );
        }
        return text;
    }
    if is_group_id(&text) {
        return format!("group:{text}");
    }
    match check_number(&text) {
        NumberCheck::Valid => {}
        NumberCheck::Doubtful(what) => section.warning("recipient", what),
        NumberCheck::Invalid(_) if is_username(&text) => {
            section.error("recipient", format!("a user name needs u: before it, did you mean \"u:{text}\"?"));
        }
        NumberCheck::Invalid(what) if text.starts_with('+') => section.error("recipient", what),
        NumberCheck::Invalid(_) => section.error(
            "recipient",
            format!("must be a number such as +12025551234, u:name.01, a UUID or group:ID, not \"{text}\""),
        ),
    }
    text
}

/// Signal's user names: a word, a dot and at least two digits.
fn is_username(text: &str) -> bool {
    let Some((name, number)) = text.rsplit_once('.') else { return false };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (3..=32).contains(&name.len())
        && name.bytes().all(word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && (2..=9).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12])
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// 32 bytes in base64, or 16 in groups of the first kind.
fn is_group_id(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let outgoing = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    matches!((body.len(), text.len() - body.len()), (43, 1) | (22, 2)) && body.bytes().all(outgoing)
}

/// The accounts that are in use. Each takes one attempt at a time: a second signal-cli would wait
/// for the file lock of the first without end. They outlive a channel's configuration, because an
/// attempt that began before a reload holds the account after it.
#[derive(Debug, Default)]
pub struct AccountLocks {
    in_use: Mutex<BTreeSet<String>>,
    released: Condvar,
}

/// The right to use an account, until it is dropped.
struct AccountLock<'a> {
    locks: &'a AccountLocks,
    account: &'a str,
}

impl AccountLocks {
    /// Waits for the account to be free; none when it was in use for all of `limit`.
    fn acquire<'a>(&'a self, account: &'a str, limit: Duration) -> Option<AccountLock<'a>> {
        let in_use = lock(&self.in_use);
        let (mut in_use, _) = self
            .released
            .wait_timeout_while(in_use, limit, |in_use| in_use.contains(account))
            .unwrap_or_else(PoisonError::into_inner);
        // Not `then_some`: it would make a lock in any case, and drop it, which releases the
        // account.
        in_use.insert(account.to_owned()).then(|| AccountLock { locks: self, account })
    }
}

impl Drop for AccountLock<'_> {
    fn drop(&mut self) {
        lock(&self.locks.in_use).remove(self.account);
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_told_apart() {
        assert!(is_username("bob.01") && !is_username("bob") && !is_username("1ob.01"));
        assert!(is_uuid("a1b2c3d4-0000-4000-8000-00000000000f") && !is_uuid("a1b2"));
        assert!(is_group_id("EdSqI90cS0UomDpgUXOlCoObWvQOXlH5G3Z2d3f4ayE="));
        assert!(!is_group_id("+12025551234"));
    }

    #[test]
    fn numbers_are_judged_as_e164() {
        assert!(matches!(check_number("+1234567890"), NumberCheck::Valid));
        assert!(matches!(check_number("+0987654321"), NumberCheck::Doubtful(_)));
        for text in ["01711234567", "+49 171 1234567", "+12", "+1234567890123456", "bob"] {
            assert!(matches!(check_number(text), NumberCheck::Invalid(_)), "{text}");
        }
    }

    #[test]
    fn a_running_daemon_is_found_by_path_or_address() {
        assert_eq!(RpcAddress::parse("unix:/run/x"), Ok(RpcAddress::Unix("/run/x".into())));
        assert_eq!(
            RpcAddress::parse("http://127.0.0.1:8080"),
            Ok(RpcAddress::Http("http://127.0.0.1:8080".into()))
        );
        assert!(RpcAddress::parse("unix:x").is_err() && RpcAddress::parse("127.0.0.1:80").is_err());
    }

    #[test]
    fn an_account_is_used_by_one_attempt_at_a_time() {
        let locks = AccountLocks::default();
        let short = Duration::from_millis(20);
        let first = locks.acquire("+1", short);
        assert!(first.is_some());
        assert!(locks.acquire("+1", short).is_none());
        assert!(locks.acquire("+2", short).is_some(), "another account is free");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| locks.acquire("+1", Duration::from_secs(20)).is_some());
            drop(first);
            assert!(waiter.join().unwrap(), "the account is passed on");
        });
    }
}
