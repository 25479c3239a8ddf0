//! `hbc send`: one datagram to every server, and its answer when one is wanted.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ring::hmac;

use super::ack::{self, retry_delay};
use super::cli::{BootIdSource, SendArgs};
use super::host_info::{self, HostInfoError};
use super::resolver;
use super::server::{ServerAddress, missing_zone_remedy};
use super::settings::{AgentSettings, CliOverrides, hostname, read_key};
use crate::clock::{Now, Wall, format_duration};
use crate::config_file::Environment;
use crate::heartbeat::datagram::{self, DatagramKind, MAX_BYTES, Rejection};
use crate::heartbeat::encode::{self, OutgoingDatagram};
use crate::secret::Secret;
use crate::thread::Stop;

/// How many bytes a signature adds.
const SIGNATURE_BYTES: usize = 65;
/// How often one address is tried before the next one of the same name is. Twice, so that an
/// answer that is slower than the first retry delay is still received.
const ATTEMPTS_PER_ADDRESS: usize = 2;
/// How soon a wait for an answer notices that it is time to stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// A datagram that is ready to be sent.
pub struct SendCommand {
    beat: OutgoingDatagram,
    key: Option<hmac::Key>,
    servers: Vec<ServerAddress>,
    wait: Option<Duration>,
}

impl SendCommand {
    /// Fills in what the arguments leave to the machine or to hbc.yaml, and checks everything as hbd
    /// will.
    ///
    /// # Errors
    /// Which option is wrong and how to mend it.
    pub fn prepare(args: SendArgs) -> Result<SendCommand, String> {
        let (args, key) = SendCommand::addressed(args)?;
        SendCommand::build(args, key.as_ref())
    }

    /// The arguments with the servers that they are for and the host that they are about, and the key:
    /// those of hbc.yaml where no server is named.
    ///
    /// # Errors
    /// Which option is wrong, or why the configuration cannot be used.
    pub fn addressed(args: SendArgs) -> Result<(SendArgs, Option<Secret>), String> {
        let key = args.key_file.as_deref().map(read_key).transpose()?;
        if args.servers.is_empty() {
            SendCommand::as_configured(args, key, &|name| std::env::var(name).ok())
        } else {
            Ok((args, key))
        }
    }

    /// The datagram for arguments that are [addressed](SendCommand::addressed), and that key.
    ///
    /// # Errors
    /// Which option is wrong and how to mend it.
    pub fn build(args: SendArgs, key: Option<&Secret>) -> Result<SendCommand, String> {
        let boot_id = match args.boot_id {
            Some(BootIdSource::Kernel) => Some(boot_id()?),
            Some(BootIdSource::Given(id)) => Some(id),
            None => None,
        };
        let beat = OutgoingDatagram {
            host: args.host.map_or_else(hostname, Ok)?,
            connection: args.connection,
            event: args.event,
            reason: None,
            message: args.message,
            seconds: args.silence,
            interval: args.interval,
            boot_id,
            uptime: args.uptime.then(uptime).transpose()?,
            time: None,
            metrics: args.metrics,
            texts: args.texts,
            ack: args.wait.is_some(),
        };
        let key = key.map(encode::signing_key);
        let command = SendCommand { beat, key, servers: args.servers, wait: args.wait };
        command.validate()?;
        Ok(command)
    }

    /// Takes servers, key and host from hbc.yaml, where the arguments do not have them.
    fn as_configured(
        args: SendArgs,
        key: Option<Secret>,
        environment: Environment,
    ) -> Result<(SendArgs, Option<Secret>), String> {
        let loaded = AgentSettings::load(&CliOverrides::default(), environment);
        let (settings, _) = loaded.map_err(|why| {
            format!("--server HOST:PORT is missing, and the configuration cannot be used:\n{why}")
        })?;
        let args =
            SendArgs { servers: settings.servers, host: args.host.or(settings.host), ..args };
        Ok((args, key.or(settings.key)))
    }

    /// Sends it to every server. For each, what to print, or why it was not sent or not answered.
    pub fn send(&self) -> Vec<Result<String, String>> {
        let (_source, stop) = Stop::channel();
        self.send_until(&stop)
    }

    /// The same, but no attempt is repeated once it is time to stop.
    pub fn send_until(&self, stop: &Stop) -> Vec<Result<String, String>> {
        match self.wait {
            None => self.servers.iter().map(|server| self.send_once(server)).collect(),
            Some(timeout) => self.send_and_wait_all(timeout, stop),
        }
    }

    fn validate(&self) -> Result<(), String> {
        let json = self.json(Now::read().wall);
        let length = json.len() + if self.key.is_some() { SIGNATURE_BYTES } else { 0 };
        match datagram::parse(&json) {
            _ if length > MAX_BYTES => Err(format!(
                "{length} bytes are too many for one datagram, {MAX_BYTES} is the most: send the metrics in parts"
            )),
            Ok(read) if read.metrics.left_out().0 > 0 => {
                Err(option_error(self.beat.event, datagram::ODD_METRICS))
            }
            Ok(_) => Ok(()),
            Err(Rejection::BadField(what)) => Err(option_error(self.beat.event, what)),
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

    /// Sends to the first address of the server that takes it; no answer is waited for.
    fn send_once(&self, server: &ServerAddress) -> Result<String, String> {
        let mut last_error = String::new();
        for address in resolve(server)? {
            let sent = connect(address)
                .and_then(|socket| send_datagram(&socket, &self.bytes(Now::read().wall)));
            match sent {
                Ok(()) => return Ok(String::new()),
                Err(why) => last_error = describe_error(server, address, &why),
            }
        }
        Err(last_error)
    }

    /// To all servers at once: a silent one must not use up the time of the others.
    fn send_and_wait_all(&self, timeout: Duration, stop: &Stop) -> Vec<Result<String, String>> {
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .servers
                .iter()
                .map(|server| {
                    let work = move || self.send_and_wait(server, timeout, stop);
                    thread::Builder::new().name(format!("ask-{server}")).spawn_scoped(scope, work)
                })
                .collect();
            let joined = threads.into_iter().map(|thread| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err("asking panicked".into())),
                Err(why) => Err(format!("no thread can be started: {why}")),
            });
            joined.collect()
        })
    }

    /// Sends to one server again and again until it answers or the time is over.
    fn send_and_wait(
        &self,
        server: &ServerAddress,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<String, String> {
        let deadline = Instant::now() + timeout;
        let mut wait = AckWait::new(stop);
        for attempt in 1.. {
            let retry = deadline.min(Instant::now() + retry_delay(self.beat.event, attempt));
            if let Some(answer) = self.attempt(server, attempt, &mut wait, retry) {
                return Ok(answer);
            }
            let stopped = stop.wait(retry.saturating_duration_since(Instant::now()));
            if stopped || Instant::now() >= deadline {
                break;
            }
        }
        let why = wait.last_error.unwrap_or_else(|| {
            let (host, silence) = (&self.beat.host, self.beat.event == DatagramKind::Silence);
            let allowed = if silence { ", does it allow so long a silence" } else { "" };
            format!(
                "is hbd listening there, does it know the host {host}, do key and clock agree{allowed}?"
            )
        });
        Err(format!("{server} did not answer within {}: {why}", format_duration(timeout)))
    }

    /// Tries the addresses of a server in order until one of them is silent or answers.
    fn attempt(
        &self,
        server: &ServerAddress,
        attempt: u32,
        wait: &mut AckWait<'_>,
        until: Instant,
    ) -> Option<String> {
        let mut addresses = match resolve(server) {
            Ok(addresses) => addresses,
            Err(why) => {
                wait.last_error = Some(why);
                return None;
            }
        };
        let first = (attempt as usize - 1) / ATTEMPTS_PER_ADDRESS % addresses.len();
        addresses.rotate_left(first);
        for address in addresses {
            match self.attempt_at(address, wait, until) {
                Ok(Some(answer)) => return Some(answer.line(server, address)),
                Ok(None) => return None,
                Err(why) => wait.last_error = Some(describe_error(server, address, &why)),
            }
        }
        None
    }

    fn attempt_at(
        &self,
        address: SocketAddr,
        wait: &mut AckWait<'_>,
        until: Instant,
    ) -> std::io::Result<Option<RoundTrip>> {
        let socket = match wait.socket.take() {
            Some((known, socket)) if known == address => socket,
            _ => connect(address)?,
        };
        let time = Now::read().wall;
        wait.sent.push((time, Instant::now()));
        send_datagram(&socket, &self.bytes(time))?;
        let answer = self.receive(&socket, wait, until)?;
        wait.socket = Some((address, socket));
        Ok(answer)
    }

    fn receive(
        &self,
        socket: &UdpSocket,
        wait: &mut AckWait<'_>,
        until: Instant,
    ) -> std::io::Result<Option<RoundTrip>> {
        let mut buffer = [0; MAX_BYTES];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || wait.stop.stopped() {
                return Ok(None);
            }
            socket.set_read_timeout(Some(left.min(STOP_CHECK_INTERVAL)))?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(why) => match why.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        continue;
                    }
                    _ => return Err(why),
                },
            };
            let received = Instant::now();
            match ack::parse(&buffer[..length], self.key.as_ref()) {
                Ok(ack) => match wait.sent.iter().rfind(|(time, _)| *time == ack.time) {
                    Some((_, sent)) => {
                        let clock_offset = ack.now.0 - Now::read().wall.0;
                        let took = received.duration_since(*sent);
                        return Ok(Some(RoundTrip { took, clock_offset }));
                    }
                    None => wait.last_error = Some("an answer to something else came".into()),
                },
                Err(why) => wait.last_error = Some(why.into()),
            }
        }
    }
}

/// The attempts to get an answer from one server.
struct AckWait<'s> {
    stop: &'s Stop,
    /// The socket that is still open, and its address.
    socket: Option<(SocketAddr, UdpSocket)>,
    /// When each attempt was sent, by both clocks; the first is the timestamp in the datagram.
    sent: Vec<(Wall, Instant)>,
    last_error: Option<String>,
}

impl AckWait<'_> {
    fn new(stop: &Stop) -> AckWait<'_> {
        AckWait { stop, socket: None, sent: Vec::new(), last_error: None }
    }
}

/// An attempt that was answered.
struct RoundTrip {
    took: Duration,
    /// How many milliseconds the clock of the server is ahead of ours.
    clock_offset: i64,
}

impl RoundTrip {
    fn line(&self, server: &ServerAddress, address: SocketAddr) -> String {
        let mut line = format!("{server} answered in {:.1} ms", self.took.as_secs_f64() * 1000.0);
        if server.to_string() != address.to_string() {
            line = line.replacen(" answered", &format!(" ({address}) answered"), 1);
        }
        let offset = Duration::from_millis(self.clock_offset.unsigned_abs());
        // Less than that is the way there and back, and nothing to worry about.
        if offset > self.took + Duration::from_secs(1) {
            let side = if self.clock_offset > 0 { "ahead of" } else { "behind" };
            line += &format!(", its clock is {} {side} ours", format_duration(offset));
        }
        line + "\n"
    }
}

/// `boot_id: must be ...` of a datagram is `--boot-id: must be ...` of a command line.
fn option_error(event: DatagramKind, what: &str) -> String {
    let (field, rest) = what.split_once(':').unwrap_or((what, ""));
    let option = match field {
        "metrics" => "metric".to_owned(),
        "message" if event == DatagramKind::Silence => "comment".to_owned(),
        field => field.replace('_', "-"),
    };
    format!("--{option}:{rest}")
}

fn boot_id() -> Result<String, String> {
    host_info::boot_id().map_err(|why| format!("{why}: give --boot-id ID"))
}

fn uptime() -> Result<Duration, String> {
    host_info::uptime().map_err(|why| match why {
        HostInfoError::NoUptime => format!("{why}: leave --uptime out"),
        HostInfoError::Unreadable { .. } => why.to_string(),
    })
}

fn resolve(server: &ServerAddress) -> Result<Vec<SocketAddr>, String> {
    let addresses = resolver::resolve(server)
        .map_err(|why| format!("{} has no address: {why}", server.host))?;
    if addresses.is_empty() {
        Err(format!("{} has no address", server.host))
    } else {
        Ok(addresses)
    }
}

fn connect(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    socket.connect(address)?;
    Ok(socket)
}

/// On this very machine the kernel knows at once that no socket is bound there, and says so when
/// asked.
fn send_datagram(socket: &UdpSocket, bytes: &[u8]) -> std::io::Result<()> {
    socket.send(bytes)?;
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn describe_error(server: &ServerAddress, address: SocketAddr, why: &std::io::Error) -> String {
    match why.kind() {
        ErrorKind::ConnectionRefused => format!("nobody listens on UDP {address} ({server})"),
        _ => format!("cannot send to {address} ({server}): {why}{}", missing_zone_remedy(address)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_server_that_lacks_its_interface_was_an_invalid_argument() {
        let servers = vec![ServerAddress::parse("[fe80::1]:7").unwrap()];
        let args = SendArgs { servers, host: Some("web1".into()), ..SendArgs::default() };
        let told = SendCommand::prepare(args).unwrap().send().remove(0).unwrap_err();
        assert!(told.ends_with(": name its interface, such as [fe80::1%eth0]:7"), "{told}");
    }

    #[test]
    fn the_length_of_a_silence_is_in_its_datagram_and_its_comment_is_bounded() {
        let args = SendArgs {
            servers: vec![ServerAddress::parse("a").unwrap()],
            host: Some("web1".into()),
            event: DatagramKind::Silence,
            silence: Some(Duration::from_secs(1200)),
            wait: Some(Duration::from_secs(1)),
            message: Some("kernel update".into()),
            ..SendArgs::default()
        };
        let json = SendCommand::prepare(args.clone()).unwrap().json(Wall(1_795_291_928_667));
        let json = String::from_utf8(json).unwrap();
        let expected = r#"{"host":"web1","event":"silence","message":"kernel update","seconds":1200.0,"time":1795291928.667,"ack":true}"#;
        assert_eq!(json, expected);
        let long = SendArgs { message: Some("x".repeat(501)), ..args };
        let why = SendCommand::prepare(long).err().unwrap();
        assert!(why.starts_with("--comment: must be a text of at most 500"), "{why}");
    }

    #[test]
    fn without_a_server_it_is_as_the_configuration_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hbc.yaml");
        let named = file.to_str().unwrap().to_owned();
        let environment = |name: &str| (name == "HBC_CONFIG").then(|| named.clone());
        let configured = |args| SendCommand::as_configured(args, None, &environment);
        let why = configured(SendArgs::default()).unwrap_err();
        assert!(why.starts_with("--server HOST:PORT is missing"), "{why}");
        assert!(why.contains("hbc.yaml"), "{why}");
        fs::write(&file, "{server: a, key: secret, host: web1}").unwrap();
        let (args, key) = configured(SendArgs::default()).unwrap();
        assert_eq!(args.servers, [ServerAddress::parse("a").unwrap()]);
        assert_eq!(args.host.as_deref(), Some("web1"));
        assert_eq!(key, Some(Secret::new("secret")));
        let other = SendArgs { host: Some("web2".into()), ..SendArgs::default() };
        assert_eq!(configured(other).unwrap().0.host.as_deref(), Some("web2"));
    }
}
