//! Pushover: `POST /1/messages.json` (<https://pushover.net/api>).

use std::time::Duration;

use crate::address::BaseUrl;
use crate::secret::Secret;
use crate::section::Section;

/// Pushover repeats an emergency not more often than this.
const SHORTEST_RETRY: Duration = Duration::from_secs(30);
/// Pushover repeats an emergency not longer than this.
const LONGEST_EXPIRE: Duration = Duration::from_secs(3 * 3600);

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

impl Pushover {
    /// Reads the section of such a channel.
    pub fn read(section: &mut Section) -> Pushover {
        let pushover = Pushover {
            token: section.required_secret("token", "token_file"),
            user: section.required_secret("user", "user_file"),
            priority: section
                .number("priority", -2..=2)
                .and_then(|number| i8::try_from(number).ok()),
            retry: section
                .duration_within("retry", SHORTEST_RETRY..=LONGEST_EXPIRE)
                .unwrap_or(Duration::from_secs(60)),
            expire: section
                .duration_within("expire", SHORTEST_RETRY..=LONGEST_EXPIRE)
                .unwrap_or(Duration::from_secs(3600)),
            sound: section.text("sound"),
            device: section.text("device"),
            api_url: api_url(section),
        };
        check_shape(section, "token", "Pushover tokens", &pushover.token);
        check_shape(section, "user", "Pushover user keys", &pushover.user);
        pushover
    }
}

fn api_url(section: &mut Section) -> String {
    let text = section.text("api_url").unwrap_or_else(|| "https://api.pushover.net".into());
    match BaseUrl::parse(&text) {
        Ok(url) => {
            if url.in_clear() {
                section.error("api_url", "would send the token in clear: use https://");
            }
            url.text
        }
        Err(what) => {
            section.error("api_url", what);
            text
        }
    }
}

/// Pushover may change its mind about their form, so this is a warning only.
fn check_shape(section: &Section, key: &str, what: &str, secret: &Secret) {
    let clear = secret.reveal();
    let count = clear.chars().count();
    let fault = if clear.is_empty() {
        return;
    } else if count != 30 {
        format!("this one has {count} characters")
    } else if !clear.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        "this one has other characters".into()
    } else {
        return;
    };
    section.warning(key, format!("{what} are 30 letters and digits, {fault}"));
}
