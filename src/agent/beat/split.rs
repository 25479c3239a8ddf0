//! Splits metrics into beats that fit into datagrams. Pure.

use crate::agent::collect::Sample;
use crate::agent::collect::metric_name::{MAX_PATH_DEPTH, MAX_PATH_LENGTH};
use crate::heartbeat::encode::OutgoingDatagram;

/// The longest datagram, its signature included, in bytes: it passes every network in one piece,
/// tunnels too (IPv6 guarantees 1,280 bytes, RFC 8200 section 5).
const MAX_DATAGRAM: usize = 1200;
/// The bytes of a signature and of a timestamp.
const OVERHEAD: usize = 65 + 26;

/// The beats that carry `metrics`, each with its text, if it has one: `first` with as many as fit, and as
/// many of `further` as needed. A metric for which hbd would refuse the whole datagram is left out. There is one beat at least.
pub fn beats(
    sample: &Sample,
    first: &OutgoingDatagram,
    further: &OutgoingDatagram,
) -> Vec<OutgoingDatagram> {
    let metrics = sample.metrics.iter().filter(|(path, value)| is_valid(path, *value));
    let text_of = |path: &String| sample.texts.iter().find(|(of, _)| of == path);
    let valid: Vec<Part> =
        metrics.map(|(path, value)| (path, *value, text_of(path).map(|(_, text)| text))).collect();
    let mut beats = Vec::new();
    let mut rest = valid.as_slice();
    loop {
        let beat = if beats.is_empty() { first } else { further };
        let mut count = guess_count(rest, MAX_DATAGRAM.saturating_sub(length(beat)));
        let mut full = with(beat, &rest[..count]);
        // Where one path is the beginning of another the guess may be too good.
        while length(&full) > MAX_DATAGRAM && count > 1 {
            count -= 1;
            full = with(beat, &rest[..count]);
        }
        beats.push(full);
        rest = &rest[count..];
        if rest.is_empty() {
            return beats;
        }
    }
}

/// The path of a metric, its value, and the text beside it.
type Part<'a> = (&'a String, f64, Option<&'a String>);

fn with(beat: &OutgoingDatagram, parts: &[Part]) -> OutgoingDatagram {
    let mut beat = beat.clone();
    for (path, value, text) in parts {
        beat.metrics.insert((*path).clone(), *value);
        beat.texts.extend(text.map(|text| ((*path).clone(), text.clone())));
    }
    beat
}

fn length(beat: &OutgoingDatagram) -> usize {
    beat.json().len() + OVERHEAD
}

/// How many of the first metrics fit into `bytes` bytes, one at least where there are any.
fn guess_count(metrics: &[Part], bytes: usize) -> usize {
    let mut left = bytes.saturating_sub(r#","metrics":{},"texts":{}"#.len());
    let mut previous = "";
    for (count, (path, value, text)) in metrics.iter().enumerate() {
        // "path":"text" and a comma.
        let text = text.map_or(0, |text| written(path) + written(text) + 2);
        let cost = cost(previous, path, *value) + text;
        if cost > left && count > 0 {
            return count;
        }
        left = left.saturating_sub(cost);
        previous = path;
    }
    metrics.len()
}

/// How many bytes a metric adds behind the one with the path `previous`, with which it shares the
/// objects that it is nested in.
fn cost(previous: &str, path: &str, value: f64) -> usize {
    let segments: Vec<&str> = path.split('.').collect();
    let same = previous.split('.').zip(&segments).take_while(|(a, b)| a == *b).count();
    let number = serde_json::to_string(&value).map_or(0, |json| json.len());
    // "segment":{} and a comma for each object, "segment":value for the leaf.
    let nested = &segments[same.min(segments.len() - 1)..];
    nested.iter().map(|segment| written(segment) + 4).sum::<usize>() + number
}

/// How many bytes a text has as JSON.
fn written(text: &str) -> usize {
    serde_json::to_string(text).map_or(0, |json| json.len())
}

/// Whether hbd takes it.
fn is_valid(path: &str, value: f64) -> bool {
    let segments = path.split('.').count() <= MAX_PATH_DEPTH && !path.split('.').any(str::is_empty);
    value.is_finite()
        && segments
        && path.len() <= MAX_PATH_LENGTH
        && !path.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::Wall;
    use crate::heartbeat::datagram::parse;
    use crate::heartbeat::encode::{sign, signing_key};
    use crate::secret::Secret;

    fn first() -> OutgoingDatagram {
        let interval = Some(std::time::Duration::from_secs(10));
        let boot_id = Some("0d6ac5a0-6d4f-4b37-8f5c-3a1f6c9d7e42".into());
        OutgoingDatagram {
            host: "web1".into(),
            interval,
            boot_id,
            ack: true,
            ..OutgoingDatagram::default()
        }
    }

    fn further() -> OutgoingDatagram {
        OutgoingDatagram { host: "web1".into(), ack: true, ..OutgoingDatagram::default() }
    }

    /// What arrives, after every datagram was checked.
    fn arrived(metrics: &[(String, f64)]) -> (usize, BTreeMap<String, f64>) {
        let mut all = BTreeMap::new();
        let sample = Sample { metrics: metrics.to_vec(), texts: Vec::new() };
        let beats = beats(&sample, &first(), &further());
        for beat in &beats {
            let time = Some(Wall(253_402_300_798_999));
            let json = OutgoingDatagram { time, ..beat.clone() }.json();
            let bytes = sign(&signing_key(&Secret::new("k")), &json);
            assert!(bytes.len() <= MAX_DATAGRAM, "{} bytes", bytes.len());
            let datagram = parse(&json).unwrap();
            all.extend(datagram.metrics.iter().map(|(path, value)| (path.to_owned(), value)));
        }
        (beats.len(), all)
    }

    fn metrics(paths: impl IntoIterator<Item = String>) -> Vec<(String, f64)> {
        paths.into_iter().enumerate().map(|(n, path)| (path, n as f64 / 7.0)).collect()
    }

    #[test]
    fn a_few_travel_with_the_beat_and_many_in_parts_that_are_full() {
        assert_eq!(arrived(&[]).0, 1);
        let few = metrics((0..10).map(|n| format!("disk_monitor.disk{n}.percent")));
        assert_eq!(arrived(&few), (1, few.into_iter().collect()));
        let many = metrics((0..200).map(|n| format!("disk_monitor.disk{n:03}.percent")));
        let (count, all) = arrived(&many);
        assert_eq!(all.len(), 200);
        // 48 bytes each.
        assert!(count <= 11, "{count}");
    }

    #[test]
    fn a_text_travels_in_the_datagram_of_its_metric() {
        let metrics = metrics((0..40).map(|n| format!("own_monitor.plugin{n:02}.exit_code")));
        let text = |(path, _): &(String, f64)| {
            (path.clone(), format!("{path} \"says\" {}", "x".repeat(150)))
        };
        let texts: Vec<(String, String)> = metrics.iter().step_by(3).map(text).collect();
        let sample = Sample { metrics, texts };
        let mut found = Vec::new();
        for beat in beats(&sample, &first(), &further()) {
            assert!(length(&beat) <= MAX_DATAGRAM);
            assert!(beat.texts.keys().all(|path| beat.metrics.contains_key(path)));
            found.extend(beat.texts);
        }
        assert_eq!(found, sample.texts);
    }

    #[test]
    fn what_hbd_would_refuse_a_datagram_for_is_left_out() {
        let long = "x".repeat(201);
        let deep = ["a"; 17].join(".");
        for path in ["", "a..b", ".a", "a.", "a\nb", &long, &deep] {
            assert_eq!(arrived(&[(path.into(), 1.0)]).1.len(), 0, "{path}");
        }
        for value in [f64::NAN, f64::INFINITY] {
            assert_eq!(arrived(&[("a".into(), value)]).1.len(), 0);
        }
    }

    proptest! {
        #[test]
        fn every_part_fits_and_nothing_is_lost(
            paths in proptest::collection::btree_set("[a-c\"ä-]{1,3}(\\.[a-c]{1,9}){0,5}", 0..200),
        ) {
            let metrics = metrics(paths);
            let (_, all) = arrived(&metrics);
            prop_assert_eq!(all, metrics.into_iter().collect());
        }
    }
}
