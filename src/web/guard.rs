//! Who is let in: the token of the configuration in use, and whoever tried too many wrong ones.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use log::warn;

use super::attempts::Attempts;
use super::token::Token;
use crate::clock::{Mono, Now};
use crate::secret::Secret;

/// Between two lines of the log about guessers.
const QUIET: Duration = Duration::from_secs(60);

/// Stands before everything but `/-/healthy`.
pub struct Guard {
    token: RwLock<Option<Arc<Token>>>,
    attempts: Mutex<Guesses>,
}

struct Guesses {
    attempts: Attempts,
    told: Option<Mono>,
}

/// What the guard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No token is asked for.
    Open,
    /// It was the token.
    Admitted,
    /// There was none, or it was wrong.
    Refused,
    /// Too many were wrong: this one is not even looked at, for so long.
    Later(Duration),
}

impl Guard {
    /// Asks for this token.
    pub fn new(token: Option<&Secret>) -> Guard {
        let guesses = Guesses { attempts: Attempts::new(Now::read().mono), told: None };
        Guard { token: RwLock::new(wanted(token)), attempts: Mutex::new(guesses) }
    }

    /// From now on asks for this one.
    pub fn replace(&self, token: Option<&Secret>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = wanted(token);
    }

    /// Judges the `Authorization` of a request from `peer`. Whoever shows none has tried nothing.
    pub fn judge(&self, authorization: Option<&str>, peer: IpAddr, now: Mono) -> Admission {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(token) = token else { return Admission::Open };
        let Some(authorization) = authorization else { return Admission::Refused };
        let mut guesses = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = guesses.attempts.wait(peer, now) {
            return Admission::Later(wait);
        }
        if token.admits(Some(authorization)) {
            return Admission::Admitted;
        }
        if guesses.attempts.failed(peer, token.print(authorization), now)
            && guesses.told.is_none_or(|at| now.since(at) >= QUIET)
        {
            guesses.told = Some(now);
            warn!("{peer} has shown many wrong tokens and has to wait before it may show another");
        }
        Admission::Refused
    }
}

fn wanted(token: Option<&Secret>) -> Option<Arc<Token>> {
    token.map(|secret| Arc::new(Token::new(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_is_not_heard_even_with_the_token_and_others_are() {
        let guard = Guard::new(Some(&Secret::new("s3cret")));
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let (start, good) = (Mono(0), Some("Bearer s3cret"));
        assert_eq!(guard.judge(None, guesser, start), Admission::Refused);
        assert_eq!(guard.judge(good, guesser, start), Admission::Admitted);
        for n in 0..10 {
            let wrong = format!("Bearer {n}");
            assert_eq!(guard.judge(Some(&wrong), guesser, start), Admission::Refused);
        }
        assert_eq!(guard.judge(good, guesser, start), Admission::Later(Duration::from_secs(6)));
        assert_eq!(guard.judge(None, guesser, start), Admission::Refused);
        assert_eq!(guard.judge(good, other, start), Admission::Admitted);
        assert_eq!(guard.judge(good, guesser, Mono(6000)), Admission::Admitted);
    }

    #[test]
    fn a_new_token_counts_at_once() {
        let guard = Guard::new(None);
        let peer = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(guard.judge(None, peer, Mono(0)), Admission::Open);
        guard.replace(Some(&Secret::new("new")));
        assert_eq!(guard.judge(None, peer, Mono(0)), Admission::Refused);
        assert_eq!(guard.judge(Some("Bearer new"), peer, Mono(0)), Admission::Admitted);
        guard.replace(Some(&Secret::new("newer")));
        assert_eq!(guard.judge(Some("Bearer new"), peer, Mono(0)), Admission::Refused);
    }
}
