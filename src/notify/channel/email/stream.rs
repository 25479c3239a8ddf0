//! A connection to a mail server as a stream of lines, in clear or through TLS, with a timeout for
//! each call and a deadline for the whole session.
//!
//! lettre's own connection has no deadline: a server that sends a byte a minute would hold a worker
//! for days. It also keeps what came in clear behind the reply to STARTTLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::SmtpTimeouts;
use crate::deadline::DeadlineStream;

/// The longest line that is read, in bytes; RFC 5321 allows 512.
const MAX_LINE: usize = 4096;

type Socket = DeadlineStream<TcpStream>;

enum Transport {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

/// Lines in both directions, in clear or through TLS.
pub struct LineStream {
    stream: Transport,
    unread: Vec<u8>,
}

impl LineStream {
    /// Connects to the first address of `name` that answers. The deadline counts from here, but the
    /// resolution of the name keeps to the resolver's own timeouts (resolv.conf(5)).
    pub fn connect(name: &str, port: u16, limits: SmtpTimeouts) -> io::Result<LineStream> {
        let deadline = Instant::now() + limits.total;
        let addresses: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
        let mut last = io::Error::new(ErrorKind::NotFound, "its name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            // An address that does not answer must leave time for the others and for the mail.
            let shares = u32::try_from(addresses.len() - tried + 1).unwrap_or(u32::MAX);
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = (left / shares).min(limits.read).max(Duration::from_millis(1));
            match TcpStream::connect_timeout(address, timeout) {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    let socket = Socket::new(tcp, deadline).with_call_timeout(limits.read);
                    return Ok(LineStream { stream: Transport::Plain(socket), unread: Vec::new() });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn socket(&self) -> &Socket {
        match &self.stream {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => &stream.sock,
        }
    }

    /// Our end of the connection.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket().stream.local_addr()
    }

    /// The server's end of the connection.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.socket().stream.peer_addr()
    }

    /// Whether bytes were received that no line has been read from.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether more bytes have come than were read; does not wait for any.
    pub fn data_available(&mut self) -> bool {
        if self.has_unread() || self.socket().stream.set_nonblocking(true).is_err() {
            return true;
        }
        // An error or an end will be returned by the next read of a line.
        let _ = self.fill();
        self.socket().stream.set_nonblocking(false).is_err() || self.has_unread()
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 1024];
        let count = match &mut self.stream {
            Transport::Plain(socket) => socket.read(&mut chunk),
            Transport::Tls(stream) => stream.read(&mut chunk),
        }?;
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// Starts TLS on the connection and checks the certificate.
    pub fn handshake(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<LineStream> {
        let Transport::Plain(mut socket) = self.stream else { return Ok(self) };
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            if connection.complete_io(&mut socket)? == (0, 0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let stream = Transport::Tls(Box::new(StreamOwned::new(connection, socket)));
        Ok(LineStream { stream, unread: Vec::new() })
    }

    /// The next line, without its end.
    pub fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.unread.len() > MAX_LINE {
                let start = String::from_utf8_lossy(&self.unread[..80]).into_owned();
                return Err(io::Error::new(ErrorKind::InvalidData, start));
            }
            match self.fill() {
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
            Transport::Plain(socket) => socket.write_all(bytes),
            Transport::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Moves the deadline to `timeout` from now, if that is earlier.
    pub fn shorten_deadline(&mut self, timeout: Duration) {
        let socket = match &mut self.stream {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => &mut stream.sock,
        };
        let left = socket.remaining().unwrap_or_default().min(timeout);
        socket.set_deadline(Instant::now() + left);
    }
}
