//! Where connections wait that have said nothing yet: a silent client costs a descriptor, no thread
//! and no seat. Whoever is free waits here for the first that has something to say (epoll(7)).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::stream::peek_at_once;

/// So many wait. Together with the seats and what goes behind the gate they stay below the usual
/// limit of 1,024 descriptors.
const MOST: usize = 384;

/// The room, and the doors that lead into it.
pub struct Room {
    epoll: OwnedFd,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    doors: BTreeMap<u64, Arc<TcpListener>>,
    /// In the order in which they came.
    silent: BTreeMap<u64, Silent>,
    last: u64,
    sent_away: u64,
}

struct Silent {
    socket: TcpStream,
    peer: IpAddr,
    until: Instant,
}

/// What became of a wait.
pub enum Next {
    /// Somebody has something to say.
    Guest(TcpStream, IpAddr),
    /// Nobody has, for long.
    Nobody,
    /// Nobody can come in.
    Trouble(io::Error),
}

/// What an event was about.
enum About {
    Door(Arc<TcpListener>),
    Guest(Silent),
    Nobody,
}

impl Room {
    /// An empty room without doors.
    pub fn new() -> io::Result<Room> {
        // SAFETY: it takes a flag and gives a descriptor that nobody else has, or -1.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        let epoll = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Room { epoll, table: Mutex::default() })
    }

    /// Lets connections of `listener` come in; gives the number of that door.
    pub fn open(&self, listener: TcpListener) -> io::Result<u64> {
        listener.set_nonblocking(true)?;
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        self.watch(listener.as_raw_fd(), number, libc::EPOLLIN)?;
        table.doors.insert(number, Arc::new(listener));
        Ok(number)
    }

    /// The listener of a door.
    pub fn listener(&self, door: u64) -> Option<Arc<TcpListener>> {
        self.lock().doors.get(&door).cloned()
    }

    /// Lets nobody more come in through a door.
    pub fn shut(&self, door: u64) {
        if let Some(listener) = self.lock().doors.remove(&door) {
            // Another thread may hold it for a moment; nobody is to wait for that.
            self.forget(listener.as_raw_fd());
        }
    }

    /// Shuts all doors for good, wakes whoever waits, and sends away the silent.
    pub fn close(&self) {
        let mut table = self.lock();
        for listener in table.doors.values() {
            // On Linux it is ready from now on, and `accept` gives an error.
            let _ = SockRef::from(&**listener).shutdown(Shutdown::Both);
        }
        table.silent.clear();
    }

    /// How many had to leave for others, so far.
    pub fn sent_away(&self) -> u64 {
        self.lock().sent_away
    }

    /// Waits for somebody who has something to say. Whoever is silent for `silence` is sent away.
    pub fn next(&self, patience: Duration, silence: Duration) -> Next {
        let end = Instant::now() + patience;
        loop {
            let now = Instant::now();
            let until = self.expire(now).map_or(end, |first| first.min(end));
            if until <= now {
                return Next::Nobody;
            }
            let Some(number) = self.wait(until - now) else { continue };
            match self.about(number) {
                // It is watched no more: one report is all that was wanted.
                About::Guest(Silent { socket, peer, .. }) => return Next::Guest(socket, peer),
                About::Door(listener) => match self.answer_door(&listener, silence) {
                    Ok(Some((socket, peer))) => return Next::Guest(socket, peer),
                    Ok(None) => {}
                    Err(why) => return Next::Trouble(why),
                },
                About::Nobody => {}
            }
        }
    }

    /// Takes a connection in; gives it when it has something to say already.
    fn answer_door(
        &self,
        listener: &TcpListener,
        silence: Duration,
    ) -> io::Result<Option<(TcpStream, IpAddr)>> {
        let (socket, peer) = match listener.accept() {
            Ok((socket, peer)) => (socket, peer.ip().to_canonical()),
            Err(why) => match why.kind() {
                // Another thread was quicker, or the client has gone.
                ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {
                    return Ok(None);
                }
                _ => {
                    // Descriptors may be short: whoever says nothing gives his back.
                    self.lock().make_room(MOST / 2);
                    return Err(why);
                }
            },
        };
        match peek_at_once(&socket) {
            Ok(0) => Ok(None),
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                let mut table = self.lock();
                table.make_room(MOST - 1);
                table.last += 1;
                let number = table.last;
                self.watch(socket.as_raw_fd(), number, libc::EPOLLIN | libc::EPOLLONESHOT)?;
                let until = Instant::now() + silence;
                table.silent.insert(number, Silent { socket, peer, until });
                Ok(None)
            }
            // Its first words, or its end.
            Ok(_) | Err(_) => Ok(Some((socket, peer))),
        }
    }

    fn about(&self, number: u64) -> About {
        let mut table = self.lock();
        match table.doors.get(&number) {
            Some(listener) => About::Door(Arc::clone(listener)),
            None => table.silent.remove(&number).map_or(About::Nobody, About::Guest),
        }
    }

    /// Sends away whoever has been silent for too long; says when the next one will have been.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut table = self.lock();
        loop {
            let first = table.silent.first_entry()?;
            if first.get().until > now {
                return Some(first.get().until);
            }
            first.remove();
        }
    }

    fn wait(&self, patience: Duration) -> Option<u64> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let millis = i32::try_from(patience.as_millis() + 1).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one event, and one is asked for.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &mut event, 1, millis) };
        (count > 0).then_some(event.u64)
    }

    fn watch(&self, descriptor: RawFd, number: u64, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: number };
        // SAFETY: both descriptors are open, and the pointer is to a live event.
        let result = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &mut event)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn forget(&self, descriptor: RawFd) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: both descriptors are open; the event is not looked at. One that is not watched
        // any more is no trouble.
        unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, descriptor, &mut event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Sends away the first who came until at most `most` are left.
    fn make_room(&mut self, most: usize) {
        while self.silent.len() > most {
            self.silent.pop_first();
            self.sent_away += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::SocketAddr;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn room() -> (Room, SocketAddr, u64) {
        let room = Room::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let door = room.open(listener).unwrap();
        (room, address, door)
    }

    fn first_words(next: Next) -> Vec<u8> {
        let Next::Guest(mut socket, _) = next else { panic!("nobody") };
        let mut words = [0; 5];
        socket.read_exact(&mut words).unwrap();
        words.to_vec()
    }

    #[test]
    fn who_speaks_is_heard_before_who_came_first_and_is_silent() {
        let (room, address, _) = room();
        let mut silent = TcpStream::connect(address).unwrap();
        let mut speaking = TcpStream::connect(address).unwrap();
        speaking.write_all(b"hello").unwrap();
        assert_eq!(first_words(room.next(LONG, LONG)), b"hello");
        silent.write_all(b"later").unwrap();
        assert_eq!(first_words(room.next(LONG, LONG)), b"later");
        let nobody = room.next(Duration::from_millis(1), LONG);
        assert!(matches!(nobody, Next::Nobody));
    }

    #[test]
    fn the_silent_are_few_and_leave_after_a_while() {
        let (room, address, _) = room();
        let moment = Duration::from_millis(1);
        let mut clients = Vec::new();
        for _ in 0..MOST + 10 {
            clients.push(TcpStream::connect(address).unwrap());
            assert!(matches!(room.next(moment, LONG), Next::Nobody));
        }
        while room.sent_away() < 10 {
            assert!(matches!(room.next(moment, LONG), Next::Nobody));
        }
        clients[0].set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(clients[0].read(&mut [0]).unwrap(), 0, "the first who came had to leave");
        assert_eq!(room.lock().silent.len(), MOST);
        let (room, address, _) = super::tests::room();
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        let mut gone = false;
        while !gone {
            assert!(matches!(room.next(moment, moment), Next::Nobody));
            gone = room.lock().last > 1 && room.lock().silent.is_empty();
        }
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn through_a_door_that_is_shut_nobody_comes() {
        let (room, address, door) = room();
        room.shut(door);
        assert!(TcpStream::connect(address).is_err());
        let (room, _, _) = super::tests::room();
        room.close();
        assert!(matches!(room.next(LONG, LONG), Next::Trouble(_)));
    }
}
