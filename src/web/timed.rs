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
