//! Mattermost: an incoming webhook, or a bot's posts when there is a token for one
//! (<https://developers.mattermost.com/integrate/webhooks/incoming/>).

use std::path::PathBuf;

use crate::address::BaseUrl;
use crate::secret::Secret;
use crate::section::Section;

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

impl Mattermost {
    /// Reads the section of such a channel.
    pub fn read(section: &mut Section) -> Mattermost {
        let mattermost = Mattermost {
            base_url: base_url(section),
            token: section.required_secret("token", "token_file"),
            channel: section.required("channel"),
            username: section.text("username"),
            icon: section.text("icon"),
            ca_file: section.file("ca_file"),
            bot_token: section.secret("bot_token", "bot_token_file"),
        };
        let token = mattermost.token.reveal();
        if token.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            let key = if section.given("token") { "token" } else { "token_file" };
            section.error(key, "must be the last part of the webhook's address alone");
        }
        mattermost
    }
}

fn base_url(section: &mut Section) -> String {
    let text = section.required("host");
    if text.is_empty() {
        return text;
    }
    match BaseUrl::parse(&text) {
        Ok(url) => {
            if url.in_clear() {
                section.warning("host", "sends the token in clear over the network: use https://");
            }
            if url.text.contains("/hooks/") {
                section.error("host", "must end before /hooks/: what follows that is the token");
            }
            url.text
        }
        Err(what) => {
            section.error("host", what);
            text
        }
    }
}
