//! A connection as the passage has it: plain, or encrypted once the client has begun with TLS.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::identity::Identity;
use super::timed::Timed;

/// The first byte of a TLS record that holds a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// A connection.
pub struct Line<'a> {
    socket: &'a TcpStream,
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
    pub fn new(socket: &'a TcpStream) -> Line<'a> {
        Line { socket, tls: None }
    }

    /// Waits until `end` for the first byte, where there is an identity to show. A client that is
    /// silent costs no more memory than on a plain line.
    pub fn begin(&mut self, identity: Option<&Identity>, end: Instant) -> io::Result<Beginning> {
        let Some(identity) = identity else { return Ok(Beginning::Right) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut first = [0];
        if self.socket.peek(&mut first)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if first[0] != HANDSHAKE {
            return Ok(Beginning::Plain);
        }
        self.tls = Some(Box::new(identity.connection()?));
        Ok(Beginning::Right)
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// For reading and writing: everything together may take until `end`, each wait `stall`.
    pub fn until(&mut self, end: Instant, stall: Duration) -> Timed<'_> {
        Timed::new(self.socket, self.tls.as_deref_mut(), end, stall)
    }

    /// The same, from now on for `total`.
    pub fn within(&mut self, total: Duration, stall: Duration) -> Timed<'_> {
        self.until(Instant::now() + total, stall)
    }

    /// The plain socket, when all has been said: a client that trusts TLS is told so, and knows that
    /// nothing was cut off (`close_notify`).
    pub fn end(mut self, patience: Duration) -> &'a TcpStream {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = self.socket.set_write_timeout(Some(patience));
            let _ = tls.write_tls(&mut &*self.socket);
        }
        self.socket
    }
}
