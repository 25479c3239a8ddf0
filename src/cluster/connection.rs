//! A connection to the Redis that is the master now: its address, or what Sentinels say of it, and its
//! own word for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{
    Cmd, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisError, Value,
};

use super::settings::{ClusterSettings, RedisLogin, RedisPlace, ReplicaCount, SentinelAddress};
use crate::redis_client;
use crate::redis_client::address::describe_server;
use crate::redis_client::words::{ErrorWords, NOT_REDIS, describe_error, describe_refusal};
use crate::tls;

/// How long connecting and each answer may take.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(1);

/// The oldest version that has all that is used.
const OLDEST: (u32, u32) = (6, 2);

const WORDS: ErrorWords = ErrorWords {
    timeout: STEP_TIMEOUT,
    address: "cluster.redis_url",
    user: "cluster.redis_user",
    password: "cluster.redis_password",
    cluster_node: "it is a node of a Redis Cluster: name a Redis of its own, or one with Sentinels",
    unknown_command: "it does not know a command that is needed: a Sentinel (cluster.sentinels), or \
                      one before 6.2?",
    database: "it has no such database",
};

const SENTINEL_WORDS: ErrorWords = ErrorWords {
    address: "cluster.sentinels",
    user: "cluster.sentinel_user",
    password: "cluster.sentinel_password",
    unknown_command: "it is no Sentinel: a Redis itself is named in cluster.redis_url",
    ..WORDS
};

/// Why something could not be asked or done; a sentence for people, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisFault {
    /// There is no connection, or no answer: what was asked may or may not have been done.
    Lost(String),
    /// Redis answered with an error, and nothing was done.
    Refused {
        /// The first word of the answer: `OOM`, `READONLY`, `FENCED`.
        code: String,
        /// The sentence.
        why: String,
    },
}

impl RedisFault {
    /// The first word of an answer; empty without one.
    pub fn code(&self) -> &str {
        match self {
            RedisFault::Lost(_) => "",
            RedisFault::Refused { code, .. } => code,
        }
    }

    /// Whether Redis answered with one of these errors. Redis before 7 names what a script met within its
    /// sentence.
    pub fn is_one_of(&self, codes: &[&str]) -> bool {
        let RedisFault::Refused { code, why } = self else { return false };
        codes.iter().any(|one| code == one || why.contains(&format!(": -{one} ")))
    }

    fn refused(code: &str, why: String) -> RedisFault {
        RedisFault::Refused { code: code.to_owned(), why }
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (RedisFault::Lost(why) | RedisFault::Refused { why, .. }) = self;
        f.write_str(why)
    }
}

/// Makes connections to the master. Cloned: all clones know the same of the replicas.
#[derive(Clone, Debug)]
pub struct Connector(Arc<Place>);

#[derive(Debug)]
struct Place {
    place: RedisPlace,
    login: RedisLogin,
    sentinel_login: RedisLogin,
    /// The authorities of `ca_file`, in PEM form.
    ca: Option<Vec<u8>>,
    replicas: ReplicaCount,
    /// The most replicas that a Sentinel knew of so far, those that are down included.
    known_replicas: AtomicU32,
}

/// What a Sentinel says.
struct MasterReport {
    host: String,
    port: u16,
    replicas: u32,
}

impl Connector {
    /// One for these settings; connects to nothing.
    ///
    /// # Errors
    /// A sentence, when `ca_file` cannot be used.
    pub fn new(settings: &ClusterSettings) -> Result<Connector, String> {
        let ca = settings.ca_file.as_deref().map(tls::read_ca_file).transpose()?;
        Ok(Connector(Arc::new(Place {
            place: settings.redis.clone(),
            login: settings.login.clone(),
            sentinel_login: settings.sentinel_login.clone(),
            ca: ca.map(|certificates| tls::to_pem(&certificates)),
            replicas: settings.replicas,
            known_replicas: AtomicU32::new(0),
        })))
    }

    /// How many replicas must confirm a change; 0: none. With Sentinels it is known after the first
    /// connection, and never falls: a master that is cut off knows of few.
    pub fn required_replicas(&self) -> u32 {
        let known = self.known_replicas();
        match (self.0.replicas, &self.0.place) {
            (ReplicaCount::Number(number), _) => number,
            (ReplicaCount::Half, RedisPlace::Url(_)) => 0,
            (ReplicaCount::Half, RedisPlace::Sentinels { .. }) => known.div_ceil(2).max(1),
            (ReplicaCount::All, _) => known.max(1),
        }
    }

    /// The most replicas that a Sentinel knew of so far; 0 without Sentinels.
    pub fn known_replicas(&self) -> u32 {
        self.0.known_replicas.load(Ordering::Relaxed)
    }

    /// Connects to the master, logs in, and has it say that it is one.
    ///
    /// # Errors
    /// When there is none, or it is none that can be used.
    pub fn connect(&self) -> Result<MasterConnection, RedisFault> {
        match &self.0.place {
            RedisPlace::Url(url) => {
                let info = url.as_str().into_connection_info();
                let server = describe_server(url);
                let info = info.map_err(|error| fault(&server, &error, &WORDS))?;
                self.connect_to(info, server)?.require_master()
            }
            RedisPlace::Sentinels { sentinels, service } => self.ask_sentinels(sentinels, service),
        }
    }

    fn connect_to(
        &self,
        info: ConnectionInfo,
        server: String,
    ) -> Result<MasterConnection, RedisFault> {
        let ca = self.0.ca.as_deref();
        MasterConnection::open(info, server, &self.0.login, ca, &WORDS)
    }

    /// Asks all of them and tries each master that is named, since one that was cut off names an old one.
    fn ask_sentinels(
        &self,
        sentinels: &[SentinelAddress],
        service: &str,
    ) -> Result<MasterConnection, RedisFault> {
        let mut tried: Vec<(String, u16)> = Vec::new();
        let mut why: Vec<String> = Vec::new();
        for sentinel in sentinels {
            let report = match self.ask_sentinel(sentinel, service) {
                Ok(report) => report,
                Err(fault) => {
                    why.push(fault.to_string());
                    continue;
                }
            };
            self.0.known_replicas.fetch_max(report.replicas, Ordering::Relaxed);
            let place = (report.host, report.port);
            if tried.contains(&place) {
                continue;
            }
            let secure = sentinel.secure;
            let info = address(&place.0, place.1, secure).into_connection_info();
            let server = describe_address(&place.0, place.1, secure);
            tried.push(place);
            let connected = info
                .map_err(|error| fault(&server, &error, &WORDS))
                .and_then(|info| self.connect_to(info, server)?.require_master());
            match connected {
                Ok(connection) => return Ok(connection),
                Err(fault) => why.push(fault.to_string()),
            }
        }
        Err(RedisFault::Lost(format!("no master of {service} was found: {}", why.join("; "))))
    }

    fn ask_sentinel(
        &self,
        sentinel: &SentinelAddress,
        service: &str,
    ) -> Result<MasterReport, RedisFault> {
        let SentinelAddress { host, port, secure } = sentinel;
        let server = describe_address(host, *port, *secure).replacen("Redis", "the Sentinel", 1);
        let info = address(host, *port, *secure).into_connection_info();
        let info = info.map_err(|error| fault(&server, &error, &SENTINEL_WORDS))?;
        let (login, ca) = (&self.0.sentinel_login, self.0.ca.as_deref());
        let mut redis = MasterConnection::open(info, server, login, ca, &SENTINEL_WORDS)?;
        let ask = |what: &str| redis::cmd("SENTINEL").arg(what).arg(service).to_owned();
        let named: Option<(String, u16)> = redis.ask(&ask("get-master-addr-by-name"))?;
        let Some((host, port)) = named else {
            let why = format!(
                "{}: it knows no service {service}: is cluster.service what the Sentinels call it?",
                redis.server
            );
            return Err(RedisFault::refused("ERR", why));
        };
        let replicas: Vec<Value> = redis.ask(&ask("replicas"))?;
        Ok(MasterReport { host, port, replicas: u32::try_from(replicas.len()).unwrap_or(0) })
    }
}

fn address(host: &str, port: u16, secure: bool) -> ConnectionAddr {
    let host = host.to_owned();
    match secure {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    }
}

fn describe_address(host: &str, port: u16, secure: bool) -> String {
    let scheme = if secure { "rediss" } else { "redis" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    describe_server(&format!("{scheme}://{host}:{port}"))
}

/// A connection to a master, or to what is asked whether it is one.
pub struct MasterConnection {
    connection: Connection,
    server: String,
    words: &'static ErrorWords,
    timeout: Duration,
    run_id: String,
    version: String,
    is_broken: bool,
}

impl fmt::Debug for MasterConnection {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.server)
    }
}

impl MasterConnection {
    fn open(
        info: ConnectionInfo,
        server: String,
        login: &RedisLogin,
        ca: Option<&[u8]>,
        words: &'static ErrorWords,
    ) -> Result<MasterConnection, RedisFault> {
        let connection = redis_client::open(info, STEP_TIMEOUT, ca)
            .map_err(|error| fault(&server, &error, words))?;
        let (run_id, version) = (String::new(), String::new());
        let timeout = STEP_TIMEOUT;
        let mut redis = MasterConnection {
            connection,
            server,
            words,
            timeout,
            run_id,
            version,
            is_broken: false,
        };
        redis.set_timeout(STEP_TIMEOUT)?;
        if let Some(password) = &login.password {
            redis.ask::<Value>(&redis_client::auth(login.user.as_deref(), password))?;
        }
        Ok(redis)
    }

    /// Refuses what is no master, is a node of a Redis Cluster, or is too old.
    fn require_master(mut self) -> Result<MasterConnection, RedisFault> {
        let info: String = self.ask(redis::cmd("INFO").arg("server"))?;
        self.run_id = info_field(&info, "run_id").unwrap_or_default().to_owned();
        self.version = info_field(&info, "redis_version").unwrap_or_default().to_owned();
        match info_field(&info, "redis_mode") {
            Some("cluster") => return Err(self.unusable(WORDS.cluster_node)),
            Some("sentinel") => {
                let why = "it is a Sentinel: name it in cluster.sentinels, with cluster.service";
                return Err(self.unusable(why));
            }
            _ => {}
        }
        if !self.version.is_empty() && !is_new_enough(&self.version) {
            let (major, minor) = OLDEST;
            let why = format!("version {} is too old: {major}.{minor} is needed", self.version);
            return Err(self.unusable(&why));
        }
        let role: Vec<Value> = self.ask(&redis::cmd("ROLE"))?;
        match role.into_iter().next().map(redis::from_redis_value::<String>) {
            Some(Ok(role)) if role == "master" => Ok(self),
            Some(Ok(role)) if role == "slave" => {
                Err(self.unusable("it is a replica now, and the master is wanted"))
            }
            _ => Err(self.unusable(NOT_REDIS)),
        }
    }

    /// The error for what answers and cannot be used.
    pub fn unusable(&self, why: &str) -> RedisFault {
        RedisFault::refused("UNUSABLE", format!("{}: {why}", self.server))
    }

    /// How it is called in texts.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Which process of Redis it is: another one has forgotten what was not replicated or written.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Whether it must not be used again: an answer that comes too late would be taken for that to
    /// another question.
    pub fn is_broken(&self) -> bool {
        self.is_broken || !self.connection_is_open()
    }

    fn connection_is_open(&self) -> bool {
        use redis::ConnectionLike;
        self.connection.is_open()
    }

    /// From now on an answer may take so long.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), RedisFault> {
        self.timeout = timeout;
        let set = self.connection.set_read_timeout(Some(timeout));
        let set = set.and_then(|()| self.connection.set_write_timeout(Some(timeout)));
        set.map_err(|error| self.fault(&error))
    }

    /// The answer to one command.
    ///
    /// # Errors
    /// When there is none, or an error.
    pub fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisFault> {
        let answer: Result<Value, RedisError> = command.query(&mut self.connection);
        let value = answer.map_err(|error| self.fault(&error))?;
        redis::from_redis_value(value).map_err(|error| self.fault(&error.into()))
    }

    /// The answers to several commands that are sent together, each with its own error.
    ///
    /// # Errors
    /// When the connection is lost; any of them may have been done.
    pub fn ask_all(
        &mut self,
        commands: &mut Pipeline,
    ) -> Result<Vec<Result<Value, RedisFault>>, RedisFault> {
        let answers: Result<Vec<Result<Value, RedisError>>, RedisError> =
            commands.ignore_errors().query(&mut self.connection);
        let answers = answers.map_err(|error| self.fault(&error))?;
        let answer = |answer: Result<Value, RedisError>| answer.map_err(|error| self.fault(&error));
        Ok(answers.into_iter().map(answer).collect())
    }

    /// Waits until so many replicas have what was written over this connection, for `timeout` at most;
    /// whether they have.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn wait_for_replicas(
        &mut self,
        replicas: u32,
        timeout: Duration,
    ) -> Result<bool, RedisFault> {
        if replicas == 0 {
            return Ok(true);
        }
        let before = self.timeout;
        self.set_timeout(timeout + STEP_TIMEOUT)?;
        // 0 would be for ever.
        let millis = timeout.as_millis().max(1) as u64;
        let confirmed: u32 = self.ask(redis::cmd("WAIT").arg(replicas).arg(millis))?;
        self.set_timeout(before)?;
        Ok(confirmed >= replicas)
    }

    /// The library's connection, for what is asked otherwise: SUBSCRIBE.
    pub fn into_inner(self) -> Connection {
        self.connection
    }

    fn fault(&mut self, error: &RedisError) -> RedisFault {
        let fault =
            fault(&self.server, error, &ErrorWords { timeout: self.timeout, ..*self.words });
        self.is_broken |= matches!(fault, RedisFault::Lost(_));
        fault
    }
}

/// The value of `name:value` in what INFO says.
pub fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).map(str::trim)
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
}

fn fault(server: &str, error: &RedisError, words: &ErrorWords) -> RedisFault {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => {
            let code = error.code().unwrap_or_default();
            let why = refusal(code, error.detail().unwrap_or_default(), words);
            RedisFault::refused(code, format!("{server}: {why}"))
        }
        _ => RedisFault::Lost(format!("{server}: {}", describe_error(error, words))),
    }
}

/// What Redis says to one that writes, with the remedy.
fn refusal(code: &str, detail: &str, words: &ErrorWords) -> String {
    match code {
        "OOM" => "it is full (maxmemory): give it more memory, or let other data go".into(),
        "READONLY" => "it is a replica now, and takes no writes".into(),
        "NOREPLICAS" => {
            "too few replicas are connected (min-replicas-to-write): are they running?".into()
        }
        _ if code == "NOPERM" || detail.contains("user executing the script") => {
            format!("{} may not do that ({detail}): its ACL is in hbd(8)", words.user)
        }
        _ => describe_refusal(code, detail, words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for version in ["6.2.0", "6.10.1", "7.0.15", "10.0.0", "8.1"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["6.1.9", "5.0.14", "2.8", "x"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn half_of_the_replicas_must_confirm_and_the_number_never_falls() {
        let sentinels = || {
            let address = SentinelAddress { host: "a".into(), port: 1, secure: false };
            RedisPlace::Sentinels { sentinels: vec![address], service: "hbd".into() }
        };
        let single = || RedisPlace::Url("redis://127.0.0.1".into());
        let required = |place, replicas, known: &[u32]| {
            let settings = ClusterSettings {
                redis: place,
                replicas,
                ..ClusterSettings::for_tests("redis://127.0.0.1", "hb1")
            };
            let connector = Connector::new(&settings).unwrap();
            for known in known {
                connector.0.known_replicas.fetch_max(*known, Ordering::Relaxed);
            }
            connector.required_replicas()
        };
        assert_eq!(required(single(), ReplicaCount::Half, &[]), 0);
        assert_eq!(required(single(), ReplicaCount::Number(2), &[]), 2);
        for (known, half) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)] {
            assert_eq!(required(sentinels(), ReplicaCount::Half, &[known]), half, "{known}");
            assert_eq!(required(sentinels(), ReplicaCount::Half, &[known, 0]), half, "{known}");
        }
        assert_eq!(required(sentinels(), ReplicaCount::All, &[2, 1]), 2);
        assert_eq!(required(sentinels(), ReplicaCount::Number(0), &[2]), 0);
    }
}
