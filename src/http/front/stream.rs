//! A client's connection, plain or encrypted, on which every exchange has a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::certificate::ServerCertificate;
use super::limits::RESERVED_DESCRIPTORS;
use crate::deadline::DeadlineStream;

/// The first byte of a TLS record that holds a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// A connection.
pub struct ClientStream<'a> {
    socket: &'a TcpStream,
    tls: Option<Box<ServerConnection>>,
}

/// What a client began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What is spoken here.
    Expected,
    /// Plain HTTP where TLS is spoken.
    PlainHttp,
}

impl<'a> ClientStream<'a> {
    /// A connection over which nothing was sent yet.
    pub fn new(socket: &'a TcpStream) -> ClientStream<'a> {
        ClientStream { socket, tls: None }
    }

    /// Waits until `deadline` for the first byte, where there is a certificate to show. A client
    /// that is silent costs no more memory than on a plain connection.
    ///
    /// # Errors
    /// When no byte comes.
    pub fn detect(
        &mut self,
        certificate: Option<&ServerCertificate>,
        deadline: Instant,
    ) -> io::Result<Protocol> {
        let Some(certificate) = certificate else { return Ok(Protocol::Expected) };
        match self.first_byte(deadline)? {
            None => Err(ErrorKind::UnexpectedEof.into()),
            Some(HANDSHAKE) => {
                self.tls = Some(Box::new(certificate.connection()?));
                Ok(Protocol::Expected)
            }
            Some(_) => Ok(Protocol::PlainHttp),
        }
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// For reading and writing: everything together may take until `deadline`, each wait for the
    /// client `call_timeout`.
    pub fn with_deadline(
        &mut self,
        deadline: Instant,
        call_timeout: Duration,
    ) -> DeadlineClientStream<'_> {
        let socket = self.socket(deadline, call_timeout);
        DeadlineClientStream { socket, tls: self.tls.as_deref_mut() }
    }

    /// The same, from now on for `timeout`.
    pub fn with_timeout(
        &mut self,
        timeout: Duration,
        call_timeout: Duration,
    ) -> DeadlineClientStream<'_> {
        self.with_deadline(Instant::now() + timeout, call_timeout)
    }

    /// When all has been sent: ends our side. A TLS client learns that nothing was cut off
    /// (`close_notify`).
    pub fn close(mut self, timeout: Duration) {
        let mut socket = self.socket(Instant::now() + timeout, timeout);
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn socket(&self, deadline: Instant, call_timeout: Duration) -> DeadlineStream<&'a TcpStream> {
        DeadlineStream::new(self.socket, deadline).with_call_timeout(call_timeout)
    }

    /// The first byte that comes, which is left there to be read; none when the client ends.
    fn first_byte(&self, deadline: Instant) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let timeout = DeadlineStream::new(self.socket, deadline).remaining()?;
        self.socket.set_read_timeout(Some(timeout))?;
        let count = self.socket.peek(&mut byte)?;
        Ok((count > 0).then_some(byte[0]))
    }
}

/// Reads and writes until its time is up, encrypted where there is TLS.
pub struct DeadlineClientStream<'a> {
    socket: DeadlineStream<&'a TcpStream>,
    tls: Option<&'a mut ServerConnection>,
}

/// The first read makes the handshake.
impl Read for DeadlineClientStream<'_> {
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
impl Write for DeadlineClientStream<'_> {
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

fn send_all(tls: &mut ServerConnection, socket: &mut impl Write) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(socket)? == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Whether something has arrived, which is left there: 0 when that is the end,
/// [`ErrorKind::WouldBlock`] when nothing has.
///
/// # Errors
/// That nothing has arrived, or what the system says.
pub fn peek_now(socket: &impl AsRawFd) -> io::Result<usize> {
    let mut byte = 0u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open, and there is room for the one byte.
    let count = unsafe { libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Whether few descriptors are left, and those are for channels, the store and child processes: the
/// system gives the lowest number that is free.
pub fn is_reserved(socket: &impl AsRawFd) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    let first = limit.rlim_cur - RESERVED_DESCRIPTORS.min(limit.rlim_cur / 4);
    known && socket.as_raw_fd() as libc::rlim_t >= first
}

/// Throws away some of what has arrived (`MSG_TRUNC`, tcp(7)): 0 when that is the end,
/// [`ErrorKind::WouldBlock`] when nothing has.
///
/// # Errors
/// As [`peek_now`].
pub fn discard_now(socket: &impl AsRawFd) -> io::Result<usize> {
    const MOST: usize = 256 * 1024;
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open, and of TCP nothing is written to the place that is given.
    let count = unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), MOST, flags) };
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
        let mut stream = ClientStream::new(&ours);
        let mut exchange = stream.with_timeout(Duration::from_secs(60), Duration::from_millis(50));
        let before = Instant::now();
        assert!(exchange.write_all(&vec![0; 32 << 20]).is_err());
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn when_the_time_is_up_even_what_is_there_is_not_read() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        let mut stream = ClientStream::new(&ours);
        let mut exchange = stream.with_deadline(Instant::now(), Duration::from_secs(60));
        assert_eq!(exchange.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
