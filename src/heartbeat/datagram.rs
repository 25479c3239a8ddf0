//! Datagrams, version 1: the format, its limits, how it is parsed, and why a datagram is rejected.
//! Pure.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

mod metrics;
mod odd_numbers;
mod path_index;
mod texts;

pub use self::metrics::{DatagramMetrics, MAX_METRICS};
use self::odd_numbers::replace_odd_numbers;
pub use self::texts::{MAX_TEXT, cleaned_text};

/// The longest datagram that is accepted, its signature included, in bytes.
pub const MAX_BYTES: usize = 8192;
/// The longest silence that a datagram can ask for; what hbd allows is shorter.
pub const MAX_SILENCE: Duration = Duration::from_secs(366 * 86_400);
/// The end of the year 9999: what comes later is not a time.
const MAX_TIME: f64 = 253_402_300_799.0;

const HOST: &str = "host: must be 1 to 253 of A-Z a-z 0-9 . _ -";
const CONNECTION: &str = "connection: must be 1 to 32 of A-Z a-z 0-9 . _ -";
const EVENT: &str = "event: must be beat, boot, shutdown, message or silence";
const MESSAGE: &str = "message: must be a text of at most 500 characters";
const NO_TEXT: &str = "message: an event \"message\" needs a text";
const SECONDS: &str = "seconds: an event \"silence\" needs a number of seconds from 0 to 31622400";
const INTERVAL: &str = "interval: must be a number of seconds from 0.05 to 604800";
const BOOT_ID: &str = "boot_id: must be 1 to 64 printable characters";
const UPTIME: &str = "uptime: must be a number of seconds";
const TIME: &str = "time: must be a number of seconds since 1970";
const METRICS: &str = "metrics: must be an object of numbers";
/// What the sender of metrics that would be left out is told.
pub const ODD_METRICS: &str = "metrics: must be numbers, nested at most 16 deep, with different \
                               paths of at most 200 printable characters";
const ACK: &str = "ack: must be true or false";
/// What a signed datagram without a time is rejected with.
pub const TIME_WANTED: &str = "time: is required in a signed datagram";

/// What a datagram reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatagramKind {
    /// The host is alive.
    #[default]
    Beat,
    /// It has just booted.
    Boot,
    /// It shuts down.
    Shutdown,
    /// A message to people; not a sign of life.
    Message,
    /// What is said about the host is to be held back for a time; not a sign of life.
    Silence,
}

/// What a machine does after its shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownReason {
    /// It boots again.
    Reboot,
    /// It stays off.
    PowerOff,
}

/// The time in a datagram: when it was sent, by the sender's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp<'a> {
    /// As the sender wrote it.
    pub text: Cow<'a, str>,
    /// Microseconds since 1970.
    pub micros: i64,
}

/// A parsed datagram, or one that this process made itself. One that was parsed keeps all limits of
/// the format; the other one is to be [checked](Datagram::check).
#[derive(Clone, Debug, PartialEq)]
pub struct Datagram<'a> {
    /// The host, 1 to 253 of `A-Za-z0-9._-`.
    pub host: Cow<'a, str>,
    /// The connection, 1 to 32 of the same; none leaves it to the sender's address.
    pub connection: Option<Cow<'a, str>>,
    /// What it reports.
    pub event: DatagramKind,
    /// What the machine does after a shutdown, when it says so.
    pub reason: Option<ShutdownReason>,
    /// The text of a message: there is one when `event` is a message.
    pub message: Option<Cow<'a, str>>,
    /// How long a silence is to last; zero ends it. There is one when `event` is a silence, and only then.
    pub silence: Option<Duration>,
    /// The time until the next beat.
    pub interval: Option<Duration>,
    /// A new one means that the host booted.
    pub boot_id: Option<Cow<'a, str>>,
    /// Seconds since the boot.
    pub uptime: Option<f64>,
    /// When it was sent.
    pub time: Option<Timestamp<'a>>,
    /// Finite numbers by dotted path, and the texts beside them; what is none is left out.
    pub metrics: DatagramMetrics,
    /// Whether an answer is wanted.
    pub ack: bool,
}

impl<'a> Datagram<'a> {
    /// A beat of `host` over `connection` with nothing but itself.
    pub fn beat(host: &'a str, connection: &'a str) -> Datagram<'a> {
        Datagram {
            host: host.into(),
            connection: Some(connection.into()),
            event: DatagramKind::Beat,
            reason: None,
            message: None,
            silence: None,
            interval: None,
            boot_id: None,
            uptime: None,
            time: None,
            metrics: DatagramMetrics::default(),
            ack: false,
        }
    }

    /// Checks the limits that the types of the fields do not ensure.
    ///
    /// # Errors
    /// [`Rejection::BadField`].
    pub fn check(&self) -> Result<(), Rejection> {
        let message = self.message.as_deref();
        require(is_name(&self.host, 253), HOST)?;
        require(self.connection.as_ref().is_none_or(|name| is_name(name, 32)), CONNECTION)?;
        require(message.is_none_or(|text| text.chars().count() <= 500), MESSAGE)?;
        require(self.event != DatagramKind::Message || message.is_some_and(has_text), NO_TEXT)?;
        require(self.event != DatagramKind::Silence || self.silence.is_some(), SECONDS)?;
        require(self.boot_id.as_ref().is_none_or(|id| is_boot_id(id)), BOOT_ID)?;
        require(self.uptime.is_none_or(|uptime| (0.0..=MAX_TIME).contains(&uptime)), UPTIME)
    }

    fn into_owned(self) -> Datagram<'static> {
        let owned = |text: Cow<str>| Cow::Owned(text.into_owned());
        let time = |Timestamp { text, micros }| Timestamp { text: owned(text), micros };
        Datagram {
            host: owned(self.host),
            connection: self.connection.map(owned),
            message: self.message.map(owned),
            boot_id: self.boot_id.map(owned),
            time: self.time.map(time),
            ..self
        }
    }
}

/// A datagram as it was received: what it says, and what its signature is checked with.
#[derive(Debug)]
pub struct ReceivedDatagram<'a> {
    /// What it says.
    pub datagram: Datagram<'a>,
    /// Its signature, where it has one.
    pub signature: Option<[u8; 32]>,
    /// What is signed.
    pub json: &'a [u8],
    /// Its length in bytes, the signature included.
    pub length: usize,
}

impl<'a> ReceivedDatagram<'a> {
    /// Parses the bytes of a datagram.
    ///
    /// # Errors
    /// When they break the format or one of its limits.
    pub fn parse(bytes: &'a [u8]) -> Result<ReceivedDatagram<'a>, Rejection> {
        if bytes.len() > MAX_BYTES {
            return Err(Rejection::TooLong);
        }
        let (signature, json) = split(bytes);
        Ok(ReceivedDatagram { datagram: parse(json)?, signature, json, length: bytes.len() })
    }
}

/// Splits the signature off, where there is one: 64 lower-case hex digits and one space.
pub fn split(bytes: &[u8]) -> (Option<[u8; 32]>, &[u8]) {
    match bytes.split_at_checked(64) {
        Some((digits, [b' ', json @ ..])) => match unhex(digits) {
            Some(signature) => (Some(signature), json),
            None => (None, bytes),
        },
        _ => (None, bytes),
    }
}

fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// Parses the JSON of a datagram.
pub fn parse(json: &[u8]) -> Result<Datagram<'_>, Rejection> {
    if json.len() > MAX_BYTES {
        return Err(Rejection::TooLong);
    }
    let text = std::str::from_utf8(json).map_err(|_| Rejection::NotUtf8)?;
    parse_text(text).or_else(|rejection| {
        // One metric that is no number costs only itself.
        let replaced = replace_odd_numbers(text).ok_or(rejection)?;
        parse_text(&replaced).map(Datagram::into_owned).map_err(|_| rejection)
    })
}

fn parse_text(text: &str) -> Result<Datagram<'_>, Rejection> {
    let mut fields = RawFields::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    FieldReader { fields: &mut fields }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|why| rejection(&why, fields.at))?;
    fields.checked()
}

/// The host that a datagram names before what is wrong with it.
pub fn claimed_host(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let (_, json) = split(bytes);
    let mut fields = RawFields::default();
    let mut deserializer = serde_json::Deserializer::from_str(std::str::from_utf8(json).ok()?);
    // An error is what it was refused for.
    let _ = FieldReader { fields: &mut fields }.deserialize(&mut deserializer);
    fields.host.map(|BorrowedText(host)| host).filter(|host| is_name(host, 253))
}

fn rejection(why: &serde_json::Error, field: &'static str) -> Rejection {
    let of_field = match why.classify() {
        Category::Data => true,
        // serde_json calls 1e999 a syntax error; it is JSON, but no number of ours.
        Category::Syntax => why.to_string().starts_with("number out of range"),
        Category::Eof | Category::Io => false,
    };
    if of_field && !field.is_empty() { Rejection::BadField(field) } else { Rejection::NotJson }
}

/// A text that is borrowed unless it holds escapes.
struct BorrowedText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for BorrowedText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BorrowedText<'de>, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = BorrowedText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<BorrowedText<'de>, E> {
                Ok(BorrowedText(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<BorrowedText<'de>, E> {
                Ok(BorrowedText(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// The fields before they are checked; null is as good as absent.
#[derive(Default)]
struct RawFields<'a> {
    /// What the field that is being read must be; for the rejection.
    at: &'static str,
    host: Option<BorrowedText<'a>>,
    connection: Option<BorrowedText<'a>>,
    event: Option<DatagramKind>,
    reason: Option<&'a RawValue>,
    message: Option<BorrowedText<'a>>,
    seconds: Option<&'a RawValue>,
    interval: Option<f64>,
    boot_id: Option<BorrowedText<'a>>,
    uptime: Option<f64>,
    time: Option<&'a RawValue>,
    metrics: Option<DatagramMetrics>,
    texts: Option<&'a RawValue>,
    ack: Option<bool>,
}

/// Reads the fields in place: they are too many to be passed by value.
struct FieldReader<'f, 'de> {
    fields: &'f mut RawFields<'de>,
}

fn read_field<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    at: &mut &'static str,
    limits: &'static str,
    slot: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    *at = limits;
    let value = map.next_value()?;
    if slot.is_some() {
        return Err(A::Error::custom("a field appears twice"));
    }
    *slot = value;
    Ok(())
}

impl<'de> DeserializeSeed<'de> for FieldReader<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldReader<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let fields = self.fields;
        while let Some(BorrowedText(key)) = map.next_key()? {
            match &*key {
                "host" => read_field(&mut fields.at, HOST, &mut fields.host, &mut map)?,
                "connection" => {
                    read_field(&mut fields.at, CONNECTION, &mut fields.connection, &mut map)?
                }
                "event" => read_field(&mut fields.at, EVENT, &mut fields.event, &mut map)?,
                "reason" => read_field(&mut fields.at, "", &mut fields.reason, &mut map)?,
                "message" => read_field(&mut fields.at, MESSAGE, &mut fields.message, &mut map)?,
                "seconds" => read_field(&mut fields.at, "", &mut fields.seconds, &mut map)?,
                "interval" => read_field(&mut fields.at, INTERVAL, &mut fields.interval, &mut map)?,
                "boot_id" => read_field(&mut fields.at, BOOT_ID, &mut fields.boot_id, &mut map)?,
                "uptime" => read_field(&mut fields.at, UPTIME, &mut fields.uptime, &mut map)?,
                "time" => read_field(&mut fields.at, TIME, &mut fields.time, &mut map)?,
                "metrics" => read_field(&mut fields.at, METRICS, &mut fields.metrics, &mut map)?,
                "texts" => read_field(&mut fields.at, "", &mut fields.texts, &mut map)?,
                "ack" => read_field(&mut fields.at, ACK, &mut fields.ack, &mut map)?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            fields.at = "";
        }
        Ok(())
    }
}

impl<'a> RawFields<'a> {
    fn checked(self) -> Result<Datagram<'a>, Rejection> {
        let text = |field: Option<BorrowedText<'a>>| field.map(|BorrowedText(text)| text);
        let event = self.event.unwrap_or_default();
        // Of another event a field of that name means nothing, as it always did.
        let seconds = self.seconds.filter(|_| event == DatagramKind::Silence);
        let datagram = Datagram {
            host: text(self.host).ok_or(Rejection::BadField(HOST))?,
            connection: text(self.connection),
            event,
            reason: self.reason.and_then(shutdown_reason),
            message: text(self.message),
            silence: seconds.and_then(silence),
            interval: self.interval.map(interval).transpose()?,
            boot_id: text(self.boot_id),
            uptime: self.uptime,
            time: self.time.map(time).transpose()?,
            metrics: self.metrics.unwrap_or_default().with_texts(self.texts.map(RawValue::get)),
            ack: self.ack.unwrap_or_default(),
        };
        datagram.check()?;
        Ok(datagram)
    }
}

fn require(holds: bool, field: &'static str) -> Result<(), Rejection> {
    if holds { Ok(()) } else { Err(Rejection::BadField(field)) }
}

/// Whether `text` may be the name of a host or of a connection.
fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_boot_id(text: &str) -> bool {
    has_text(text) && text.chars().count() <= 64 && !text.contains(char::is_control)
}

fn has_text(text: &str) -> bool {
    !text.trim().is_empty()
}

/// Another reason than those is as good as none: later agents may know more.
fn shutdown_reason(raw: &RawValue) -> Option<ShutdownReason> {
    serde_json::from_str(raw.get()).ok()
}

fn silence(raw: &RawValue) -> Option<Duration> {
    let seconds: f64 = raw.get().parse().ok()?;
    (0.0..=MAX_SILENCE.as_secs_f64()).contains(&seconds).then(|| rounded(seconds))
}

fn interval(seconds: f64) -> Result<Duration, Rejection> {
    require((0.05..=604_800.0).contains(&seconds), INTERVAL)?;
    Ok(rounded(seconds))
}

/// To milliseconds.
fn rounded(seconds: f64) -> Duration {
    Duration::from_millis((seconds * 1000.0).round() as u64)
}

fn time(raw: &RawValue) -> Result<Timestamp<'_>, Rejection> {
    let text = raw.get();
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_TIME).contains(&seconds) => {
            Ok(Timestamp { text: text.into(), micros: (seconds * 1e6).round() as i64 })
        }
        _ => Err(Rejection::BadField(TIME)),
    }
}

/// Why a datagram is rejected. That is counted by [`name`](Rejection::name), never an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// More than 8,192 bytes.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// Not a JSON object, or not a signature and one.
    NotJson,
    /// A field that breaks its limits; the text says which and what it must be.
    BadField(&'static str),
    /// A host that is not configured, while unknown ones are ignored.
    UnknownHost,
    /// No signature, though there is a key for this host.
    Unsigned,
    /// A signature that is wrong, or that no key is known for.
    BadSignature,
    /// Its time is further off than `clock_skew`.
    Stale,
    /// Its time is not later than that of an earlier one.
    Replay,
    /// One more unknown host than `max_unknown_hosts`.
    TooManyHosts,
    /// One more connection than a host may have.
    TooManyConnections,
    /// More metrics than a host may have.
    TooManyMetrics,
    /// More messages than a host may send.
    TooManyMessages,
    /// A silence that is longer than hosts may ask for.
    TooLongSilence,
    /// There is no time for it now: the sender is to repeat it.
    Busy,
}

impl Rejection {
    /// One of each, for counters that begin at zero.
    pub const ALL: [Rejection; 15] = [
        Rejection::TooLong,
        Rejection::NotUtf8,
        Rejection::NotJson,
        Rejection::BadField("a field breaks its limits"),
        Rejection::UnknownHost,
        Rejection::Unsigned,
        Rejection::BadSignature,
        Rejection::Stale,
        Rejection::Replay,
        Rejection::TooManyHosts,
        Rejection::TooManyConnections,
        Rejection::TooManyMetrics,
        Rejection::TooManyMessages,
        Rejection::Busy,
        Rejection::TooLongSilence,
    ];

    /// Its index in [`ALL`](Rejection::ALL).
    pub fn index(self) -> usize {
        match self {
            Rejection::TooLong => 0,
            Rejection::NotUtf8 => 1,
            Rejection::NotJson => 2,
            Rejection::BadField(_) => 3,
            Rejection::UnknownHost => 4,
            Rejection::Unsigned => 5,
            Rejection::BadSignature => 6,
            Rejection::Stale => 7,
            Rejection::Replay => 8,
            Rejection::TooManyHosts => 9,
            Rejection::TooManyConnections => 10,
            Rejection::TooManyMetrics => 11,
            Rejection::TooManyMessages => 12,
            Rejection::Busy => 13,
            Rejection::TooLongSilence => 14,
        }
    }

    /// Why a host is silent that sends such datagrams; none when they are not all that it sends, or
    /// do not tell which host it is.
    pub fn of_silenced_host(self) -> Option<&'static str> {
        Some(match self {
            Rejection::BadSignature => "bad signature",
            Rejection::BadField(what) => what,
            Rejection::Unsigned => "not signed, though there is a key for this host",
            Rejection::Stale => "its time is too far from ours",
            Rejection::Replay => "its time is not later than that of an earlier datagram",
            Rejection::TooManyConnections => "the host has too many connections already",
            Rejection::TooLong
            | Rejection::NotUtf8
            | Rejection::NotJson
            | Rejection::UnknownHost
            | Rejection::TooManyHosts
            | Rejection::TooManyMetrics
            | Rejection::TooManyMessages
            | Rejection::TooLongSilence
            | Rejection::Busy => return None,
        })
    }

    /// The label of its counter.
    pub fn name(self) -> &'static str {
        match self {
            Rejection::TooLong => "too_long",
            Rejection::NotUtf8 => "not_utf8",
            Rejection::NotJson => "not_json",
            Rejection::BadField(_) => "bad_field",
            Rejection::UnknownHost => "unknown_host",
            Rejection::Unsigned => "unsigned",
            Rejection::BadSignature => "bad_signature",
            Rejection::Stale => "stale",
            Rejection::Replay => "replay",
            Rejection::TooManyHosts => "too_many_hosts",
            Rejection::TooManyConnections => "too_many_connections",
            Rejection::TooManyMetrics => "too_many_metrics",
            Rejection::TooManyMessages => "too_many_messages",
            Rejection::Busy => "busy",
            Rejection::TooLongSilence => "too_long_silence",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Rejection::TooLong => "longer than 8192 bytes",
            Rejection::NotUtf8 => "not UTF-8",
            Rejection::NotJson => "not a JSON object",
            Rejection::BadField(what) => what,
            Rejection::UnknownHost => "the host is not configured",
            Rejection::Unsigned => "not signed, though there is a key for this host",
            Rejection::BadSignature => {
                "the signature is wrong, or there is no key to check it with"
            }
            Rejection::Stale => "its time is too far from ours",
            Rejection::Replay => "its time is not later than that of an earlier datagram",
            Rejection::TooManyHosts => "there are too many unknown hosts already",
            Rejection::TooManyConnections => "the host has too many connections already",
            Rejection::TooManyMetrics => "more than 512 metrics",
            Rejection::TooManyMessages => "more than 60 messages a minute of this host",
            Rejection::Busy => "it could not be taken in time",
            Rejection::TooLongSilence => {
                "a silence is longer than hosts may ask for (calm.longest_host_silence)"
            }
        })
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(json: &str) -> &'static str {
        parse(json.as_bytes()).map_or_else(Rejection::name, |_| "ok")
    }

    #[test]
    fn the_host_of_a_datagram_with_a_bad_field_is_known() {
        let of = |json: &str| claimed_host(json.as_bytes()).map(Cow::into_owned);
        let web1 = Some("web1".to_owned());
        assert_eq!(of(r#"{"host":"web1","interval":"soon"}"#), web1);
        assert_eq!(of(r#"{"host":"web1","interval":0}"#), web1);
        assert_eq!(of(&format!(r#"{} {{"host":"web1","time":-1}}"#, "0".repeat(64))), web1);
        for none in [r#"{"interval":"soon","host":"web1"}"#, r#"{"host":"a b"}"#, "x", "\u{0}"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn each_field_keeps_its_limits() {
        let long = |count: usize| "x".repeat(count);
        let deep = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let cases: Vec<(String, &str)> = vec![
            (r#""boot_id":"b1","uptime":5,"unknown":[{"x":null}]"#.into(), "ok"),
            (r#""message":null,"metrics":null,"event":null,"ack":null,"time":null"#.into(), "ok"),
            (r#""connection":"vpn-1._","interval":0.05"#.into(), "ok"),
            (r#""connection":"""#.into(), "bad_field"),
            (r#""connection":"a b""#.into(), "bad_field"),
            (format!(r#""connection":"{}""#, long(33)), "bad_field"),
            (r#""host":"web1""#.into(), "bad_field"),
            (r#""event":"boot""#.into(), "ok"),
            (r#""event":"reboot""#.into(), "bad_field"),
            (r#""event":"message""#.into(), "bad_field"),
            (r#""event":"message","message":" ""#.into(), "bad_field"),
            (format!(r#""event":"message","message":"{}""#, "ü".repeat(500)), "ok"),
            (format!(r#""message":"{}""#, long(501)), "bad_field"),
            (r#""interval":604800"#.into(), "ok"),
            (r#""interval":604801"#.into(), "bad_field"),
            (r#""interval":0.04"#.into(), "bad_field"),
            (r#""interval":-1"#.into(), "bad_field"),
            (r#""interval":1e999"#.into(), "bad_field"),
            (r#""interval":"10""#.into(), "bad_field"),
            (r#""interval":NaN"#.into(), "not_json"),
            (r#""boot_id":"""#.into(), "bad_field"),
            (r#""boot_id":"a\nb""#.into(), "bad_field"),
            (format!(r#""boot_id":"{}""#, long(65)), "bad_field"),
            (r#""uptime":-1"#.into(), "bad_field"),
            (r#""time":1795291928.667"#.into(), "ok"),
            (r#""time":"1795291928""#.into(), "bad_field"),
            (r#""time":-1"#.into(), "bad_field"),
            (r#""time":1e99"#.into(), "bad_field"),
            (r#""time":1e999"#.into(), "bad_field"),
            (r#""ack":1"#.into(), "bad_field"),
            (r#""metrics":{}"#.into(), "ok"),
            (r#""metrics":5"#.into(), "bad_field"),
            (r#""metrics":"1""#.into(), "bad_field"),
            (r#""metrics":[1]"#.into(), "bad_field"),
            (r#""metrics":true"#.into(), "bad_field"),
            (r#""metrics":{"a":[1}"#.into(), "not_json"),
            (r#""reason":"reboot""#.into(), "ok"),
            (r#""reason":{"a":"kexec"}"#.into(), "ok"),
            (r#""metrics":NaN"#.into(), "not_json"),
            (r#""metrics":{"a":nan-1}"#.into(), "not_json"),
            (r#""metrics":{},"metrics":{}"#.into(), "bad_field"),
            (format!(r#""unknown":{}"#, deep(1000)), "ok"),
        ];
        for (fields, expected) in cases {
            let json = format!(r#"{{"host":"web1",{fields}}}"#);
            assert_eq!(name(&json), expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_object_with_a_host_is_refused() {
        for (json, expected) in [
            ("", "not_json"),
            ("null", "not_json"),
            ("[\"web1\"]", "not_json"),
            ("{\"host\":\"web1\"", "not_json"),
            ("{\"host\":\"web1\"} x", "not_json"),
            ("{}", "bad_field"),
            ("{\"host\":\"\"}", "bad_field"),
            ("{\"host\":\"w\\u0065b\"}", "ok"),
            ("{\"host\":\"wéb\"}", "bad_field"),
            ("{\"host\":\"web1\"}\n", "ok"),
        ] {
            assert_eq!(name(json), expected, "{json}");
        }
        assert_eq!(parse(b"{\"host\":\"\xff\"}"), Err(Rejection::NotUtf8));
        assert_eq!(parse(&[b' '; MAX_BYTES + 1]), Err(Rejection::TooLong));
    }

    #[test]
    fn one_metric_that_is_no_number_cost_the_whole_beat() {
        for (odd, path) in [
            ("null", "b"),
            (r#""51""#, "b"),
            ("true", "b"),
            ("[1,{},[2]]", "b"),
            (r#"{"c":{"d":"51"}}"#, "b.c.d"),
        ] {
            let json = format!(r#"{{"host":"w","metrics":{{"a":1,"b":{odd},"z":{{"y":2}}}}}}"#);
            let datagram = parse(json.as_bytes()).unwrap_or_else(|why| panic!("{json}: {why}"));
            let metrics: Vec<_> = datagram.metrics.iter().collect();
            assert_eq!(metrics, [("a", 1.0), ("z.y", 2.0)], "{json}");
            assert_eq!(datagram.metrics.left_out(), (1, Some(path)), "{json}");
        }
        let none = parse(br#"{"host":"w","metrics":{"a":null,"b":false}}"#).unwrap();
        assert!(none.metrics.is_empty());
        assert_eq!(none.metrics.left_out(), (2, Some("a")));
    }

    #[test]
    fn one_metric_that_cannot_be_used_cost_the_whole_beat() {
        let long = "x".repeat(MAX_BYTES / 2);
        let deep = |depth: usize| format!("{}1{}", r#"{"d":"#.repeat(depth), "}".repeat(depth));
        let cases = [
            (r#""b":1e999"#.into(), 1, "b"),
            (r#""b":-1e999,"text":"NaN \" NaN ü""#.into(), 2, "b"),
            (r#""b":NaN"#.into(), 1, "b"),
            (r#""b":{"c":-Infinity}"#.into(), 1, "b.c"),
            (r#""":3"#.into(), 1, ""),
            (r#""b":{"":3}"#.into(), 1, "b."),
            (r#""b..c":{"d":[3],"e":{"f":1}}"#.into(), 1, "b..c"),
            (r#""b\u0000":3"#.into(), 1, "b\0"),
            (r#""a":0,"a":1"#.into(), 2, "a"),
            (r#""z":{"y":0},"z.y":3"#.into(), 2, "z.y"),
            (format!(r#""{long}":3"#), 1, &long[..200]),
            (format!(r#""b":{}"#, deep(16)), 1, &format!("b{}", ".d".repeat(15))),
            (format!(r#""b":{}"#, deep(1000)), 1, &format!("b{}", ".d".repeat(15))),
        ];
        for (odd, count, path) in cases {
            let json = format!(
                r#"{{"host":"w","boot_id":"b1","time":1795291928.667,"metrics":{{"a":1,{odd},"z":{{"y":2}}}}}}"#
            );
            let datagram = parse(json.as_bytes()).unwrap_or_else(|why| panic!("{json}: {why}"));
            let metrics: Vec<_> = datagram.metrics.iter().collect();
            assert_eq!(metrics, [("a", 1.0), ("z.y", 2.0)], "{json}");
            assert_eq!(datagram.metrics.left_out(), (count, Some(path)), "{json}");
            assert_eq!(datagram.boot_id.as_deref(), Some("b1"));
            assert_eq!(datagram.time.unwrap().text, "1795291928.667");
        }
    }

    #[test]
    fn metrics_beyond_the_most_cost_the_whole_beat() {
        let many: Vec<_> = (0..600).map(|number| format!(r#""m{number}":1"#)).collect();
        let json = format!(r#"{{"host":"w","metrics":{{{}}}}}"#, many.join(","));
        let metrics = parse(json.as_bytes()).unwrap().metrics;
        assert_eq!((metrics.len(), metrics.left_out()), (512, (88, Some("m512"))));
    }

    #[test]
    fn what_a_shutdown_is_for_is_understood_or_left_out() {
        for (text, reason) in [
            (r#""reboot""#, Some(ShutdownReason::Reboot)),
            (r#""poweroff""#, Some(ShutdownReason::PowerOff)),
            (r#""kexec""#, None),
            ("null", None),
            ("5", None),
        ] {
            let json = format!(r#"{{"host":"w","event":"shutdown","reason":{text}}}"#);
            assert_eq!(parse(json.as_bytes()).unwrap().reason, reason, "{text}");
        }
    }

    #[test]
    fn metrics_become_dotted_paths() {
        let json = br#"{"host":"w","metrics":{"cpu":{"percent":95.2,"n":4},"load.one":-1}}"#;
        let datagram = parse(json).unwrap();
        let metrics: Vec<_> = datagram.metrics.iter().collect();
        assert_eq!(metrics, [("cpu.percent", 95.2), ("cpu.n", 4.0), ("load.one", -1.0)]);
    }

    #[test]
    fn texts_are_borrowed() {
        let datagram = parse(br#"{"host":"web1","boot_id":"b"}"#).unwrap();
        assert!(matches!(datagram.host, Cow::Borrowed("web1")));
        assert!(matches!(datagram.boot_id, Some(Cow::Borrowed("b"))));
    }

    #[test]
    fn only_64_lower_case_digits_and_a_space_are_a_signature() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(split(format!("{digits} {{}}").as_bytes()).1, b"{}");
        for other in [format!("{digits}{{}}"), format!("{} {{}}", digits.to_uppercase())] {
            assert_eq!(split(other.as_bytes()), (None, other.as_bytes()));
        }
    }

    #[test]
    fn every_rejection_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Rejection::ALL.map(Rejection::name).into();
        assert_eq!(names.len(), Rejection::ALL.len());
    }

    #[test]
    fn every_rejection_is_at_its_index() {
        for (index, rejection) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(rejection.index(), index, "{rejection:?}");
        }
    }

    #[test]
    fn metrics_that_were_not_parsed_keep_the_same_limits() {
        let long = "x".repeat(201);
        let deep = |depth: usize| vec!["a"; depth].join(".");
        let metrics = DatagramMetrics::from_pairs([
            ("cpu.percent", 95.2),
            ("load", 1.0),
            (&deep(16), 1.0),
            (&long[1..], 1.0),
            (&deep(17), 1.0),
            (&long, 1.0),
            ("", 1.0),
            ("a..b", 1.0),
            ("a\u{0}", 1.0),
            ("b", f64::NAN),
            ("c", f64::INFINITY),
            ("load", 2.0),
        ]);
        let kept: Vec<_> = metrics.iter().collect();
        let deep = deep(16);
        let wanted = [("cpu.percent", 95.2), ("load", 2.0), (&deep, 1.0), (&long[1..], 1.0)];
        assert_eq!((kept.as_slice(), metrics.left_out().0), (&wanted[..], 8));
    }

    #[test]
    fn a_beat_that_was_not_parsed_keeps_the_same_limits() {
        let (host, long) = ("h".repeat(253), "h".repeat(254));
        assert!(Datagram::beat(&host, "local").check().is_ok());
        assert!(Datagram::beat(&long, "local").check().is_err());
        assert!(Datagram::beat("web1", "a b").check().is_err());
        let boot_id = Some("a\nb".into());
        assert!(Datagram { boot_id, ..Datagram::beat("web1", "local") }.check().is_err());
    }
}
