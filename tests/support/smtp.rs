//! An SMTP server that follows a script: it accepts every mail, except where the script says
//! otherwise. Each test file uses some of it.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the server does instead of the usual reply.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Sends this reply.
    Say(&'static str),
    /// Sends nothing until the client closes the connection.
    Hang,
    /// Closes the connection.
    Close,
    /// Sends a letter every few milliseconds, without end.
    Trickle,
}

/// The server's set-up.
#[derive(Clone, Default)]
pub struct Script {
    /// TLS, after STARTTLS or, with `implicit`, from the first byte.
    pub tls: Option<Arc<ServerConfig>>,
    pub implicit: bool,
    /// The extensions in the reply to EHLO; STARTTLS is added while `tls` has not begun.
    pub offers: Vec<&'static str>,
    /// By the beginning of the client's line; `CONNECT` for the banner, `.` for the end of the
    /// mail.
    pub reactions: Vec<(&'static str, Reaction)>,
}

impl Script {
    pub fn on(mut self, line: &'static str, reaction: Reaction) -> Script {
        self.reactions.push((line, reaction));
        self
    }

    pub fn says(self, line: &'static str, answer: &'static str) -> Script {
        self.on(line, Reaction::Say(answer))
    }

    pub fn offering(mut self, offer: &'static str) -> Script {
        self.offers.push(offer);
        self
    }

    /// Starts to listen.
    pub fn start(self) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tx, sessions) = channel();
        std::thread::Builder::new()
            .name("smtp".into())
            .spawn(move || serve(&listener, &self, &tx))
            .unwrap();
        Server { port, sessions }
    }
}

/// One connection, as the server saw it.
#[derive(Debug, Default)]
pub struct Session {
    /// The client's commands, without the mails.
    pub lines: Vec<String>,
    /// The mails, without dot-stuffing.
    pub mails: Vec<Vec<u8>>,
    /// How many of `lines` came in clear.
    pub in_clear: usize,
}

/// A running server; it ends with the test.
pub struct Server {
    pub port: u16,
    sessions: Receiver<Session>,
}

impl Server {
    /// The next connection, when it has ended.
    pub fn session(&self) -> Session {
        self.sessions.recv_timeout(Duration::from_secs(20)).expect("a connection that ended")
    }

    /// The connections that have ended since the last call.
    pub fn ended(&self) -> Vec<Session> {
        self.sessions.try_iter().collect()
    }
}

fn serve(listener: &TcpListener, script: &Script, sessions: &Sender<Session>) {
    for stream in listener.incoming() {
        let mut session = Session::default();
        let _ = Talk::with(stream.unwrap(), script).and_then(|talk| talk.run(script, &mut session));
        if sessions.send(session).is_err() {
            return;
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
    Gone,
}

/// The state of a session: which commands came, in the order that RFC 5321 requires.
#[derive(Default)]
struct Order {
    logged_in: bool,
    sender: bool,
    recipient: bool,
}

struct Talk {
    stream: Stream,
    unread: Vec<u8>,
}

impl Talk {
    fn with(tcp: TcpStream, script: &Script) -> io::Result<Talk> {
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut talk = Talk { stream: Stream::Plain(tcp), unread: Vec::new() };
        if let (Some(tls), true) = (&script.tls, script.implicit) {
            talk.secure(tls)?;
        }
        Ok(talk)
    }

    fn secure(&mut self, config: &Arc<ServerConfig>) -> io::Result<()> {
        let Stream::Plain(tcp) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Ok(());
        };
        let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        self.stream = Stream::Tls(Box::new(stream));
        Ok(())
    }

    fn is_plain(&self) -> bool {
        matches!(self.stream, Stream::Plain(_))
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let bytes = text.as_bytes();
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        let count = match &mut self.stream {
            Stream::Plain(tcp) => tcp.read(&mut chunk)?,
            Stream::Tls(tls) => tls.read(&mut chunk)?,
            Stream::Gone => 0,
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    fn hear(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let mut line: Vec<u8> = self.unread.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn hear_mail(&mut self) -> io::Result<Vec<u8>> {
        let mut mail = Vec::new();
        loop {
            let line = self.hear()?;
            if line == b"." {
                return Ok(mail);
            }
            mail.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            mail.extend_from_slice(b"\r\n");
        }
    }

    fn run(mut self, script: &Script, session: &mut Session) -> io::Result<()> {
        self.react(script, "CONNECT", "220 mail.example ESMTP")?;
        let wants_login = script.offers.iter().any(|offer| offer.starts_with("AUTH"));
        let mut order = Order { logged_in: !wants_login, ..Order::default() };
        loop {
            let line = String::from_utf8_lossy(&self.hear()?).into_owned();
            session.lines.push(line.clone());
            session.in_clear += usize::from(self.is_plain());
            match line.split(' ').next().unwrap_or_default() {
                "EHLO" => self.react(script, &line, &self.offer(script))?,
                "HELO" => self.react(script, &line, "250 mail.example")?,
                "STARTTLS" => {
                    self.react(script, &line, "220 begin")?;
                    self.secure(script.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?)?;
                }
                "AUTH" => order.logged_in |= self.agrees(script, &line, "235 welcome")?,
                "MAIL" if !order.logged_in => self.answer("530 log in first").map(drop)?,
                "MAIL" => order.sender = self.agrees(script, &line, "250 fine")?,
                "RCPT" if !order.sender => self.answer("503 need MAIL").map(drop)?,
                "RCPT" => order.recipient |= self.agrees(script, &line, "250 fine")?,
                "DATA" if !order.recipient => self.answer("503 need RCPT").map(drop)?,
                "DATA" => {
                    if self.react_with(script, &line, "354 go on")?.starts_with('3') {
                        session.mails.push(self.hear_mail()?);
                        self.react(script, ".", "250 taken")?;
                    }
                }
                "QUIT" => return self.say("221 bye\r\n"),
                // The second turn of a login that was asked for.
                _ if !order.logged_in => {
                    order.logged_in = self.agrees(script, &line, "250 fine")?;
                }
                _ => self.react(script, &line, "250 fine")?,
            }
        }
    }

    /// Whether the reply is 2xx, and not 334 for more of a login.
    fn agrees(&mut self, script: &Script, line: &str, usual: &str) -> io::Result<bool> {
        Ok(self.react_with(script, line, usual)?.starts_with('2'))
    }

    fn offer(&self, script: &Script) -> String {
        let mut lines = vec!["mail.example".to_owned()];
        if script.tls.is_some() && self.is_plain() {
            lines.push("STARTTLS".into());
        }
        lines.extend(script.offers.iter().map(|offer| (*offer).to_owned()));
        let last = lines.len() - 1;
        let shown = lines
            .iter()
            .enumerate()
            .map(|(index, line)| format!("250{}{line}", if index == last { ' ' } else { '-' }));
        shown.collect::<Vec<_>>().join("\r\n")
    }

    fn react(&mut self, script: &Script, line: &str, usual: &str) -> io::Result<()> {
        self.react_with(script, line, usual).map(drop)
    }

    fn react_with(&mut self, script: &Script, line: &str, usual: &str) -> io::Result<String> {
        let reaction = script.reactions.iter().find(|(start, _)| line.starts_with(start));
        match reaction.map(|(_, reaction)| reaction) {
            None => self.answer(usual),
            Some(Reaction::Say(answer)) => self.answer(answer),
            Some(Reaction::Hang) => loop {
                self.more()?;
            },
            Some(Reaction::Close) => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Reaction::Trickle) => self.trickle(),
        }
    }

    fn answer(&mut self, answer: &str) -> io::Result<String> {
        self.say(&format!("{answer}\r\n"))?;
        Ok(answer.to_owned())
    }

    /// Waits for the client between two letters, and so ends when the client closes the connection.
    fn trickle(&mut self) -> io::Result<String> {
        if let Stream::Plain(tcp) = &self.stream {
            tcp.set_read_timeout(Some(Duration::from_millis(20)))?;
        }
        loop {
            self.say("2")?;
            match self.more() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
    }
}
