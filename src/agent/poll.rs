//! Waiting for datagrams, for other threads, for signals and for a moment, all at once: poll(2).

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::clock::Mono;

/// Ends the waiting of its [`Poller`].
#[derive(Clone, Debug)]
pub struct Waker(Arc<UnixStream>);

impl Waker {
    /// It need not wait any longer.
    pub fn wake(&self) {
        // A full pipe wakes, too.
        let _ = (&*self.0).write(&[1]);
    }

    /// The same for whoever writes a byte himself: a signal handler.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn writer(&self) -> io::Result<UnixStream> {
        self.0.try_clone()
    }
}

/// Whoever waits.
#[derive(Debug)]
pub struct Poller {
    woken: UnixStream,
    waker: Waker,
    /// A clock that goes on while the machine sleeps: who promised a beat sends it on waking.
    timer: OwnedFd,
}

impl Poller {
    /// One that nobody has woken yet.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn new() -> io::Result<Poller> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        // SAFETY: no pointers; the descriptor, if it is one, belongs to nobody else.
        let timer = unsafe {
            let timer =
                libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK);
            if timer < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(timer)
        };
        Ok(Poller { woken, waker: Waker(Arc::new(waker)), timer })
    }

    /// What ends the waiting.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until a moment, until it is woken, or until one of `sockets` has something to read;
    /// those that have, by their places.
    ///
    /// # Errors
    /// When the kernel does not let it wait.
    pub fn wait(&mut self, until: Mono, sockets: &[RawFd]) -> io::Result<Vec<usize>> {
        self.set(until)?;
        let own = [self.woken.as_raw_fd(), self.timer.as_raw_fd()];
        let watched = |fd: &RawFd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
        let mut watched: Vec<_> = own.iter().chain(sockets).map(watched).collect();
        // SAFETY: the pointer is to as many live structs as it is said.
        let ready = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == ErrorKind::Interrupted {
                Ok(Vec::new())
            } else {
                Err(error)
            };
        }
        if watched[0].revents != 0 {
            let mut bytes = [0; 64];
            while matches!((&self.woken).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        }
        let heard = watched[own.len()..].iter().enumerate();
        Ok(heard.filter(|(_, socket)| socket.revents != 0).map(|(place, _)| place).collect())
    }

    /// Setting a timer also takes back that it had expired: timerfd_create(2).
    fn set(&self, until: Mono) -> io::Result<()> {
        // Zero would turn it off.
        let millis = until.0.max(1);
        let value = libc::timespec {
            tv_sec: (millis / 1000) as libc::time_t,
            tv_nsec: (millis % 1000 * 1_000_000) as _,
        };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the descriptor is a timer of ours, the pointer is to a live struct, and nothing
        // wants the old value.
        let result = unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &timer,
                std::ptr::null_mut(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::clock::Now;

    #[test]
    fn it_waits_until_a_moment() {
        let mut ear = Poller::new().unwrap();
        let begin = Now::read().mono;
        let until = begin + Duration::from_millis(30);
        for moment in [until, begin] {
            assert!(ear.wait(moment, &[]).unwrap().is_empty());
            assert!(Now::read().mono >= moment);
        }
    }

    #[test]
    fn a_wake_or_a_datagram_ends_it() {
        let mut ear = Poller::new().unwrap();
        let (never, waker) = (Mono(i64::MAX), ear.waker());
        for _ in 0..1000 {
            waker.wake();
        }
        assert!(ear.wait(never, &[]).unwrap().is_empty());
        let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let to = sockets[1].local_addr().unwrap();
        sockets[0].send_to(b"x", to).unwrap();
        assert_eq!(ear.wait(never, &fds).unwrap(), [1]);
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            sockets[1].recv(&mut [0]).unwrap();
            assert!(ear.wait(never, &fds).unwrap().is_empty());
        });
    }
}
