//! What the Redis of a cluster must be so that nothing that was accepted is lost: how it is asked, and
//! what is said of it.

use redis::{Pipeline, Value};

use super::connection::{Connector, MasterConnection, RedisFault, info_field};
use super::keys::Keys;
use super::members::{self, Member};
use super::settings::{ClusterSettings, RedisPlace};

/// What a Redis does not fulfil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequirementFault {
    /// Whether it cannot be used so; else it is worth a warning.
    pub refused: bool,
    /// What, and the remedy.
    pub what: String,
}

/// How a Redis keeps what it is told; none where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisFacts {
    /// Whether it writes an append-only file.
    pub append_only: Option<bool>,
    /// `appendfsync`.
    pub append_fsync: Option<String>,
    /// `maxmemory-policy`.
    pub eviction: Option<String>,
    /// `replica-read-only`.
    pub replica_read_only: Option<bool>,
    /// `min-replicas-to-write`.
    pub min_replicas: Option<u32>,
    /// How many replicas are connected to it.
    pub replicas: u32,
    /// How many replicas must confirm a change.
    pub required_replicas: u32,
    /// Whether Sentinels watch it.
    pub has_sentinels: bool,
    /// How many replicas the Sentinels know, those that are down included.
    pub known_replicas: u32,
    /// Whether the operator answers for how it keeps its data (`cluster.durability: trusted`).
    pub trusted: bool,
}

impl RedisFacts {
    /// Whether CONFIG GET was answered.
    fn tells(&self) -> bool {
        self.append_fsync.is_some()
    }

    /// All that is not as it should be, what is refused first.
    pub fn judge(&self) -> Vec<RequirementFault> {
        let mut faults = self.refusals();
        faults.extend(self.warnings());
        faults
    }

    fn refusals(&self) -> Vec<RequirementFault> {
        let mut faults = Vec::new();
        let mut refuse = |what: String| faults.push(RequirementFault { refused: true, what });
        let writes = self.append_only == Some(true);
        if writes && self.append_fsync.as_deref() == Some("no") {
            refuse(
                "appendfsync is no: what was accepted is lost with the machine: set it to always"
                    .into(),
            );
        }
        let alone = self.replicas == 0 && self.known_replicas == 0;
        if self.append_only == Some(false) && alone && !self.trusted {
            refuse(
                "it writes no append-only file and has no replica, so that a restart loses all: set \
                 appendonly to yes and appendfsync to always"
                    .into(),
            );
        }
        if let Some(policy) = self.eviction.as_deref().filter(|one| one.starts_with("allkeys-")) {
            refuse(format!(
                "maxmemory-policy is {policy}: it would throw alarms away when memory runs short: set \
                 it to noeviction"
            ));
        }
        if self.replica_read_only == Some(false) {
            refuse(
                "replica-read-only is no: as a replica it would take writes that are lost: set it to \
                 yes"
                    .into(),
            );
        }
        faults
    }

    fn warnings(&self) -> Vec<RequirementFault> {
        let mut faults = Vec::new();
        let mut warn = |what: String| faults.push(RequirementFault { refused: false, what });
        let alone = !self.has_sentinels && self.replicas == 0;
        let writes = self.append_only == Some(true);
        if alone && writes && self.append_fsync.as_deref() == Some("everysec") {
            warn(
                "appendfsync is everysec: a power cut loses what was accepted in the last second: set \
                 it to always"
                    .into(),
            );
        }
        if self.has_sentinels && self.known_replicas == 0 {
            warn(
                "the Sentinels know no replica of it: nothing is stored before one has it: add two"
                    .into(),
            );
        }
        if self.has_sentinels && self.known_replicas == 1 {
            warn(
                "there are two Redis: when one of them dies nothing is stored until it is back: three \
                 are better"
                    .into(),
            );
        }
        if !self.has_sentinels && self.required_replicas > self.replicas {
            warn(format!(
                "cluster.replicas is {}, and {} are connected: nothing is stored before so many have \
                 it",
                self.required_replicas, self.replicas
            ));
        }
        if self.has_sentinels && self.min_replicas == Some(0) {
            warn(
                "min-replicas-to-write is 0: a master that is cut off takes writes of other clients \
                 that are lost: set it to 1"
                    .into(),
            );
        }
        if let Some(policy) = self.eviction.as_deref().filter(|one| one.starts_with("volatile-")) {
            warn(format!(
                "maxmemory-policy is {policy}: it would throw the lease away when memory runs short, \
                 and leaders would change: set it to noeviction"
            ));
        }
        if !self.tells() && !self.trusted {
            warn(
                "it does not tell how it keeps its data: let the user do CONFIG GET (+config|get), or \
                 write durability: trusted if you know that it loses nothing"
                    .into(),
            );
        }
        faults
    }
}

/// What a Redis and its nodes are.
#[derive(Debug)]
pub struct ClusterLook {
    /// How the Redis is called in texts.
    pub server: String,
    /// What it does not fulfil.
    pub faults: Vec<RequirementFault>,
    /// The nodes that told of themselves.
    pub members: Vec<Member>,
}

/// Looks at the Redis of a configuration, once.
///
/// # Errors
/// A sentence, when it cannot be asked.
pub fn look(settings: &ClusterSettings) -> Result<ClusterLook, String> {
    let connector = Connector::new(settings)?;
    let ask = || {
        let mut redis = connector.connect()?;
        let faults = examine(&mut redis, &connector, settings)?;
        let members = members::read(&mut redis, &Keys::new(&settings.name))?;
        Ok(ClusterLook { server: redis.server().to_owned(), faults, members })
    };
    ask().map_err(|fault: RedisFault| fault.to_string())
}

/// Asks a master how it keeps what it is told, and judges that.
///
/// # Errors
/// Those of Redis, but for what it may refuse to tell.
pub fn examine(
    redis: &mut MasterConnection,
    connector: &Connector,
    settings: &ClusterSettings,
) -> Result<Vec<RequirementFault>, RedisFault> {
    Ok(ask(redis, connector, settings)?.judge())
}

/// Asks a master how it keeps what it is told.
///
/// # Errors
/// Those of Redis, but for what it may refuse to tell.
pub fn ask(
    redis: &mut MasterConnection,
    connector: &Connector,
    settings: &ClusterSettings,
) -> Result<RedisFacts, RedisFault> {
    const SETTINGS: [&str; 4] =
        ["appendfsync", "maxmemory-policy", "replica-read-only", "min-replicas-to-write"];
    let mut commands = Pipeline::new();
    for part in ["persistence", "memory", "replication"] {
        commands.cmd("INFO").arg(part);
    }
    for setting in SETTINGS {
        commands.cmd("CONFIG").arg("GET").arg(setting);
    }
    let mut answers = redis.ask_all(&mut commands)?.into_iter();
    let mut info = String::new();
    for answer in answers.by_ref().take(3) {
        info +=
            &redis::from_redis_value::<String>(answer.unwrap_or(Value::Nil)).unwrap_or_default();
        info.push('\n');
    }
    let [append_fsync, eviction, read_only, min_replicas] =
        [(); 4].map(|()| setting(answers.next()?.ok()?));
    let said = |name: &str| info_field(&info, name).map(str::to_owned);
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    Ok(RedisFacts {
        append_only: said("aof_enabled").map(|enabled| enabled == "1"),
        append_fsync,
        eviction: eviction.or_else(|| said("maxmemory_policy")),
        replica_read_only: read_only.map(|value| value == "yes"),
        min_replicas: number(min_replicas),
        replicas: number(said("connected_slaves")).unwrap_or(0),
        required_replicas: connector.required_replicas(),
        has_sentinels: matches!(settings.redis, RedisPlace::Sentinels { .. }),
        known_replicas: connector.known_replicas(),
        trusted: settings.trusted,
    })
}

/// The value in the answer to CONFIG GET.
fn setting(answer: Value) -> Option<String> {
    let pair: Vec<String> = redis::from_redis_value(answer).ok()?;
    pair.into_iter().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> RedisFacts {
        RedisFacts {
            append_only: Some(true),
            append_fsync: Some("always".into()),
            eviction: Some("noeviction".into()),
            replica_read_only: Some(true),
            min_replicas: Some(0),
            ..RedisFacts::default()
        }
    }

    fn watched() -> RedisFacts {
        RedisFacts {
            has_sentinels: true,
            replicas: 2,
            known_replicas: 2,
            required_replicas: 1,
            min_replicas: Some(1),
            ..sound()
        }
    }

    fn said(facts: RedisFacts) -> Vec<(bool, String)> {
        facts.judge().into_iter().map(|fault| (fault.refused, fault.what)).collect()
    }

    #[test]
    fn the_defaults_of_the_manual_are_sound() {
        assert_eq!(said(sound()), []);
        assert_eq!(said(watched()), []);
        let everysec = Some("everysec".to_owned());
        assert_eq!(said(RedisFacts { append_fsync: everysec.clone(), ..watched() }), []);
        assert_eq!(said(RedisFacts { append_only: Some(false), ..watched() }), []);
        let managed = RedisFacts { trusted: true, ..RedisFacts::default() };
        assert_eq!(said(managed), []);
    }

    #[test]
    fn what_would_lose_alarms_is_refused_and_what_may_is_warned_of() {
        let text = |text: &str| Some(text.to_owned());
        for (facts, refused, what) in [
            (RedisFacts { append_fsync: text("no"), ..sound() }, true, "appendfsync is no"),
            (RedisFacts { append_only: Some(false), ..sound() }, true, "appendonly to yes"),
            (RedisFacts { eviction: text("allkeys-lru"), ..sound() }, true, "is allkeys-lru"),
            (RedisFacts { eviction: text("allkeys-random"), ..watched() }, true, "noeviction"),
            (RedisFacts { replica_read_only: Some(false), ..watched() }, true, "replica-read-only"),
            (RedisFacts { append_fsync: text("everysec"), ..sound() }, false, "last second"),
            (RedisFacts { eviction: text("volatile-ttl"), ..sound() }, false, "lease away"),
            (RedisFacts { known_replicas: 1, replicas: 1, ..watched() }, false, "three are better"),
            (RedisFacts { known_replicas: 0, replicas: 0, ..watched() }, false, "add two"),
            (RedisFacts { min_replicas: Some(0), ..watched() }, false, "min-replicas-to-write"),
            (RedisFacts { required_replicas: 2, replicas: 1, ..sound() }, false, "1 are connected"),
            (
                RedisFacts { append_fsync: None, min_replicas: None, ..sound() },
                false,
                "durability: trusted",
            ),
        ] {
            let said = said(facts.clone());
            assert_eq!(said.len(), 1, "{facts:?}: {said:?}");
            assert!(said[0].0 == refused && said[0].1.contains(what), "{what}: {said:?}");
        }
    }
}
