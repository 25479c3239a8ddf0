//! A double of the Pushover API: it accepts what the real one accepts, and records every request
//! that the real one would refuse as a violation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::json;

pub use super::http_double::Mode;
use super::http_double::{HttpDouble, Reply, Request, lock, reply};

/// The fields of one message.
pub type Fields = BTreeMap<String, String>;

#[derive(Default)]
struct Seen {
    messages: Vec<Fields>,
    requests: Vec<String>,
    cancelled: Vec<String>,
    violations: Vec<String>,
}

/// The server.
pub struct PushoverDouble {
    pub url: String,
    seen: Arc<Mutex<Seen>>,
    http: HttpDouble,
}

impl PushoverDouble {
    pub const TOKEN: &str = "azGDORePK8gMaC0QOYAMyEEuzJnyUi";
    pub const USER: &str = "uQiRzpo4DXghDmr9QzzfQu27cmVRsG";
    pub const RECEIPT: &str = "rLqVuqTRh62UzxtmqiaLzQmVcPgiCy";

    pub fn start() -> PushoverDouble {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        let http = HttpDouble::start(move |request| judge(request, &mut lock(&shared)));
        PushoverDouble { url: http.url.clone(), seen, http }
    }

    /// Sets the mode, from the next request on.
    pub fn set_mode(&self, mode: Mode) {
        self.http.set_mode(mode);
    }

    /// The messages that were accepted.
    pub fn received(&self) -> Vec<Fields> {
        lock(&self.seen).messages.clone()
    }

    /// The paths of the requests, in order.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.seen).requests.clone()
    }

    /// The tags whose emergencies were cancelled.
    pub fn cancelled(&self) -> Vec<String> {
        lock(&self.seen).cancelled.clone()
    }

    /// The requests that the channel must not make.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.seen).violations.clone()
    }
}

fn refuse(field: &str, error: &str) -> Reply {
    let body = json!({field: "invalid", "errors": [error], "status": 0, "request": "r"});
    reply(400, body.to_string())
}

fn judge(request: &Request, seen: &mut Seen) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    seen.requests.push(path.to_owned());
    if path == format!("/1/receipts/{}.json", PushoverDouble::RECEIPT) && request.method == "GET" {
        return if query == format!("token={}", PushoverDouble::TOKEN) {
            let body = json!({"status": 1, "acknowledged": 1, "acknowledged_at": 1_795_291_999,
                "acknowledged_by": PushoverDouble::USER, "acknowledged_by_device": "phone",
                "expired": 0, "request": "r"});
            reply(200, body.to_string())
        } else {
            refuse("token", "application token is invalid")
        };
    }
    if path.starts_with("/1/receipts/") && request.method == "GET" {
        return refuse("receipt", "receipt not found");
    }
    if request.method != "POST" || !query.is_empty() {
        seen.violations.push(format!("{} {}", request.method, request.target));
        return reply(405, "");
    }
    if request.header("content-type") != Some("application/x-www-form-urlencoded") {
        seen.violations.push(format!("content-type {:?}", request.header("content-type")));
    }
    let Some(fields) = parse_form(&request.body) else {
        seen.violations.push("the body is not a form".into());
        return refuse("message", "message cannot be blank");
    };
    if fields.get("token").map(String::as_str) != Some(PushoverDouble::TOKEN) {
        return refuse("token", "application token is invalid");
    }
    if let Some(tag) = path.strip_prefix("/1/receipts/cancel_by_tag/") {
        let Some(tag) = tag.strip_suffix(".json") else {
            seen.violations.push(format!("a cancel without .json: {path}"));
            return reply(404, "");
        };
        seen.cancelled.push(tag.to_owned());
        return reply(200, json!({"canceled": 1, "status": 1, "request": "r"}).to_string());
    }
    if path != "/1/messages.json" {
        seen.violations.push(format!("there is no {path}"));
        return reply(404, "");
    }
    message(fields, seen)
}

fn message(fields: Fields, seen: &mut Seen) -> Reply {
    let get = |name: &str| fields.get(name).map_or("", String::as_str);
    let number = |name: &str| get(name).parse::<i64>().ok();
    if get("user") != PushoverDouble::USER {
        return refuse("user", "user identifier is invalid");
    }
    let control = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
    let emergency = number("priority") == Some(2);
    let wrong = [
        (get("message").trim().is_empty(), "message cannot be blank"),
        (get("message").chars().count() > 1024, "message is too long"),
        (get("title").chars().count() > 250, "title is too long"),
        (control(get("message")) || control(get("title")), "control characters"),
        (!number("priority").is_some_and(|p| (-2..=2).contains(&p)), "priority is invalid"),
        (number("timestamp").is_none(), "timestamp is missing"),
        (emergency && number("retry").is_none_or(|s| s < 30), "retry is missing or too short"),
        (emergency && number("expire").is_none_or(|s| s > 10_800), "expire is missing or too long"),
        (!emergency && fields.contains_key("retry"), "retry without an emergency"),
    ];
    if let Some((_, error)) = wrong.iter().find(|(wrong, _)| *wrong) {
        seen.violations.push((*error).to_owned());
        return refuse("message", error);
    }
    seen.messages.push(fields);
    let mut body = json!({"status": 1, "request": "647d2300-702c-4b38-8b2f-d56326ae460b"});
    if emergency {
        body["receipt"] = json!(PushoverDouble::RECEIPT);
    }
    reply(200, body.to_string())
}

/// None when it is not a form in UTF-8, percent-encoded to the last byte.
fn parse_form(body: &[u8]) -> Option<Fields> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.is_ascii())?;
    text.split('&')
        .map(|field| {
            let (name, value) = field.split_once('=')?;
            Some((name.to_owned(), decode(value)?))
        })
        .collect()
}

fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}
