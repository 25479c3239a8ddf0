//! The HTTP client of the channels: one request with a time limit and a size limit, no redirects,
//! and a failure that says whether the request may have reached the server.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, Uri};

use super::attempt::Failure;
use crate::clock::Wall;
use crate::escape::PercentEncoded;
use crate::notify::text::{LineBreaks, TextUnit, clean, cut};
use crate::secret::{Secret, scrub};
use crate::tls;

/// How long one request may take in all.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a body is read.
const MAX_BODY: u64 = 64 * 1024;

/// A request. Its address may hold a secret: errors show the host and port alone.
pub struct HttpRequest<'a> {
    /// The address.
    pub url: String,
    /// `content-type` and body of a POST; a GET without.
    pub body: Option<(&'static str, String)>,
    /// A token for the `authorization` header.
    pub bearer: Option<&'a Secret>,
    /// Further certificate authorities.
    pub ca_file: Option<&'a Path>,
    /// How long it may take in all.
    pub timeout: Duration,
}

/// A response, of whatever status.
#[derive(Debug)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The body, up to 64 kB, as text.
    pub body: String,
    /// Whether the body arrived to its end; more than 64 kB count as arrived.
    pub complete: bool,
    headers: HeaderMap,
}

impl HttpResponse {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `retry-after` (RFC 9110, 10.2.3; its date form is not read), else the unix time of
    /// `x-ratelimit-reset`, at most a day.
    pub fn retry_after(&self, now: Wall) -> Option<Duration> {
        let number = |name| self.header(name)?.trim().parse::<u64>().ok();
        let reset = || {
            let at = i64::try_from(number("x-ratelimit-reset")?).ok()?;
            // Some versions send seconds to wait in this header, too few for a unix time.
            if at < 1_000_000_000 {
                u64::try_from(at).ok()
            } else {
                Some(time_until(at, now).as_secs())
            }
        };
        let seconds = number("retry-after").or_else(reset)?;
        Some(Duration::from_secs(seconds.min(86_400)))
    }
}

impl HttpRequest<'_> {
    /// Sends the request; follows no redirect, uses no proxy, keeps no connection.
    ///
    /// # Errors
    /// Unreachable when the server cannot have got it, Unknown when it may have, ChannelRefused when
    /// the server's certificate or our own settings are not good. Never shows the address.
    pub fn send(&self) -> Result<HttpResponse, Failure> {
        let uri = self.url.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        let uri = uri.ok_or_else(|| {
            Failure::channel_refused("the address of the server is not a valid URL")
        })?;
        let server = host_and_port(&uri);
        let agent = self.agent(uri.scheme_str() == Some("https"))?;
        let mut sent = false;
        self.run(&agent, &uri, &mut sent).map_err(|why| self.classify(&why, &server, sent))
    }

    fn agent(&self, encrypted: bool) -> Result<ureq::Agent, Failure> {
        let roots = encrypted
            .then(|| tls::roots(self.ca_file))
            .transpose()
            .map_err(Failure::channel_refused)?;
        Ok(tls::http_agent(self.timeout, roots.as_deref()))
    }

    fn run(
        &self,
        agent: &ureq::Agent,
        uri: &Uri,
        sent: &mut bool,
    ) -> Result<HttpResponse, ureq::Error> {
        let response = match &self.body {
            None => self.authorized(agent.get(uri)).call(),
            Some((kind, text)) => {
                let mut body = TrackedBody { rest: text.as_bytes(), read_started: sent };
                self.authorized(agent.post(uri))
                    .header("content-type", *kind)
                    .header("content-length", text.len().to_string())
                    .send(ureq::SendBody::from_reader(&mut body))
            }
        };
        let (parts, mut body) = response?.into_parts();
        let mut bytes = Vec::new();
        let complete = body.as_reader().take(MAX_BODY).read_to_end(&mut bytes).is_ok();
        Ok(HttpResponse {
            status: parts.status.as_u16(),
            body: String::from_utf8_lossy(&bytes).into_owned(),
            complete,
            headers: parts.headers,
        })
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match self.bearer {
            Some(token) => request.header("authorization", format!("Bearer {}", token.reveal())),
            None => request,
        }
    }

    fn classify(&self, error: &ureq::Error, server: &str, sent: bool) -> Failure {
        if let Some(fault) = tls::certificate_fault(error) {
            let what = fault.describe("ca_file");
            return Failure::channel_refused(format!(
                "certificate of {server} is not trusted: {what}"
            ));
        }
        let why = match error {
            // Their texts hold the address.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                return Failure::channel_refused("the address of the server is not a valid URL");
            }
            ureq::Error::Timeout(_) if sent => {
                format!("no answer from {server} within {} s", self.timeout.as_secs_f32())
            }
            ureq::Error::Timeout(_) => {
                format!("no connection to {server} within {} s", self.timeout.as_secs_f32())
            }
            why if tls::is_not_tls(why) => format!("{server} {}", tls::NOT_TLS),
            ureq::Error::HostNotFound => format!("{server}: there is no host of this name"),
            ureq::Error::Io(why) => format!("{server}: {why}"),
            other => format!("{server}: {other}"),
        };
        if sent { Failure::Unknown(why) } else { Failure::unreachable(why) }
    }
}

/// How long it is until a unix time.
pub fn time_until(unix_seconds: i64, now: Wall) -> Duration {
    Wall(unix_seconds.saturating_mul(1000)).since(now)
}

/// `Mattermost answered 403: This channel is locked`. Secrets are taken out before the words are
/// cut, so that no half of one is left.
pub fn describe_response(
    server: &str,
    response: &HttpResponse,
    said: Option<&str>,
    secrets: &[&Secret],
) -> String {
    let status = format!("{server} answered {}", response.status);
    match said {
        Some(said) => {
            let said = clean(&scrub(said, secrets.iter().copied()), LineBreaks::Remove);
            format!("{status}: {}", cut(&said, 200, TextUnit::Characters))
        }
        None => status,
    }
}

/// The host and port of an address, the only part of it that is ever shown.
fn host_and_port(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    format!("{host}:{port}")
}

/// A request body that records whether ureq began to read it: it does so once the connection is
/// open and encrypted and the head is written.
struct TrackedBody<'a> {
    rest: &'a [u8],
    read_started: &'a mut bool,
}

impl Read for TrackedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        *self.read_started = true;
        self.rest.read(buffer)
    }
}

/// `application/x-www-form-urlencoded` (WHATWG URL, 5.2).
pub fn form_body(fields: &[(&str, String)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", PercentEncoded(value)));
    fields.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_to_the_last_byte() {
        let fields = [("message", "ü&=+ \n%".to_owned()), ("user", "abc".to_owned())];
        assert_eq!(form_body(&fields), "message=%C3%BC%26%3D%2B%20%0A%25&user=abc");
    }

    #[test]
    fn only_host_and_port_of_an_address_are_shown() {
        for (url, shown) in [
            ("https://chat.example.com/hooks/secret?x=secret", "chat.example.com:443"),
            ("http://user:secret@127.0.0.1:8065/", "127.0.0.1:8065"),
            ("http://[::1]/", "[::1]:80"),
        ] {
            assert_eq!(host_and_port(&url.parse().unwrap()), shown);
        }
    }
}
