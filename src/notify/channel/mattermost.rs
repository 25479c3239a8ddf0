//! Mattermost: an incoming webhook, or a bot's posts when there is a token for one
//! (<https://developers.mattermost.com/integrate/webhooks/incoming/>).

use std::path::PathBuf;

use crate::secret::Secret;

/// A channel of `type: mattermost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mattermost {
    /// Scheme, host, port and path prefix, without a trailing slash: `https://chat.example.com`.
    pub base_url: String,
    /// The webhook's token: the last part of its address.
    pub token: Secret,
    /// The channel to post to.
    pub channel: String,
    /// The name to post as.
    pub username: Option<String>,
    /// The picture to post with: a URL or an emoji's name.
    pub icon: Option<String>,
    /// Further certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// A bot's access token, for real threads; `channel` is then a channel's id.
    pub bot_token: Option<Secret>,
}
