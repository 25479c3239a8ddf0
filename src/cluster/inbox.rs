//! The leader's side of the inbox: what other nodes accepted is handled here, each entry exactly once.
//!
//! How far the stream was handled, and what was, is stored in the transaction of the effect: the change
//! takes the entry along. After a death in between, the entry is read again, and its effect is not there.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use redis::Value;

use super::connection::{Connector, MasterConnection, RedisFault};
use super::inbox_entry::{
    EntryBody, EntryKind, HandledEntries, KEPT, before, earlier, is_entry_id,
};
use super::keys::Keys;
use super::relay_listener::ClockOffset;
use crate::clock::{Mono, Now};
use crate::store::change::{ChangeSink, INBOX_KEY, InboxEntry};
use crate::store::{Change, RawRow, Write};
use crate::thread::{DEFAULT_STACK, Stop, StopSource, lock, spawn_critical};

/// How long the thread waits in Redis for entries, and how long for its answer.
const BLOCK: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);
/// How many entries are read at once: each may have a megabyte.
const AT_ONCE: usize = 50;
/// How long it is until an entry that cannot be handled now is tried again.
const LATER: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(500);
/// How often what was handled is cut off the stream, and how often old uids go.
const TRIM: Duration = Duration::from_secs(2);
const EXPIRE: Duration = Duration::from_secs(60);
/// The most that an entry is believed to have waited.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// What another node accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxMessage {
    /// What it is.
    pub kind: EntryKind,
    /// As it came in.
    pub body: Vec<u8>,
    /// From where.
    pub peer: IpAddr,
    /// The node that accepted it.
    pub node: String,
    /// How long ago.
    pub age: Duration,
    /// To be put into the change that is its effect.
    pub entry: InboxEntry,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandledMessage {
    /// The entry is in the change that is its effect.
    Taken,
    /// It has no effect: that it was handled is to be stored alone.
    Nothing(InboxEntry),
    /// It cannot be handled now: it is given again in a moment, before those behind it.
    Later,
}

/// Handles a message, on the thread `inbox`.
pub type HandleMessage = Box<dyn FnMut(InboxMessage) -> HandledMessage + Send>;

/// What the inbox is read with.
pub struct InboxOptions {
    /// How Redis is reached.
    pub connector: Connector,
    /// The names of its keys.
    pub keys: Keys,
    /// This node.
    pub node: String,
    /// The cluster's clock.
    pub offset: ClockOffset,
    /// The rows of `Table::Meta`: where the last leader stopped.
    pub rows: Vec<RawRow>,
    /// Where changes go.
    pub sink: ChangeSink,
}

/// The inbox of the leader. Cloned: all clones are the same.
#[derive(Clone)]
pub struct Inbox {
    state: Arc<Mutex<InboxState>>,
    /// Stopped when what was there at the start is handled.
    caught_up: Stop,
}

struct InboxState {
    handled: HandledEntries,
    /// Up to where it was handled.
    cursor: String,
}

impl Inbox {
    /// Starts the thread, which goes on where the last leader stopped.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        options: InboxOptions,
        handle: HandleMessage,
        stop: &Stop,
    ) -> io::Result<(Inbox, JoinHandle<()>)> {
        let cursor = options.rows.iter().find(|(key, _)| key == INBOX_KEY);
        let cursor = cursor.and_then(|(_, value)| serde_json::from_slice(value).ok());
        let (behind, caught_up) = Stop::channel();
        let state = Arc::new(Mutex::new(InboxState {
            handled: HandledEntries::restore(&options.rows),
            cursor: cursor.filter(|id: &String| is_entry_id(id)).unwrap_or_else(|| "0-0".into()),
        }));
        let inbox = Inbox { state, caught_up };
        let reader = Reader {
            inbox: inbox.clone(),
            options,
            handle,
            connection: None,
            run_id: String::new(),
            position: String::new(),
            behind: Some((behind, None)),
            trimmed: Instant::now(),
            expired: Instant::now(),
            failing: false,
        };
        let stop = stop.clone();
        let thread = spawn_critical("inbox", DEFAULT_STACK, move || reader.run(&stop))?;
        Ok((inbox, thread))
    }

    /// Waits until what was in the inbox at the start is handled: it was accepted before what comes in
    /// now. False when that takes longer than `timeout`.
    pub fn wait_caught_up(&self, timeout: Duration) -> bool {
        self.caught_up.wait(timeout)
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        let state = lock(&self.state);
        let cursor = Write::put(crate::store::Table::Meta, INBOX_KEY, &state.cursor);
        [cursor].into_iter().chain(state.handled.every_row()).collect()
    }
}

/// Reads the stream.
struct Reader {
    inbox: Inbox,
    options: InboxOptions,
    handle: HandleMessage,
    connection: Option<MasterConnection>,
    /// The process of Redis that is read from.
    run_id: String,
    /// The last entry that was read from it.
    position: String,
    /// Until what was there at the start is handled: what is dropped then, and the last entry of that.
    behind: Option<(StopSource, Option<String>)>,
    trimmed: Instant,
    expired: Instant,
    /// That the inbox cannot be read was logged.
    failing: bool,
}

/// An entry as Redis gives it.
type RawEntry = (String, Vec<(Vec<u8>, Vec<u8>)>);

impl Reader {
    fn run(mut self, stop: &Stop) {
        while !stop.stopped() {
            match self.read() {
                Ok(entries) => {
                    if std::mem::take(&mut self.failing) {
                        info!("what other nodes accepted can be read again");
                    }
                    for (id, fields) in entries {
                        if !self.take(&id, &fields, stop) {
                            return;
                        }
                        self.position = id;
                    }
                    self.note_caught_up();
                }
                Err(fault) => {
                    self.connection = None;
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!("what other nodes accepted cannot be read: {fault}");
                    }
                    if stop.wait(RETRY) {
                        return;
                    }
                }
            }
            self.expire();
        }
    }

    fn read(&mut self) -> Result<Vec<RawEntry>, RedisFault> {
        if self.connection.is_none() {
            let mut connection = self.options.connector.connect()?;
            connection.set_timeout(ANSWER)?;
            if self.run_id != connection.run_id() {
                connection.run_id().clone_into(&mut self.run_id);
                // Entries that this Redis took may have earlier places than those of the last one; what
                // was handled is known by its uid.
                self.position = before(&lock(&self.inbox.state).cursor, KEPT);
            }
            if let Some((_, last)) = &mut self.behind {
                *last = Some(last_entry(&mut connection, &self.options.keys)?);
            }
            self.connection = Some(connection);
            self.note_caught_up();
        }
        let stream = self.options.keys.inbox();
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        if self.trimmed.elapsed() >= TRIM {
            self.trimmed = Instant::now();
            trim(connection, &self.options.keys, &self.position)?;
        }
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&stream).arg(&self.position);
        let answer: Value = connection.ask(&read)?;
        entries_of(answer).ok_or_else(|| connection.unusable("its stream cannot be read"))
    }

    /// Tells those that wait for it when what was there at the start is handled.
    fn note_caught_up(&mut self) {
        let position = &self.position;
        let is_reached = |last: &String| earlier(last, position) == last;
        if self.behind.as_ref().is_some_and(|(_, last)| last.as_ref().is_some_and(is_reached)) {
            self.behind = None;
        }
    }

    /// Handles an entry; false when it is time to stop.
    fn take(&mut self, id: &str, fields: &[(Vec<u8>, Vec<u8>)], stop: &Stop) -> bool {
        let now = Now::read();
        let place = |uid: String, again| InboxEntry { id: id.to_owned(), uid, again };
        let body = match EntryBody::read(fields) {
            Ok(body) => body,
            Err(what) => {
                warn!("an entry of the inbox is none of ours, its {what} is wrong: ignored");
                self.store_alone(place(String::new(), false));
                return true;
            }
        };
        if lock(&self.inbox.state).handled.knows(&body.uid) {
            debug!("{} was handled before", body.uid);
            self.store_alone(place(body.uid, false));
            return true;
        }
        let node = body.node().to_owned();
        let message = InboxMessage {
            kind: body.kind,
            peer: body.peer,
            node,
            age: age(body.at, (self.options.offset)(), now.mono),
            entry: place(body.uid, body.again),
            body: body.body,
        };
        loop {
            match (self.handle)(message.clone()) {
                HandledMessage::Taken => break self.note(&message.entry),
                HandledMessage::Nothing(entry) => break self.store_alone(entry),
                HandledMessage::Later if stop.wait(LATER) => return false,
                HandledMessage::Later => {}
            }
        }
        true
    }

    /// Stores that an entry was handled that has no effect.
    fn store_alone(&self, entry: InboxEntry) {
        self.note(&entry);
        (self.options.sink)(Change { entry: Some(entry), ..Change::default() });
    }

    fn note(&self, entry: &InboxEntry) {
        let mut state = lock(&self.inbox.state);
        state.cursor.clone_from(&entry.id);
        if !entry.uid.is_empty() {
            state.handled.insert(&entry.uid, Now::read().wall);
        }
    }

    fn expire(&mut self) {
        if self.expired.elapsed() < EXPIRE {
            return;
        }
        self.expired = Instant::now();
        let writes = lock(&self.inbox.state).handled.expire(Now::read().wall);
        if !writes.is_empty() {
            (self.options.sink)(Change { writes, ..Change::default() });
        }
    }
}

/// How long ago an entry was accepted; nothing while a clock is not known.
fn age(at: Option<i64>, offset: Option<i64>, now: Mono) -> Duration {
    let Some((at, offset)) = at.zip(offset) else { return Duration::ZERO };
    now.since(Mono(at.saturating_sub(offset))).min(MAX_AGE)
}

/// The place of the last entry of the stream; before all others where there is none.
fn last_entry(connection: &mut MasterConnection, keys: &Keys) -> Result<String, RedisFault> {
    let mut read = redis::cmd("XREVRANGE");
    read.arg(keys.inbox()).arg("+").arg("-").arg("COUNT").arg(1);
    let answer: Value = connection.ask(&read)?;
    let Value::Array(entries) = answer else { return Ok("0-0".into()) };
    let last = entries.into_iter().next().and_then(entry_of);
    Ok(last.map_or_else(|| "0-0".into(), |(id, _)| id))
}

/// Cuts off what is stored as handled, as far as it was read from this Redis.
fn trim(connection: &mut MasterConnection, keys: &Keys, read: &str) -> Result<(), RedisFault> {
    let row: Option<Vec<u8>> =
        connection.ask(redis::cmd("HGET").arg(keys.table("meta")).arg(INBOX_KEY))?;
    let stored = row.and_then(|row| serde_json::from_slice::<String>(&row).ok());
    let Some(stored) = stored.filter(|id| is_entry_id(id)) else { return Ok(()) };
    let upto = earlier(&stored, read);
    let trim = redis::cmd("XTRIM").arg(keys.inbox()).arg("MINID").arg(upto).to_owned();
    connection.ask::<u64>(&trim).map(drop)
}

/// The entries in the answer to XREAD of one stream; none when it is no such answer.
fn entries_of(answer: Value) -> Option<Vec<RawEntry>> {
    let mut streams = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    let Some(Value::Array(mut stream)) = streams.pop() else { return None };
    let Some(Value::Array(entries)) = stream.pop() else { return None };
    entries.into_iter().map(entry_of).collect()
}

fn entry_of(entry: Value) -> Option<RawEntry> {
    let Value::Array(entry) = entry else { return None };
    let mut parts = entry.into_iter();
    let id = String::from_utf8(bytes_of(parts.next()?)?).ok().filter(|id| is_entry_id(id))?;
    // An entry that was removed meanwhile has no fields.
    let fields = match parts.next()? {
        Value::Array(fields) => fields,
        _ => Vec::new(),
    };
    let mut fields = fields.into_iter();
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        pairs.push((bytes_of(name)?, bytes_of(value)?));
    }
    Some((id, pairs))
}

fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn an_answer_of_redis_is_read_strictly_and_never_a_panic() {
        assert_eq!(entries_of(Value::Nil), Some(Vec::new()));
        let entry = |id: &str, fields| Value::Array(vec![text(id), fields]);
        let answer = |entries| {
            Value::Array(vec![Value::Array(vec![text("{hb:hbd}:in"), Value::Array(entries)])])
        };
        let fields = Value::Array(vec![text("k"), text("alert"), text("u")]);
        let read = entries_of(answer(vec![entry("17-0", fields), entry("18-0", Value::Nil)]));
        let pair = (b"k".to_vec(), b"alert".to_vec());
        assert_eq!(read, Some(vec![("17-0".into(), vec![pair]), ("18-0".into(), vec![])]));
        for odd in [
            Value::Okay,
            Value::Array(vec![]),
            Value::Array(vec![Value::Nil]),
            answer(vec![Value::Nil]),
            answer(vec![Value::Array(vec![])]),
            answer(vec![entry("$", Value::Nil)]),
            answer(vec![entry("1-1", Value::Array(vec![Value::Nil, Value::Nil]))]),
        ] {
            assert_eq!(entries_of(odd.clone()), None, "{odd:?}");
        }
    }

    #[test]
    fn the_age_of_an_entry_is_bounded_and_none_while_clocks_are_not_compared() {
        let now = Mono(100_000);
        let seconds = Duration::from_secs;
        assert_eq!(age(Some(1_000_090_000), Some(1_000_000_000), now), seconds(10));
        assert_eq!(age(Some(2_000_000_000), Some(1_000_000_000), now), seconds(0));
        assert_eq!(age(Some(i64::MIN), Some(1_000_000_000), now), MAX_AGE);
        assert_eq!(age(None, Some(0), now), seconds(0));
        assert_eq!(age(Some(0), None, now), seconds(0));
    }
}
