//! A double of a Mattermost server with one incoming webhook and one bot. What the channel must not
//! do is recorded as a violation, and refused where the real server refuses it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use super::http_double::Mode;
use super::http_double::{HttpDouble, Reply, Request, lock, reply};

/// A post as it was accepted (or would have been, in a mode other than `Normal`).
#[derive(Clone, Debug)]
pub struct Post {
    /// `/hooks/...` or `/api/v4/posts`.
    pub path: String,
    /// The JSON as it came.
    pub body: Value,
    /// The text and those of all attachments, one below the other.
    pub text: String,
    /// Its id; a post to the hook has one too, but the response does not show it.
    pub id: String,
    /// How it was treated.
    pub mode: Mode,
}

#[derive(Default)]
struct Seen {
    posts: Vec<Post>,
    violations: Vec<String>,
}

/// The server. `token` is its hook's, `bot_token` its bot's.
pub struct MattermostDouble {
    pub url: String,
    pub token: String,
    pub bot_token: String,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    http: HttpDouble,
}

impl MattermostDouble {
    pub const TOKEN: &str = "xr3j5x7d1bncmfz8yhq6u4kswe";
    pub const BOT_TOKEN: &str = "bot7y3x1wq9uipsk5hgz6nbf4o";

    pub fn start() -> MattermostDouble {
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let shared = seen.clone();
        let http = HttpDouble::start(move |request| {
            let answer = judge(request, &mut lock(&shared.0));
            shared.1.notify_all();
            answer
        });
        MattermostDouble {
            url: http.url.clone(),
            token: Self::TOKEN.into(),
            bot_token: Self::BOT_TOKEN.into(),
            seen,
            http,
        }
    }

    /// Sets the mode, from the next request on.
    pub fn set_mode(&self, mode: Mode) {
        self.http.set_mode(mode);
    }

    /// The posts that were accepted so far.
    pub fn received(&self) -> Vec<Post> {
        lock(&self.seen.0).posts.clone()
    }

    /// What was accepted as soon as there are `count` posts, or after `deadline`.
    pub fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Post> {
        let end = Instant::now() + deadline;
        let mut seen = lock(&self.seen.0);
        while seen.posts.len() < count {
            let Some(left) = end.checked_duration_since(Instant::now()) else { break };
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
        seen.posts.clone()
    }

    /// The requests that the channel must not make.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.seen.0).violations.clone()
    }

    /// Deletes a post.
    pub fn delete_post(&self, id: &str) {
        lock(&self.seen.0).posts.retain(|post| post.id != id);
    }
}

fn refuse(status: u16, id: &str, message: &str) -> Reply {
    let body = json!({"id": id, "message": message, "detailed_error": "", "status_code": status});
    reply(status, body.to_string())
}

fn judge(request: &Request, seen: &mut Seen) -> Reply {
    if request.method != "POST" {
        seen.violations.push(format!("{} instead of POST", request.method));
        return reply(405, "");
    }
    if request.target.contains(['?', '#']) {
        seen.violations.push("something in the query".into());
    }
    if request.header("content-type") != Some("application/json") {
        seen.violations.push(format!("content-type {:?}", request.header("content-type")));
    }
    if request.header("transfer-encoding").is_some() {
        seen.violations.push("chunked body".into());
    }
    match request.target.as_str() {
        target if target.starts_with("/hooks/") => hook(request, seen),
        "/api/v4/posts" => bot(request, seen),
        _ => refuse(404, "api.context.404.app_error", "Sorry, we could not find the page."),
    }
}

fn hook(request: &Request, seen: &mut Seen) -> Reply {
    let token = request.target.trim_start_matches("/hooks/");
    if token != MattermostDouble::TOKEN {
        // Since 10.4 the real one repeats the token in its response.
        let message = format!("Invalid webhook {token}");
        return refuse(400, "web.incoming_webhook.invalid.app_error", &message);
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        seen.violations.push("the body is not JSON".into());
        return refuse(
            400,
            "web.incoming_webhook.parse.app_error",
            "Unable to parse incoming data",
        );
    };
    if body["channel"].as_str() == Some("no-such-channel") {
        return refuse(404, "web.incoming_webhook.channel.app_error", "Couldn't find the channel.");
    }
    if !body["icon_url"].is_null() && !body["icon_emoji"].is_null() {
        seen.violations.push("two icons".into());
    }
    match accept(request, body, "/attachments", seen) {
        Some(_) => reply(200, "ok"),
        None => refuse(400, "web.incoming_webhook.text.app_error", "No text specified."),
    }
}

fn bot(request: &Request, seen: &mut Seen) -> Reply {
    if request.header("authorization") != Some(&format!("Bearer {}", MattermostDouble::BOT_TOKEN)) {
        return refuse(401, "api.context.session_expired.app_error", "Invalid or expired session");
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        seen.violations.push("the body is not JSON".into());
        return refuse(400, "api.context.invalid_body_param.app_error", "Invalid post in body");
    };
    if body["channel_id"].as_str().is_none_or(|id| id.len() != 26) {
        let message = "Invalid or missing channel_id in request body.";
        return refuse(400, "api.context.invalid_body_param.app_error", message);
    }
    let root = body["root_id"].as_str().unwrap_or_default();
    if !root.is_empty() && !seen.posts.iter().any(|post| post.id == root) {
        return refuse(400, "api.post.create_post.root_id.app_error", "Invalid RootId parameter.");
    }
    let answer = json!({"root_id": root, "channel_id": body["channel_id"]});
    match accept(request, body, "/props/attachments", seen) {
        Some(id) => {
            let mut answer = answer;
            answer["id"] = json!(id);
            reply(201, answer.to_string())
        }
        None => refuse(400, "model.post.is_valid.msg.app_error", "Invalid message."),
    }
}

/// The post's id, or none when it says nothing.
fn accept(request: &Request, body: Value, attachments: &str, seen: &mut Seen) -> Option<String> {
    let mut texts: Vec<&str> =
        [&body["text"], &body["message"]].iter().filter_map(|t| t.as_str()).collect();
    let attachments = body.pointer(attachments).and_then(Value::as_array).cloned();
    let attachments = attachments.unwrap_or_default();
    for attachment in &attachments {
        for key in ["fallback", "pretext", "title", "text"] {
            texts.extend(attachment[key].as_str());
        }
        for field in attachment["fields"].as_array().into_iter().flatten() {
            texts.extend([&field["title"], &field["value"]].iter().filter_map(|v| v.as_str()));
        }
    }
    texts.iter().for_each(|text| seen.violations.extend(violations_of(text)));
    if texts.iter().all(|text| text.trim().is_empty()) {
        seen.violations.push("nothing said".into());
        return None;
    }
    let text = attachments.iter().filter_map(|a| a["text"].as_str());
    let text = body["text"].as_str().into_iter().chain(text).collect::<Vec<_>>().join("\n");
    let id = format!("post{:022}", seen.posts.len() + 1);
    let path = request.target.clone();
    let mode = request.mode.clone();
    seen.posts.push(Post { path, body: body.clone(), text, id: id.clone(), mode });
    Some(id)
}

fn violations_of(text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    if text.chars().count() >= 4000 {
        violations.push(format!("a text of {} characters", text.chars().count()));
    }
    let bidi = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(|c| c.is_control() && c != '\n' || bidi(c)) {
        violations.push(format!("control or bidi characters in {text:?}"));
    }
    let bare = without_code(text);
    for mention in ["@channel", "@here", "@all", "<!", "](", "http"] {
        if bare.contains(mention) {
            violations.push(format!("{mention} outside of code in {text:?}"));
        }
    }
    violations
}

/// The parts of a text that a Markdown renderer does not show as code.
fn without_code(text: &str) -> String {
    let outside_blocks = text.split("```").step_by(2).collect::<String>();
    outside_blocks.split('`').step_by(2).collect()
}
