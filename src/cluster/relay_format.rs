//! The format of what the nodes of a cluster publish to each other: batches of heartbeats. Pure.
//!
//! Numbers are big-endian, texts begin with their length in one byte:
//!
//! ```text
//! version u8 = 1 | kind u8 | node | incarnation | number u64 | cluster time i64, ms | body
//! kind 0, beats:      count u16, then each: ms after the cluster time u32 | 4 or 6 u8 | address |
//!                     length u16 | datagram
//! kind 1, last heard: round u32 | part u16 | parts u16 | began u32, ms before the cluster time |
//!                     count u16, then each: age u32, ms | signed i64, microseconds | host | connection
//! ```
//!
//! What is decoded comes from Redis, and so from whoever may write there: nothing of it is believed
//! before its bounds are checked.

use std::net::IpAddr;

const VERSION: u8 = 1;
const BEATS: u8 = 0;
const LAST_HEARD: u8 = 1;
/// The cluster time of a node that does not know it yet.
const NO_TIME: i64 = i64::MIN;

/// A batch is published when it has this many bytes.
pub const FULL_BATCH: usize = 256 << 10;
/// The longest batch that is read: a part of a round, of hosts that have the longest names and as many
/// connections as they may.
pub const MAX_BATCH: usize = (1 << 20) + 1024;
/// The longest datagram in a batch: a signed one, with room for a later version.
pub const MAX_DATAGRAM: usize = 16 << 10;
/// The most entries of a batch.
pub const MAX_ENTRIES: u16 = u16::MAX;
/// The bytes of the shortest entry, by which a count is checked before memory is taken for it.
const SHORTEST_BEAT: usize = 4 + 1 + 4 + 2 + 1;
const SHORTEST_LAST_HEARD: usize = 4 + 8 + 2 + 2;

/// Who publishes a batch, which it is, and when it was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead<'a> {
    /// The node.
    pub node: &'a str,
    /// Which of its processes.
    pub incarnation: &'a str,
    /// Counts from 1 in each process: a number that is missing is a batch that was lost.
    pub number: u64,
    /// In the cluster's clock, milliseconds; none when the node does not know it yet.
    pub at: Option<i64>,
}

/// A batch as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayBatch<'a> {
    /// Whose it is.
    pub head: BatchHead<'a>,
    /// What is in it.
    pub body: BatchBody<'a>,
}

/// What is in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchBody<'a> {
    /// Datagrams that the node received; none when it only says that it lives.
    Beats(Vec<BatchBeat<'a>>),
    /// A part of a round in which the leader says when it heard each connection last.
    LastHeard(BatchPart, Vec<BatchConnection<'a>>),
}

/// Which part of which round it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPart {
    /// Counts the rounds of a process.
    pub round: u32,
    /// From 0.
    pub part: u16,
    /// How many the round has.
    pub parts: u16,
    /// How long before the batch the round was begun, in milliseconds.
    pub began: u32,
}

/// A datagram in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBeat<'a> {
    /// How long after the batch was begun it was received, in milliseconds.
    pub after: u32,
    /// Who sent it.
    pub peer: IpAddr,
    /// The datagram.
    pub datagram: &'a [u8],
}

/// When a connection was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConnection<'a> {
    /// How long before the batch was begun, in milliseconds; at most 49 days.
    pub age: u32,
    /// The time in the last signed datagram, microseconds since 1970; 0 without one.
    pub signed: i64,
    /// The host.
    pub host: &'a str,
    /// Its connection.
    pub connection: &'a str,
}

/// The entries of a batch that is being collected.
#[derive(Clone, Debug, Default)]
pub struct BatchEntries {
    bytes: Vec<u8>,
    count: u16,
}

impl BatchEntries {
    /// Adds a datagram; false when it is empty or too long to be relayed.
    pub fn add_beat(&mut self, beat: BatchBeat) -> bool {
        let length = beat.datagram.len();
        if length == 0 || length > MAX_DATAGRAM {
            return false;
        }
        self.bytes.extend(beat.after.to_be_bytes());
        match beat.peer {
            IpAddr::V4(address) => {
                self.bytes.push(4);
                self.bytes.extend(address.octets());
            }
            IpAddr::V6(address) => {
                self.bytes.push(6);
                self.bytes.extend(address.octets());
            }
        }
        self.bytes.extend((length as u16).to_be_bytes());
        self.bytes.extend(beat.datagram);
        self.count += 1;
        true
    }

    /// Adds a connection; false when a name of it is empty or too long.
    pub fn add_connection(&mut self, heard: BatchConnection) -> bool {
        let is_name = |text: &str| (1..=255).contains(&text.len());
        if !is_name(heard.host) || !is_name(heard.connection) {
            return false;
        }
        self.bytes.extend(heard.age.to_be_bytes());
        self.bytes.extend(heard.signed.to_be_bytes());
        put_text(&mut self.bytes, heard.host);
        put_text(&mut self.bytes, heard.connection);
        self.count += 1;
        true
    }

    /// Whether it should be published now.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BATCH || self.count == MAX_ENTRIES
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many entries it has.
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// How many bytes they take.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The batch of these datagrams.
    pub fn encode_beats(&self, head: BatchHead) -> Vec<u8> {
        self.encode(head, BEATS, None)
    }

    /// The part of a round with these connections.
    pub fn encode_last_heard(&self, head: BatchHead, part: BatchPart) -> Vec<u8> {
        self.encode(head, LAST_HEARD, Some(part))
    }

    fn encode(&self, head: BatchHead, kind: u8, part: Option<BatchPart>) -> Vec<u8> {
        let names = head.node.len() + head.incarnation.len();
        let mut bytes = Vec::with_capacity(self.bytes.len() + names + 32);
        bytes.extend([VERSION, kind]);
        put_text(&mut bytes, head.node);
        put_text(&mut bytes, head.incarnation);
        bytes.extend(head.number.to_be_bytes());
        bytes.extend(head.at.unwrap_or(NO_TIME).to_be_bytes());
        if let Some(BatchPart { round, part, parts, began }) = part {
            bytes.extend(round.to_be_bytes());
            bytes.extend(part.to_be_bytes());
            bytes.extend(parts.to_be_bytes());
            bytes.extend(began.to_be_bytes());
        }
        bytes.extend(self.count.to_be_bytes());
        bytes.extend(&self.bytes);
        bytes
    }
}

/// Names longer than 255 bytes are not made: those of nodes and processes are checked where they come
/// from.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let length = text.len().min(255);
    bytes.push(length as u8);
    bytes.extend(&text.as_bytes()[..length]);
}

/// Reads a batch; none when it is not one, to the last byte.
pub fn decode(bytes: &[u8]) -> Option<RelayBatch<'_>> {
    if bytes.len() > MAX_BATCH {
        return None;
    }
    let mut rest = bytes;
    let rest = &mut rest;
    if take_u8(rest)? != VERSION {
        return None;
    }
    let kind = take_u8(rest)?;
    let (node, incarnation) = (take_name(rest)?, take_name(rest)?);
    let number = u64::from_be_bytes(take_array(rest)?);
    let at = Some(i64::from_be_bytes(take_array(rest)?)).filter(|at| *at != NO_TIME);
    let body = match kind {
        BEATS => BatchBody::Beats(take_all(rest, SHORTEST_BEAT, take_beat)?),
        LAST_HEARD => {
            let part = BatchPart {
                round: u32::from_be_bytes(take_array(rest)?),
                part: u16::from_be_bytes(take_array(rest)?),
                parts: u16::from_be_bytes(take_array(rest)?),
                began: u32::from_be_bytes(take_array(rest)?),
            };
            if part.part >= part.parts {
                return None;
            }
            BatchBody::LastHeard(part, take_all(rest, SHORTEST_LAST_HEARD, take_connection)?)
        }
        _ => return None,
    };
    let head = BatchHead { node, incarnation, number, at };
    rest.is_empty().then_some(RelayBatch { head, body })
}

/// A count, and so many entries of at least `shortest` bytes.
fn take_all<'a, T>(
    rest: &mut &'a [u8],
    shortest: usize,
    take: fn(&mut &'a [u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::from(u16::from_be_bytes(take_array(rest)?));
    if count * shortest > rest.len() {
        return None;
    }
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(take(rest)?);
    }
    Some(all)
}

fn take_beat<'a>(rest: &mut &'a [u8]) -> Option<BatchBeat<'a>> {
    let after = u32::from_be_bytes(take_array(rest)?);
    let peer = match take_u8(rest)? {
        4 => IpAddr::from(take_array::<4>(rest)?),
        6 => IpAddr::from(take_array::<16>(rest)?),
        _ => return None,
    };
    let length = usize::from(u16::from_be_bytes(take_array(rest)?));
    if length == 0 || length > MAX_DATAGRAM {
        return None;
    }
    Some(BatchBeat { after, peer, datagram: take_bytes(rest, length)? })
}

fn take_connection<'a>(rest: &mut &'a [u8]) -> Option<BatchConnection<'a>> {
    let age = u32::from_be_bytes(take_array(rest)?);
    let signed = i64::from_be_bytes(take_array(rest)?);
    Some(BatchConnection { age, signed, host: take_name(rest)?, connection: take_name(rest)? })
}

/// A name as nodes, hosts and connections have one.
fn take_name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(take_u8(rest)?);
    let name = std::str::from_utf8(take_bytes(rest, length)?).ok()?;
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (!name.is_empty() && name.bytes().all(is_ours)).then_some(name)
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_u8(rest: &mut &[u8]) -> Option<u8> {
    take_bytes(rest, 1).map(|one| one[0])
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take_bytes(rest, N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "[A-Za-z0-9._-]{1,40}";

    fn head() -> BatchHead<'static> {
        BatchHead { node: "hb1", incarnation: "7f3a", number: 7, at: Some(1_700_000_000_000) }
    }

    fn peer() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from)
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            (node, incarnation) in (NAME, NAME),
            number in any::<u64>(),
            at in proptest::option::of(-1_i64..i64::MAX),
            beats in proptest::collection::vec(
                (any::<u32>(), peer(), proptest::collection::vec(any::<u8>(), 1..900)), 0..40),
        ) {
            let head = BatchHead { node: &node, incarnation: &incarnation, number, at };
            let beats: Vec<_> = beats
                .iter()
                .map(|(after, peer, datagram)| BatchBeat { after: *after, peer: *peer, datagram })
                .collect();
            let mut entries = BatchEntries::default();
            for beat in &beats {
                prop_assert!(entries.add_beat(*beat));
            }
            let bytes = entries.encode_beats(head);
            prop_assert_eq!(decode(&bytes), Some(RelayBatch { head, body: BatchBody::Beats(beats) }));
            // Cut off anywhere, and with a byte more, it is no batch.
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(decode(&longer), None);
        }

        #[test]
        fn a_part_of_a_round_is_decoded(
            connections in proptest::collection::vec(
                (any::<u32>(), any::<i64>(), NAME, NAME), 0..40),
            (round, began) in any::<(u32, u32)>(),
            (part, more) in (0..30_000_u16, 1..30_000_u16),
        ) {
            let connections: Vec<_> = connections
                .iter()
                .map(|(age, signed, host, connection)| {
                    BatchConnection { age: *age, signed: *signed, host, connection }
                })
                .collect();
            let mut entries = BatchEntries::default();
            for heard in &connections {
                prop_assert!(entries.add_connection(*heard));
            }
            let part = BatchPart { round, part, parts: part + more, began };
            let bytes = entries.encode_last_heard(head(), part);
            let body = BatchBody::LastHeard(part, connections);
            prop_assert_eq!(decode(&bytes), Some(RelayBatch { head: head(), body }));
        }

        #[test]
        fn no_bytes_of_a_stranger_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_batch_with_a_wrong_byte_is_a_panic(at in 0_usize..80, byte in any::<u8>()) {
            let mut entries = BatchEntries::default();
            let datagram = br#"{"host":"web1"}"#;
            entries.add_beat(BatchBeat { after: 3, peer: [127, 0, 0, 1].into(), datagram });
            let mut bytes = entries.encode_beats(head());
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_count_that_its_bytes_cannot_hold_takes_no_memory() {
        let mut bytes = BatchEntries::default().encode_beats(head());
        let count = bytes.len() - 2;
        bytes[count..].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(decode(&bytes), None);
        assert_eq!(decode(&vec![VERSION; MAX_BATCH + 1]), None, "however long it is");
    }

    #[test]
    fn what_no_node_would_send_is_no_batch() {
        let whole = BatchEntries::default().encode_beats(head());
        assert!(decode(&whole).is_some());
        for (at, byte, why) in [
            (0, 2, "another version"),
            (1, 2, "another kind"),
            (2, 0, "a node without a name"),
            (3, b'\n', "a name that would break a log line"),
            (3, 0xff, "a name that is no text"),
        ] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            assert_eq!(decode(&bytes), None, "{why}");
        }
        let mut entries = BatchEntries::default();
        let peer = [127, 0, 0, 1].into();
        assert!(!entries.add_beat(BatchBeat { after: 0, peer, datagram: &[] }));
        assert!(!entries.add_beat(BatchBeat { after: 0, peer, datagram: &[0; MAX_DATAGRAM + 1] }));
        let unnamed = BatchConnection { age: 0, signed: 0, host: "", connection: "ipv4" };
        assert!(!entries.add_connection(unnamed));
        assert!(entries.is_empty());
    }

    #[test]
    fn a_part_that_its_round_does_not_have_is_no_batch() {
        let part = BatchPart { round: 1, part: 3, parts: 3, began: 0 };
        assert_eq!(decode(&BatchEntries::default().encode_last_heard(head(), part)), None);
    }

    #[test]
    fn a_full_batch_and_the_entry_that_filled_it_can_be_read() {
        let mut entries = BatchEntries::default();
        let datagram = [b'x'; MAX_DATAGRAM];
        while !entries.is_full() {
            entries.add_beat(BatchBeat { after: 0, peer: [0; 16].into(), datagram: &datagram });
        }
        assert!(decode(&entries.encode_beats(head())).is_some());
    }
}
