//! A connection with a deadline for all that is done with it, and one for each wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

/// Reads and writes until its time is up, encrypted where there is TLS on the line.
pub struct Timed<'a> {
    socket: Socket<'a>,
    tls: Option<&'a mut ServerConnection>,
}

/// The socket itself.
#[derive(Clone, Copy)]
struct Socket<'a> {
    socket: &'a TcpStream,
    end: Instant,
    stall: Duration,
}

impl<'a> Timed<'a> {
    /// Everything together may take until `end`, and each wait for the peer `stall`.
    pub fn new(
        socket: &'a TcpStream,
        tls: Option<&'a mut ServerConnection>,
        end: Instant,
        stall: Duration,
    ) -> Timed<'a> {
        Timed { socket: Socket { socket, end, stall }, tls }
    }
}

impl Socket<'_> {
    fn patience(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now()).min(self.stall);
        // A timeout of zero would mean none.
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.patience()?)?;
        self.socket.read(into)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.patience()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first read makes the handshake.
impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(into) };
        loop {
            match tls.reader().read(into) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            tls.read_tls(&mut self.socket)?;
            let processed = tls.process_new_packets();
            // A handshake's next flight, or the alert that says why there will be none.
            send_all(tls, &mut self.socket)?;
            processed.map_err(|why| io::Error::new(ErrorKind::ConnectionAborted, why))?;
        }
    }
}

/// What was written is on its way when `write` returns, or the failure is known.
impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.write(bytes) };
        let count = tls.writer().write(bytes)?;
        send_all(tls, &mut self.socket)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn send_all(tls: &mut ServerConnection, socket: &mut Socket) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(socket)? == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    Ok(())
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
        let end = Instant::now() + Duration::from_secs(60);
        let mut timed = Timed::new(&ours, None, end, Duration::from_millis(50));
        let before = Instant::now();
        assert!(timed.write_all(&vec![0; 32 << 20]).is_err());
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn when_the_time_is_up_even_what_is_there_is_not_read() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        let mut timed = Timed::new(&ours, None, Instant::now(), Duration::from_secs(60));
        assert_eq!(timed.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
