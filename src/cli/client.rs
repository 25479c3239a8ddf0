//! The running daemon, asked over HTTP by the commands that show what it knows.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;

use crate::address::BaseUrl;
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
}

impl Client {
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
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let base = format!("http://{host}:{}", receiver.port);
        Ok(Client { base, token: receiver.token.clone() })
    }

    /// The daemon at an address, `http://host:port`. Its token is in the environment: a
    /// configuration's token is for that configuration's daemon only.
    ///
    /// # Errors
    /// When that is no address.
    pub fn at(url: &str) -> Result<Client, String> {
        let bare = !url.contains("://");
        let whole = if bare { format!("http://{url}") } else { url.to_owned() };
        let base = BaseUrl::parse(&whole).map_err(|why| format!("--url: {why}"))?.text;
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        Ok(Client { base, token: token.map(Secret::new) })
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

    fn call(&self, path: &str, query: &[(&str, String)]) -> Result<(u16, String), String> {
        let mut request = self.agent()?.get(format!("{}{path}", self.base));
        for (name, value) in query {
            request = request.query(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let mut response = request.call().map_err(|why| match why {
            ureq::Error::Io(why) if why.kind() == std::io::ErrorKind::ConnectionRefused => {
                "nobody answers there: is hbd running?".to_owned()
            }
            ureq::Error::Timeout(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
            ureq::Error::HostNotFound => "there is no host of this name".into(),
            why => why.to_string(),
        })?;
        let mut body = Vec::new();
        let mut reader = response.body_mut().as_reader().take(LONGEST);
        reader.read_to_end(&mut body).map_err(|why| format!("the answer broke off: {why}"))?;
        Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
    }

    fn agent(&self) -> Result<ureq::Agent, String> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("hbd/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(TIMEOUT));
        if self.base.starts_with("https:") {
            config = config.tls_config(tls::http_client(&tls::roots(None)?));
        }
        Ok(config.build().into())
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
            assert_eq!(Client::at(url).unwrap().base, "http://mon.example:9099");
        }
        assert!(Client::at("mon example").is_err());
    }
}
