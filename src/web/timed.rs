//! A socket with a deadline for all that is done with it, and one for each wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Reads and writes until its time is up.
#[derive(Clone, Copy)]
pub struct Timed<'a> {
    socket: &'a TcpStream,
    end: Instant,
    stall: Duration,
}

impl<'a> Timed<'a> {
    /// Everything together may take `total`, and each wait for the peer `stall`.
    pub fn new(socket: &'a TcpStream, total: Duration, stall: Duration) -> Timed<'a> {
        Timed { socket, end: Instant::now() + total, stall }
    }

    fn patience(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now()).min(self.stall);
        // A timeout of zero would mean none.
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.patience()?)?;
        self.socket.read(into)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.patience()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        let mut timed = Timed::new(&ours, Duration::from_secs(60), Duration::from_millis(50));
        let before = Instant::now();
        assert!(timed.write_all(&vec![0; 32 << 20]).is_err());
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn when_the_time_is_up_even_what_is_there_is_not_read() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        let mut timed = Timed::new(&ours, Duration::ZERO, Duration::from_secs(60));
        assert_eq!(timed.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
