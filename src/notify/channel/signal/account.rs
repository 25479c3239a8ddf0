//! One attempt at a time per account: a second signal-cli waits for the first one's lock, for ever.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

static BUSY: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static FREED: Condvar = Condvar::new();

/// The right to use an account, until it is dropped.
pub struct Turn(String);

/// Waits for the account to be free; none when it did not become free within `limit`.
pub fn turn(account: &str, limit: Duration) -> Option<Turn> {
    let (mut busy, _) = FREED
        .wait_timeout_while(busy(), limit, |busy| busy.contains(account))
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let free = busy.insert(account.to_owned());
    free.then(|| Turn(account.to_owned()))
}

impl Drop for Turn {
    fn drop(&mut self) {
        busy().remove(&self.0);
        FREED.notify_all();
    }
}

fn busy() -> MutexGuard<'static, BTreeSet<String>> {
    BUSY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_used_by_one_attempt_at_a_time() {
        let short = Duration::from_millis(20);
        let first = turn("+1", short);
        assert!(first.is_some());
        assert!(turn("+1", short).is_none());
        assert!(turn("+2", short).is_some(), "another account is free");
        let waiter = std::thread::spawn(|| turn("+1", Duration::from_secs(20)).is_some());
        drop(first);
        assert!(waiter.join().unwrap(), "the turn passes on");
    }
}
