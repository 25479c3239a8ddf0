//! The Mattermost channel: an incoming webhook, or a bot's posts when there is a token for one
//! (<https://developers.mattermost.com/integrate/webhooks/incoming/>).

use crate::address::{BaseUrl, NO_HEADER_TEXT, is_header_text};
use crate::config_file::Section;
use crate::escape::PercentEncoded;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::attempt::{Delivered, Failure, OutgoingMessage, RetryPolicy, Scope};
use super::http_client::{HttpRequest, HttpResponse, TIMEOUT, describe_response};
use crate::clock::Wall;
use crate::event::Level;
use crate::notify::text::{
    LineBreaks, TextLimit, TextUnit, clean, cut, format_table, markdown_code,
};
use crate::secret::{Secret, scrub};
use crate::thread::lock;
use crate::tls;

/// In characters: the oldest database layout takes posts of 4000.
const MAX_TEXT: usize = 3900;

/// How long a hook that worked before must be unknown until that is believed: a server whose
/// database is out of order answers the same.
const BELIEVED_AFTER: Duration = Duration::from_secs(15 * 60);

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
    /// Rate, retries and expiry.
    pub const RETRY_POLICY: RetryPolicy = RetryPolicy {
        first_delay: Duration::from_secs(5),
        max_delay: Duration::from_secs(5 * 60),
        per_minute: 20,
        burst: 5,
        give_up_critical: Duration::from_secs(24 * 3600),
        give_up_warning: Duration::from_secs(6 * 3600),
        give_up_other: Duration::from_secs(3600),
        digest: Some(TextLimit { max: 3500, unit: TextUnit::Characters }),
    };

    /// What must never be shown.
    pub fn secrets(&self) -> Vec<&Secret> {
        std::iter::once(&self.token).chain(&self.bot_token).collect()
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver(
        &self,
        outgoing: &OutgoingMessage,
        hooks: &HookHistory,
    ) -> Result<Delivered, Failure> {
        self.deliver_within(outgoing, hooks, TIMEOUT)
    }

    /// [`Mattermost::deliver`] with another time limit for each request.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver_within(
        &self,
        outgoing: &OutgoingMessage,
        hooks: &HookHistory,
        limit: Duration,
    ) -> Result<Delivered, Failure> {
        let result = match &self.bot_token {
            Some(token) => self.post_as_bot(outgoing, token, limit),
            None => self.post_to_hook(outgoing, hooks, limit),
        };
        result.map_err(|failure| failure.map_why(|why| self.scrubbed(&why)))
    }

    fn post_to_hook(
        &self,
        outgoing: &OutgoingMessage,
        hooks: &HookHistory,
        limit: Duration,
    ) -> Result<Delivered, Failure> {
        let url = format!("{}/hooks/{}", self.base_url, PercentEncoded(self.token.reveal()));
        let response = self.post(url, None, &self.hook_body(outgoing), limit)?;
        match response.status {
            200 if response.body == "ok" && response.complete => {
                hooks.record_success(self);
                Ok(Delivered::default())
            }
            200 if !response.complete => Err(Failure::Unknown("the answer was cut off".into())),
            200 => Err(Failure::channel_refused(
                "the answer was 200, but not Mattermost's `ok`: is `host` right?",
            )),
            400 if is_message_fault(&response) => {
                Err(Failure::MessageRefused(self.describe(&response)))
            }
            400 if hooks.is_in_doubt(self, outgoing.now) => {
                Err(Failure::unreachable(self.describe(&response)))
            }
            _ => Err(self.classify(&response, outgoing.now)),
        }
    }

    fn post_as_bot(
        &self,
        outgoing: &OutgoingMessage,
        token: &Secret,
        limit: Duration,
    ) -> Result<Delivered, Failure> {
        let url = || format!("{}/api/v4/posts", self.base_url);
        let body = self.bot_body(outgoing, outgoing.thread);
        let mut response = self.post(url(), Some(token), &body, limit)?;
        let mut root = outgoing.thread;
        if root.is_some() && matches!(response.status, 400 | 404) {
            // The first post of the thread was deleted: an alarm must not be lost with it.
            root = None;
            response = self.post(url(), Some(token), &self.bot_body(outgoing, None), limit)?;
        }
        match response.status {
            201 | 200 => match post_id(&response.body) {
                Some(id) => {
                    Ok(Delivered { receipt: None, thread: Some(root.map_or(id, str::to_owned)) })
                }
                // The post was created: only the id for the thread is lost.
                None if response.status == 201 && response.body.starts_with('{') => {
                    Ok(Delivered { receipt: None, thread: root.map(str::to_owned) })
                }
                None if !response.complete => {
                    Err(Failure::Unknown("the answer was cut off".into()))
                }
                None => Err(Failure::channel_refused(
                    "the answer is no post of Mattermost: is `host` right?",
                )),
            },
            400 if error_id(&response).is_some() && !response.body.contains("channel_id") => {
                Err(Failure::MessageRefused(self.describe(&response)))
            }
            _ => Err(self.classify(&response, outgoing.now)),
        }
    }

    fn post(
        &self,
        url: String,
        bearer: Option<&Secret>,
        body: &Value,
        timeout: Duration,
    ) -> Result<HttpResponse, Failure> {
        let body = Some(("application/json", body.to_string()));
        HttpRequest { url, body, bearer, ca_file: self.ca_file.as_deref(), timeout }.send()
    }

    /// What every other status means, for the hook and for the bot alike.
    fn classify(&self, response: &HttpResponse, now: Wall) -> Failure {
        let why = self.describe(response);
        match response.status {
            300..=399 => Failure::channel_refused(format!(
                "{why}: a redirect, which is not followed; is `host` right?"
            )),
            413 => Failure::MessageRefused(why),
            501 => Failure::channel_refused(why),
            408 | 425 | 429 | 500..=599 => Failure::Unreachable {
                why,
                retry_after: response.retry_after(now),
                scope: Scope::Channel,
            },
            _ if !response.complete => Failure::unreachable(format!("{why}, cut off")),
            _ => Failure::channel_refused(why),
        }
    }

    /// `Mattermost answered 400: Invalid webhook. (is token right, or was the webhook deleted?)`.
    fn describe(&self, response: &HttpResponse) -> String {
        let body = serde_json::from_str::<Value>(&response.body).unwrap_or_default();
        let (said, secrets) = (body["message"].as_str(), self.secrets());
        let described = describe_response("Mattermost", response, said, &secrets);
        match likely_cause(response) {
            Some(cause) => format!("{described} ({cause})"),
            None => described,
        }
    }

    fn hook_id(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.base_url, self.token.reveal()).hash(&mut hasher);
        hasher.finish()
    }

    fn scrubbed(&self, text: &str) -> String {
        let encoded = self
            .secrets()
            .into_iter()
            .map(|secret| Secret::new(PercentEncoded(secret.reveal()).to_string()));
        scrub(&scrub(text, self.secrets()), &encoded.collect::<Vec<_>>())
    }

    fn hook_body(&self, outgoing: &OutgoingMessage) -> Value {
        let mut body = json!({"channel": self.channel, "attachments": [attachment(outgoing)]});
        if let Some(name) = &self.username {
            body["username"] = json!(name);
        }
        match &self.icon {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
                body["icon_url"] = json!(url);
            }
            Some(emoji) => body["icon_emoji"] = json!(emoji.trim_matches(':')),
            None => {}
        }
        body
    }

    fn bot_body(&self, outgoing: &OutgoingMessage, root: Option<&str>) -> Value {
        json!({
            "channel_id": self.channel,
            "message": "",
            "root_id": root.unwrap_or_default(),
            "props": {"attachments": [attachment(outgoing)]},
        })
    }
}

/// Whether a 400 is about this message. The ids are those of `server/channels/web/webhook.go` and
/// `server/channels/app/webhook.go`.
fn is_message_fault(response: &HttpResponse) -> bool {
    let id = error_id(response).unwrap_or_default();
    let about = id.strip_prefix("web.incoming_webhook.").unwrap_or_default();
    ["parse", "text.", "split_props_length"].iter().any(|what| about.starts_with(what))
}

/// What an error that says little of its cause is likely to come from, by the part of its id that the
/// versions have in common (`server/i18n/en.json`), and what is to be done.
const LIKELY_CAUSES: [(&str, &str); 9] = [
    ("incoming_webhook.invalid", "is token right, or was the webhook deleted?"),
    ("webhooks.get_incoming", "is token right, or was the webhook deleted?"),
    (
        "incoming_webhook.channel.",
        "channel must be the name in the channel's address, such as town-square, not its title",
    ),
    ("incoming_webhook.channel_locked", "the webhook is locked to another channel than this one"),
    ("incoming_webhook.permissions", "is the user that made the webhook a member of the channel?"),
    ("context.404", "is host right, with its path?"),
    ("session_expired", "is bot_token right?"),
    ("context.permissions", "is the bot a member of the channel?"),
    (
        "invalid_body_param",
        "with bot_token, channel must be the channel's id of 26 letters and digits",
    ),
];

fn likely_cause(response: &HttpResponse) -> Option<&'static str> {
    let Some(id) = error_id(response) else {
        // Not Mattermost's own words: another server, or another path of this one.
        return (response.status == 404).then_some("is host right, with its path?");
    };
    LIKELY_CAUSES.iter().find(|(part, _)| id.contains(part)).map(|(_, cause)| *cause)
}

/// The id of an error of Mattermost's own.
fn error_id(response: &HttpResponse) -> Option<String> {
    Some(serde_json::from_str::<Value>(&response.body).ok()?["id"].as_str()?.to_owned())
}

fn post_id(body: &str) -> Option<String> {
    let id = serde_json::from_str::<Value>(body).ok()?["id"].as_str()?.to_owned();
    let plain = id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric());
    (plain && !id.is_empty()).then_some(id)
}

/// The message as an attachment. Untrusted words stand in code, the rest is ours.
fn attachment(outgoing: &OutgoingMessage) -> Value {
    let message = outgoing.message;
    let title = cut(&clean(&message.title, LineBreaks::Remove), 1500, TextUnit::Characters);
    let mut attachment = json!({
        "fallback": markdown_code(&title),
        "color": color(message.level),
        "text": text(outgoing),
    });
    if let Some(link) = message.link.as_deref().filter(|_| !outgoing.short_form) {
        attachment["title"] = json!("status page");
        attachment["title_link"] = json!(link);
    }
    attachment
}

/// The colours of Mattermost's own alerts.
fn color(level: Level) -> &'static str {
    match level {
        Level::Critical => "#d24b4e",
        Level::Warning => "#f5a623",
        Level::Info => "#2389d7",
        Level::Ok => "#3db887",
    }
}

fn text(outgoing: &OutgoingMessage) -> String {
    let message = outgoing.message;
    let mut end = String::new();
    for remark in outgoing.annotations() {
        end.push_str(&format!("\n_{remark}_"));
    }
    end.push_str(&format!("\n_{}, event {}_", message.level.name(), message.event));
    let room = MAX_TEXT - TextUnit::Characters.count(&end) - "\n```\n\n```".len();
    let mut text =
        markdown_code(&cut(&clean(&message.title, LineBreaks::Keep), room, TextUnit::Characters));
    let details = if outgoing.short_form { &[] } else { message.details.as_slice() };
    for (label, value) in details {
        let line = detail_line(label, value);
        if TextUnit::Characters.count(&text) + TextUnit::Characters.count(&line) > room {
            text.push_str("\n…");
            break;
        }
        text.push_str(&line);
    }
    if let Some(table) = message.table.as_ref().filter(|_| !outgoing.short_form) {
        let table = markdown_code(&format_table(table));
        // A part of a table would mislead: the details say what matters.
        if TextUnit::Characters.count(&text) + TextUnit::Characters.count(&table) <= room {
            text.push_str(&table);
        }
    }
    text + &end
}

/// A detail as one more line. Its label is ours as a rule, but only plain words stand outside of
/// code.
fn detail_line(label: &str, value: &str) -> String {
    let plain = label.chars().all(|c| c.is_alphanumeric() || c == ' ');
    let label = cut(&clean(label, LineBreaks::Remove), 100, TextUnit::Characters);
    let label = if plain { label } else { markdown_code(&label) };
    let value = cut(&clean(value, LineBreaks::Keep), 2000, TextUnit::Characters);
    format!("\n{label}: {}", markdown_code(&value))
}

/// Which hooks have worked since the process began, and since when each is unknown to its server.
/// It outlives a channel's configuration: a reload must not turn a short outage of the server's
/// database into a refusal.
#[derive(Debug, Default)]
pub struct HookHistory(Mutex<BTreeMap<u64, Option<Wall>>>);

impl HookHistory {
    fn record_success(&self, channel: &Mattermost) {
        lock(&self.0).insert(channel.hook_id(), None);
    }

    /// Whether a hook that the server calls unknown worked before, and has been unknown for less
    /// than [`BELIEVED_AFTER`].
    fn is_in_doubt(&self, channel: &Mattermost, now: Wall) -> bool {
        match lock(&self.0).get_mut(&channel.hook_id()) {
            Some(since) => now.since(*since.get_or_insert(now)) < BELIEVED_AFTER,
            None => false,
        }
    }
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
            ca_file: section.file_with("ca_file", tls::check_ca_file),
            bot_token: section.secret("bot_token", "bot_token_file"),
        };
        if mattermost.bot_token.as_ref().is_some_and(|token| !is_header_text(token.reveal())) {
            let key = if section.given("bot_token") { "bot_token" } else { "bot_token_file" };
            section.error(key, NO_HEADER_TEXT);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Message, Subject, TextTable};

    fn with_message(title: &str, details: &[(&str, &str)], test: impl Fn(&OutgoingMessage)) {
        let message = Message {
            event: EventId(0x1a2),
            at: Wall(1_000_000),
            level: Level::Critical,
            subject: Subject::Host("web1".into()),
            thread: "web1 ipv4".into(),
            title: title.into(),
            details: details.iter().map(|(l, t)| ((*l).to_owned(), (*t).to_owned())).collect(),
            link: None,
            table: None,
        };
        test(&OutgoingMessage {
            channel: "chat",
            message: &message,
            recipient: None,
            possible_repeat: false,
            short_form: false,
            thread: None,
            recovered_events: &[],
            now: Wall(1_000_000),
        });
    }

    #[test]
    fn a_message_is_code_with_our_own_words_around_it() {
        with_message("web1 ipv4 overdue", &[("last seen", "12:00")], |outgoing| {
            assert_eq!(
                text(outgoing),
                "`web1 ipv4 overdue`\nlast seen: `12:00`\n_critical, event 000000000001a2_"
            );
        });
    }

    #[test]
    fn several_lines_become_a_block() {
        with_message("one\r\ntwo", &[], |outgoing| {
            assert!(text(outgoing).starts_with("\n```\none\ntwo\n```\n_critical"));
        });
    }

    #[test]
    fn a_table_is_a_block_as_long_as_there_is_room_for_it() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let table = |rows: usize| TextTable {
            head: row(["module", "state"]),
            rows: vec![row(["`@here`", "x"]); rows],
        };
        with_message("title", &[("a", "b")], |outgoing| {
            let with = |rows| {
                let message = Message { table: Some(table(rows)), ..outgoing.message.clone() };
                text(&OutgoingMessage { message: &message, ..*outgoing })
            };
            assert!(
                with(1).contains("\n```\nmodule   state\n\u{2cb}@here\u{2cb}  x\n```\n_critical")
            );
            assert!(!with(500).contains("module") && with(500).contains("a: `b`"));
        });
    }

    #[test]
    fn a_label_of_a_stranger_is_code_too() {
        assert_eq!(detail_line("@channel", "x"), "\n`@channel`: `x`");
    }

    #[test]
    fn a_text_stays_below_the_limit_whatever_comes() {
        let long = "`\n".repeat(5000);
        with_message(&long, &[("a", &long), ("b", &long)], |outgoing| {
            assert!(TextUnit::Characters.count(&text(outgoing)) < 4000);
        });
        let long = "ü".repeat(1900);
        with_message("short", &[("a", &long), ("b", &long), ("c", &long)], |outgoing| {
            let text = text(outgoing);
            assert!(TextUnit::Characters.count(&text) < 4000, "{}", text.len());
            assert!(text.contains("\n…\n_critical"));
        });
    }

    #[test]
    fn a_hook_that_worked_is_in_doubt_for_a_quarter_of_an_hour() {
        let channel = Mattermost {
            base_url: "http://127.0.0.1:1".into(),
            token: Secret::new("t"),
            channel: "c".into(),
            username: None,
            icon: None,
            ca_file: None,
            bot_token: None,
        };
        let hooks = HookHistory::default();
        let now = Wall(1_000_000);
        assert!(!hooks.is_in_doubt(&channel, now));
        hooks.record_success(&channel);
        let reloaded = Mattermost { channel: "other".into(), ..channel.clone() };
        assert!(hooks.is_in_doubt(&reloaded, now), "a reload forgets nothing");
        assert!(hooks.is_in_doubt(&channel, now + Duration::from_secs(899)));
        assert!(!hooks.is_in_doubt(&channel, now + Duration::from_secs(900)));
        hooks.record_success(&channel);
        assert!(hooks.is_in_doubt(&channel, now + Duration::from_secs(901)));
    }
}
