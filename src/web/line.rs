//! A connection as the passage has it: plain, or encrypted once the client has begun with TLS.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::crew::Crew;
use super::identity::Identity;
use super::timed::{Socket, Timed};

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
