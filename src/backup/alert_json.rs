//! What is read of alerts, in the JSON of a webhook (version 4) and of the API (v2): all else is passed
//! over. Pure.

use std::collections::BTreeMap;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::Value;

use super::annotations;
use super::lenient_json::{Lenient, Part, Scalar};

/// How many labels, or annotations, of an alert are looked at beyond those that are needed.
const MAX_TEXTS: usize = 4096;
/// How many characters are read of what identifies an alert or a group of them.
const MAX_ID_CHARS: usize = 4096;
/// The longest text that may be a time.
const MAX_TIME_BYTES: usize = 100;

/// An alert as its sender wrote it.
#[derive(Default)]
pub struct RawAlert {
    /// Its labels.
    pub labels: Texts,
    /// Its annotations.
    pub annotations: Texts,
    /// Its `fingerprint`.
    pub fingerprint: Option<String>,
    /// Its `startsAt`, where that may be a time.
    pub starts_at: Option<Value>,
    /// Its `status`.
    pub status: Status,
}

/// The status of an alert.
#[derive(Default)]
pub enum Status {
    /// It has none.
    #[default]
    Missing,
    /// The text of a webhook.
    Text(String),
    /// The `state` of the object of the API.
    State(String),
}

/// The texts of an object.
#[derive(Default)]
pub struct Texts {
    /// By name.
    pub by_name: BTreeMap<String, String>,
    /// A hash of those that are too many, in their order.
    pub beyond: Option<TextHash>,
}

/// A hash of texts.
pub struct TextHash(ring::digest::Context);

impl Default for TextHash {
    fn default() -> TextHash {
        TextHash(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl TextHash {
    /// Adds a text: it makes a difference where one ends and the next begins.
    pub fn add(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    /// Sixteen hex digits.
    pub fn short(self) -> String {
        crate::escape::hex(&self.0.finish().as_ref()[..8])
    }
}

/// What a webhook says beside its alerts.
#[derive(Default)]
pub struct Group {
    /// How many alerts were left out.
    pub left_out: u64,
    /// The labels that all alerts have.
    pub labels: BTreeMap<String, String>,
    /// The name of the group.
    pub key: String,
}

/// Called with each alert of a document.
pub type OnAlert<'c> = &'c mut dyn FnMut(RawAlert);

/// The object of a webhook; none where it is something else.
pub struct WebhookPart<'c> {
    /// The labels that are needed of each alert.
    pub labels: &'c [String],
    /// Takes the alerts.
    pub on_alert: OnAlert<'c>,
}

/// The array of alerts; none where it is something else.
pub struct AlertsPart<'c> {
    /// The labels that are needed of each alert.
    pub labels: &'c [String],
    /// Takes the alerts.
    pub on_alert: OnAlert<'c>,
}

struct AlertPart<'c>(&'c [String]);
struct TextsPart<'c>(&'c dyn Fn(&str) -> bool);
struct TextPart;
struct IdPart;
struct TimePart;
struct StatusPart;
struct CountPart;

impl<'de> Part<'de> for WebhookPart<'_> {
    type Value = Option<Group>;

    fn read_object<A: MapAccess<'de>>(self, mut object: A) -> Result<Option<Group>, A::Error> {
        let mut group = Group::default();
        let labels = self.labels;
        let is_needed = |name: &str| is_needed_label(name, labels);
        while let Some(name) = object.next_key::<String>()? {
            match name.as_str() {
                "alerts" => {
                    let alerts = AlertsPart { labels, on_alert: &mut *self.on_alert };
                    object.next_value_seed(Lenient(alerts))?;
                }
                "truncatedAlerts" => group.left_out = object.next_value_seed(Lenient(CountPart))?,
                "groupLabels" => {
                    let texts = object.next_value_seed(Lenient(TextsPart(&is_needed)))?;
                    group.labels = texts.by_name;
                }
                "groupKey" => {
                    group.key = object.next_value_seed(Lenient(IdPart))?.unwrap_or_default();
                }
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Some(group))
    }
}

impl<'de> Part<'de> for AlertsPart<'_> {
    type Value = Option<()>;

    fn read_array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Option<()>, A::Error> {
        while let Some(alert) = array.next_element_seed(Lenient(AlertPart(self.labels)))? {
            alert.into_iter().for_each(&mut *self.on_alert);
        }
        Ok(Some(()))
    }
}

impl<'de> Part<'de> for AlertPart<'_> {
    type Value = Option<RawAlert>;

    fn read_object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut alert = RawAlert::default();
        let is_label = |name: &str| is_needed_label(name, self.0);
        while let Some(name) = object.next_key::<String>()? {
            match name.as_str() {
                "labels" => {
                    alert.labels = object.next_value_seed(Lenient(TextsPart(&is_label)))?;
                }
                "annotations" => {
                    let texts = TextsPart(&annotations::is_for_people);
                    alert.annotations = object.next_value_seed(Lenient(texts))?;
                }
                "fingerprint" => alert.fingerprint = object.next_value_seed(Lenient(IdPart))?,
                "startsAt" => alert.starts_at = object.next_value_seed(Lenient(TimePart))?,
                "status" => alert.status = object.next_value_seed(Lenient(StatusPart))?,
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Some(alert))
    }
}

fn is_needed_label(name: &str, needed: &[String]) -> bool {
    name == "alertname" || needed.iter().any(|needed| needed == name)
}

impl<'de> Part<'de> for TextsPart<'_> {
    type Value = Texts;

    fn read_object<A: MapAccess<'de>>(self, mut object: A) -> Result<Texts, A::Error> {
        let mut texts = Texts::default();
        while let Some(name) = object.next_key::<String>()? {
            let Some(text) = object.next_value_seed(Lenient(TextPart))? else { continue };
            let kept = texts.by_name.len() < MAX_TEXTS || texts.by_name.contains_key(&name);
            if kept || (self.0)(&name) {
                texts.by_name.insert(name, text);
            } else {
                let beyond = texts.beyond.get_or_insert_default();
                beyond.add(&name);
                beyond.add(&text);
            }
        }
        Ok(texts)
    }
}

/// Numbers and booleans are taken as they are written, a whole number without a fraction; arrays and
/// objects are left out.
impl Part<'_> for TextPart {
    type Value = Option<String>;

    fn read_scalar(self, scalar: Scalar) -> Option<String> {
        match scalar {
            Scalar::Text(text) => Some(text.to_owned()),
            Scalar::Number(number) => {
                let text = number.to_string();
                Some(text.strip_suffix(".0").map_or(text.clone(), str::to_owned))
            }
            Scalar::Flag(flag) => Some(flag.to_string()),
            Scalar::Null => None,
        }
    }
}

impl Part<'_> for IdPart {
    type Value = Option<String>;

    fn read_scalar(self, scalar: Scalar) -> Option<String> {
        match scalar {
            Scalar::Text(text) => Some(text.chars().take(MAX_ID_CHARS).collect()),
            Scalar::Number(_) | Scalar::Flag(_) | Scalar::Null => None,
        }
    }
}

impl Part<'_> for TimePart {
    type Value = Option<Value>;

    fn read_scalar(self, scalar: Scalar) -> Option<Value> {
        match scalar {
            Scalar::Text(text) => (text.len() <= MAX_TIME_BYTES).then(|| text.into()),
            Scalar::Number(number) => Some(number.into()),
            Scalar::Flag(_) | Scalar::Null => None,
        }
    }
}

impl<'de> Part<'de> for StatusPart {
    type Value = Status;

    fn read_object<A: MapAccess<'de>>(self, mut object: A) -> Result<Status, A::Error> {
        let mut status = Status::Missing;
        while let Some(name) = object.next_key::<String>()? {
            if name == "state" {
                let state = object.next_value_seed(Lenient(IdPart))?;
                status = state.map_or(Status::Missing, Status::State);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(status)
    }

    fn read_scalar(self, scalar: Scalar) -> Status {
        IdPart.read_scalar(scalar).map_or(Status::Missing, Status::Text)
    }
}

impl Part<'_> for CountPart {
    type Value = u64;

    fn read_scalar(self, scalar: Scalar) -> u64 {
        match scalar {
            Scalar::Number(number) => number.as_f64().unwrap_or_default() as u64,
            Scalar::Text(_) | Scalar::Flag(_) | Scalar::Null => 0,
        }
    }
}
