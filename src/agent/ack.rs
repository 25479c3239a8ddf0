//! Acknowledgements of hbd: which are believed, and how long to wait for one before a retry. Pure.

use std::time::Duration;

use ring::hmac;
use serde::Deserialize;

use crate::clock::Wall;
use crate::heartbeat::datagram::{DatagramKind, split};
use crate::heartbeat::encode::verify;

/// How long to wait for an answer to the `attempt`th attempt, from 1, before the next one.
///
/// A lost answer looks like a lost request. To hbd a repeated beat, boot, shutdown or silence is the same
/// one; a repeated message is a second message, so a message waits longer.
pub fn retry_delay(event: DatagramKind, attempt: u32) -> Duration {
    let first = match event {
        DatagramKind::Beat
        | DatagramKind::Boot
        | DatagramKind::Shutdown
        | DatagramKind::Silence => Duration::from_millis(500),
        DatagramKind::Message => Duration::from_secs(1),
    };
    first * 2_u32.pow(attempt.saturating_sub(1).min(3))
}

/// `{"ack":TIME,"now":SERVER_TIME}`
#[derive(Deserialize)]
struct AckJson {
    ack: Option<f64>,
    now: f64,
}

/// An acknowledgement that is believed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack {
    /// The time in the datagram that it answers.
    pub time: Wall,
    /// When it was sent, by the clock of the server.
    pub now: Wall,
}

/// Parses an acknowledgement; with a key it must be signed with that key.
///
/// # Errors
/// Why it is not believed.
pub fn parse(bytes: &[u8], key: Option<&hmac::Key>) -> Result<Ack, &'static str> {
    let (signature, json) = split(bytes);
    match (key, signature) {
        (Some(_), None) => return Err("an answer came that is not signed"),
        (Some(key), Some(signature)) if !verify(key, json, &signature) => {
            return Err("an answer came that is signed with another key");
        }
        (Some(_), Some(_)) | (None, _) => {}
    }
    match serde_json::from_slice(json) {
        Ok(AckJson { ack: Some(time), now }) => Ok(Ack { time: wall(time), now: wall(now) }),
        Ok(AckJson { ack: None, .. }) | Err(_) => Err("something came that is no answer of hbd"),
    }
}

fn wall(seconds: f64) -> Wall {
    Wall((seconds * 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::encode;
    use crate::secret::Secret;

    fn key(text: &str) -> hmac::Key {
        encode::signing_key(&Secret::new(text))
    }

    const TIME: Wall = Wall(1_795_291_928_667);
    const NOW: Wall = Wall(1_795_291_928_700);

    #[test]
    fn an_answer_is_believed_as_far_as_it_is_signed() {
        let (ours, other) = (key("ours"), key("other"));
        let answer = |key| encode::ack(Some("1795291928.667"), NOW, key, 1000).unwrap();
        let believed = Ok(Ack { time: TIME, now: NOW });
        assert_eq!(parse(&answer(None), None), believed);
        assert_eq!(parse(&answer(Some(&ours)), Some(&ours)), believed);
        assert_eq!(parse(&answer(None), Some(&ours)), Err("an answer came that is not signed"));
        assert_eq!(
            parse(&answer(Some(&other)), Some(&ours)),
            Err("an answer came that is signed with another key")
        );
    }

    #[test]
    fn what_does_not_tell_a_time_is_no_answer() {
        for junk in ["", "{}", "[]", "{\"ack\":null,\"now\":1}", "{\"ack\":\"1\",\"now\":1}"] {
            assert!(parse(junk.as_bytes(), None).is_err(), "{junk}");
        }
    }

    #[test]
    fn a_message_is_repeated_later_than_a_beat() {
        let pauses = |event| [1, 2, 3, 4, 5, 99].map(|n| retry_delay(event, n).as_millis());
        assert_eq!(pauses(DatagramKind::Beat), [500, 1000, 2000, 4000, 4000, 4000]);
        assert_eq!(pauses(DatagramKind::Message), [1000, 2000, 4000, 8000, 8000, 8000]);
    }
}
