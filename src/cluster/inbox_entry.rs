//! The entries of the inbox: their fields, which of them were handled, and which this node deposited
//! lately. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::{Mono, Wall};
use crate::store::change::HANDLED_PREFIX;
use crate::store::{RawRow, Table, Write};

/// How long a uid is remembered after its entry was handled.
pub const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// The most uids that are remembered; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 100_000;
/// How long a deposit is kept, to be given again to a Redis that has forgotten it.
pub const KEPT: Duration = Duration::from_secs(60);
/// The most bytes that are kept so.
const MAX_KEPT: usize = 16 << 20;
/// What a kept deposit takes beside its body.
const KEPT_BYTES: usize = 160;
/// The longest body of an entry that is read.
const MAX_BODY: usize = 16 << 20;
/// The longest uid: a node, a process, a number.
const MAX_UID: usize = 256;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The webhook of an Alertmanager.
    Alert,
    /// A datagram that says more than that its host lives: an event, or a new boot.
    Event,
    /// The same over HTTP.
    HttpEvent,
    /// A plain heartbeat over HTTP.
    HttpBeat,
}

impl EntryKind {
    const ALL: [EntryKind; 4] =
        [EntryKind::Alert, EntryKind::Event, EntryKind::HttpEvent, EntryKind::HttpBeat];

    /// As it is in the stream.
    pub fn name(self) -> &'static str {
        match self {
            EntryKind::Alert => "alert",
            EntryKind::Event => "event",
            EntryKind::HttpEvent => "http-event",
            EntryKind::HttpBeat => "http-beat",
        }
    }
}

/// What a node accepted for the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBody {
    /// What it is.
    pub kind: EntryKind,
    /// `NODE:INCARNATION:NUMBER`.
    pub uid: String,
    /// As it came in.
    pub body: Vec<u8>,
    /// From where.
    pub peer: IpAddr,
    /// When, by the cluster's clock in milliseconds; none when that was not known.
    pub at: Option<i64>,
    /// It was deposited before, and may have been handled.
    pub again: bool,
}

impl EntryBody {
    /// The fields in the stream, a name and a value in turn.
    pub fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut fields = vec![
            ("k", self.kind.name().into()),
            ("u", self.uid.clone().into_bytes()),
            ("b", self.body.clone()),
            ("p", self.peer.to_string().into_bytes()),
        ];
        fields.extend(self.at.map(|at| ("at", at.to_string().into_bytes())));
        fields.extend(self.again.then(|| ("again", b"1".to_vec())));
        fields
    }

    /// Reads the fields. Those of a later version are ignored.
    ///
    /// # Errors
    /// What is wrong with them: a word.
    pub fn read(fields: &[(Vec<u8>, Vec<u8>)]) -> Result<EntryBody, &'static str> {
        let field = |name: &str| {
            let found = fields.iter().find(|(key, _)| key == name.as_bytes());
            found.map(|(_, value)| value.as_slice())
        };
        let text = |name| field(name).and_then(|value| std::str::from_utf8(value).ok());
        let kind = text("k").ok_or("kind")?;
        let body = field("b").filter(|body| body.len() <= MAX_BODY).ok_or("body")?;
        Ok(EntryBody {
            kind: EntryKind::ALL.into_iter().find(|one| one.name() == kind).ok_or("kind")?,
            uid: text("u").filter(|uid| is_uid(uid)).ok_or("uid")?.to_owned(),
            body: body.to_vec(),
            peer: text("p").and_then(|peer| peer.parse().ok()).ok_or("peer")?,
            at: text("at").map(|at| at.parse().map_err(|_| "time")).transpose()?,
            again: field("again") == Some(b"1"),
        })
    }

    /// The node that accepted it.
    pub fn node(&self) -> &str {
        node_of(&self.uid)
    }
}

fn node_of(uid: &str) -> &str {
    uid.split(':').next().unwrap_or_default()
}

fn is_uid(uid: &str) -> bool {
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    (1..=MAX_UID).contains(&uid.len()) && uid.bytes().all(is_ours)
}

/// Whether a text is the place of an entry in a stream: `MILLISECONDS-NUMBER`.
pub fn is_entry_id(id: &str) -> bool {
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    id.split_once('-').is_some_and(|(millis, number)| is_number(millis) && is_number(number))
}

/// The place from which on the stream is read again, `by` before an entry: a Redis that was made master
/// and lacks the last entries gives the next ones its own time.
pub fn before(id: &str, by: Duration) -> String {
    let millis: u64 = id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    format!("{}-0", millis.saturating_sub(by))
}

/// The earlier of two places.
pub fn earlier<'a>(one: &'a str, other: &'a str) -> &'a str {
    let place = |id: &str| -> (u64, u64) {
        let (millis, number) = id.split_once('-').unwrap_or((id, "0"));
        (millis.parse().unwrap_or(0), number.parse().unwrap_or(0))
    };
    if place(one) <= place(other) { one } else { other }
}

/// Which entries were handled lately.
#[derive(Clone, Debug, Default)]
pub struct HandledEntries {
    at: BTreeMap<String, Wall>,
}

impl HandledEntries {
    /// As the rows of [`Table::Meta`] hold them; what cannot be read was not handled.
    pub fn restore(rows: &[RawRow]) -> HandledEntries {
        let mut handled = HandledEntries::default();
        for (key, value) in rows {
            if let Some(uid) = key.strip_prefix(HANDLED_PREFIX)
                && let Ok(at) = serde_json::from_slice(value)
            {
                handled.at.insert(uid.to_owned(), at);
            }
        }
        handled
    }

    /// Whether it was handled.
    pub fn knows(&self, uid: &str) -> bool {
        self.at.contains_key(uid)
    }

    /// It is handled.
    pub fn insert(&mut self, uid: &str, now: Wall) {
        self.at.insert(uid.to_owned(), now);
    }

    /// Forgets those that were handled long ago; the rows that go.
    pub fn expire(&mut self, now: Wall) -> Vec<Write> {
        let mut old: Vec<(Wall, String)> = Vec::new();
        for (uid, at) in &self.at {
            // A time in the future was read from a wrong clock.
            if now.since(*at) >= REMEMBERED || *at > now + REMEMBERED {
                old.push((*at, uid.clone()));
            }
        }
        let too_many = (self.at.len() - old.len()).saturating_sub(MAX_REMEMBERED);
        if too_many > 0 {
            let mut all: Vec<(Wall, String)> =
                self.at.iter().map(|(uid, at)| (*at, uid.clone())).collect();
            all.sort_unstable();
            let count = old.len() + too_many;
            old = all.into_iter().take(count).collect();
        }
        let remove = |(_, uid): (Wall, String)| {
            self.at.remove(&uid);
            Write::remove(Table::Meta, format!("{HANDLED_PREFIX}{uid}"))
        };
        old.into_iter().map(remove).collect()
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        let row = |(uid, at): (&String, &Wall)| {
            Write::put(Table::Meta, format!("{HANDLED_PREFIX}{uid}"), at)
        };
        self.at.iter().map(row).collect()
    }
}

/// What this node deposited within the last minute.
#[derive(Clone, Debug, Default)]
pub struct KeptDeposits {
    kept: VecDeque<(Mono, EntryBody)>,
    bytes: usize,
}

impl KeptDeposits {
    /// Keeps a deposit that Redis has confirmed; of too many the oldest go.
    pub fn keep(&mut self, entry: EntryBody, now: Mono) {
        self.bytes += entry.body.len() + KEPT_BYTES;
        self.kept.push_back((now, entry));
        while self.bytes > MAX_KEPT {
            self.drop_first();
        }
    }

    /// Those that are to be given to a Redis that has forgotten them, marked so.
    pub fn again(&mut self, now: Mono) -> Vec<EntryBody> {
        self.expire(now);
        self.kept.iter().map(|(_, entry)| EntryBody { again: true, ..entry.clone() }).collect()
    }

    /// Whether any are kept.
    pub fn any(&mut self, now: Mono) -> bool {
        self.expire(now);
        !self.kept.is_empty()
    }

    fn expire(&mut self, now: Mono) {
        while self.kept.front().is_some_and(|(at, _)| now.since(*at) > KEPT) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, entry)) = self.kept.pop_front() {
            self.bytes -= entry.body.len() + KEPT_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(uid: &str, body: &[u8]) -> EntryBody {
        EntryBody {
            kind: EntryKind::Event,
            uid: uid.into(),
            body: body.to_vec(),
            peer: [192, 0, 2, 7].into(),
            at: Some(1_700_000_000_000),
            again: false,
        }
    }

    fn read(entry: &EntryBody) -> Result<EntryBody, &'static str> {
        let fields = entry.fields();
        let fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
        EntryBody::read(&fields)
    }

    proptest! {
        #[test]
        fn an_entry_comes_out_as_it_went_in(
            kind in prop::sample::select(EntryKind::ALL.to_vec()),
            body in prop::collection::vec(any::<u8>(), 0..300),
            at in prop::option::of(any::<i64>()),
            again in any::<bool>(),
        ) {
            let whole = EntryBody { kind, body, at, again, ..entry("hb1:7f3a:12", b"") };
            prop_assert_eq!(read(&whole), Ok(whole));
        }

        #[test]
        fn no_fields_of_a_stranger_are_a_panic(
            fields in prop::collection::vec(
                ("(k|u|b|p|at|again|x)", prop::collection::vec(any::<u8>(), 0..40)), 0..9),
        ) {
            let fields: Vec<_> =
                fields.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            let _ = EntryBody::read(&fields);
        }
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_named() {
        let whole = entry("hb1:7f3a:12", b"{}");
        assert_eq!(whole.node(), "hb1");
        for uid in ["", "a\nb", &"x".repeat(257), "../u"] {
            assert_eq!(read(&entry(uid, b"")), Err("uid"), "{uid}");
        }
        let fields = |name: &str, value: &str| -> Vec<_> {
            let changed = whole.fields().into_iter().map(|(key, old)| {
                (key.as_bytes().to_vec(), if key == name { value.into() } else { old })
            });
            changed.collect()
        };
        for (name, value, what) in
            [("k", "datagram", "kind"), ("p", "somewhere", "peer"), ("at", "yesterday", "time")]
        {
            assert_eq!(EntryBody::read(&fields(name, value)), Err(what));
        }
        assert_eq!(EntryBody::read(&[]), Err("kind"));
    }

    #[test]
    fn places_in_the_stream_are_compared_as_numbers() {
        assert_eq!(earlier("9-0", "10-0"), "9-0");
        assert_eq!(earlier("10-11", "10-9"), "10-9");
        assert_eq!(before("1700000000000-5", Duration::from_secs(60)), "1699999940000-0");
        assert_eq!(before("5-1", Duration::from_secs(60)), "0-0");
        assert!(is_entry_id("1700000000000-0") && !is_entry_id("17-") && !is_entry_id("$"));
    }

    #[test]
    fn what_was_handled_is_known_for_ten_minutes() {
        let mut handled = HandledEntries::default();
        handled.insert("hb1:a:1", Wall(1_000));
        handled.insert("hb1:a:2", Wall(2_000));
        let rows: Vec<RawRow> =
            handled.every_row().into_iter().map(|row| (row.key, row.value.unwrap())).collect();
        let mut handled = HandledEntries::restore(&rows);
        assert!(handled.knows("hb1:a:1") && !handled.knows("hb1:a:3"));
        let removed = handled.expire(Wall(1_000) + REMEMBERED);
        assert_eq!(removed, [Write::remove(Table::Meta, "u/hb1:a:1")]);
        assert!(!handled.knows("hb1:a:1") && handled.knows("hb1:a:2"));
    }

    #[test]
    fn of_too_many_that_were_handled_the_oldest_are_forgotten() {
        let mut handled = HandledEntries::default();
        for number in 0..MAX_REMEMBERED as i64 + 3 {
            handled.insert(&format!("hb1:a:{number}"), Wall(number));
        }
        assert_eq!(handled.expire(Wall(5)).len(), 3);
        assert!(!handled.knows("hb1:a:2") && handled.knows("hb1:a:3"));
    }

    #[test]
    fn deposits_are_kept_for_a_minute_and_within_bounds() {
        let mut kept = KeptDeposits::default();
        kept.keep(entry("hb1:a:1", b"one"), Mono(0));
        kept.keep(entry("hb1:a:2", b"two"), Mono(30_000));
        let again = kept.again(Mono(60_001));
        assert_eq!(again, [EntryBody { again: true, ..entry("hb1:a:2", b"two") }]);
        let large = vec![0; MAX_KEPT / 4];
        for _ in 0..9 {
            kept.keep(entry("hb1:a:3", &large), Mono(60_001));
        }
        assert_eq!(kept.again(Mono(60_001)).len(), 3);
        assert!(!kept.any(Mono(200_000)));
        assert_eq!(kept.bytes, 0);
    }
}
