//! Pushover: `POST /1/messages.json` (<https://pushover.net/api>).

use std::time::Duration;

use crate::secret::Secret;

/// A channel of `type: pushover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushover {
    /// The application's token.
    pub token: Secret,
    /// The user's or group's key.
    pub user: Secret,
    /// -2 to 2; none means by level.
    pub priority: Option<i8>,
    /// How often an emergency (priority 2) is repeated; at least 30 s.
    pub retry: Duration,
    /// How long an emergency is repeated; at most 3 h.
    pub expire: Duration,
    /// The name of a sound.
    pub sound: Option<String>,
    /// The name of one of the user's devices.
    pub device: Option<String>,
    /// Where the API is, without the path: `https://api.pushover.net`.
    pub api_url: String,
}
