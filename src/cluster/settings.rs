//! The section `cluster`: the Redis that several hbd share, and which of them this one is.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::{BaseUrl, is_loopback, is_name, percent_decoded_lossy, to_ascii_host};
use crate::config_file::Section;
use crate::redis_client::address::{UrlLogin, address_error, scheme_error};
use crate::secret::Secret;
use crate::tls;

/// How long after its last sign a leader is replaced.
const DEFAULT_LEASE: Duration = Duration::from_millis(1500);

const DEFAULT_SENTINEL_PORT: u16 = 26_379;

/// The most replicas that may have to confirm a change.
const MAX_REPLICAS: u32 = 100;

/// The longest name of a cluster.
const MAX_NAME: usize = 64;

/// The section `cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Where Redis is.
    pub redis: RedisPlace,
    /// Its ACL user and password.
    pub login: RedisLogin,
    /// The same of the Sentinels.
    pub sentinel_login: RedisLogin,
    /// The only authorities that are trusted over TLS; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Tells several clusters on one Redis apart.
    pub name: String,
    /// This node.
    pub node: String,
    /// Where its HTTP server is for the other nodes and for people: `http://hb1.example.com:9099`.
    pub advertise: Option<String>,
    /// Whether it may lead.
    pub role: NodeRole,
    /// How long after its last sign a leader is replaced.
    pub lease: Duration,
    /// How many replicas must have a change before it counts.
    pub replicas: ReplicaCount,
    /// Whether how Redis keeps its data is left to the operator where Redis does not tell.
    pub trusted: bool,
}

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisPlace {
    /// There is one: `redis://127.0.0.1:6379`, without a login.
    Url(String),
    /// These know which is the master of the service.
    Sentinels {
        /// All of them.
        sentinels: Vec<SentinelAddress>,
        /// What they call it.
        service: String,
    },
}

/// The address of a Sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelAddress {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it is spoken to over TLS, as is the Redis that it names.
    pub secure: bool,
}

/// A user of Redis; none: no login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisLogin {
    /// The ACL user; none: the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

/// Whether a node may lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeRole {
    /// It leads when no other node does.
    #[default]
    Auto,
    /// It hears for the others, and never leads.
    Receiver,
}

/// How many replicas must confirm a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaCount {
    /// Half of those that the Sentinels know, at least one; none where there are no Sentinels.
    #[default]
    Half,
    /// All of them.
    All,
    /// So many.
    Number(u32),
}

impl ClusterSettings {
    /// Those of a node of the cluster `hbd` over a Redis of its own, as tests need them.
    pub fn for_tests(redis_url: &str, node: &str) -> ClusterSettings {
        ClusterSettings {
            redis: RedisPlace::Url(redis_url.into()),
            login: RedisLogin::default(),
            sentinel_login: RedisLogin::default(),
            ca_file: None,
            name: "hbd".into(),
            node: node.into(),
            advertise: None,
            role: NodeRole::default(),
            lease: DEFAULT_LEASE,
            replicas: ReplicaCount::default(),
            trusted: false,
        }
    }

    /// Reads the section. `polls`: whether `receiver.poll_url` is given; `machine` names this machine.
    pub fn read(
        section: &mut Section,
        polls: bool,
        machine: impl FnOnce() -> Result<String, String>,
    ) -> ClusterSettings {
        let login = RedisLogin {
            user: section.text("redis_user"),
            password: section.secret("redis_password", "redis_password_file"),
        };
        let sentinel_login = RedisLogin {
            user: section.text("sentinel_user"),
            password: section.secret("sentinel_password", "sentinel_password_file"),
        };
        let roles = [("auto", NodeRole::Auto), ("receiver", NodeRole::Receiver)];
        let durability = [("checked", false), ("trusted", true)];
        let mut settings = ClusterSettings {
            redis: RedisPlace::Url(String::new()),
            login,
            sentinel_login,
            ca_file: section.file_with("ca_file", tls::check_ca_file),
            name: read_name(section),
            node: read_node(section, machine),
            advertise: read_advertise(section),
            role: section.choice("role", &roles).unwrap_or_default(),
            lease: section
                .duration_within("lease", Duration::from_secs(1)..=Duration::from_secs(30))
                .unwrap_or(DEFAULT_LEASE),
            replicas: read_replicas(section),
            trusted: section.choice("durability", &durability).unwrap_or(false),
        };
        settings.read_place(section);
        settings.check_logins(section);
        settings.check_network(section);
        settings.check_replicas(section);
        if settings.role == NodeRole::Receiver && polls {
            let what = "receiver: only a leader asks receiver.poll_url, and this node never leads: \
                        leave poll_url out here";
            section.error("role", what);
        }
        settings
    }

    fn read_place(&mut self, section: &mut Section) {
        let (url, sentinels) = (section.text("redis_url"), section.texts("sentinels"));
        let service = section.text("service");
        match (url, sentinels) {
            (Some(_), Some(_)) => {
                let what = "says where Redis is, and redis_url does so, too: give one of them";
                section.error("sentinels", what);
            }
            (Some(url), None) => {
                if service.is_some() {
                    section.error("service", "is what Sentinels call a Redis: it needs sentinels");
                }
                self.read_url(section, url);
            }
            (None, Some(texts)) => {
                let service = service.unwrap_or_else(|| section.required("service"));
                self.read_sentinels(section, &texts, service);
            }
            (None, None) if section.is_meant("redis_url") || section.is_meant("sentinels") => {}
            (None, None) => {
                section.error("", "names no Redis: give redis_url, or sentinels and service")
            }
        }
    }

    fn read_url(&mut self, section: &mut Section, mut url: String) {
        if let Some(what) = scheme_error(&url) {
            section.error("redis_url", what);
            return;
        }
        let login = UrlLogin::take_from(&mut url);
        if !login.user.is_empty() {
            self.login.user = Some(percent_decoded_lossy(&login.user));
        }
        if !login.password.is_empty() {
            if self.login.password.is_some() {
                let what = "holds a password, and redis_password is given too: give one";
                section.error("redis_url", what);
            }
            section.keep_secret(&login.password);
            self.login.password =
                Some(section.keep_secret(&percent_decoded_lossy(&login.password)));
        }
        if let Some(what) = address_error(&url) {
            section.error("redis_url", what);
        } else if names_database(&url) {
            let what = "names a database: leave it out; cluster.name tells several clusters apart";
            section.error("redis_url", what);
        }
        self.redis = RedisPlace::Url(url);
    }

    fn read_sentinels(&mut self, section: &mut Section, texts: &[String], service: String) {
        let mut sentinels: Vec<SentinelAddress> = Vec::new();
        for text in texts {
            match SentinelAddress::parse(text) {
                Ok(address) if sentinels.contains(&address) => {
                    section.warning("sentinels", format!("names \"{text}\" twice"));
                }
                Ok(address) => sentinels.push(address),
                // What stands before an @ is a login, and no log shows one.
                Err(what) => {
                    let shown = text.rsplit('@').next().unwrap_or_default();
                    section.error("sentinels", format!("\"{shown}\" {what}"));
                }
            }
        }
        if sentinels.iter().any(|one| one.secure != sentinels[0].secure) {
            section.error("sentinels", "write rediss:// before each of them, or before none");
        }
        if texts.is_empty() {
            section.error("sentinels", "is empty: name all Sentinels, such as redis1:26379");
        } else if texts.len() < 3 {
            let what = "are fewer than three: without one of them the rest can agree on no master";
            section.warning("sentinels", what);
        }
        self.redis = RedisPlace::Sentinels { sentinels, service };
    }

    fn check_logins(&self, section: &Section) {
        for (key, file, user, login) in [
            ("redis_password", "redis_password_file", "redis_user", &self.login),
            ("sentinel_password", "sentinel_password_file", "sentinel_user", &self.sentinel_login),
        ] {
            let given = section.given(key) || section.given(file);
            if login.user.is_some() && login.password.is_none() && !given {
                section.error(user, format!("needs {key} or {file}"));
            }
        }
        if matches!(self.redis, RedisPlace::Url(_)) && !section.given("sentinels") {
            for key in ["sentinel_user", "sentinel_password", "sentinel_password_file"] {
                if section.given(key) {
                    section.error(key, "is of no use without sentinels");
                }
            }
        }
    }

    /// The key that says where Redis is, the first host of it beyond this machine, and whether it is
    /// spoken to over TLS.
    fn network(&self) -> (&'static str, Option<String>, bool) {
        match &self.redis {
            RedisPlace::Url(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or_default();
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = match authority.rsplit_once(':') {
                    Some((host, port)) if !port.contains(']') => host,
                    _ => authority,
                };
                let far = !scheme.ends_with("unix") && !host.is_empty() && !is_loopback(host);
                ("redis_url", far.then(|| host.to_owned()), scheme == "rediss")
            }
            RedisPlace::Sentinels { sentinels, .. } => {
                let mut hosts = sentinels.iter().map(|sentinel| &sentinel.host);
                let far = hosts.find(|host| !is_loopback(host)).cloned();
                ("sentinels", far, sentinels.iter().any(|sentinel| sentinel.secure))
            }
        }
    }

    /// Passwords and what hbd tells Redis must not go over a network for all to read.
    fn check_network(&self, section: &Section) {
        let (key, far, secure) = self.network();
        if self.ca_file.is_some() && !secure {
            let what = format!("is not used without TLS: write rediss:// in {key}");
            section.warning("ca_file", what);
        }
        let Some(host) = far else { return };
        if !secure && (self.login.password.is_some() || self.sentinel_login.password.is_some()) {
            let what = format!("the password would go to {host} in clear: write rediss://");
            section.error(key, what);
        }
        let given = section.given("redis_password") || section.given("redis_password_file");
        if self.login.password.is_none() && !given {
            let what = format!(
                "whoever reaches Redis at {host} could silence alarms or invent them: give \
                 redis_password, and rediss://"
            );
            section.warning(key, what);
        }
    }

    fn check_replicas(&self, section: &Section) {
        match (self.replicas, &self.redis) {
            (ReplicaCount::All, RedisPlace::Url(_)) if section.given("redis_url") => {
                let what = "all: only Sentinels know how many there are: give a number";
                section.error("replicas", what);
            }
            (ReplicaCount::Number(0), RedisPlace::Sentinels { .. }) => {
                let what = "0: a master that is cut off then goes on with its leader beside the \
                            other one, and both notify";
                section.warning("replicas", what);
            }
            _ => {}
        }
    }
}

impl SentinelAddress {
    /// Parses `host`, `host:port`, and either with `redis://` or `rediss://` in front.
    fn parse(text: &str) -> Result<SentinelAddress, &'static str> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("redis", text));
        let secure = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err("must be such as redis1:26379, or rediss://redis1:26379 for TLS"),
        };
        if rest.contains('@') {
            return Err("has a login before it: give sentinel_user and sentinel_password");
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port.map(str::parse::<u16>) {
            None => DEFAULT_SENTINEL_PORT,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err("must have a port from 1 to 65535 behind the colon"),
        };
        let host = to_ascii_host(host).ok_or("must be a host and a port, such as redis1:26379")?;
        Ok(SentinelAddress { host, port, secure })
    }
}

/// Whether an address has a database other than the first.
fn names_database(url: &str) -> bool {
    use redis::IntoConnectionInfo;
    url.into_connection_info().is_ok_and(|info| info.redis_settings().db() != 0)
}

fn read_name(section: &mut Section) -> String {
    let name = section.text("name").unwrap_or_else(|| "hbd".into());
    if !is_name(&name) || name.len() > MAX_NAME {
        section.error("name", format!("must be 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -"));
    }
    name
}

fn read_node(section: &mut Section, machine: impl FnOnce() -> Result<String, String>) -> String {
    if let Some(node) = section.text("node") {
        if !is_name(&node) || node.len() > MAX_NAME {
            section.error("node", format!("must be 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -"));
        }
        return node;
    }
    let node = machine().unwrap_or_default();
    if !section.given("node") && (!is_name(&node) || node.len() > MAX_NAME || node == "localhost") {
        let what = format!(
            "is missing, and the name of this machine (\"{}\") tells it from no other: give one",
            node.escape_debug()
        );
        section.error("node", what);
    }
    node
}

fn read_advertise(section: &mut Section) -> Option<String> {
    let text = section.text("advertise")?;
    if !text.contains("://") {
        let what = format!("must begin with http:// or https://, such as http://{text}");
        section.error("advertise", what);
        return None;
    }
    match BaseUrl::parse(&text) {
        Ok(url) => {
            if is_loopback(&url.host) {
                let what = "is this machine only: the other nodes find themselves there";
                section.warning("advertise", what);
            }
            Some(url.text)
        }
        Err(what) => {
            section.error("advertise", what);
            None
        }
    }
}

fn read_replicas(section: &mut Section) -> ReplicaCount {
    let Some(text) = section.text("replicas") else { return ReplicaCount::default() };
    match (text.as_str(), text.parse()) {
        ("all", _) => ReplicaCount::All,
        ("half", _) => ReplicaCount::Half,
        (_, Ok(number)) if number <= MAX_REPLICAS => ReplicaCount::Number(number),
        _ => {
            let what =
                format!("must be half, all, or a number up to {MAX_REPLICAS}, not \"{text}\"");
            section.error("replicas", what);
            ReplicaCount::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_is_a_host_and_maybe_a_port() {
        let parse = |text: &str| {
            let address = SentinelAddress::parse(text)?;
            Ok::<_, &str>((address.host, address.port, address.secure))
        };
        for (text, host, port, secure) in [
            ("redis1:26379", "redis1", 26_379, false),
            ("redis1", "redis1", 26_379, false),
            ("rediss://redis1:5000", "redis1", 5000, true),
            ("redis://10.0.0.1:5000", "10.0.0.1", 5000, false),
            ("[2001:db8::1]:5000", "2001:db8::1", 5000, false),
            ("2001:db8::1", "2001:db8::1", 26_379, false),
        ] {
            assert_eq!(parse(text), Ok((host.to_owned(), port, secure)), "{text}");
        }
        for (text, what) in [
            ("redis1:0", "port"),
            ("redis1:70000", "port"),
            ("redis1:", "port"),
            ("redis1:abc", "port"),
            ("", "host"),
            (":26379", "host"),
            ("a b", "host"),
            ("http://redis1:26379", "must be such as"),
            ("user:pw@redis1:26379", "login"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
        }
    }
}
