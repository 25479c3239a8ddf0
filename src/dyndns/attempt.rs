//! One attempt to write a name: over TCP to a DNS server, or over HTTP to a provider.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use domain::tsig::Key;
use domain::utils::base64;
use ring::rand::{SecureRandom, SystemRandom};

use super::kept::{Attempt, Done};
use super::method::{Bad, Method, Provider, Server, Wish};
use super::names::Family;
use super::wire::{self, Request, Update};
use crate::clock::Now;
use crate::tls;

/// How long a DNS server may take for one attempt.
const DNS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to be reached at one of its addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a provider may take in all.
const HTTP_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of a provider's answer is read.
const ANSWER_CAP: u64 = 4096;
/// The longest pause that a provider may ask for.
const LONGEST_PAUSE: u64 = 86_400;

/// Makes it.
///
/// # Errors
/// Why the records are not as they should be; never holds a secret.
pub fn make(attempt: &Attempt) -> Result<Done, Bad> {
    match &attempt.entry.method {
        Method::Rfc2136(server) => write_zone(server, attempt),
        Method::Http(provider) => call(provider, &attempt.wish),
    }
}

fn write_zone(server: &Server, attempt: &Attempt) -> Result<Done, Bad> {
    let place = attempt.entry.method.place();
    let named = |bad: Bad| match bad {
        Bad::Unreachable(why) => Bad::Unreachable(format!("{place}: {why}")),
        Bad::Busy(why, pause) => Bad::Busy(format!("{place}: {why}"), pause),
        Bad::Refused(why) => Bad::Refused(format!("{place}: {why}")),
        Bad::Forbidden(why) => Bad::Forbidden(format!("{place}: {why}")),
    };
    let octets: Vec<u8> = base64::decode(server.key.reveal())
        .map_err(|_| Bad::Refused("the key is not in base64".into()))?;
    let key = wire::key(server.algorithm, &server.key_name, &octets).map_err(Bad::Refused)?;
    write_signed(server, attempt, &key).map_err(named)
}

fn write_signed(server: &Server, attempt: &Attempt, key: &Key) -> Result<Done, Bad> {
    let wish = &attempt.wish;
    let mut done = Done::default();
    for address in &wish.addresses {
        if attempt.ask && holds(server, wish, *address, key)? {
            done.found.push(*address);
        } else {
            done.written.push(*address);
        }
    }
    if !done.written.is_empty() {
        let (zone, name, ttl) = (&*server.zone, &*wish.name, server.ttl);
        let update = Update { zone, name, ttl, addresses: &done.written };
        let request = wire::update(&update, key, random_id(), Now::read().wall)?;
        let answer = Line::open(server)?.exchange(&request)?;
        request.made(answer, Now::read().wall)?;
    }
    Ok(done)
}

/// Whether the zone has exactly this address for the name. A server that answers no questions may
/// take updates all the same.
fn holds(server: &Server, wish: &Wish, address: IpAddr, key: &Key) -> Result<bool, Bad> {
    let family = Family::of(address);
    let request = wire::question(&wish.name, family, key, random_id(), Now::read().wall)?;
    let answer = Line::open(server)?.exchange(&request)?;
    match request.said(&wish.name, answer, Now::read().wall) {
        Ok(said) if said.alias => {
            let why = "the name is an alias there (CNAME): no address can stand beside it";
            Err(Bad::Refused(why.into()))
        }
        Ok(said) => Ok(said.addresses == [(address, server.ttl)]),
        Err(Bad::Refused(_)) => Ok(false),
        Err(why) => Err(why),
    }
}

/// A number for a message.
fn random_id() -> u16 {
    let mut id = [0; 2];
    // Over TCP, and signed, the number protects from nothing.
    let _ = SystemRandom::new().fill(&mut id);
    u16::from_be_bytes(id)
}

/// A TCP connection to a DNS server (RFC 7766).
struct Line {
    stream: TcpStream,
    until: Instant,
}

impl Line {
    fn open(server: &Server) -> Result<Line, Bad> {
        let until = Instant::now() + DNS_TIMEOUT;
        let bare = server.server.trim_matches(['[', ']']);
        let addresses: Vec<SocketAddr> = (bare, server.port)
            .to_socket_addrs()
            .map_err(|why| Bad::Unreachable(format!("its address cannot be found: {why}")))?
            .collect();
        let mut failure = "it has no address".to_owned();
        for address in addresses {
            let left = until.saturating_duration_since(Instant::now()).min(CONNECT_TIMEOUT);
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    // A message goes out in two pieces otherwise, the second one late.
                    let _ = stream.set_nodelay(true);
                    return Ok(Line { stream, until });
                }
                Err(why) => failure = why.to_string(),
            }
        }
        Err(Bad::Unreachable(failure))
    }

    /// One message and its answer, each behind its length (RFC 1035, 4.2.2).
    fn exchange(&mut self, request: &Request) -> Result<Vec<u8>, Bad> {
        let mut exchange = || -> io::Result<Vec<u8>> {
            let length = u16::try_from(request.bytes.len()).map_err(io::Error::other)?;
            let message = [&length.to_be_bytes(), request.bytes.as_slice()].concat();
            self.stream.set_write_timeout(Some(self.left()?))?;
            self.stream.write_all(&message)?;
            let mut length = [0; 2];
            self.fill(&mut length)?;
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            self.fill(&mut answer)?;
            Ok(answer)
        };
        exchange().map_err(|why| Bad::Unreachable(in_words(&why)))
    }

    /// Reads all of it before the time is up, however slowly it trickles.
    fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

fn in_words(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("no answer within {} s", DNS_TIMEOUT.as_secs())
        }
        io::ErrorKind::UnexpectedEof => "it closes the connection without an answer".into(),
        _ => why.to_string(),
    }
}

fn call(provider: &Provider, wish: &Wish) -> Result<Done, Bad> {
    let unreachable =
        |why: &dyn std::fmt::Display| Bad::Unreachable(format!("{}: {why}", provider.place()));
    let agent = agent(provider)?;
    let mut request = agent.get(provider.url(wish).reveal());
    if let (Some(user), Some(password)) = (&provider.user, &provider.password) {
        let both = base64::encode_string(format!("{user}:{}", password.reveal()).as_bytes());
        request = request.header("authorization", format!("Basic {both}"));
    }
    let mut response = request.call().map_err(|why| match why {
        // Their texts hold the address.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Bad::Refused(format!("{}: the url makes no valid request", provider.place()))
        }
        ureq::Error::Timeout(_) => {
            unreachable(&format_args!("no answer within {} s", HTTP_TIMEOUT.as_secs()))
        }
        why if tls::certificate_fault(&why).is_some() => {
            let (place, remedy) = (provider.place(), "see ca_file");
            Bad::Refused(format!("{place}: its certificate is not trusted, {remedy}: {why}"))
        }
        ureq::Error::HostNotFound => unreachable(&"there is no host of this name"),
        ureq::Error::Io(why) => unreachable(&why),
        why => unreachable(&why),
    })?;
    let pause = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let pause = pause.and_then(|value| value.trim().parse::<u64>().ok());
    let pause = pause.map(|seconds| Duration::from_secs(seconds.min(LONGEST_PAUSE)));
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader().take(ANSWER_CAP);
    reader.read_to_end(&mut body).map_err(|why| unreachable(&why))?;
    let (status, text) = (response.status().as_u16(), String::from_utf8_lossy(&body));
    provider.judge(wish, status, &text, pause)?;
    Ok(Done { written: wish.addresses.clone(), found: Vec::new() })
}

fn agent(provider: &Provider) -> Result<ureq::Agent, Bad> {
    let secured = provider.place().starts_with("https:");
    let roots = secured.then(|| tls::roots(provider.ca_file.as_deref())).transpose();
    Ok(tls::http_agent(HTTP_TIMEOUT, roots.map_err(Bad::Refused)?.as_deref()))
}
