//! Waits for sockets, wake-ups by other threads and signal handlers, and a point in time at once:
//! poll(2).

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::clock::Mono;

/// Wakes its [`Poller`], from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<UnixStream>);

impl Waker {
    /// Ends the present or the next wait.
    pub fn wake(&self) {
        // An error means a full buffer, which wakes, too.
        let _ = (&*self.0).write(&[1]);
    }

    /// A stream that wakes when a byte is written to it, for a signal handler.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn writer(&self) -> io::Result<UnixStream> {
        self.0.try_clone()
    }
}

/// poll(2) over sockets, a waker and a timer.
#[derive(Debug)]
pub struct Poller {
    wake_receiver: UnixStream,
    waker: Waker,
    /// A timer of the clock that goes on while the machine sleeps (CLOCK_BOOTTIME): a beat that became
    /// due meanwhile is sent on waking.
    timer: OwnedFd,
}

impl Poller {
    /// A poller that was not woken yet.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn new() -> io::Result<Poller> {
        let (wake_receiver, waker) = UnixStream::pair()?;
        wake_receiver.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        // SAFETY: no pointers; the descriptor, if it is one, is owned by nothing else yet.
        let timer = unsafe {
            let timer =
                libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK);
            if timer < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(timer)
        };
        Ok(Poller { wake_receiver, waker: Waker(Arc::new(waker)), timer })
    }

    /// A waker of this poller.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until `until`, until it is woken, or until one of `sockets` has something to read; the
    /// indices of those that have.
    ///
    /// # Errors
    /// When the kernel does not let it wait.
    pub fn wait(&mut self, until: Mono, sockets: &[RawFd]) -> io::Result<Vec<usize>> {
        self.arm_timer(until)?;
        let own = [self.wake_receiver.as_raw_fd(), self.timer.as_raw_fd()];
        let watched = |fd: &RawFd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
        let mut watched: Vec<_> = own.iter().chain(sockets).map(watched).collect();
        // SAFETY: the pointer is to as many live structs as the length says.
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
            while matches!((&self.wake_receiver).read(&mut bytes), Ok(count) if count == bytes.len())
            {
            }
        }
        let readable = watched[own.len()..].iter().enumerate();
        Ok(readable.filter(|(_, socket)| socket.revents != 0).map(|(index, _)| index).collect())
    }

    /// Setting a timer also clears that it had expired: timerfd_create(2).
    fn arm_timer(&self, until: Mono) -> io::Result<()> {
        // Zero would turn it off.
        let millis = until.0.max(1);
        let value = libc::timespec {
            tv_sec: (millis / 1000) as libc::time_t,
            tv_nsec: (millis % 1000 * 1_000_000) as _,
        };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the descriptor is a timer of ours, the pointer is to a live struct, and the
        // old value is not asked for.
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
        let mut poller = Poller::new().unwrap();
        let begin = Now::read().mono;
        let until = begin + Duration::from_millis(30);
        for moment in [until, begin] {
            assert!(poller.wait(moment, &[]).unwrap().is_empty());
            assert!(Now::read().mono >= moment);
        }
    }

    #[test]
    fn a_wake_or_a_datagram_ends_it() {
        let mut poller = Poller::new().unwrap();
        let (never, waker) = (Mono(i64::MAX), poller.waker());
        for _ in 0..1000 {
            waker.wake();
        }
        assert!(poller.wait(never, &[]).unwrap().is_empty());
        let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let to = sockets[1].local_addr().unwrap();
        sockets[0].send_to(b"x", to).unwrap();
        assert_eq!(poller.wait(never, &fds).unwrap(), [1]);
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            sockets[1].recv(&mut [0]).unwrap();
            assert!(poller.wait(never, &fds).unwrap().is_empty());
        });
    }
}
