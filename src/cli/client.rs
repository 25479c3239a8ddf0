//! An HTTP client of the running daemon, for the commands that show its state.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lexopt::Arg::{self, Long, Short};
use lexopt::ValueExt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme, StreamOwned,
};
use serde_json::Value;

use super::answer::{field, items};
use super::{CONFIGURATION, UNREACHABLE, config_file, print_error};
use crate::address::BaseUrl;
use crate::config::{Config, ReceiverSettings};
use crate::config_file::suggestion;
use crate::deadline::DeadlineStream;
use crate::escape::PercentEncoded;
use crate::event::counted;
use crate::problem::Severity;
use crate::secret::Secret;
use crate::tls;

/// How long one answer may take. The daemon itself gives up on its disk after 5 s.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// The environment variable with the token for a daemon that is named by its URL.
pub const TOKEN_VARIABLE: &str = "HBD_TOKEN";

/// A client of one daemon: its address, its token, and which certificates are trusted.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    token: Option<Secret>,
    trust: Trust,
    /// How long one answer may take.
    timeout: Duration,
}

/// Which server is believed to be the daemon.
#[derive(Clone, Debug)]
enum Trust {
    /// The one that shows this certificate, at this host and port.
    Certificate(CertificateDer<'static>, String, u16),
    /// One with a certificate for its name, of the system's authorities or those of a file.
    Authorities(Option<PathBuf>),
}

/// The options that name the daemon, of every command that asks one.
#[derive(Debug, Default, PartialEq)]
pub struct DaemonArgs {
    /// The configuration whose daemon is asked.
    pub config: Option<PathBuf>,
    /// The daemon that is asked instead.
    pub url: Option<String>,
    /// Further authorities for its certificate.
    pub ca_file: Option<PathBuf>,
}

/// One of these options.
#[derive(Clone, Copy, Debug)]
pub enum DaemonOption {
    /// `--config`
    Config,
    /// `--url`
    Url,
    /// `--ca-file`
    CaFile,
}

impl DaemonOption {
    /// The one that an argument is.
    pub fn of(argument: &Arg) -> Option<DaemonOption> {
        match argument {
            Long("config") | Short('c') => Some(DaemonOption::Config),
            Long("url") => Some(DaemonOption::Url),
            Long("ca-file") => Some(DaemonOption::CaFile),
            _ => None,
        }
    }
}

impl DaemonArgs {
    /// Sets one to the value that follows.
    ///
    /// # Errors
    /// When there is none.
    pub fn set(
        &mut self,
        option: DaemonOption,
        parser: &mut lexopt::Parser,
    ) -> Result<(), lexopt::Error> {
        let value = parser.value()?;
        match option {
            DaemonOption::Config => self.config = Some(value.into()),
            DaemonOption::Url => self.url = Some(value.string()?),
            DaemonOption::CaFile => self.ca_file = Some(value.into()),
        }
        Ok(())
    }

    /// A client of the daemon that they name, or the exit code when there is none: why was printed.
    ///
    /// # Errors
    /// When they exclude each other.
    pub fn client(&self) -> Result<Result<Client, u8>, lexopt::Error> {
        let found = self.client_and_notice()?;
        Ok(found.map(|(client, notice)| {
            notice.inspect(|notice| print_error(notice));
            client
        }))
    }

    /// The same, with what is to be printed: that the configuration is broken.
    ///
    /// # Errors
    /// As [`DaemonArgs::client`].
    pub fn client_and_notice(&self) -> Result<Result<(Client, Option<String>), u8>, lexopt::Error> {
        match &self.url {
            Some(_) if self.config.is_some() => Err("--config and --url exclude each other".into()),
            Some(url) => {
                let client = Client::for_url(url, self.ca_file.as_deref());
                Ok(Ok((client.map_err(|why| lexopt::Error::Custom(why.into()))?, None)))
            }
            None if self.ca_file.is_some() => {
                Err("--ca-file goes with --url: the configuration names its certificate".into())
            }
            None => Ok(Client::for_file(&config_file(self.config.clone()))),
        }
    }
}

impl Client {
    /// A client of the daemon that runs with the configuration in a file. While that is broken, the
    /// daemon goes on with what it had, and is found by the section `receiver` alone; the text says so.
    fn for_file(file: &Path) -> Result<(Client, Option<String>), u8> {
        let problems = match Config::load(file) {
            Ok(config) => {
                let client = Client::for_config(&config).map_err(|why| print_unreachable(&why))?;
                return Ok((client, None));
            }
            Err(problems) => problems,
        };
        let Ok(receiver) = Config::load_receiver(file) else {
            print_error(&problems);
            return Err(CONFIGURATION);
        };
        let errors = problems.0.iter().filter(|one| one.severity == Severity::Error).count();
        let (file, errors) = (file.display(), counted(errors, "error"));
        let notice = format!("{file} has {errors}: hbd would not start with it, see hbd check");
        let client = Client::for_receiver(&receiver).map_err(|why| print_unreachable(&why))?;
        Ok((client, Some(notice)))
    }

    /// A client of the daemon that runs with this configuration.
    ///
    /// # Errors
    /// When the configuration does not say where that is.
    pub fn for_config(config: &Config) -> Result<Client, String> {
        Client::for_receiver(&config.receiver)
    }

    fn for_receiver(receiver: &ReceiverSettings) -> Result<Client, String> {
        if receiver.port == 0 {
            return Err("receiver.port is 0: name the daemon by its address, with --url".into());
        }
        let host = match receiver.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" | "[::]" => "::1",
            host => host.trim_matches(['[', ']']),
        };
        let name = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let (scheme, trust) = match &receiver.tls {
            None => ("http", Trust::Authorities(None)),
            Some(tls) => {
                let certificate = tls.certificate.certificate().clone();
                ("https", Trust::Certificate(certificate, host.to_owned(), receiver.port))
            }
        };
        let base = format!("{scheme}://{name}:{}", receiver.port);
        Ok(Client { base, token: receiver.token.clone(), trust, timeout: TIMEOUT })
    }

    /// A client of the daemon at a URL, `http://host:port`. Its token is in the environment: a
    /// configuration's token is for that configuration's daemon only. `ca_file` holds further
    /// certificate authorities.
    ///
    /// # Errors
    /// When that is no address.
    pub fn for_url(url: &str, ca_file: Option<&Path>) -> Result<Client, String> {
        let bare = !url.contains("://");
        let whole = if bare { format!("http://{url}") } else { url.to_owned() };
        let base = BaseUrl::parse(&whole).map_err(|why| format!("--url: {why}"))?.text;
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let trust = Trust::Authorities(ca_file.map(Path::to_owned));
        Ok(Client { base, token: token.map(Secret::new), trust, timeout: TIMEOUT })
    }

    /// The same with another time limit for each answer.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Client {
        Client { timeout, ..self }
    }

    /// What the daemon answers to a POST with JSON, or in which words it refuses.
    ///
    /// # Errors
    /// Why there is no such answer, in a sentence that names the daemon.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Result<Value, String>, String> {
        let answer = self.call("POST", path, &[], Some(&body.to_string()));
        match answer {
            Ok((200..=299, body)) => self.checked(Ok((200, body))).map(Ok),
            // Those with words of the daemon about the request; 503: it could not be stored.
            Ok((400 | 404 | 409 | 503, body)) => Ok(Err(reason(&body))),
            answer => self.checked(answer).map(Ok),
        }
    }

    /// What the daemon answers to a GET.
    ///
    /// # Errors
    /// Why there is no such answer, in a sentence that names the daemon.
    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, String> {
        let answer = self.call("GET", path, query, None);
        self.checked(answer)
    }

    /// What the daemon answers to a GET about something that has a name; the inner error says that
    /// there is no such thing, with those that there are.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_host(&self, name: &str) -> Result<Result<Value, String>, String> {
        let answer =
            self.call("GET", &format!("/api/v1/hosts/{}", PercentEncoded(name)), &[], None);
        match answer {
            Ok((404, body)) => Ok(Err(self.unknown_host(name).unwrap_or_else(|| reason(&body)))),
            answer => self.checked(answer).map(Ok),
        }
    }

    /// `no host is called "wbe1", did you mean "web1"?`; none when the daemon has a host of this
    /// name, or does not say.
    pub fn unknown_host(&self, name: &str) -> Option<String> {
        let answer = self.get("/api/v1/hosts", &[]).ok()?;
        let names: Vec<String> = items(&answer, "hosts").map(|host| field(host, "name")).collect();
        if names.iter().any(|known| known == name) {
            return None;
        }
        let meant = suggestion::suggestion(name, names.iter().map(String::as_str));
        Some(format!("no host is called \"{name}\"{meant}"))
    }

    /// The cluster that the daemon is a node of; none when it is none, or does not say.
    pub fn cluster(&self) -> Option<Value> {
        match self.call("GET", "/api/v1/cluster", &[], None) {
            Ok((200, body)) => serde_json::from_str(&body).ok(),
            _ => None,
        }
    }

    /// Has the configuration be read again: what the daemon answers, also when it refuses.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn reload(&self) -> Result<Value, String> {
        match self.call("POST", "/-/reload", &[], None) {
            Ok((400 | 503, body)) => self.checked(Ok((200, body))),
            answer => self.checked(answer),
        }
    }

    /// What the daemon answers to a DELETE.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete(&self, path: &str) -> Result<Value, String> {
        let answer = self.call("DELETE", path, &[], None);
        self.checked(answer)
    }

    fn checked(&self, answer: Result<(u16, String), String>) -> Result<Value, String> {
        let (status, body) = answer.map_err(|why| format!("{}: {why}", self.base))?;
        let answer = serde_json::from_str::<Value>(&body);
        match (status, answer) {
            (200, Ok(answer)) => Ok(answer),
            (200, Err(_)) => Err(format!("{} does not answer as hbd does", self.base)),
            (401, _) => Err(self.token_wanted()),
            (status, _) => {
                let why = reason(&body);
                Err(format!("{} answered {status}: {why}", self.base))
            }
        }
    }

    /// Status and reason of the answer to a POST without a body. What is no answer of hbd, or asks
    /// for a token, is an error.
    ///
    /// # Errors
    /// Why there is no such answer, in a sentence that names the daemon.
    pub fn post(&self, path: &str, query: &[(&str, String)]) -> Result<(u16, String), String> {
        let (status, body) =
            self.call("POST", path, query, None).map_err(|why| format!("{}: {why}", self.base))?;
        let why = reason(&body);
        match status {
            401 => Err(self.token_wanted()),
            200 | 404 => Ok((status, why)),
            _ => Err(format!("{} answered {status}: {why}", self.base)),
        }
    }

    fn token_wanted(&self) -> String {
        format!(
            "{} wants a token: receiver.token of the configuration, or ${TOKEN_VARIABLE} with --url",
            self.base
        )
    }

    /// Status and body of the answer to a GET, whatever they are.
    ///
    /// # Errors
    /// Why there is no answer, in a sentence that names the daemon.
    pub fn get_text(&self, path: &str) -> Result<(u16, String), String> {
        self.call("GET", path, &[], None).map_err(|why| format!("{}: {why}", self.base))
    }

    /// Where the daemon is.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, String)],
        json: Option<&str>,
    ) -> Result<(u16, String), String> {
        let pairs = query.iter().map(|(name, value)| format!("{name}={}", PercentEncoded(value)));
        let pairs = pairs.collect::<Vec<_>>().join("&");
        let mark = if pairs.is_empty() { "" } else { "?" };
        let target = format!("{path}{mark}{pairs}");
        match &self.trust {
            Trust::Certificate(certificate, host, port) => PinnedRequest {
                method,
                host,
                port: *port,
                target: &target,
                json,
                token: self.token.as_ref(),
                certificate: certificate.clone(),
                timeout: self.timeout,
            }
            .send(),
            Trust::Authorities(ca_file) => self.send(method, &target, json, ca_file.as_deref()),
        }
    }

    fn describe(&self, why: &ureq::Error) -> String {
        if let Some(fault) = tls::certificate_fault(why) {
            return format!("its certificate is not trusted: {}", fault.describe("--ca-file"));
        }
        match why {
            ureq::Error::Io(why) if why.kind() == ErrorKind::ConnectionRefused => {
                "nobody answers there: is hbd running?".into()
            }
            ureq::Error::Timeout(_) => format!("no answer within {} s", self.timeout.as_secs()),
            ureq::Error::HostNotFound => "there is no host of this name".into(),
            why if tls::is_not_tls(why) => tls::NOT_TLS.into(),
            ureq::Error::Protocol(_) => NOT_HTTP.into(),
            why => why.to_string(),
        }
    }

    fn send(
        &self,
        method: &str,
        target: &str,
        json: Option<&str>,
        ca_file: Option<&Path>,
    ) -> Result<(u16, String), String> {
        let encrypted = self.base.starts_with("https:");
        let roots = encrypted.then(|| tls::roots(ca_file)).transpose()?;
        let agent = tls::http_agent(self.timeout, roots.as_deref());
        let url = format!("{}{target}", self.base);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let sent = match json {
            None => request.body(()).map(|request| agent.run(request)),
            Some(json) => {
                let request = request.header("content-type", "application/json").body(json);
                request.map(|request| agent.run(request))
            }
        };
        let sent = sent.map_err(|why| why.to_string())?;
        let mut response = sent.map_err(|why| self.describe(&why))?;
        let mut body = Vec::new();
        let mut reader = response.body_mut().as_reader().take(MAX_ANSWER);
        reader.read_to_end(&mut body).map_err(|why| format!("the answer broke off: {why}"))?;
        Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
    }
}

/// What is said of a server that does not even answer in HTTP.
const NOT_HTTP: &str = "it does not answer as hbd does: is it https://, or another port?";

/// The words of an answer that is an error.
fn reason(body: &str) -> String {
    let answer = serde_json::from_str::<Value>(body).unwrap_or_default();
    answer["error"].as_str().unwrap_or("no reason given").to_owned()
}

/// Prints why the daemon cannot be reached, and returns the exit code.
pub fn print_unreachable(why: &str) -> u8 {
    print_error(&why);
    UNREACHABLE
}

/// One request over TLS to the daemon of a configuration. The daemon must show that
/// configuration's very certificate, whatever its issuer and its name, and even when it has expired. No
/// other server gets the token.
struct PinnedRequest<'a> {
    /// GET, DELETE or POST.
    method: &'a str,
    /// A name or an address, without brackets.
    host: &'a str,
    port: u16,
    /// Path and query.
    target: &'a str,
    /// The body, if there is one.
    json: Option<&'a str>,
    token: Option<&'a Secret>,
    certificate: CertificateDer<'static>,
    timeout: Duration,
}

impl PinnedRequest<'_> {
    /// Status and body of the answer.
    fn send(self) -> Result<(u16, String), String> {
        let deadline = Instant::now() + self.timeout;
        let socket = DeadlineStream::new(self.connect(deadline)?, deadline);
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedCertificate {
                certificate: self.certificate,
                provider,
            }))
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.to_owned()).map_err(|why| why.to_string())?;
        let tls = ClientConnection::new(Arc::new(config), name).map_err(|why| why.to_string())?;
        let mut stream = StreamOwned::new(tls, socket);
        let token = self
            .token
            .map_or(String::new(), |token| format!("Authorization: Bearer {}\r\n", token.reveal()));
        let (method, target, body) = (self.method, self.target, self.json.unwrap_or_default());
        let kind = self.json.map_or("", |_| "Content-Type: application/json\r\n");
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n{kind}{token}\r\n{body}"
        );
        let mut answer = Vec::new();
        let exchanged = stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.take(MAX_ANSWER + 1).read_to_end(&mut answer));
        exchanged.map_err(|why| describe_error(&why, self.timeout))?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err("the answer is too long".into());
        }
        parse_response(&answer)
    }

    fn connect(&self, deadline: Instant) -> Result<TcpStream, String> {
        const UNKNOWN: &str = "there is no host of this name";
        let addresses = (self.host, self.port).to_socket_addrs();
        let mut last = UNKNOWN.to_owned();
        for address in addresses.map_err(|_| UNKNOWN)? {
            let left = deadline.saturating_duration_since(Instant::now());
            // A timeout of zero would be an error of its own.
            match TcpStream::connect_timeout(&address, left.max(Duration::from_millis(1))) {
                Ok(socket) => return Ok(socket),
                Err(why) => last = describe_error(&why, self.timeout),
            }
        }
        Err(last)
    }
}

fn parse_response(answer: &[u8]) -> Result<(u16, String), String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(length)) => {
            let body = String::from_utf8_lossy(&answer[length..]).into_owned();
            Ok((response.code.unwrap_or_default(), body))
        }
        Ok(httparse::Status::Partial) => Err("the answer broke off".into()),
        Err(_) => Err("it does not answer as hbd does".into()),
    }
}

fn describe_error(why: &std::io::Error, timeout: Duration) -> String {
    let certificate = why.get_ref().and_then(|why| why.downcast_ref::<Error>());
    if matches!(certificate, Some(Error::InvalidCertificate(_))) {
        return "it shows another certificate than receiver.tls names: was hbd reloaded since that changed?".into();
    }
    match why.kind() {
        ErrorKind::ConnectionRefused => "nobody answers there: is hbd running?".into(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("no answer within {} s", timeout.as_secs())
        }
        ErrorKind::InvalidData if matches!(certificate, Some(Error::InvalidMessage(_))) => {
            "it does not speak TLS: was hbd reloaded since receiver.tls was set?".into()
        }
        _ => why.to_string(),
    }
}

/// Trusts one certificate.
#[derive(Debug)]
struct PinnedCertificate {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(receiver: &str) -> Result<Client, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        let text = format!("notification_channels: {{}}\nreceiver: {{{receiver}}}\n");
        std::fs::write(&file, text).unwrap();
        Client::for_config(&Config::load(&file).unwrap())
    }

    #[test]
    fn a_daemon_that_listens_everywhere_is_asked_on_this_machine() {
        for (receiver, base) in [
            ("", "http://127.0.0.1:9099"),
            ("host: localhost, port: 8080", "http://localhost:8080"),
            ("host: 0.0.0.0, token: secret-token", "http://127.0.0.1:9099"),
            ("host: '::', token: secret-token", "http://[::1]:9099"),
            ("host: '::1'", "http://[::1]:9099"),
        ] {
            assert_eq!(client(receiver).unwrap().base, base, "{receiver}");
        }
        assert!(client("port: 0").unwrap_err().contains("--url"));
    }

    #[test]
    fn an_address_may_end_in_a_slash_and_must_be_one() {
        for url in ["http://mon.example:9099/", "mon.example:9099"] {
            assert_eq!(Client::for_url(url, None).unwrap().base, "http://mon.example:9099");
        }
        assert!(Client::for_url("mon example", None).is_err());
        let (some, url) = (Some("x".into()), Some("mon.example".to_owned()));
        let args = |config: &Option<PathBuf>, url: &Option<String>, ca_file: &Option<PathBuf>| {
            let (config, url, ca_file) = (config.clone(), url.clone(), ca_file.clone());
            DaemonArgs { config, url, ca_file }.client()
        };
        assert!(args(&some, &url, &None).is_err());
        assert!(args(&some, &None, &some).is_err());
    }
}
