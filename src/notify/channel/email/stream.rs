//! A connection to a mail server that keeps two limits: one for each read, one for everything.
//!
//! lettre's own connection has only the first, and a server that sends a byte a minute would hold
//! a worker for days; it also keeps what came in clear behind the answer to STARTTLS.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::Limits;

/// RFC 5321 allows 512 bytes; generous, but not for ever.
const LONGEST_LINE: usize = 4096;

/// Stands in an [`io::Error`] when [`Limits::total`] has passed.
#[derive(Debug)]
pub struct Overdue;

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the time for the whole attempt is up")
    }
}

impl std::error::Error for Overdue {}

/// A TCP connection whose every call ends within the limits.
struct Socket {
    tcp: TcpStream,
    read: Duration,
    deadline: Instant,
}

impl Socket {
    fn patience(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::other(Overdue)) } else { Ok(left.min(self.read)) }
    }

    /// A timeout comes as EAGAIN ("Resource temporarily unavailable") from the system.
    fn in_words(&self, error: io::Error) -> io::Error {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => match self.patience() {
                Ok(_) => ErrorKind::TimedOut.into(),
                Err(overdue) => overdue,
            },
            _ => error,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.patience()?))?;
        self.tcp.read(buffer).map_err(|error| self.in_words(error))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.patience()?))?;
        self.tcp.write(bytes).map_err(|error| self.in_words(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

/// Lines in both directions, in clear or through TLS.
pub struct Wire {
    stream: Stream,
    unread: Vec<u8>,
}

impl Wire {
    /// Connects to the first address of `name` that answers; the limits count from here.
    ///
    /// The name's resolution keeps to the resolver's own limits (resolv.conf(5)).
    pub fn connect(name: &str, port: u16, limits: Limits) -> io::Result<Wire> {
        let deadline = Instant::now() + limits.total;
        let addresses: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
        let mut last = io::Error::new(ErrorKind::NotFound, "its name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            // An address that swallows packets must leave time for the others and for the mail.
            let shares = u32::try_from(addresses.len() - tried + 1).unwrap_or(u32::MAX);
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = (left / shares).min(limits.read).max(Duration::from_millis(1));
            match TcpStream::connect_timeout(address, patience) {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    let socket = Socket { tcp, read: limits.read, deadline };
                    return Ok(Wire { stream: Stream::Plain(socket), unread: Vec::new() });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn socket(&self) -> &Socket {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    /// Our end of the connection.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket().tcp.local_addr()
    }

    /// The server's end of the connection.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.socket().tcp.peer_addr()
    }

    /// Whether more has come than was read.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether more has come by now than was read, without waiting for it.
    pub fn has_come(&mut self) -> bool {
        if self.has_unread() || self.socket().tcp.set_nonblocking(true).is_err() {
            return true;
        }
        // An error or an end shows itself at the next line.
        let _ = self.take_in();
        self.socket().tcp.set_nonblocking(false).is_err() || self.has_unread()
    }

    fn take_in(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 1024];
        let count = match &mut self.stream {
            Stream::Plain(socket) => socket.read(&mut chunk),
            Stream::Tls(stream) => stream.read(&mut chunk),
        }?;
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// Agrees on TLS, and checks the certificate.
    pub fn secure(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Wire> {
        let Stream::Plain(mut socket) = self.stream else { return Ok(self) };
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            if connection.complete_io(&mut socket)? == (0, 0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(connection, socket)));
        Ok(Wire { stream, unread: Vec::new() })
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.unread.len() > LONGEST_LINE {
                let start = String::from_utf8_lossy(&self.unread[..80]).into_owned();
                return Err(io::Error::new(ErrorKind::InvalidData, start));
            }
            match self.take_in() {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// From now on nothing is waited for longer than `patience`.
    pub fn hurry(&mut self, patience: Duration) {
        let socket = match &mut self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &mut stream.sock,
        };
        socket.read = socket.read.min(patience);
        socket.deadline = socket.deadline.min(Instant::now() + patience);
    }
}
