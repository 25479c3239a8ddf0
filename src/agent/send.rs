//! `hbc send`: one datagram to every server, and its answer when one is wanted.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ring::hmac;

use super::ack::{self, pause};
use super::machine;
use super::options::{BootId, Errand};
use super::server::Server;
use super::settings::{Overrides, Settings};
use crate::clock::{Now, Wall, words};
use crate::config_file::Environment;
use crate::heartbeat::datagram::{self, MAX_BYTES, Rejection};
use crate::heartbeat::encode::{self, OutgoingDatagram};
use crate::secret::Secret;
use crate::thread::Stop;

/// How many bytes a signature adds.
const SIGNATURE: usize = 65;
/// How often an address is asked before the next one of the same name is. Twice, so that an
/// answer that is slower than the first pause is still heard.
const ASKED_EACH: usize = 2;
/// How soon whoever listens notices that it is time to stop.
const GLANCE: Duration = Duration::from_millis(200);

/// Something to tell, ready to be sent.
pub struct Parcel {
    beat: OutgoingDatagram,
    key: Option<hmac::Key>,
    servers: Vec<Server>,
    wait: Option<Duration>,
}

impl Parcel {
    /// Asks the machine for what the errand leaves to it, and checks everything as hbd will.
    ///
    /// # Errors
    /// Which option is wrong and how to mend it.
    pub fn pack(errand: Errand) -> Result<Parcel, String> {
        let key = errand.key_file.as_deref().map(read_key).transpose()?;
        let (errand, key) = if errand.servers.is_empty() {
            Parcel::as_configured(errand, key, &|name| std::env::var(name).ok())?
        } else {
            (errand, key)
        };
        let boot_id = match errand.boot_id {
            Some(BootId::Kernel) => Some(machine::boot_id()?),
            Some(BootId::Given(id)) => Some(id),
            None => None,
        };
        let beat = OutgoingDatagram {
            host: errand.host.map_or_else(machine::hostname, Ok)?,
            connection: errand.connection,
            event: errand.event,
            message: errand.message,
            interval: errand.interval,
            boot_id,
            uptime: errand.uptime.then(machine::uptime).transpose()?,
            time: None,
            metrics: errand.metrics,
            ack: errand.wait.is_some(),
        };
        let key = key.as_ref().map(encode::signing_key);
        let parcel = Parcel { beat, key, servers: errand.servers, wait: errand.wait };
        parcel.check()?;
        Ok(parcel)
    }

    /// Whom to tell, as whom and under which key as hbc.yaml says, where the errand does not.
    fn as_configured(
        errand: Errand,
        key: Option<Secret>,
        environment: Environment,
    ) -> Result<(Errand, Option<Secret>), String> {
        let (settings, _) = Settings::load(&Overrides::default(), environment).map_err(|why| {
            format!("--server HOST:PORT is missing, and the configuration cannot be used:\n{why}")
        })?;
        let errand =
            Errand { servers: settings.servers, host: errand.host.or(settings.host), ..errand };
        Ok((errand, key.or(settings.key)))
    }

    /// Sends it to every server; what to print for each, or why that one was not told.
    pub fn send(&self) -> Vec<Result<String, String>> {
        let (_stopper, stop) = Stop::channel();
        self.send_until(&stop)
    }

    /// The same, but nothing is said again once it is time to stop.
    pub fn send_until(&self, stop: &Stop) -> Vec<Result<String, String>> {
        match self.wait {
            None => self.servers.iter().map(|server| self.tell(server)).collect(),
            Some(wait) => self.ask_all(wait, stop),
        }
    }

    fn check(&self) -> Result<(), String> {
        let json = self.json(Now::read().wall);
        let length = json.len() + if self.key.is_some() { SIGNATURE } else { 0 };
        match datagram::parse(&json) {
            _ if length > MAX_BYTES => Err(format!(
                "{length} bytes are too many for one datagram, {MAX_BYTES} is the most: send the metrics in parts"
            )),
            Ok(_) => Ok(()),
            Err(Rejection::BadField(what)) => Err(of_option(what)),
            Err(why) => Err(why.to_string()),
        }
    }

    fn json(&self, time: Wall) -> Vec<u8> {
        let timed = self.key.is_some() || self.wait.is_some();
        OutgoingDatagram { time: timed.then_some(time), ..self.beat.clone() }.json()
    }

    fn bytes(&self, time: Wall) -> Vec<u8> {
        let json = self.json(time);
        match &self.key {
            Some(key) => encode::sign(key, &json),
            None => json,
        }
    }

    /// Sends it to the first address of the server that takes it; nobody answers.
    fn tell(&self, server: &Server) -> Result<String, String> {
        let mut why = String::new();
        for address in resolve(server)? {
            let sent =
                open(address).and_then(|socket| post(&socket, &self.bytes(Now::read().wall)));
            match sent {
                Ok(()) => return Ok(String::new()),
                Err(error) => why = cannot_send(server, address, &error),
            }
        }
        Err(why)
    }

    /// All servers at once: a silent one must not use up the time of the others.
    fn ask_all(&self, wait: Duration, stop: &Stop) -> Vec<Result<String, String>> {
        thread::scope(|scope| {
            let asked: Vec<_> = self
                .servers
                .iter()
                .map(|server| {
                    let ask = move || self.ask(server, wait, stop);
                    thread::Builder::new().name(format!("ask-{server}")).spawn_scoped(scope, ask)
                })
                .collect();
            let joined = asked.into_iter().map(|thread| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err("asking panicked".into())),
                Err(why) => Err(format!("no thread can be started: {why}")),
            });
            joined.collect()
        })
    }

    /// Asks one server again and again until it answers or `wait` is over.
    fn ask(&self, server: &Server, wait: Duration, stop: &Stop) -> Result<String, String> {
        let end = Instant::now() + wait;
        let mut inquiry = Inquiry::new(stop);
        for attempt in 1.. {
            let again = end.min(Instant::now() + pause(self.beat.event, attempt));
            if let Some(answer) = self.ask_once(server, attempt, &mut inquiry, again) {
                return Ok(answer);
            }
            if stop.wait(again.saturating_duration_since(Instant::now())) || Instant::now() >= end {
                break;
            }
        }
        let why = inquiry.doubt.unwrap_or_else(|| {
            format!(
                "is hbd listening there, does it know the host {}, do key and clock agree?",
                self.beat.host
            )
        });
        Err(format!("{server} did not answer within {}: {why}", words(wait)))
    }

    /// Asks the addresses of a server in order until one of them is silent or answers.
    fn ask_once(
        &self,
        server: &Server,
        attempt: u32,
        inquiry: &mut Inquiry<'_>,
        until: Instant,
    ) -> Option<String> {
        let mut addresses = match resolve(server) {
            Ok(addresses) => addresses,
            Err(why) => return inquiry.doubt(why),
        };
        let turn = (attempt as usize - 1) / ASKED_EACH % addresses.len();
        addresses.rotate_left(turn);
        for address in addresses {
            match self.ask_at(address, inquiry, until) {
                Ok(Some(heard)) => return Some(heard.line(server, address)),
                Ok(None) => return None,
                Err(why) => inquiry.doubt = Some(cannot_send(server, address, &why)),
            }
        }
        None
    }

    fn ask_at(
        &self,
        address: SocketAddr,
        inquiry: &mut Inquiry<'_>,
        until: Instant,
    ) -> std::io::Result<Option<Heard>> {
        let socket = match inquiry.line.take() {
            Some((known, socket)) if known == address => socket,
            _ => open(address)?,
        };
        let time = Now::read().wall;
        inquiry.sent.push((time, Instant::now()));
        post(&socket, &self.bytes(time))?;
        let heard = self.listen(&socket, inquiry, until)?;
        inquiry.line = Some((address, socket));
        Ok(heard)
    }

    fn listen(
        &self,
        socket: &UdpSocket,
        inquiry: &mut Inquiry<'_>,
        until: Instant,
    ) -> std::io::Result<Option<Heard>> {
        let mut buffer = [0; MAX_BYTES];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || inquiry.stop.stopped() {
                return Ok(None);
            }
            socket.set_read_timeout(Some(left.min(GLANCE)))?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let at = Instant::now();
            match ack::read(&buffer[..length], self.key.as_ref()) {
                Ok(ack) => match inquiry.sent.iter().rfind(|(time, _)| *time == ack.time) {
                    Some((_, sent)) => {
                        let ahead = ack.now.0 - Now::read().wall.0;
                        return Ok(Some(Heard { took: at.duration_since(*sent), ahead }));
                    }
                    None => inquiry.doubt = Some("an answer to something else came".into()),
                },
                Err(why) => inquiry.doubt = Some(why.into()),
            }
        }
    }
}

/// What has been asked of one server, and what came of it.
struct Inquiry<'s> {
    stop: &'s Stop,
    /// The socket that is still open, and to where.
    line: Option<(SocketAddr, UdpSocket)>,
    /// When it was sent, by both clocks.
    sent: Vec<(Wall, Instant)>,
    /// The last thing that went wrong.
    doubt: Option<String>,
}

impl Inquiry<'_> {
    fn new(stop: &Stop) -> Inquiry<'_> {
        Inquiry { stop, line: None, sent: Vec::new(), doubt: None }
    }

    fn doubt(&mut self, why: String) -> Option<String> {
        self.doubt = Some(why);
        None
    }
}

/// An answer that is believed.
struct Heard {
    took: Duration,
    /// Milliseconds that the clock of the server is ahead of ours.
    ahead: i64,
}

impl Heard {
    fn line(&self, server: &Server, address: SocketAddr) -> String {
        let mut line = format!("{server} answered in {:.1} ms", self.took.as_secs_f64() * 1000.0);
        if server.to_string() != address.to_string() {
            line = line.replacen(" answered", &format!(" ({address}) answered"), 1);
        }
        let apart = Duration::from_millis(self.ahead.unsigned_abs());
        // Less than that is the way there and back, and nothing to worry about.
        if apart > self.took + Duration::from_secs(1) {
            let side = if self.ahead > 0 { "ahead of" } else { "behind" };
            line += &format!(", its clock is {} {side} ours", words(apart));
        }
        line + "\n"
    }
}

/// `boot_id: must be ...` of a datagram is `--boot-id: must be ...` of a command line.
fn of_option(what: &str) -> String {
    let (field, rest) = what.split_once(':').unwrap_or((what, ""));
    let option = match field {
        "metrics" => "metric".to_owned(),
        field => field.replace('_', "-"),
    };
    format!("--{option}:{rest}")
}

/// The key in a file that the command line names.
pub(super) fn read_key(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|why| format!("--key-file: cannot read {shown}: {why}"))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains(char::is_control) {
        return Err(format!("--key-file: {shown} must hold one line, the key, and nothing else"));
    }
    Ok(Secret::new(line))
}

fn resolve(server: &Server) -> Result<Vec<SocketAddr>, String> {
    let found = (server.host.as_str(), server.port).to_socket_addrs();
    let addresses: Vec<_> =
        found.map_err(|why| format!("{} has no address: {why}", server.host))?.collect();
    if addresses.is_empty() {
        Err(format!("{} has no address", server.host))
    } else {
        Ok(addresses)
    }
}

fn open(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    socket.connect(address)?;
    Ok(socket)
}

/// On this very machine the kernel knows at once that nobody listens, and says so when asked.
fn post(socket: &UdpSocket, bytes: &[u8]) -> std::io::Result<()> {
    socket.send(bytes)?;
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn cannot_send(server: &Server, address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!("nobody listens on UDP {address} ({server})"),
        _ => format!("cannot send to {address} ({server}): {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_server_it_is_as_the_configuration_says() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("hbc.yaml");
        let named = file.to_str().unwrap().to_owned();
        let environment = |name: &str| (name == "HBC_CONFIG").then(|| named.clone());
        let settled = |errand| Parcel::as_configured(errand, None, &environment);
        let why = settled(Errand::default()).unwrap_err();
        assert!(why.starts_with("--server HOST:PORT is missing"), "{why}");
        assert!(why.contains("hbc.yaml"), "{why}");
        fs::write(&file, "{server: a, key: secret, host: web1}").unwrap();
        let (errand, key) = settled(Errand::default()).unwrap();
        assert_eq!(errand.servers, [Server::parse("a").unwrap()]);
        assert_eq!(errand.host.as_deref(), Some("web1"));
        assert_eq!(key, Some(Secret::new("secret")));
        let other = Errand { host: Some("web2".into()), ..Errand::default() };
        assert_eq!(settled(other).unwrap().0.host.as_deref(), Some("web2"));
    }
}
