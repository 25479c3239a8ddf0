//! Secrets that cannot be printed by accident, and their removal from texts of others.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What stands in place of a secret wherever one would be shown.
pub const REDACTED: &str = "[secret]";

/// A password, token or key. `Display` and `Debug` print a placeholder; [`Secret::reveal`] gives the
/// clear text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the clear text.
    pub fn new(clear: impl Into<String>) -> Secret {
        Secret(clear.into())
    }

    /// The clear text, for the wire only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The variables of the environment that secrets are read from.
static VARIABLES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A secret is read from this variable of the environment: programs that we start do not inherit it.
pub fn record_variable(name: &str) {
    VARIABLES.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
}

/// Whether a secret is read from this variable of the environment.
pub fn is_variable(name: &str) -> bool {
    VARIABLES.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
}

/// Replaces every one of `secrets` in `text`: providers echo tokens in their error bodies.
///
/// Secrets of fewer than four characters are left: they would eat ordinary words.
pub fn scrub<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let mut clean = text.to_owned();
    // The longest first: one may be the beginning of another, whose rest would stay.
    let mut secrets: Vec<&Secret> = secrets.into_iter().collect();
    secrets.sort_unstable_by_key(|secret| Reverse(secret.0.len()));
    for secret in secrets {
        if secret.0.len() >= 4 && clean.contains(&secret.0) {
            clean = clean.replace(&secret.0, REDACTED);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter22");
        assert_eq!(format!("{secret} {secret:?}"), "[secret] [secret]");
        assert_eq!(secret.reveal(), "hunter22");
    }

    #[test]
    fn a_secret_is_taken_out_of_an_echo() {
        let secrets = [Secret::new("abc123"), Secret::new("a")];
        assert_eq!(scrub("no hook abc123 at all", &secrets), "no hook [secret] at all");
        let nested = [Secret::new("abc123"), Secret::new("abc123-and-more")];
        assert_eq!(scrub("no hook abc123-and-more", &nested), "no hook [secret]");
    }
}
