//! What a host said before it stopped, and until when it is to be back. Pure.

use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::heartbeat::datagram::ShutdownReason;

/// The announced end of a boot, until the next beat of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Goodbye {
    /// When it was received.
    pub at: Now,
    /// Whether the machine boots again; none when it did not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ShutdownReason>,
    /// It was reported that the host has not come back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reported: bool,
}
