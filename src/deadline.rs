//! A socket with a deadline for the whole exchange, however slowly its peer sends.
//!
//! The timeouts of a socket bound each call only: a peer that sends a byte a minute would hold a
//! thread for days.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A stream whose single calls can be given a timeout.
pub trait Timeouts {
    /// As [`TcpStream::set_read_timeout`].
    ///
    /// # Errors
    /// What the system says.
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// As [`TcpStream::set_write_timeout`].
    ///
    /// # Errors
    /// What the system says.
    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
}

macro_rules! timeouts {
    ($stream:ty) => {
        impl Timeouts for $stream {
            fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                <$stream>::set_read_timeout(self, timeout)
            }

            fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                <$stream>::set_write_timeout(self, timeout)
            }
        }
    };
}
timeouts!(TcpStream);
timeouts!(UnixStream);

impl<S: Timeouts> Timeouts for &S {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        S::set_read_timeout(self, timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        S::set_write_timeout(self, timeout)
    }
}

/// Stands in an [`io::Error`] of the kind `TimedOut` when the deadline has passed.
#[derive(Debug)]
pub struct DeadlineExceeded;

impl fmt::Display for DeadlineExceeded {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the time for the whole exchange is up")
    }
}

impl std::error::Error for DeadlineExceeded {}

impl DeadlineExceeded {
    /// Whether `error` says that a deadline passed, not that one call took too long.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<DeadlineExceeded>())
    }
}

/// A stream whose reads and writes all end at `deadline`, and each of them after `call_timeout`.
/// A timeout is always an error of the kind `TimedOut`; [`DeadlineExceeded`] tells which it was.
#[derive(Debug)]
pub struct DeadlineStream<S> {
    /// The stream itself.
    pub stream: S,
    deadline: Instant,
    call_timeout: Duration,
}

impl<S> DeadlineStream<S> {
    /// All calls end at `deadline`.
    pub fn new(stream: S, deadline: Instant) -> DeadlineStream<S> {
        DeadlineStream { stream, deadline, call_timeout: Duration::MAX }
    }

    /// Each call ends after `timeout` as well.
    #[must_use]
    pub fn with_call_timeout(self, timeout: Duration) -> DeadlineStream<S> {
        DeadlineStream { call_timeout: timeout, ..self }
    }

    /// Moves the deadline.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// How long the next call may take.
    ///
    /// # Errors
    /// [`DeadlineExceeded`].
    pub fn remaining(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // A timeout of zero would mean none.
        if left.is_zero() { Err(exceeded()) } else { Ok(left.min(self.call_timeout)) }
    }

    /// The system reports a timeout as EAGAIN, "Resource temporarily unavailable".
    fn timed_out(&self, error: io::Error) -> io::Error {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                self.remaining().err().unwrap_or_else(|| ErrorKind::TimedOut.into())
            }
            _ => error,
        }
    }
}

fn exceeded() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, DeadlineExceeded)
}

impl<S: Read + Timeouts> Read for DeadlineStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(self.remaining()?))?;
            match self.stream.read(buffer) {
                // The process was stopped and goes on: where there is a timeout, read(2) ends with that
                // (signal(7)). Nothing was read.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| self.timed_out(error)),
            }
        }
    }
}

impl<S: Write + Timeouts> Write for DeadlineStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.stream.set_write_timeout(Some(self.remaining()?))?;
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| self.timed_out(error)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(deadline: Duration) -> (DeadlineStream<UnixStream>, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        (DeadlineStream::new(ours, Instant::now() + deadline), peer)
    }

    /// Reads and writes as a process does that is stopped and goes on: each second call is interrupted.
    struct Interrupted<S>(S, bool);

    impl<S> Interrupted<S> {
        fn or<T>(&mut self, call: impl FnOnce(&mut S) -> io::Result<T>) -> io::Result<T> {
            self.1 = !self.1;
            if self.1 { Err(ErrorKind::Interrupted.into()) } else { call(&mut self.0) }
        }
    }

    impl<S: Read> Read for Interrupted<S> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.or(|stream| stream.read(buffer))
        }
    }

    impl<S: Write> Write for Interrupted<S> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.or(|stream| stream.write(bytes))
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    impl<S: Timeouts> Timeouts for Interrupted<S> {
        fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
            self.0.set_read_timeout(timeout)
        }

        fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
            self.0.set_write_timeout(timeout)
        }
    }

    #[test]
    fn a_process_that_was_stopped_reads_and_writes_on() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut stream = DeadlineStream::new(Interrupted(ours, false), deadline);
        peer.write_all(b"1").unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(stream.write(b"23").unwrap(), 2);
        let mut past = DeadlineStream::new(Interrupted(peer, false), Instant::now());
        assert!(DeadlineExceeded::is_in(&past.read(&mut [0]).unwrap_err()), "it ends");
    }

    #[test]
    fn a_silent_peer_ends_the_exchange_at_the_deadline() {
        let (mut stream, _peer) = pair(Duration::from_millis(20));
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(DeadlineExceeded::is_in(&error), "{error:?}");
        assert!(stream.write(&[0]).is_err(), "nothing is written after it either");
    }

    #[test]
    fn one_slow_call_is_no_missed_deadline() {
        let (stream, _peer) = pair(Duration::from_secs(60));
        let mut stream = stream.with_call_timeout(Duration::from_millis(5));
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(!DeadlineExceeded::is_in(&error), "{error:?}");
    }

    #[test]
    fn a_peer_that_reads_nothing_ends_the_exchange_at_the_deadline() {
        let (mut stream, _peer) = pair(Duration::from_millis(20));
        let error = stream.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert!(DeadlineExceeded::is_in(&error), "{error:?}");
    }

    #[test]
    fn what_comes_in_time_is_read_and_the_end_is_an_end() {
        let (mut stream, mut peer) = pair(Duration::from_secs(60));
        peer.write_all(b"ok").unwrap();
        drop(peer);
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"ok");
    }
}
