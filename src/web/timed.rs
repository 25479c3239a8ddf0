//! A socket with a deadline for all that is done with it, and one for each wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::crew::Crew;

/// Reads and writes until its time is up.
#[derive(Clone, Copy)]
pub struct Timed<'a> {
    socket: &'a TcpStream,
    crew: &'a Crew,
    end: Instant,
    stall: Duration,
}

impl<'a> Timed<'a> {
    /// Everything together may take `total`, and each wait for the peer `stall`. While it waits,
    /// its thread stands aside.
    pub fn new(
        socket: &'a TcpStream,
        crew: &'a Crew,
        total: Duration,
        stall: Duration,
    ) -> Timed<'a> {
        Timed { socket, crew, end: Instant::now() + total, stall }
    }

    fn patience(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now()).min(self.stall);
        // A timeout of zero would mean none.
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let patience = self.patience()?;
        match receive_at_once(self.socket, into) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            at_once => return at_once,
        }
        let _aside = self.crew.aside();
        self.socket.set_read_timeout(patience)?;
        self.socket.read(into)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let patience = self.patience()?;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        match SockRef::from(self.socket).send_with_flags(bytes, flags) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            at_once => return at_once,
        }
        let _aside = self.crew.aside();
        self.socket.set_write_timeout(patience)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What has arrived; [`ErrorKind::WouldBlock`] when that is nothing.
pub fn receive_at_once(socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the descriptor is open, and there is room for as many bytes as we say.
    let count = unsafe {
        libc::recv(socket.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn a_peer_that_reads_nothing_is_given_up() {
        let (ours, _theirs) = pair();
        let (minute, moment) = (Duration::from_secs(60), Duration::from_millis(50));
        let crew = Crew::default();
        let mut timed = Timed::new(&ours, &crew, minute, moment);
        let before = Instant::now();
        assert!(timed.write_all(&vec![0; 32 << 20]).is_err());
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn when_the_time_is_up_even_what_is_there_is_not_read() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        let crew = Crew::default();
        let mut timed = Timed::new(&ours, &crew, Duration::ZERO, Duration::from_secs(60));
        assert_eq!(timed.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
