//! Datagrams, version 1: how they are built, signed and acknowledged. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::hmac;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::clock::Wall;
use crate::escape;
use crate::heartbeat::datagram::{DatagramKind, ShutdownReason};
use crate::secret::Secret;
use crate::view;

/// The HMAC key of a secret: to be made once.
pub fn signing_key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes())
}

/// The signed form: 64 hex digits, one space, the JSON.
pub fn sign(key: &hmac::Key, json: &[u8]) -> Vec<u8> {
    let mut signed = Vec::with_capacity(65 + json.len());
    signed.extend_from_slice(escape::hex(hmac::sign(key, json).as_ref()).as_bytes());
    signed.push(b' ');
    signed.extend_from_slice(json);
    signed
}

/// Whether `signature` is that of `json`, compared in constant time.
pub fn verify(key: &hmac::Key, json: &[u8], signature: &[u8; 32]) -> bool {
    hmac::verify(key, json, signature).is_ok()
}

/// The acknowledgement `{"ack":TIME,"now":SERVER_TIME}` with the sender's time as it wrote it (null
/// when it wrote none), signed when there is a key. None when it would be longer than `max` bytes, the
/// length of the request: an answer to a forged sender must not amplify the traffic.
pub fn ack(time: Option<&str>, now: Wall, key: Option<&hmac::Key>, max: usize) -> Option<Vec<u8>> {
    let json = format!("{{\"ack\":{},\"now\":{}}}", time.unwrap_or("null"), seconds(now));
    let answer = match key {
        Some(key) => sign(key, json.as_bytes()),
        None => json.into_bytes(),
    };
    (answer.len() <= max).then_some(answer)
}

/// Unix seconds with milliseconds.
fn seconds(time: Wall) -> f64 {
    time.0 as f64 / 1000.0
}

/// A datagram to be sent. Its fields are those of [`Datagram`](super::datagram::Datagram), whose
/// limits it does not check.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OutgoingDatagram {
    /// The host that it is about.
    pub host: String,
    /// The connection; none leaves it to the sender's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// What it reports.
    #[serde(skip_serializing_if = "is_beat")]
    pub event: DatagramKind,
    /// Why it shuts down; none when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ShutdownReason>,
    /// The text of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long a silence is to last; zero ends it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_seconds")]
    pub seconds: Option<Duration>,
    /// The time until the next beat.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_seconds")]
    pub interval: Option<Duration>,
    /// The kernel's boot id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// How long ago that boot was.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_seconds")]
    pub uptime: Option<Duration>,
    /// When it is sent; required when it is to be signed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "unix")]
    pub time: Option<Wall>,
    /// Finite numbers by dotted path; they travel nested.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "nested")]
    pub metrics: BTreeMap<String, f64>,
    /// Texts beside some of them, by the same paths.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<String, String>,
    /// Whether an answer is wanted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ack: bool,
}

impl OutgoingDatagram {
    /// The JSON, without a signature.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and maps with text keys always serialize")
    }
}

fn is_beat(kind: &DatagramKind) -> bool {
    *kind == DatagramKind::Beat
}

fn maybe_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => view::seconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

fn unix<S: Serializer>(time: &Option<Wall>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(seconds).serialize(serializer)
}

fn nested<S: Serializer>(
    metrics: &BTreeMap<String, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut object = Map::new();
    for (path, value) in metrics {
        insert(&mut object, path, (*value).into());
    }
    object.serialize(serializer)
}

/// Puts `value` at its place; where a number stands in the way, the rest of the path stays dotted.
fn insert(object: &mut Map<String, Value>, path: &str, value: Value) {
    if let Some((first, rest)) = path.split_once('.') {
        let inner = object.entry(first).or_insert_with(|| Map::new().into());
        if let Some(inner) = inner.as_object_mut() {
            return insert(inner, rest, value);
        }
    }
    object.insert(path.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::datagram::{parse, split};

    fn key_of(text: &str) -> hmac::Key {
        signing_key(&Secret::new(text))
    }

    #[test]
    fn a_signed_datagram_is_64_hex_digits_a_space_and_the_json() {
        // echo -n '{"host":"web1"}' | openssl dgst -sha256 -hmac secret
        let signed = sign(&key_of("secret"), br#"{"host":"web1"}"#);
        let text = String::from_utf8(signed).unwrap();
        assert_eq!(text.len(), 65 + 15);
        let (signature, json) = split(text.as_bytes());
        assert!(verify(&key_of("secret"), json, &signature.unwrap()));
        assert!(!verify(&key_of("secreT"), json, &signature.unwrap()));
        assert!(!verify(&key_of("secret"), b"{}", &signature.unwrap()));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let beat = OutgoingDatagram {
            host: "web1".into(),
            connection: Some("vpn".into()),
            event: DatagramKind::Message,
            reason: None,
            message: Some("disk \"sda\" is tired".into()),
            seconds: None,
            interval: Some(Duration::from_millis(500)),
            boot_id: Some("b1".into()),
            uptime: Some(Duration::from_secs(90)),
            time: Some(Wall(1_795_291_928_667)),
            metrics: [("a".into(), 1.0), ("a.b".into(), 2.0), ("c.d.e".into(), -0.5)].into(),
            texts: [("a.b".into(), "two \"b\"".into())].into(),
            ack: true,
        };
        let json = beat.json();
        let read = parse(&json).unwrap();
        assert_eq!(read.host, "web1");
        assert_eq!(read.connection.as_deref(), Some("vpn"));
        assert_eq!(read.event, DatagramKind::Message);
        assert_eq!(read.message, beat.message.map(Into::into));
        assert_eq!(read.interval, beat.interval);
        let time = read.time.unwrap();
        assert_eq!(time.text, "1795291928.667");
        assert_eq!(time.micros, 1_795_291_928_667_000);
        let metrics: BTreeMap<String, f64> =
            read.metrics.iter().map(|(path, value)| (path.to_owned(), value)).collect();
        assert_eq!(metrics, beat.metrics);
        assert_eq!([read.metrics.text("a"), read.metrics.text("a.b")], [None, Some("two \"b\"")]);
        assert!(read.ack);
    }

    #[test]
    fn a_plain_beat_is_short() {
        let beat = OutgoingDatagram { host: "web1".into(), ..OutgoingDatagram::default() };
        assert_eq!(beat.json(), br#"{"host":"web1"}"#);
    }

    #[test]
    fn a_shutdown_says_whether_the_machine_comes_back() {
        let shutdown = |reason| OutgoingDatagram {
            host: "w".into(),
            event: DatagramKind::Shutdown,
            reason,
            ..OutgoingDatagram::default()
        };
        let json = |reason| String::from_utf8(shutdown(reason).json()).unwrap();
        assert_eq!(json(None), r#"{"host":"w","event":"shutdown"}"#);
        for (reason, word) in
            [(ShutdownReason::Reboot, "reboot"), (ShutdownReason::PowerOff, "poweroff")]
        {
            let expected = format!(r#"{{"host":"w","event":"shutdown","reason":"{word}"}}"#);
            assert_eq!(json(Some(reason)), expected);
        }
    }

    #[test]
    fn metrics_travel_nested() {
        let metrics = [("cpu_monitor.cpu_percent".into(), 95.2)].into();
        let beat = OutgoingDatagram { host: "w".into(), metrics, ..OutgoingDatagram::default() };
        let json = String::from_utf8(beat.json()).unwrap();
        assert_eq!(json, r#"{"host":"w","metrics":{"cpu_monitor":{"cpu_percent":95.2}}}"#);
    }

    #[test]
    fn an_answer_echoes_the_time_as_written_and_is_never_longer_than_the_request() {
        let now = Wall(1_795_291_928_667);
        let text = br#"{"ack":1.50e3,"now":1795291928.667}"#;
        assert_eq!(ack(Some("1.50e3"), now, None, text.len()).unwrap(), text);
        assert_eq!(ack(Some("1.50e3"), now, None, text.len() - 1), None);
        let signed = ack(Some("7"), now, Some(&key_of("k")), 200).unwrap();
        let (signature, json) = split(&signed);
        assert!(verify(&key_of("k"), json, &signature.unwrap()));
        assert_eq!(ack(None, now, None, 99).unwrap(), br#"{"ack":null,"now":1795291928.667}"#);
    }
}
