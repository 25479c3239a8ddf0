//! The Pushover channel: `POST /1/messages.json` (<https://pushover.net/api>), and the receipts of
//! emergencies (<https://pushover.net/api/receipts>).

use crate::address::BaseUrl;
use crate::config_file::Section;
use crate::escape::PercentEncoded;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::attempt::{Delivered, Failure, OutgoingMessage, ReceiptState, RetryPolicy, Scope};
use super::http_client::{
    HttpRequest, HttpResponse, TIMEOUT, describe_response, form_body, time_until,
};
use crate::clock::Wall;
use crate::event::{EventId, Level};
use crate::notify::text::{LineBreaks, TextLimit, TextUnit, clean, cut};
use crate::secret::{Secret, scrub};

/// The shortest interval at which Pushover repeats an emergency.
const MIN_RETRY: Duration = Duration::from_secs(30);

/// The longest time for which Pushover repeats an emergency.
const MAX_EXPIRE: Duration = Duration::from_secs(3 * 3600);

/// How long the response to one cancellation is waited for.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait for a new quota: it comes on the first of the month.
const MAX_QUOTA_PAUSE: Duration = Duration::from_secs(31 * 24 * 3600);

/// The longest address of a supplementary page, in characters.
const MAX_URL: usize = 512;

/// The priority that is repeated until a person acknowledges it.
const EMERGENCY: i8 = 2;

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
    /// Rate, retries and expiry.
    pub const RETRY_POLICY: RetryPolicy = RetryPolicy {
        first_delay: Duration::from_secs(10),
        max_delay: Duration::from_secs(10 * 60),
        per_minute: 10,
        burst: 1,
        give_up_critical: Duration::from_secs(24 * 3600),
        give_up_warning: Duration::from_secs(6 * 3600),
        give_up_other: Duration::from_secs(3600),
        digest: Some(TextLimit { max: 880, unit: TextUnit::Characters }),
    };

    /// What must never be shown.
    pub fn secrets(&self) -> Vec<&Secret> {
        vec![&self.token, &self.user]
    }

    /// Makes one attempt; before it, cancels the repetition of the emergencies that the message
    /// closes. The response to an emergency has a receipt.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver(&self, outgoing: &OutgoingMessage) -> Result<Delivered, Failure> {
        self.deliver_within(outgoing, TIMEOUT)
    }

    /// [`Pushover::deliver`] with another time limit, for all of its requests together.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver_within(
        &self,
        outgoing: &OutgoingMessage,
        limit: Duration,
    ) -> Result<Delivered, Failure> {
        let end = Instant::now() + limit;
        if self.sends_emergencies() {
            self.cancel(outgoing, limit).map_err(|failure| self.scrubbed(failure))?;
        }
        let body = form_body(&self.fields(outgoing));
        let left = end.saturating_duration_since(Instant::now());
        self.send(body, outgoing.now, left).map_err(|failure| self.scrubbed(failure))
    }

    /// Queries the state of an emergency.
    ///
    /// # Errors
    /// Why it is not known. MessageRefused: it never will be.
    pub fn poll(&self, receipt: &str) -> Result<ReceiptState, Failure> {
        self.poll_within(receipt, TIMEOUT)
    }

    /// [`Pushover::poll`] with another time limit.
    ///
    /// # Errors
    /// As [`Pushover::poll`].
    pub fn poll_within(&self, receipt: &str, limit: Duration) -> Result<ReceiptState, Failure> {
        let (receipt, token) = (PercentEncoded(receipt), PercentEncoded(self.token.reveal()));
        let url = format!("{}/1/receipts/{receipt}.json?token={token}", self.api_url);
        let response = self.call(url, None, limit).map_err(|failure| self.scrubbed(failure))?;
        match response.status {
            200 => receipt_state(&response.body)
                .ok_or_else(|| Failure::unreachable("Pushover told nothing about the receipt")),
            _ => Err(self.scrubbed(self.classify(&response, Wall::default()))),
        }
    }

    fn send(&self, body: String, now: Wall, limit: Duration) -> Result<Delivered, Failure> {
        let response = self.call(format!("{}/1/messages.json", self.api_url), Some(body), limit)?;
        if response.status != 200 {
            return Err(self.classify(&response, now));
        }
        match serde_json::from_str::<Value>(&response.body) {
            Ok(said) if said["status"] == 1 => match said["info"].as_str() {
                Some(info) if has_no_devices(info) => Err(Failure::channel_refused(
                    describe_response("Pushover", &response, Some(info), &self.secrets()),
                )),
                _ => Ok(Delivered { receipt: receipt(&said), thread: None }),
            },
            Ok(said) if said["status"].is_number() => Err(self.classify(&response, now)),
            _ if !response.complete => Err(Failure::Unknown("the answer was cut off".into())),
            _ => Err(Failure::channel_refused(
                "the answer was 200, but not Pushover's: is `api_url` right?",
            )),
        }
    }

    fn call(
        &self,
        url: String,
        body: Option<String>,
        timeout: Duration,
    ) -> Result<HttpResponse, Failure> {
        let body = body.map(|text| ("application/x-www-form-urlencoded", text));
        HttpRequest { url, body, bearer: None, ca_file: None, timeout }.send()
    }

    /// Cancels the repetition of the emergencies that the message closes, in half of the time at
    /// most. Where the server does not answer, the first attempt fails and the next one tries it
    /// once more; then the message is sent anyway, since the repetition expires by itself.
    fn cancel(&self, outgoing: &OutgoingMessage, limit: Duration) -> Result<(), Failure> {
        let end = Instant::now() + limit / 2;
        let first_attempt = !outgoing.possible_repeat
            && outgoing.now.since(outgoing.message.at) < Pushover::RETRY_POLICY.first_delay;
        for event in outgoing.recovered_events {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            match self.cancel_one(*event, left.min(CANCEL_TIMEOUT), outgoing.now) {
                Ok(()) => {}
                Err(why) if first_attempt => return Err(Failure::unreachable(why)),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Ends the repetition of an emergency that a person has seen elsewhere.
    ///
    /// # Errors
    /// It may go on; trying again may help.
    pub fn cancel_emergency(&self, event: EventId) -> Result<ReceiptState, Failure> {
        let ended = self.cancel_one(event, CANCEL_TIMEOUT, Wall::default());
        ended.map_err(|why| self.scrubbed(Failure::unreachable(why)))?;
        Ok(ReceiptState { acknowledged: None, device: None, expired: true })
    }

    /// A refusal is no error: the message itself will be refused too, or there is nothing to
    /// cancel.
    fn cancel_one(&self, event: EventId, limit: Duration, now: Wall) -> Result<(), String> {
        let url = format!("{}/1/receipts/cancel_by_tag/{event}.json", self.api_url);
        let body = form_body(&[("token", self.token.reveal().to_owned())]);
        let response = self.call(url, Some(body), limit).map_err(Failure::into_why)?;
        match self.classify(&response, now) {
            Failure::Unreachable { why, .. } => Err(format!("an emergency goes on: {why}")),
            _ => Ok(()),
        }
    }

    fn sends_emergencies(&self) -> bool {
        self.priority.is_none_or(|priority| priority == EMERGENCY)
    }

    /// A recovery is never an emergency: it needs no acknowledgement.
    fn priority(&self, level: Level) -> i8 {
        match (self.priority, level) {
            (Some(EMERGENCY), Level::Ok) => 0,
            (Some(priority), _) => priority,
            (None, Level::Critical) => EMERGENCY,
            (None, Level::Warning | Level::Ok) => 0,
            (None, Level::Info) => -1,
        }
    }

    fn fields(&self, outgoing: &OutgoingMessage) -> Vec<(&'static str, String)> {
        let message = outgoing.message;
        let title = clean(&format!("{}: {}", message.level, message.subject), LineBreaks::Remove);
        let priority = self.priority(message.level);
        let mut fields = vec![
            ("token", self.token.reveal().to_owned()),
            ("user", self.user.reveal().to_owned()),
            ("title", cut(&title, 250, TextUnit::Characters)),
            ("message", outgoing.plain_text(1024, TextUnit::Characters)),
            ("timestamp", (message.at.0.max(0) / 1000).to_string()),
            ("priority", priority.to_string()),
        ];
        if priority == EMERGENCY {
            let expire = self.expire.as_secs().clamp(30, 10_800);
            fields.push(("retry", self.retry.as_secs().clamp(30, expire).to_string()));
            fields.push(("expire", expire.to_string()));
            fields.push(("tags", message.event.to_string()));
        }
        let link = message.link.clone().filter(|link| link.chars().count() <= MAX_URL);
        fields.extend(link.map(|link| ("url", link)));
        fields.extend(self.sound.iter().map(|sound| ("sound", sound.clone())));
        fields.extend(self.device.iter().map(|device| ("device", device.clone())));
        fields
    }

    fn classify(&self, response: &HttpResponse, now: Wall) -> Failure {
        let said = serde_json::from_str::<Value>(&response.body).unwrap_or_default();
        let errors = said["errors"]
            .as_array()
            .map(|errors| errors.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        let why = describe_response("Pushover", response, errors.as_deref(), &self.secrets());
        let invalid = |field: &str| said[field] == "invalid";
        let foreign = !said["status"].is_number();
        match response.status {
            300..=399 => {
                Failure::channel_refused(format!("{why}: a redirect, which is not followed"))
            }
            408 | 425 | 500..=599 => Failure::Unreachable {
                why,
                retry_after: response.retry_after(now),
                scope: Scope::Channel,
            },
            429 => Failure::ChannelRefused {
                why: format!("{why} (the month's quota is used up)"),
                retry_after: quota_reset(response, now),
                scope: Scope::Channel,
            },
            _ if foreign && !response.complete => Failure::unreachable(format!("{why}, cut off")),
            201..=299 => Failure::channel_refused(why),
            _ if foreign => Failure::channel_refused(format!(
                "{why}, not in Pushover's words: is `api_url` right?"
            )),
            _ if invalid("token") || invalid("user") => Failure::channel_refused(why),
            _ => Failure::MessageRefused(why),
        }
    }

    fn scrubbed(&self, failure: Failure) -> Failure {
        failure.map_why(|why| scrub(&why, self.secrets()))
    }
}

/// Whether the message was accepted, but the user has no device to show it.
fn has_no_devices(info: &str) -> bool {
    info.to_lowercase().contains("no active devices")
}

/// How long it is until the quota is renewed, where the response says so.
fn quota_reset(response: &HttpResponse, now: Wall) -> Option<Duration> {
    let at = response.header("x-limit-app-reset")?.trim().parse().ok()?;
    Some(time_until(at, now).min(MAX_QUOTA_PAUSE))
}

fn receipt(said: &Value) -> Option<String> {
    let receipt = said["receipt"].as_str()?;
    let plain = receipt.len() <= 64 && receipt.chars().all(|c| c.is_ascii_alphanumeric());
    (plain && !receipt.is_empty()).then(|| receipt.to_owned())
}

/// The response names the person who acknowledged by the user's key, which is a secret: the device
/// is shown instead.
fn receipt_state(body: &str) -> Option<ReceiptState> {
    let said = serde_json::from_str::<Value>(body).ok().filter(|said| said["status"] == 1)?;
    let at = Wall(said["acknowledged_at"].as_i64().unwrap_or(0).saturating_mul(1000));
    let device = said["acknowledged_by_device"].as_str().filter(|name| !name.is_empty());
    Some(ReceiptState {
        acknowledged: (said["acknowledged"] == 1).then_some(at),
        device: device.map(|name| cut(&clean(name, LineBreaks::Remove), 50, TextUnit::Characters)),
        expired: said["expired"] == 1,
    })
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
                .duration_within("retry", MIN_RETRY..=MAX_EXPIRE)
                .unwrap_or(Duration::from_secs(60)),
            expire: section
                .duration_within("expire", MIN_RETRY..=MAX_EXPIRE)
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
            // As the API's documentation shows it.
            let bare = url.text.strip_suffix("/messages.json").unwrap_or(&url.text);
            bare.strip_suffix("/1").unwrap_or(bare).to_owned()
        }
        Err(what) => {
            section.error("api_url", what);
            text
        }
    }
}

/// Pushover may change the form of its tokens, so this is a warning only.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_priority_follows_the_level_unless_it_is_configured() {
        let channel = |priority| Pushover {
            token: Secret::new("t"),
            user: Secret::new("u"),
            priority,
            retry: Duration::from_secs(60),
            expire: Duration::from_secs(3600),
            sound: None,
            device: None,
            api_url: String::new(),
        };
        for (configured, level, expected) in [
            (None, Level::Critical, 2),
            (None, Level::Warning, 0),
            (None, Level::Info, -1),
            (None, Level::Ok, 0),
            (Some(1), Level::Critical, 1),
            (Some(2), Level::Warning, 2),
            (Some(2), Level::Ok, 0),
            (Some(-1), Level::Ok, -1),
        ] {
            assert_eq!(channel(configured).priority(level), expected, "{configured:?} {level}");
        }
    }

    #[test]
    fn a_receipt_tells_when_and_on_which_device_it_was_acknowledged() {
        let body = r#"{"status":1,"acknowledged":1,"acknowledged_at":1424305421,
            "acknowledged_by":"uQiRzpo4DXghDmr9QzzfQu27cmVRsG","acknowledged_by_device":"phone",
            "last_delivered_at":1424305379,"expired":1,"expires_at":1424308979}"#;
        let state = receipt_state(body).unwrap();
        assert_eq!(state.acknowledged, Some(Wall(1_424_305_421_000)));
        assert_eq!(state.device.as_deref(), Some("phone"));
        assert!(state.expired);
        let open = r#"{"status":1,"acknowledged":0,"acknowledged_at":0,"acknowledged_by":"",
            "acknowledged_by_device":"","expired":0}"#;
        assert_eq!(receipt_state(open), Some(ReceiptState::default()));
        assert_eq!(receipt_state("<html>"), None);
        assert_eq!(receipt_state(r#"{"status":0}"#), None);
    }
}
