//! Gives what this node accepted, and must not lose, to the leader: over a stream in Redis.
//!
//! The thread `deposit` writes what waits, all of it at once, and answers when Redis and as many replicas
//! as must have confirmed. What is not confirmed within two seconds is refused: its sender tries again.
//! What was confirmed is kept for a minute. Where another process of Redis answers by then, it may lack
//! it, and is given it again.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use log::{info, warn};
use redis::Value;

use super::connection::{Connector, MasterConnection, RedisFault};
use super::inbox_entry::{EntryBody, EntryKind, KeptDeposits};
use super::relay_listener::ClockOffset;
use crate::clock::Now;
use crate::thread::{DEFAULT_STACK, Stop, lock, spawn_critical};

/// How long a deposit waits for its confirmation.
const CONFIRM: Duration = Duration::from_secs(2);
/// How long replicas are waited for at a time.
const REPLICA_WAIT: Duration = Duration::from_millis(900);
/// With more entries in the inbox nothing is added.
const MAX_INBOX: u64 = 20_000;
/// How many deposits, and of how many bytes, wait for the thread.
const MAX_WAITING: usize = 10_000;
const MAX_WAITING_BYTES: usize = 32 << 20;
/// How many, and about how many bytes, are written at once.
const MAX_AT_ONCE: usize = 500;
const MAX_BYTES_AT_ONCE: usize = 4 << 20;
/// How often it is checked that Redis is the one that has what is kept.
const CHECK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);

/// Called with whether the leader will handle it; an error is a sentence for the sender.
pub type OnDeposited = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Where deposits go, and whose they are.
#[derive(Clone)]
pub struct DepositOptions {
    /// How Redis is reached.
    pub connector: Connector,
    /// The stream: [`super::keys::Keys::inbox`].
    pub stream: String,
    /// This node.
    pub node: String,
    /// This process of it.
    pub incarnation: String,
    /// The cluster's clock.
    pub offset: ClockOffset,
}

/// What was deposited since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepositCounts {
    /// Confirmed.
    pub confirmed: u64,
    /// Refused: they were not confirmed in time, or there was no room.
    pub refused: u64,
    /// Given once more to another process of Redis.
    pub again: u64,
}

/// Takes deposits. Cloned: all clones are the same.
#[derive(Clone)]
pub struct Deposits {
    waiting: Sender<Deposit>,
    shared: Arc<Shared>,
}

struct Shared {
    options: DepositOptions,
    number: AtomicU64,
    waiting_bytes: AtomicUsize,
    counts: Mutex<DepositCounts>,
}

/// A deposit that waits for its confirmation.
struct Deposit {
    entry: EntryBody,
    until: Instant,
    done: OnDeposited,
}

impl Deposits {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(options: DepositOptions, stop: &Stop) -> io::Result<(Deposits, JoinHandle<()>)> {
        let (waiting, queue) = bounded(MAX_WAITING);
        let shared = Arc::new(Shared {
            options,
            number: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            counts: Mutex::default(),
        });
        let depositor = Depositor {
            shared: Arc::clone(&shared),
            connection: None,
            run_id: None,
            kept: KeptDeposits::default(),
            failing: false,
        };
        let stop = stop.clone();
        let run = move || depositor.run(&queue, &stop);
        let thread = spawn_critical("deposit", DEFAULT_STACK, run)?;
        Ok((Deposits { waiting, shared }, thread))
    }

    /// Gives something to the leader. `done` is called within some seconds, on the thread `deposit`, or
    /// at once when there is no room.
    pub fn deposit(&self, kind: EntryKind, body: Vec<u8>, peer: IpAddr, done: OnDeposited) {
        let (options, now) = (&self.shared.options, Now::read().mono);
        let size = body.len();
        let number = self.shared.number.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = EntryBody {
            kind,
            uid: format!("{}:{}:{number}", options.node, options.incarnation),
            body,
            peer,
            at: (options.offset)().map(|offset| now.0.saturating_add(offset)),
            again: false,
        };
        let deposit = Deposit { entry, until: Instant::now() + CONFIRM, done };
        let before = self.shared.waiting_bytes.fetch_add(size, Ordering::AcqRel);
        let refused = if before + size > MAX_WAITING_BYTES {
            Some(deposit)
        } else {
            self.waiting.try_send(deposit).err().map(|full| full.into_inner())
        };
        if let Some(Deposit { done, .. }) = refused {
            self.shared.waiting_bytes.fetch_sub(size, Ordering::AcqRel);
            lock(&self.shared.counts).refused += 1;
            done(Err("too much waits for the cluster's Redis".into()));
        }
    }

    /// As [`Deposits::deposit`], and waits for the confirmation.
    ///
    /// # Errors
    /// A sentence: it is not confirmed, and should be sent again later.
    pub fn deposit_and_wait(
        &self,
        kind: EntryKind,
        body: Vec<u8>,
        peer: IpAddr,
    ) -> Result<(), String> {
        let (tx, rx) = bounded(1);
        let done = Box::new(move |result| {
            // Fails when it is no longer waited for.
            let _ = tx.send(result);
        });
        self.deposit(kind, body, peer, done);
        let late = || Err("the cluster's Redis did not confirm it in time".into());
        rx.recv_timeout(2 * CONFIRM).unwrap_or_else(|_| late())
    }

    /// What was deposited so far.
    pub fn counts(&self) -> DepositCounts {
        *lock(&self.shared.counts)
    }
}

/// Writes what waits.
struct Depositor {
    shared: Arc<Shared>,
    connection: Option<MasterConnection>,
    /// The process of Redis that has everything that is kept.
    run_id: Option<String>,
    kept: KeptDeposits,
    /// That nothing can be deposited was logged.
    failing: bool,
}

impl Depositor {
    fn run(mut self, queue: &Receiver<Deposit>, stop: &Stop) {
        loop {
            let check = if self.kept.any(Now::read().mono) { CHECK } else { 60 * CHECK };
            let first = select! {
                recv(queue) -> first => first.ok(),
                recv(after(check)) -> _ => None,
                recv(stop.receiver()) -> _ => {
                    self.refuse(queue.try_iter().collect(), "hbd is stopping");
                    return;
                }
            };
            match first {
                Some(first) => self.store(take_batch(first, queue), stop),
                None => self.check(),
            }
        }
    }

    /// Writes a batch, again and again until its time is over, and answers.
    fn store(&mut self, batch: Vec<Deposit>, stop: &Stop) {
        let now = Instant::now();
        let (batch, late): (Vec<Deposit>, Vec<Deposit>) =
            batch.into_iter().partition(|deposit| deposit.until > now);
        self.refuse(late, "the cluster's Redis did not confirm what came before it in time");
        let Some(until) = batch.iter().map(|deposit| deposit.until).min() else { return };
        let entries: Vec<&EntryBody> = batch.iter().map(|deposit| &deposit.entry).collect();
        let why = loop {
            match self.try_store(&entries, until) {
                Ok(()) => break None,
                Err(Refusal::Final(why)) => break Some(why),
                Err(Refusal::Now(why)) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() || stop.wait(left.min(RETRY)) {
                        break Some(why);
                    }
                }
            }
        };
        self.log(why.as_deref());
        match why {
            Some(why) => self.refuse(batch, &why),
            None => self.confirm(batch),
        }
    }

    fn try_store(&mut self, entries: &[&EntryBody], until: Instant) -> Result<(), Refusal> {
        let stream = self.shared.options.stream.clone();
        let connection = self.connected()?;
        let length: u64 = connection.ask(redis::cmd("XLEN").arg(&stream)).map_err(now)?;
        if length > MAX_INBOX {
            let why = format!("{length} reports wait for the node that leads: is there one?");
            return Err(Refusal::Final(why));
        }
        self.write(entries, until)
    }

    /// A connection to the Redis that has all that is kept.
    fn connected(&mut self) -> Result<&mut MasterConnection, Refusal> {
        if self.connection.as_ref().is_some_and(MasterConnection::is_broken) {
            self.connection = None;
        }
        if self.connection.is_none() {
            let connection = self.shared.options.connector.connect().map_err(now)?;
            let run_id = connection.run_id().to_owned();
            self.connection = Some(connection);
            if self.run_id.as_ref().is_some_and(|known| *known != run_id) {
                self.give_again()?;
            }
            self.run_id = Some(run_id);
        }
        self.connection.as_mut().ok_or_else(|| Refusal::Now("there is no connection".into()))
    }

    fn give_again(&mut self) -> Result<(), Refusal> {
        let kept = self.kept.again(Now::read().mono);
        if kept.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + CONFIRM;
        for part in kept.chunks(MAX_AT_ONCE) {
            let part: Vec<&EntryBody> = part.iter().collect();
            if let Err(why) = self.write(&part, until) {
                // The next connection begins anew: what is there twice is handled once.
                self.connection = None;
                return Err(why);
            }
        }
        info!("another Redis answers: it is given {} reports of the last minute again", kept.len());
        lock(&self.shared.counts).again += kept.len() as u64;
        Ok(())
    }

    /// Writes entries and waits for the replicas.
    fn write(&mut self, entries: &[&EntryBody], until: Instant) -> Result<(), Refusal> {
        let Shared { options, .. } = &*self.shared;
        let replicas = options.connector.required_replicas();
        let Some(connection) = &mut self.connection else {
            return Err(Refusal::Now("there is no connection".into()));
        };
        let mut commands = redis::pipe();
        for entry in entries {
            commands.cmd("XADD").arg(&options.stream).arg("*");
            for (name, value) in entry.fields() {
                commands.arg(name).arg(value);
            }
        }
        let answers = connection.ask_all(&mut commands).map_err(now)?;
        let refused = answers.into_iter().find_map(|answer: Result<Value, _>| answer.err());
        if let Some(fault) = refused {
            // A master that became a replica is left alone; the other refusals last.
            if fault.code() == "READONLY" {
                self.connection = None;
            }
            return Err(now(fault));
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = left.min(REPLICA_WAIT).max(Duration::from_millis(1));
            if connection.wait_for_replicas(replicas, wait).map_err(now)? {
                return Ok(());
            }
            if until <= Instant::now() {
                let why = format!("fewer than {replicas} replicas of Redis confirmed it in time");
                return Err(Refusal::Final(why));
            }
        }
    }

    /// Sees to it that the Redis that is the master now has what is kept.
    fn check(&mut self) {
        if !self.kept.any(Now::read().mono) {
            return;
        }
        if let Some(connection) = &mut self.connection {
            let role: Result<Vec<Value>, RedisFault> = connection.ask(&redis::cmd("ROLE"));
            let is_master = role.is_ok_and(
                |role| matches!(role.first(), Some(Value::BulkString(role)) if role == b"master"),
            );
            if is_master {
                return;
            }
            self.connection = None;
        }
        let why = match self.connected() {
            Ok(_) => None,
            Err(Refusal::Now(why) | Refusal::Final(why)) => Some(why),
        };
        self.log(why.as_deref());
    }

    fn confirm(&mut self, batch: Vec<Deposit>) {
        let at = Now::read().mono;
        lock(&self.shared.counts).confirmed += batch.len() as u64;
        for Deposit { entry, done, .. } in batch {
            self.shared.waiting_bytes.fetch_sub(entry.body.len(), Ordering::AcqRel);
            self.kept.keep(entry, at);
            done(Ok(()));
        }
    }

    fn refuse(&self, batch: Vec<Deposit>, why: &str) {
        lock(&self.shared.counts).refused += batch.len() as u64;
        for Deposit { entry, done, .. } in batch {
            self.shared.waiting_bytes.fetch_sub(entry.body.len(), Ordering::AcqRel);
            done(Err(why.to_owned()));
        }
    }

    fn log(&mut self, why: Option<&str>) {
        match (why, std::mem::replace(&mut self.failing, why.is_some())) {
            (Some(why), false) => {
                warn!("what comes in cannot be given to the node that leads: {why}");
            }
            (None, true) => info!("what comes in is given to the node that leads again"),
            _ => {}
        }
    }
}

/// Why a batch is not stored.
enum Refusal {
    /// It may be tried once more.
    Now(String),
    /// That would change nothing.
    Final(String),
}

fn now(fault: RedisFault) -> Refusal {
    Refusal::Now(fault.to_string())
}

/// What waits, as much as is written at once.
fn take_batch(first: Deposit, queue: &Receiver<Deposit>) -> Vec<Deposit> {
    let mut size = first.entry.body.len();
    let mut batch = vec![first];
    while batch.len() < MAX_AT_ONCE
        && size < MAX_BYTES_AT_ONCE
        && let Ok(next) = queue.try_recv()
    {
        size += next.entry.body.len();
        batch.push(next);
    }
    batch
}
