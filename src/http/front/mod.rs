//! The front: it owns the TCP port, so that tiny_http never meets the network.
//!
//! Each connection has a slot; the number of slots bounds them, and the threads. What is forwarded
//! is one whole, well-formed request, sent to tiny_http over a Unix socket.

use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};

pub mod backend;
mod body;
pub mod certificate;
pub mod exchange;
mod idle;
pub mod limits;
pub mod request;
mod slots;
mod stream;
pub mod upstream;
mod workers;

use self::exchange::{ExchangeContext, handle_connection};
use self::idle::{IdleSet, Ready};
use self::limits::{IDLE_TIMEOUT, LISTEN_BACKLOG, MAX_WORKERS, SLOTS, WORKER_IDLE_TIMEOUT};
use self::slots::Slots;
use self::stream::is_reserved;
use self::workers::{Worker, WorkerPool};
use crate::thread::{Stop, lock, spawn_critical};

const STACK: usize = 128 * 1024;
/// After an error of `accept` (there are no descriptors left, mostly).
const PAUSE: Duration = Duration::from_millis(50);
/// How long a listener that is replaced finishes the handshakes that have begun there.
const HANDOVER: Duration = Duration::from_millis(200);
/// Between two log lines about connections that were evicted, or not accepted.
const EVICTION_LOG_PAUSE: Duration = Duration::from_secs(60);

/// The front while it is open.
pub struct Front {
    shared: Arc<Shared>,
}

/// What the workers share.
struct Shared {
    idle: IdleSet,
    /// The token of the listener in use.
    listener: AtomicU64,
    slots: Slots,
    context: ExchangeContext,
    workers: Arc<WorkerPool>,
    stop: Stop,
    /// When it was logged last that `accept` gave an error.
    accept_failed: Mutex<Option<Instant>>,
    /// No worker could be started when one was needed, and none since.
    growth_fails: AtomicBool,
    eviction_log: Mutex<EvictionLog>,
}

impl Front {
    /// Opens: from now on the listener's connections are served.
    ///
    /// # Errors
    /// When the listener cannot be used, or no thread be started.
    pub fn open(listener: TcpListener, context: ExchangeContext, stop: Stop) -> io::Result<Front> {
        prepare(&listener)?;
        let idle = IdleSet::new()?;
        let listener = AtomicU64::new(idle.add_listener(listener)?);
        let shared = Arc::new(Shared {
            idle,
            listener,
            slots: Slots::new(SLOTS),
            context,
            workers: Arc::default(),
            stop,
            accept_failed: Mutex::default(),
            growth_fails: AtomicBool::new(false),
            eviction_log: Mutex::default(),
        });
        shared.grow()?;
        Ok(Front { shared })
    }

    /// Moves to another listener: no more connections come in through the old one, and those that
    /// did go on. Takes a moment, in which no client is turned away.
    ///
    /// # Errors
    /// When it cannot be used: the old one stays.
    pub fn move_to(&self, listener: TcpListener) -> io::Result<()> {
        prepare(&listener)?;
        let Shared { idle, listener: current, stop, .. } = &*self.shared;
        let old = current.swap(idle.add_listener(listener)?, Ordering::Relaxed);
        if let Some(listener) = idle.listener(old) {
            drop_new_handshakes(&listener);
        }
        // Handshakes that have begun end, and their connections are accepted.
        stop.wait(HANDOVER);
        idle.remove_listener(old);
        Ok(())
    }

    /// Calls `open` while another listener may be opened at this one's port, as 0.0.0.0 beside
    /// 127.0.0.1.
    pub fn with_shared_port<T>(&self, open: impl FnOnce() -> T) -> T {
        let listener = self.shared.idle.listener(self.shared.listener.load(Ordering::Relaxed));
        let share = |shared| {
            listener.iter().for_each(|one| drop(SockRef::from(&**one).set_reuse_port(shared)));
        };
        share(true);
        let opened = open();
        share(false);
        opened
    }

    /// Closes, after the stop: no connection is accepted any more, requests that are being answered
    /// may take `timeout`.
    pub fn close(self, timeout: Duration) {
        let Shared { idle, slots, workers, .. } = &*self.shared;
        idle.close();
        slots.close();
        if !slots.wait_until_free(timeout) {
            slots.evict_all();
            slots.wait_until_free(Duration::from_secs(1));
        }
        workers.wait_until_empty(Duration::from_secs(1));
    }
}

fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.listen(LISTEN_BACKLOG)?;
    // Connections have it from their listener.
    socket.set_tcp_nodelay(true)
}

/// Lets no new connection begin: a SYN is dropped and comes again a second later (RFC 6298), by
/// then to the listener that took over the port, where there is one. Handshakes that have begun
/// are finished: a listener that is closed resets connections that were not accepted.
fn drop_new_handshakes(listener: &TcpListener) {
    let step = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    // Drops the segment when of SYN and ACK in the flags, byte 13 of the header, only SYN is set.
    let filter = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 13),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 0x12),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0x02),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    if let Err(why) = SockRef::from(listener).attach_filter(&filter) {
        log::debug!("the old listener goes on to take connections while it is closed: {why}");
    }
}

impl Shared {
    /// Starts one more worker, when none waits for the next connection.
    fn grow(self: &Arc<Shared>) -> io::Result<()> {
        let Some(mut worker) = self.workers.grow(MAX_WORKERS) else { return Ok(()) };
        let shared = Arc::clone(self);
        spawn_critical(&format!("front-{}", worker.number), STACK, move || {
            shared.work(&mut worker);
            // It is counted last: once no worker is left, none holds the server any more.
            drop(shared);
            drop(worker);
        })
        .map(drop)
    }

    /// Serves one connection after the other.
    fn work(self: &Arc<Shared>, worker: &mut Worker) {
        loop {
            worker.set_waiting();
            match self.idle.next(WORKER_IDLE_TIMEOUT, IDLE_TIMEOUT) {
                Ready::Connection(socket, peer) => {
                    worker.set_busy();
                    // While no request could be forwarded, connections wait where they cost least.
                    if !self.context.upstream.is_saturated() {
                        self.log_growth(self.grow());
                    }
                    self.serve(socket, peer);
                }
                Ready::Closed => return,
                Ready::Timeout => {
                    self.context.upstream.close_idle();
                    if worker.leave_if_surplus() {
                        return;
                    }
                }
                Ready::Error(listener, why) => {
                    self.log_accept_failure(&why);
                    self.stop.wait(PAUSE);
                    self.idle.resume(listener);
                }
            }
        }
    }

    /// While strangers hold all that can be opened, one connection in a few is accepted.
    fn log_accept_failure(&self, why: &io::Error) {
        let (mut last, now) = (lock(&self.accept_failed), Instant::now());
        if last.is_none_or(|last| now.duration_since(last) >= EVICTION_LOG_PAUSE) {
            *last = Some(now);
            log::warn!("connections cannot be accepted, trying again: {why}");
        }
    }

    /// Without another one, this worker takes the next connection when it is done with its own.
    fn log_growth(&self, grown: io::Result<()>) {
        let failed = grown.is_err();
        let failed_before = self.growth_fails.swap(failed, Ordering::Relaxed);
        if let (Err(why), false) = (grown, failed_before) {
            log::warn!("connections wait, no thread could be started for them: {why}");
        }
    }

    fn serve(self: &Arc<Shared>, socket: TcpStream, peer: IpAddr) {
        // Others give theirs back, or the new connection does.
        if is_reserved(&socket) && !(self.idle.evict() | self.slots.evict()) {
            return;
        }
        let socket = Arc::new(socket);
        let Some(slot) = self.slots.acquire(Arc::clone(&socket)) else { return };
        let evicted = self.slots.evicted() + self.idle.evicted();
        let new = lock(&self.eviction_log).record(evicted, Instant::now());
        if let Some(new) = new {
            log::warn!("too many connections, {new} silent ones were closed for others");
        }
        let before_stream = || self.log_growth(self.grow());
        let serve = || handle_connection(&socket, peer, &slot, &self.context, before_stream);
        let lingers = catch_unwind(AssertUnwindSafe(serve)).unwrap_or_else(|_| {
            log::error!("serving a connection panicked");
            false
        });
        drop(slot);
        if lingers && let Some(socket) = Arc::into_inner(socket) {
            self.idle.linger(socket, peer);
        }
    }
}

/// When evicted connections were last logged, and how many there were by then. Pure.
#[derive(Default)]
struct EvictionLog {
    last: Option<(Instant, u64)>,
}

impl EvictionLog {
    /// How many new ones are to be logged now, of `evicted` so far.
    fn record(&mut self, evicted: u64, now: Instant) -> Option<u64> {
        let (before, quiet) = match self.last {
            Some((at, count)) => (count, now.duration_since(at) < EVICTION_LOG_PAUSE),
            None => (0, false),
        };
        if evicted <= before || quiet {
            return None;
        }
        self.last = Some((now, evicted));
        Some(evicted - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evicted_connections_are_logged_once_a_minute() {
        let mut log = EvictionLog::default();
        let start = Instant::now();
        assert_eq!(log.record(0, start), None);
        assert_eq!(log.record(3, start), Some(3));
        assert_eq!(log.record(9, start + EVICTION_LOG_PAUSE / 2), None);
        assert_eq!(log.record(9, start + EVICTION_LOG_PAUSE), Some(6));
        assert_eq!(log.record(9, start + 3 * EVICTION_LOG_PAUSE), None);
    }
}
