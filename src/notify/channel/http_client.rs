//! One HTTP request of a channel: strict, bounded, and sure about whether the request left us.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rustls::CertificateError;
use ureq::http::{HeaderMap, Uri};

use super::attempt::Failure;
use crate::address::Encoded;
use crate::clock::Wall;
use crate::notify::text::{LineBreaks, TextUnit, clean, cut};
use crate::secret::{Secret, scrub};
use crate::tls;

/// How long one request may take in all.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How much of an answer is read.
const ANSWER_CAP: u64 = 64 * 1024;

/// A request. Its address may hold a secret: it is never shown, only the host and port are.
pub struct Call<'a> {
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

/// An answer, of whatever status.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, up to 64 kB, as text.
    pub body: String,
    /// Whether the body arrived to its end; more than 64 kB count as arrived.
    pub complete: bool,
    headers: HeaderMap,
}

impl Answer {
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
            if at < 1_000_000_000 { u64::try_from(at).ok() } else { Some(until(at, now).as_secs()) }
        };
        let seconds = number("retry-after").or_else(reset)?;
        Some(Duration::from_secs(seconds.min(86_400)))
    }
}

impl Call<'_> {
    /// Makes the request, follows no redirect, uses no proxy, keeps no connection.
    ///
    /// # Errors
    /// Unreachable when it never left us, Unknown when it may have arrived, ChannelRefused when
    /// the server's certificate or our own settings are not good. Never shows the address.
    pub fn make(&self) -> Result<Answer, Failure> {
        let uri = self.url.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        let uri = uri.ok_or_else(|| refused("the address of the server is not a valid URL"))?;
        let place = place(&uri);
        let agent = self.agent(uri.scheme_str() == Some("https"))?;
        let mut sent = false;
        self.run(&agent, &uri, &mut sent).map_err(|why| self.failure(why, &place, sent))
    }

    fn agent(&self, encrypted: bool) -> Result<ureq::Agent, Failure> {
        let roots = encrypted.then(|| tls::roots(self.ca_file)).transpose().map_err(refused)?;
        Ok(tls::http_agent(self.timeout, roots.as_deref()))
    }

    fn run(&self, agent: &ureq::Agent, uri: &Uri, sent: &mut bool) -> Result<Answer, ureq::Error> {
        let response = match &self.body {
            None => self.authorized(agent.get(uri)).call(),
            Some((kind, text)) => {
                let mut body = Watched { rest: text.as_bytes(), begun: sent };
                self.authorized(agent.post(uri))
                    .header("content-type", *kind)
                    .header("content-length", text.len().to_string())
                    .send(ureq::SendBody::from_reader(&mut body))
            }
        };
        let (parts, mut body) = response?.into_parts();
        let mut bytes = Vec::new();
        let complete = body.as_reader().take(ANSWER_CAP).read_to_end(&mut bytes).is_ok();
        Ok(Answer {
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

    fn failure(&self, error: ureq::Error, place: &str, sent: bool) -> Failure {
        if let Some(why) = certificate_trouble(&error, place) {
            return refused(why);
        }
        let why = match &error {
            // Their texts hold the address.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                return refused("the address of the server is not a valid URL");
            }
            ureq::Error::Timeout(_) if sent => {
                format!("no answer from {place} within {} s", self.timeout.as_secs_f32())
            }
            ureq::Error::Timeout(_) => {
                format!("no connection to {place} within {} s", self.timeout.as_secs_f32())
            }
            ureq::Error::HostNotFound => format!("{place}: there is no host of this name"),
            ureq::Error::Io(why) => format!("{place}: {why}"),
            other => format!("{place}: {other}"),
        };
        if sent { Failure::Unknown(why) } else { Failure::Unreachable { why, after: None } }
    }
}

/// How long it is until a unix time.
pub fn until(unix_seconds: i64, now: Wall) -> Duration {
    Wall(unix_seconds.saturating_mul(1000)).since(now)
}

/// `Mattermost answered 403: This channel is locked`. Secrets are taken out before the words are
/// cut, so that no half of one is left.
pub fn server_words(
    server: &str,
    answer: &Answer,
    said: Option<&str>,
    secrets: &[&Secret],
) -> String {
    let status = format!("{server} answered {}", answer.status);
    match said {
        Some(said) => {
            let said = clean(&scrub(said, secrets.iter().copied()), LineBreaks::Remove);
            format!("{status}: {}", cut(&said, 200, TextUnit::Characters))
        }
        None => status,
    }
}

/// The host and port of an address, the only part of it that is ever shown.
fn place(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    format!("{host}:{port}")
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::ChannelRefused { why: why.into(), after: None }
}

/// A body that knows whether it was asked for: that is after the connection stood, was encrypted,
/// and had taken the head.
struct Watched<'a> {
    rest: &'a [u8],
    begun: &'a mut bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        *self.begun = true;
        self.rest.read(buffer)
    }
}

/// What is wrong with the server's certificate, in words, when that is what the error is about.
fn certificate_trouble(error: &ureq::Error, place: &str) -> Option<String> {
    let cause = match error {
        ureq::Error::Rustls(cause) => cause,
        ureq::Error::Io(io) => io.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    let rustls::Error::InvalidCertificate(cause) = cause else { return None };
    let what = match cause {
        CertificateError::UnknownIssuer if tls::system_roots().is_empty() => {
            "unknown issuer, and this machine has no certificate authorities at all \
             (is the package ca-certificates installed?)"
                .into()
        }
        CertificateError::UnknownIssuer => "unknown issuer (ca_file?)".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (is the clock right?)".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".into()
        }
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is a certificate authority's own (CA:TRUE) used as a server's; make one with \
             CA:FALSE, and give its issuer as ca_file"
                .into()
        }
        other => other.to_string(),
    };
    Some(format!("certificate of {place} is not trusted: {what}"))
}

/// `application/x-www-form-urlencoded` (WHATWG URL, 5.2).
pub fn form(fields: &[(&str, String)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", Encoded(value)));
    fields.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_to_the_last_byte() {
        let fields = [("message", "ü&=+ \n%".to_owned()), ("user", "abc".to_owned())];
        assert_eq!(form(&fields), "message=%C3%BC%26%3D%2B%20%0A%25&user=abc");
    }

    #[test]
    fn only_host_and_port_of_an_address_are_shown() {
        for (url, shown) in [
            ("https://chat.example.com/hooks/secret?x=secret", "chat.example.com:443"),
            ("http://user:secret@127.0.0.1:8065/", "127.0.0.1:8065"),
            ("http://[::1]/", "[::1]:80"),
        ] {
            assert_eq!(place(&url.parse().unwrap()), shown);
        }
    }
}
