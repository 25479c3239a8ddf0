//! One attempt to update the records of a name: over TCP at a DNS server, or over HTTP at a provider.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use domain::tsig::Key;
use domain::utils::base64;
use ring::rand::{SecureRandom, SystemRandom};

use super::dns_update::{self, SignedRequest, ZoneUpdate};
use super::method::{DnsServer, Provider, UpdateError, UpdateMethod, UpdateRequest};
use super::names::RecordFamily;
use super::record::{UpdateAttempt, UpdateResult};
use crate::address::basic_login;
use crate::clock::Now;
use crate::deadline::DeadlineStream;
use crate::tls;

/// How long a DNS server may take for one message, connecting included.
const DNS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting to one of its addresses may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a provider may take in all.
const HTTP_TIMEOUT: Duration = Duration::from_secs(20);
/// How many bytes of a provider's answer are read.
const MAX_ANSWER: u64 = 4096;
/// The longest pause that a provider may ask for.
const MAX_PAUSE_SECONDS: u64 = 86_400;

/// Makes the attempt.
///
/// # Errors
/// Why the records are not as they should be; never holds a secret.
pub fn perform(attempt: &UpdateAttempt) -> Result<UpdateResult, UpdateError> {
    match &attempt.entry.method {
        UpdateMethod::Rfc2136(server) => update_zone(server, attempt),
        UpdateMethod::Http(provider) => request_provider(provider, &attempt.request),
    }
}

fn update_zone(server: &DnsServer, attempt: &UpdateAttempt) -> Result<UpdateResult, UpdateError> {
    let label = attempt.entry.method.server_label();
    let with_server = |error: UpdateError| match error {
        UpdateError::Unreachable(why) => UpdateError::Unreachable(format!("{label}: {why}")),
        UpdateError::Busy(why, pause) => UpdateError::Busy(format!("{label}: {why}"), pause),
        UpdateError::Refused(why) => UpdateError::Refused(format!("{label}: {why}")),
        UpdateError::Forbidden(why) => UpdateError::Forbidden(format!("{label}: {why}")),
    };
    let octets: Vec<u8> = base64::decode(server.key.reveal())
        .map_err(|_| UpdateError::Refused("the key is not in base64".into()))?;
    let key = dns_update::key(server.algorithm, &server.key_name, &octets)
        .map_err(UpdateError::Refused)?;
    update_signed(server, attempt, &key).map_err(with_server)
}

fn update_signed(
    server: &DnsServer,
    attempt: &UpdateAttempt,
    key: &Key,
) -> Result<UpdateResult, UpdateError> {
    let update = &attempt.request;
    let mut result = UpdateResult::default();
    for address in &update.addresses {
        if attempt.check_first && zone_has(server, update, *address, key)? {
            result.unchanged.push(*address);
        } else {
            result.written.push(*address);
        }
    }
    if !result.written.is_empty() {
        let (zone, name, ttl) = (&*server.zone, &*update.name, server.ttl);
        let update = ZoneUpdate { zone, name, ttl, addresses: &result.written };
        let request = dns_update::update(&update, key, random_id(), Now::read().wall)?;
        let answer = exchange(server, &request)?;
        request.check_update(answer, Now::read().wall)?;
    }
    Ok(result)
}

/// Whether the zone has exactly this address for the name. Not when the server refuses the query: it
/// may take updates all the same.
fn zone_has(
    server: &DnsServer,
    update: &UpdateRequest,
    address: IpAddr,
    key: &Key,
) -> Result<bool, UpdateError> {
    let family = RecordFamily::of(address);
    let request = dns_update::query(&update.name, family, key, random_id(), Now::read().wall)?;
    let answer = exchange(server, &request)?;
    match request.zone_answer(&update.name, answer, Now::read().wall) {
        Ok(zone) if zone.alias => {
            let why = "the name is an alias there (CNAME): no address can stand beside it";
            Err(UpdateError::Refused(why.into()))
        }
        Ok(zone) => Ok(zone.addresses == [(address, server.ttl)]),
        Err(UpdateError::Refused(_)) => Ok(false),
        Err(why) => Err(why),
    }
}

/// The id of a DNS message.
fn random_id() -> u16 {
    let mut id = [0; 2];
    // Over TCP and with a signature, nothing depends on it being random.
    let _ = SystemRandom::new().fill(&mut id);
    u16::from_be_bytes(id)
}

/// Connects to a DNS server over TCP (RFC 7766).
fn connect(server: &DnsServer) -> Result<DeadlineStream<TcpStream>, UpdateError> {
    let until = Instant::now() + DNS_TIMEOUT;
    let bare = server.server.trim_matches(['[', ']']);
    let addresses: Vec<SocketAddr> = (bare, server.port)
        .to_socket_addrs()
        .map_err(|why| UpdateError::Unreachable(format!("its address cannot be found: {why}")))?
        .collect();
    let mut failure = "it has no address".to_owned();
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now()).min(CONNECT_TIMEOUT);
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                // Nagle's algorithm would only delay a single message.
                let _ = stream.set_nodelay(true);
                return Ok(DeadlineStream::new(stream, until));
            }
            Err(why) => failure = why.to_string(),
        }
    }
    Err(UpdateError::Unreachable(failure))
}

/// Sends one message over a connection of its own and receives the answer.
fn exchange(server: &DnsServer, request: &SignedRequest) -> Result<Vec<u8>, UpdateError> {
    let mut stream = connect(server)?;
    exchange_over(&mut stream, &request.bytes)
        .map_err(|why| UpdateError::Unreachable(describe_io_error(&why)))
}

/// Each message follows its length (RFC 1035, 4.2.2).
fn exchange_over(stream: &mut (impl Read + Write), message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn describe_io_error(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("no answer within {} s", DNS_TIMEOUT.as_secs())
        }
        io::ErrorKind::UnexpectedEof => "it closes the connection without an answer".into(),
        _ => why.to_string(),
    }
}

fn request_provider(
    provider: &Provider,
    update: &UpdateRequest,
) -> Result<UpdateResult, UpdateError> {
    let unreachable = |why: &dyn std::fmt::Display| {
        UpdateError::Unreachable(format!("{}: {why}", provider.server_label()))
    };
    let agent = agent(provider)?;
    let mut request = agent.get(provider.url(update).reveal());
    if let (Some(user), Some(password)) = (&provider.user, &provider.password) {
        request = request.header("authorization", basic_login(user, password.reveal()));
    }
    let mut response = request.call().map_err(|why| {
        if let Some(fault) = tls::certificate_fault(&why) {
            let (label, what) = (provider.server_label(), fault.describe("ca_file"));
            return UpdateError::Refused(format!(
                "{label}: its certificate is not trusted, see ca_file: {what}"
            ));
        }
        match why {
            // The texts of these errors hold the URL, and with it the token.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => UpdateError::Refused(format!(
                "{}: the url makes no valid request",
                provider.server_label()
            )),
            ureq::Error::Timeout(_) => {
                unreachable(&format_args!("no answer within {} s", HTTP_TIMEOUT.as_secs()))
            }
            why if tls::is_not_tls(&why) => unreachable(&tls::NOT_TLS),
            ureq::Error::HostNotFound => unreachable(&"there is no host of this name"),
            ureq::Error::Io(why) => unreachable(&why),
            why => unreachable(&why),
        }
    })?;
    let pause = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let pause = pause.and_then(|value| value.trim().parse::<u64>().ok());
    let pause = pause.map(|seconds| Duration::from_secs(seconds.min(MAX_PAUSE_SECONDS)));
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader().take(MAX_ANSWER);
    reader.read_to_end(&mut body).map_err(|why| unreachable(&why))?;
    let (status, text) = (response.status().as_u16(), String::from_utf8_lossy(&body));
    provider.classify(update, status, &text, pause)?;
    Ok(UpdateResult { written: update.addresses.clone(), unchanged: Vec::new() })
}

fn agent(provider: &Provider) -> Result<ureq::Agent, UpdateError> {
    let secured = provider.server_label().starts_with("https:");
    let roots = secured.then(|| tls::roots(provider.ca_file.as_deref())).transpose();
    Ok(tls::http_agent(HTTP_TIMEOUT, roots.map_err(UpdateError::Refused)?.as_deref()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn message_and_answer_follow_their_lengths() {
        let (mut ours, mut server) = UnixStream::pair().unwrap();
        server.write_all(b"\0\x03yes").unwrap();
        assert_eq!(exchange_over(&mut ours, b"ask").unwrap(), b"yes");
        let mut received = [0; 5];
        server.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"\0\x03ask");
    }

    #[test]
    fn a_server_that_closes_or_never_ends_its_answer_is_told_apart() {
        let said = |deadline: Duration, close: bool| {
            let (ours, mut server) = UnixStream::pair().unwrap();
            server.write_all(b"\0\x03y").unwrap();
            if close {
                server.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut stream = DeadlineStream::new(ours, Instant::now() + deadline);
            describe_io_error(&exchange_over(&mut stream, b"ask").unwrap_err())
        };
        let closed = said(Duration::from_secs(60), true);
        assert_eq!(closed, "it closes the connection without an answer");
        assert_eq!(said(Duration::from_millis(20), false), "no answer within 10 s");
    }
}
