//! Many requests at the same moment from one thread, so that what is measured is hbd and not a
//! crowd of clients on the same two cores.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What became of one request.
#[derive(Debug)]
pub struct Answered {
    /// From its `connect`, or where that was made before from its first byte, to the last byte of
    /// its answer.
    pub took: Duration,
    /// The status line and all that follows.
    pub text: String,
}

struct Open {
    stream: TcpStream,
    begun: Instant,
    text: Vec<u8>,
    took: Option<Duration>,
}

/// Posts each body over a connection of its own, all without waiting for an answer, and reads the
/// answers as they come. With `opened` the connections are made before, as idle ones.
///
/// # Panics
/// When there are not all of the answers after `patience`.
pub fn burst(
    to: SocketAddr,
    target: &str,
    bodies: &[String],
    opened: bool,
    patience: Duration,
) -> Vec<Answered> {
    let poll = Poll::new(bodies.len());
    let connect = || TcpStream::connect(to).unwrap();
    let mut ready: Vec<TcpStream> =
        if opened { bodies.iter().map(|_| connect()).collect() } else { Vec::new() };
    let requests: Vec<String> = bodies
        .iter()
        .map(|body| {
            let length = body.len();
            format!(
                "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
        })
        .collect();
    let end = Instant::now() + patience;
    let mut open: Vec<Open> = Vec::new();
    for request in requests {
        let begun = Instant::now();
        let mut stream = ready.pop().unwrap_or_else(connect);
        stream.write_all(request.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        poll.add(&stream, open.len());
        open.push(Open { stream, begun, text: Vec::new(), took: None });
        poll.wait(Duration::ZERO, |number| open[number].read());
    }
    while open.iter().any(|one| one.took.is_none()) {
        let left = end.checked_duration_since(Instant::now()).expect("all answers in time");
        poll.wait(left, |number| open[number].read());
    }
    open.into_iter()
        .map(|one| Answered { took: one.took.unwrap(), text: String::from_utf8(one.text).unwrap() })
        .collect()
}

impl Open {
    /// Takes what is there; the answer is whole when its length says so.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.text.extend_from_slice(&buffer[..count]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) => panic!("{why}: {:?}", String::from_utf8_lossy(&self.text)),
            }
        }
        if self.took.is_none() && whole(&self.text) {
            self.took = Some(self.begun.elapsed());
        }
    }
}

fn whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.is_some_and(|length: usize| body.len() >= length)
}

/// epoll(7), edge-triggered: what is reported is read until nothing is left.
struct Poll {
    descriptor: i32,
    most: usize,
}

impl Poll {
    fn new(most: usize) -> Poll {
        // SAFETY: it takes no pointer.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(descriptor >= 0, "epoll_create1");
        Poll { descriptor, most: most.max(1) }
    }

    fn add(&self, stream: &TcpStream, number: usize) {
        let events = (libc::EPOLLIN | libc::EPOLLET | libc::EPOLLRDHUP) as u32;
        let mut event = libc::epoll_event { events, u64: number as u64 };
        // SAFETY: both descriptors are open, and the event is ours.
        let added = unsafe {
            libc::epoll_ctl(self.descriptor, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event)
        };
        assert_eq!(added, 0, "epoll_ctl");
    }

    fn wait(&self, patience: Duration, mut ready: impl FnMut(usize)) {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; self.most];
        let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: there is room for as many events as we say.
        let count = unsafe {
            libc::epoll_wait(self.descriptor, events.as_mut_ptr(), self.most as i32, millis)
        };
        assert!(count >= 0, "epoll_wait");
        for event in &events[..count as usize] {
            ready(event.u64 as usize);
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        // SAFETY: it is ours and closed once.
        unsafe { libc::close(self.descriptor) };
    }
}

/// The middle one, and the one that only each hundredth exceeds.
pub fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
