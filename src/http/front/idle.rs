//! Listeners, idle and lingering connections in one epoll(7) set: a client that is silent, or has its
//! response and sends on, costs a descriptor, no thread and no slot. Free workers wait here for the
//! first connection that has sent something.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::limits::{LINGER_TIMEOUT, MAX_IDLE_CONNECTIONS, MAX_LINGERING_CONNECTIONS};
use super::stream::{discard_now, is_reserved, peek_now};
use crate::thread::lock;

/// The token of the timer; those of listeners and connections are larger.
const TIMER: u64 = 0;
/// Reported once, to one worker. A listener is watched anew when its connection has been accepted.
const ONCE: libc::c_int = libc::EPOLLIN | libc::EPOLLONESHOT;

/// The set.
pub struct IdleSet {
    epoll: OwnedFd,
    /// Expires with the connection that was idle first (timerfd_create(2)).
    timer: OwnedFd,
    table: Mutex<IdleTable>,
}

#[derive(Default)]
struct IdleTable {
    listeners: BTreeMap<u64, Arc<TcpListener>>,
    /// In the order in which they came.
    idle: BTreeMap<u64, IdleClient>,
    /// Those that have their response. What they still send is thrown away for a moment: a close with
    /// unread bytes would be a reset, and take the response away (RFC 9112, section 9.6).
    lingering: BTreeMap<u64, IdleClient>,
    last_token: u64,
    evicted: u64,
    /// When the timer expires.
    timer: Option<Instant>,
    closed: bool,
}

struct IdleClient {
    socket: TcpStream,
    peer: IpAddr,
    deadline: Instant,
}

/// How a wait ended.
pub enum Ready {
    /// This client has sent something, or has gone.
    Connection(TcpStream, IpAddr),
    /// None has.
    Timeout,
    /// Nothing can be accepted from the listener of this token, until it is
    /// [resumed](IdleSet::resume).
    Error(u64, io::Error),
    /// The set is closed.
    Closed,
}

/// What a token stands for.
enum EventSource {
    Timer,
    Listener(Arc<TcpListener>),
    Connection(IdleClient),
    /// One that lingers, or is gone meanwhile.
    Other,
    Closed,
}

impl IdleSet {
    /// An empty set.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<IdleSet> {
        // SAFETY: it takes a flag and gives a descriptor that nothing else has, or -1.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: as above.
        let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        let set = IdleSet { epoll, timer, table: Mutex::default() };
        set.control(libc::EPOLL_CTL_ADD, &set.timer, TIMER, libc::EPOLLIN)?;
        Ok(set)
    }

    /// Accepts the connections of `listener`; gives its token.
    ///
    /// # Errors
    /// What the system says.
    pub fn add_listener(&self, listener: TcpListener) -> io::Result<u64> {
        listener.set_nonblocking(true)?;
        let mut table = lock(&self.table);
        table.last_token += 1;
        let token = table.last_token;
        self.control(libc::EPOLL_CTL_ADD, &listener, token, ONCE)?;
        table.listeners.insert(token, Arc::new(listener));
        Ok(token)
    }

    /// The listener of a token.
    pub fn listener(&self, token: u64) -> Option<Arc<TcpListener>> {
        lock(&self.table).listeners.get(&token).cloned()
    }

    /// Accepts nothing more from a listener.
    pub fn remove_listener(&self, token: u64) {
        if let Some(listener) = lock(&self.table).listeners.remove(&token) {
            // Another thread may hold it for a moment. One that is watched no more is no error.
            let _ = self.control(libc::EPOLL_CTL_DEL, &*listener, token, 0);
        }
    }

    /// Accepts connections of a listener again, after an error.
    pub fn resume(&self, token: u64) {
        if let Some(listener) = self.listener(token) {
            // One that was removed meanwhile is no error.
            let _ = self.control(libc::EPOLL_CTL_MOD, &*listener, token, ONCE);
        }
    }

    /// Closes the listeners and the idle connections for good, and ends every wait.
    pub fn close(&self) {
        let mut table = lock(&self.table);
        table.closed = true;
        for listener in table.listeners.values() {
            let _ = SockRef::from(&**listener).shutdown(Shutdown::Both);
        }
        table.idle.clear();
        table.lingering.clear();
        // It is not reset any more, so that each wait ends at once.
        self.set_timer(Duration::ZERO);
    }

    /// How many idle connections were closed for newer ones, so far.
    pub fn evicted(&self) -> u64 {
        lock(&self.table).evicted
    }

    /// Waits for a connection that has sent something. One that is idle for `idle_timeout`, always
    /// the same, is closed.
    pub fn next(&self, timeout: Duration, idle_timeout: Duration) -> Ready {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(token) = self.wait(left) else {
                if Instant::now() >= end {
                    return Ready::Timeout;
                }
                continue;
            };
            match self.source(token) {
                // It is watched no more: one report is all that was wanted.
                EventSource::Connection(IdleClient { socket, peer, .. }) => {
                    return Ready::Connection(socket, peer);
                }
                EventSource::Listener(listener) => match self.accept(&listener, idle_timeout) {
                    Ok(connection) => {
                        self.resume(token);
                        if let Some((socket, peer)) = connection {
                            return Ready::Connection(socket, peer);
                        }
                    }
                    Err(why) => return Ready::Error(token, why),
                },
                EventSource::Timer => self.expire(Instant::now()),
                EventSource::Other => self.discard(token),
                EventSource::Closed => return Ready::Closed,
            }
        }
    }

    /// Accepts a connection; gives it when it has sent something already.
    fn accept(
        &self,
        listener: &TcpListener,
        idle_timeout: Duration,
    ) -> io::Result<Option<(TcpStream, IpAddr)>> {
        let (socket, peer) = match listener.accept() {
            Ok((socket, peer)) => (socket, peer.ip().to_canonical()),
            Err(why) => match why.kind() {
                // The client has gone.
                ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {
                    return Ok(None);
                }
                _ => {
                    // Descriptors may be short: idle connections give theirs back.
                    self.evict();
                    return Err(why);
                }
            },
        };
        match peek_now(&socket) {
            Ok(0) => Ok(None),
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                self.add_idle(socket, peer, idle_timeout)?;
                Ok(None)
            }
            // Its first bytes, or its end.
            Ok(_) | Err(_) => Ok(Some((socket, peer))),
        }
    }

    fn add_idle(&self, socket: TcpStream, peer: IpAddr, timeout: Duration) -> io::Result<()> {
        let mut table = lock(&self.table);
        let most =
            if is_reserved(&socket) { table.idle.len() / 2 } else { MAX_IDLE_CONNECTIONS - 1 };
        table.evict_to(most);
        let deadline = Instant::now() + timeout;
        let client = IdleClient { socket, peer, deadline };
        self.watch(&mut table, client, |table| &mut table.idle)
    }

    /// Closes connections, so that others have their descriptors; false when there are none.
    pub fn evict(&self) -> bool {
        let mut table = lock(&self.table);
        let count = table.idle.len();
        table.evict_to(count / 2);
        table.lingering.pop_first().is_some() || count > 0
    }

    /// Throws away what a client still sends that has its response, and closes it after a moment.
    pub fn linger(&self, socket: TcpStream, peer: IpAddr) {
        let mut table = lock(&self.table);
        if table.lingering.len() >= MAX_LINGERING_CONNECTIONS {
            table.lingering.pop_first();
        }
        let client = IdleClient { socket, peer, deadline: Instant::now() + LINGER_TIMEOUT };
        // One that cannot be watched is closed.
        let _ = self.watch(&mut table, client, |table| &mut table.lingering);
    }

    fn watch(
        &self,
        table: &mut IdleTable,
        client: IdleClient,
        among: fn(&mut IdleTable) -> &mut BTreeMap<u64, IdleClient>,
    ) -> io::Result<()> {
        if table.closed {
            return Ok(());
        }
        table.last_token += 1;
        let (token, deadline) = (table.last_token, client.deadline);
        self.control(libc::EPOLL_CTL_ADD, &client.socket, token, ONCE)?;
        among(table).insert(token, client);
        if table.timer.is_none_or(|timer| deadline < timer) {
            table.timer = Some(deadline);
            self.set_timer(deadline.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Throws away what has come; closes at the end of it.
    fn discard(&self, token: u64) {
        let Some(client) = lock(&self.table).lingering.remove(&token) else { return };
        let more = match discard_now(&client.socket) {
            Ok(count) => count > 0,
            Err(why) => why.kind() == ErrorKind::WouldBlock,
        };
        let mut table = lock(&self.table);
        let watched = more && !table.closed;
        if watched && self.control(libc::EPOLL_CTL_MOD, &client.socket, token, ONCE).is_ok() {
            table.lingering.insert(token, client);
        }
    }

    fn source(&self, token: u64) -> EventSource {
        let mut table = lock(&self.table);
        if table.closed {
            return EventSource::Closed;
        }
        if token == TIMER {
            return EventSource::Timer;
        }
        match table.listeners.get(&token) {
            Some(listener) => EventSource::Listener(Arc::clone(listener)),
            None => table.idle.remove(&token).map_or(EventSource::Other, EventSource::Connection),
        }
    }

    /// Closes the connections that have been here for too long, and sets the timer for the next.
    fn expire(&self, now: Instant) {
        let mut table = lock(&self.table);
        if table.closed {
            return;
        }
        let IdleTable { idle, lingering, timer, .. } = &mut *table;
        *timer = None;
        for clients in [idle, lingering] {
            while let Some(first) = clients.first_entry() {
                let deadline = first.get().deadline;
                if deadline > now {
                    *timer = Some(timer.map_or(deadline, |timer| timer.min(deadline)));
                    break;
                }
                first.remove();
            }
        }
        match *timer {
            Some(deadline) => self.set_timer(deadline - now),
            None => self.stop_timer(),
        }
    }

    fn wait(&self, timeout: Duration) -> Option<u64> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let millis = i32::try_from(timeout.as_millis() + 1).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one event, and one is asked for.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &mut event, 1, millis) };
        (count > 0).then_some(event.u64)
    }

    fn control(
        &self,
        operation: libc::c_int,
        descriptor: &impl AsRawFd,
        token: u64,
        events: libc::c_int,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        let (epoll, descriptor) = (self.epoll.as_raw_fd(), descriptor.as_raw_fd());
        // SAFETY: both descriptors are open, and the pointer is to a live event.
        let result = unsafe { libc::epoll_ctl(epoll, operation, descriptor, &mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Lets the timer expire once, and be ready from then on until it is set again.
    fn set_timer(&self, after: Duration) {
        // Zero would stop it.
        self.set_timer_to(after.max(Duration::from_nanos(1)));
    }

    fn stop_timer(&self) {
        self.set_timer_to(Duration::ZERO);
    }

    fn set_timer_to(&self, after: Duration) {
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = libc::timespec {
            tv_sec: after.as_secs() as libc::time_t,
            tv_nsec: after.subsec_nanos() as libc::c_long,
        };
        let setting = libc::itimerspec { it_interval: none, it_value };
        // SAFETY: the descriptor is open, the pointer is to a live setting, and no old one is asked
        // for. It fails only for times that are no times.
        unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &setting, std::ptr::null_mut()) };
    }
}

impl IdleTable {
    /// Closes the connections that came first until at most `count` are left.
    fn evict_to(&mut self, count: usize) {
        while self.idle.len() > count {
            self.idle.pop_first();
            self.evicted += 1;
        }
    }
}

fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::SocketAddr;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn idle_set() -> (IdleSet, SocketAddr, u64) {
        let set = IdleSet::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let token = set.add_listener(listener).unwrap();
        (set, address, token)
    }

    fn first_words(ready: Ready) -> Vec<u8> {
        let Ready::Connection(mut socket, _) = ready else { panic!("no connection") };
        let mut words = [0; 5];
        socket.read_exact(&mut words).unwrap();
        words.to_vec()
    }

    #[test]
    fn who_speaks_is_heard_before_who_came_first_and_is_silent() {
        let (set, address, _) = idle_set();
        let mut silent = TcpStream::connect(address).unwrap();
        let mut speaking = TcpStream::connect(address).unwrap();
        speaking.write_all(b"hello").unwrap();
        assert_eq!(first_words(set.next(LONG, LONG)), b"hello");
        silent.write_all(b"later").unwrap();
        assert_eq!(first_words(set.next(LONG, LONG)), b"later");
        assert!(matches!(set.next(Duration::from_millis(1), LONG), Ready::Timeout));
    }

    #[test]
    fn the_silent_are_few_and_leave_after_a_while() {
        let (set, address, _) = idle_set();
        let moment = Duration::from_millis(1);
        let mut clients = Vec::new();
        for _ in 0..MAX_IDLE_CONNECTIONS + 10 {
            clients.push(TcpStream::connect(address).unwrap());
            assert!(matches!(set.next(moment, LONG), Ready::Timeout));
        }
        while set.evicted() < 10 {
            assert!(matches!(set.next(moment, LONG), Ready::Timeout));
        }
        clients[0].set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(clients[0].read(&mut [0]).unwrap(), 0, "the first who came had to leave");
        assert_eq!(lock(&set.table).idle.len(), MAX_IDLE_CONNECTIONS);
        let (set, address, _) = super::tests::idle_set();
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        let mut gone = false;
        while !gone {
            assert!(matches!(set.next(moment, moment), Ready::Timeout));
            gone = lock(&set.table).last_token > 1 && lock(&set.table).idle.is_empty();
        }
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_listener_that_is_removed_accepts_nothing() {
        let (set, address, token) = idle_set();
        set.remove_listener(token);
        assert!(TcpStream::connect(address).is_err());
        let (set, _, _) = super::tests::idle_set();
        set.close();
        assert!(matches!(set.next(LONG, LONG), Ready::Closed));
    }
}
