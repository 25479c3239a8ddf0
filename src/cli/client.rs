//! The running daemon, asked over HTTP by the commands that show what it knows.

use std::io::Read;
use std::time::Duration;

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::pinned::Question;
use super::{CONFIGURATION, UNREACHABLE, complain, config_file};
use crate::address::{BaseUrl, Encoded};
use crate::config::Config;
use crate::secret::Secret;
use crate::tls;

/// How long one answer may take. The daemon itself gives up on its disk after 5 s.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How much of an answer is read.
const LONGEST: u64 = 16 * 1024 * 1024;
/// The token for a daemon that is named by its address.
pub const TOKEN_VARIABLE: &str = "HBD_TOKEN";

/// Where the daemon is, and what it wants to see.
#[derive(Debug)]
pub struct Client {
    base: String,
    token: Option<Secret>,
    trust: Trust,
}

/// Whom it believes to be the daemon.
#[derive(Debug)]
enum Trust {
    /// Whoever shows this certificate, at this host and port.
    Certificate(CertificateDer<'static>, String, u16),
    /// Whoever has a certificate for its name, of the system's authorities or those of a file.
    Authorities(Option<PathBuf>),
}

impl Client {
    /// The daemon that is wished for, or the exit code when there is none: it was said why.
    ///
    /// # Errors
    /// When the arguments are wrong.
    pub fn wished(
        config: &Option<PathBuf>,
        url: &Option<String>,
        ca_file: &Option<PathBuf>,
    ) -> Result<Result<Client, u8>, lexopt::Error> {
        match url {
            Some(_) if config.is_some() => Err("--config and --url exclude each other".into()),
            Some(url) => {
                let client = Client::at(url, ca_file.as_deref());
                Ok(Ok(client.map_err(|why| lexopt::Error::Custom(why.into()))?))
            }
            None if ca_file.is_some() => {
                Err("--ca-file goes with --url: the configuration names its certificate".into())
            }
            None => Ok(match Config::load(config_file(config.clone())) {
                Ok(config) => Client::of(&config).map_err(|why| unreachable(&why)),
                Err(problems) => {
                    complain(&problems);
                    Err(CONFIGURATION)
                }
            }),
        }
    }

    /// The daemon that runs with this configuration.
    ///
    /// # Errors
    /// When the configuration does not say where that is.
    pub fn of(config: &Config) -> Result<Client, String> {
        let receiver = &config.receiver;
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
        Ok(Client { base, token: receiver.token.clone(), trust })
    }

    /// The daemon at an address, `http://host:port`. Its token is in the environment: a
    /// configuration's token is for that configuration's daemon only. `ca_file` holds further
    /// certificate authorities.
    ///
    /// # Errors
    /// When that is no address.
    pub fn at(url: &str, ca_file: Option<&Path>) -> Result<Client, String> {
        let bare = !url.contains("://");
        let whole = if bare { format!("http://{url}") } else { url.to_owned() };
        let base = BaseUrl::parse(&whole).map_err(|why| format!("--url: {why}"))?.text;
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let trust = Trust::Authorities(ca_file.map(Path::to_owned));
        Ok(Client { base, token: token.map(Secret::new), trust })
    }

    /// What the daemon answers to a GET.
    ///
    /// # Errors
    /// Why there is no such answer, in a sentence that names the daemon.
    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, String> {
        let (status, body) =
            self.call(path, query).map_err(|why| format!("{}: {why}", self.base))?;
        let answer = serde_json::from_str::<Value>(&body);
        match (status, answer) {
            (200, Ok(answer)) => Ok(answer),
            (200, Err(_)) => Err(format!("{} does not answer as hbd does", self.base)),
            (401, _) => Err(format!(
                "{} wants a token: receiver.token of the configuration, or ${TOKEN_VARIABLE} with --url",
                self.base
            )),
            (status, answer) => {
                let why = answer.unwrap_or_default();
                let why = why["error"].as_str().unwrap_or("no reason given");
                Err(format!("{} answered {status}: {why}", self.base))
            }
        }
    }

    /// Status and body, whatever they are.
    ///
    /// # Errors
    /// Why there is no answer, in a sentence that names the daemon.
    pub fn ask(&self, path: &str) -> Result<(u16, String), String> {
        self.call(path, &[]).map_err(|why| format!("{}: {why}", self.base))
    }

    /// Where the daemon is.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn call(&self, path: &str, query: &[(&str, String)]) -> Result<(u16, String), String> {
        let pairs = query.iter().map(|(name, value)| format!("{name}={}", Encoded(value)));
        let pairs = pairs.collect::<Vec<_>>().join("&");
        let mark = if pairs.is_empty() { "" } else { "?" };
        let target = format!("{path}{mark}{pairs}");
        match &self.trust {
            Trust::Certificate(certificate, host, port) => Question {
                host,
                port: *port,
                target: &target,
                token: self.token.as_ref(),
                certificate: certificate.clone(),
                patience: TIMEOUT,
                longest: LONGEST,
            }
            .ask(),
            Trust::Authorities(ca_file) => self.get_from(&target, ca_file.as_deref()),
        }
    }

    fn get_from(&self, target: &str, ca_file: Option<&Path>) -> Result<(u16, String), String> {
        let encrypted = self.base.starts_with("https:");
        let roots = encrypted.then(|| tls::roots(ca_file)).transpose()?;
        let agent = tls::http_agent(TIMEOUT, roots.as_deref());
        let mut request = agent.get(format!("{}{target}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let mut response = request.call().map_err(|why| match why {
            ureq::Error::Io(why) if why.kind() == std::io::ErrorKind::ConnectionRefused => {
                "nobody answers there: is hbd running?".to_owned()
            }
            ureq::Error::Timeout(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
            ureq::Error::HostNotFound => "there is no host of this name".into(),
            why if encrypted && why.to_string().contains("UnknownIssuer") => {
                format!("{why}: name its authority with --ca-file")
            }
            why => why.to_string(),
        })?;
        let mut body = Vec::new();
        let mut reader = response.body_mut().as_reader().take(LONGEST);
        reader.read_to_end(&mut body).map_err(|why| format!("the answer broke off: {why}"))?;
        Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Says why the daemon cannot be reached, and gives the exit code.
pub fn unreachable(why: &str) -> u8 {
    complain(&why);
    UNREACHABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(receiver: &str) -> Result<Client, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        let text = format!("notification_channels: {{}}\nreceiver: {{{receiver}}}\n");
        std::fs::write(&file, text).unwrap();
        Client::of(&Config::load(&file).unwrap())
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
            assert_eq!(Client::at(url, None).unwrap().base, "http://mon.example:9099");
        }
        assert!(Client::at("mon example", None).is_err());
        let (some, url) = (Some("x".into()), Some("mon.example".to_owned()));
        assert!(Client::wished(&some, &url, &None).is_err());
        assert!(Client::wished(&some, &None, &some).is_err());
    }
}
