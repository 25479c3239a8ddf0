//! A connection as the passage has it: plain, or encrypted once the client has begun with TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustls::ServerConnection;
use socket2::SockRef;

use super::certificate::Identity;
use super::workers::Crew;

/// The first byte of a TLS record that holds a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// A connection.
pub struct Line<'a> {
    socket: &'a TcpStream,
    crew: &'a Crew,
    tls: Option<Box<ServerConnection>>,
}

/// What a client began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// What is spoken here.
    Right,
    /// Plain HTTP where TLS is spoken.
    Plain,
}

impl<'a> Line<'a> {
    /// A line on which nothing was said yet.
    pub fn new(socket: &'a TcpStream, crew: &'a Crew) -> Line<'a> {
        Line { socket, crew, tls: None }
    }

    /// Waits until `end` for the first byte, where there is an identity to show. A client that is
    /// silent costs no more memory than on a plain line.
    pub fn begin(&mut self, identity: Option<&Identity>, end: Instant) -> io::Result<Beginning> {
        let Some(identity) = identity else { return Ok(Beginning::Right) };
        match self.socket(end, Duration::MAX).first_byte()? {
            None => Err(ErrorKind::UnexpectedEof.into()),
            Some(HANDSHAKE) => {
                self.tls = Some(Box::new(identity.connection()?));
                Ok(Beginning::Right)
            }
            Some(_) => Ok(Beginning::Plain),
        }
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// For reading and writing: everything together may take until `end`, each wait `stall`.
    pub fn until(&mut self, end: Instant, stall: Duration) -> Timed<'_> {
        Timed::new(self.socket(end, stall), self.tls.as_deref_mut())
    }

    /// The same, from now on for `total`.
    pub fn within(&mut self, total: Duration, stall: Duration) -> Timed<'_> {
        self.until(Instant::now() + total, stall)
    }

    /// The plain socket, when all has been said: a client that trusts TLS is told so, and knows that
    /// nothing was cut off (`close_notify`).
    pub fn end(mut self, patience: Duration) -> Socket<'a> {
        let mut socket = self.socket(Instant::now() + patience, patience);
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut socket);
        }
        socket
    }

    fn socket(&self, end: Instant, stall: Duration) -> Socket<'a> {
        Socket { socket: self.socket, crew: self.crew, end, stall }
    }
}

/// Reads and writes until its time is up, encrypted where there is TLS on the line.
pub struct Timed<'a> {
    socket: Socket<'a>,
    tls: Option<&'a mut ServerConnection>,
}

/// The socket itself. While its peer is waited for, the thread stands aside.
#[derive(Clone, Copy)]
pub struct Socket<'a> {
    /// The connection.
    pub socket: &'a TcpStream,
    /// The threads at the gate.
    pub crew: &'a Crew,
    /// Until when everything together may take.
    pub end: Instant,
    /// How long each wait for the peer may take.
    pub stall: Duration,
}

impl<'a> Timed<'a> {
    /// Reads and writes through `tls`, where there is any.
    pub fn new(socket: Socket<'a>, tls: Option<&'a mut ServerConnection>) -> Timed<'a> {
        Timed { socket, tls }
    }
}

impl Socket<'_> {
    /// The first byte that comes, which is left there to be read; none when the peer ends.
    pub fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let patience = self.patience()?;
        let count = match receive(self.socket, &mut byte, libc::MSG_PEEK) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                let _aside = self.crew.aside();
                self.socket.set_read_timeout(patience)?;
                self.socket.peek(&mut byte)?
            }
            at_once => at_once?,
        };
        Ok((count > 0).then_some(byte[0]))
    }

    fn patience(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now()).min(self.stall);
        // A timeout of zero would mean none.
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Socket<'_> {
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

impl Write for Socket<'_> {
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
            processed.map_err(|why| {
                log::debug!("a client was sent away: {why}");
                io::Error::new(ErrorKind::ConnectionAborted, why)
            })?;
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

/// Whether something has arrived, which is left there: 0 when that is the end.
pub fn peek_at_once(socket: &TcpStream) -> io::Result<usize> {
    receive(socket, &mut [0], libc::MSG_PEEK)
}

/// What has arrived; [`ErrorKind::WouldBlock`] when that is nothing.
pub fn receive_at_once(socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    receive(socket, into, 0)
}

fn receive(socket: &TcpStream, into: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open, and there is room for as many bytes as we say.
    let count =
        unsafe { libc::recv(socket.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), flags) };
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
        let crew = Crew::default();
        let end = Instant::now() + Duration::from_secs(60);
        let stall = Duration::from_millis(50);
        let mut timed = Timed::new(Socket { socket: &ours, crew: &crew, end, stall }, None);
        let before = Instant::now();
        assert!(timed.write_all(&vec![0; 32 << 20]).is_err());
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn when_the_time_is_up_even_what_is_there_is_not_read() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        let crew = Crew::default();
        let (end, stall) = (Instant::now(), Duration::from_secs(60));
        let mut timed = Timed::new(Socket { socket: &ours, crew: &crew, end, stall }, None);
        assert_eq!(timed.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
