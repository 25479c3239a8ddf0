//! The nodes of a cluster, as each tells of itself once a second.

use serde_json::{Value, json};

use super::connection::{MasterConnection, RedisFault};
use super::keys::Keys;
use super::settings::NodeRole;

/// A node, as it told of itself last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `cluster.node`.
    pub name: String,
    /// Which process of it.
    pub incarnation: String,
    /// Where its HTTP server is for others.
    pub advertise: Option<String>,
    /// The version of hbd.
    pub version: String,
    /// A hash of its configuration, without what is a node's own.
    pub configuration: u32,
    /// What it does.
    pub role: MemberRole,
    /// Since when this process is connected, in milliseconds of Redis' clock.
    pub since: i64,
    /// When it told this, likewise.
    pub last_sign: i64,
    /// How many hosts it hears.
    pub hears: u64,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// It decides and notifies.
    Leader,
    /// It would lead if the leader died.
    Standby,
    /// It hears, and never leads.
    Receiver,
}

impl MemberRole {
    /// That of a node.
    pub fn of(role: NodeRole, leads: bool) -> MemberRole {
        match (role, leads) {
            (_, true) => MemberRole::Leader,
            (NodeRole::Auto, false) => MemberRole::Standby,
            (NodeRole::Receiver, false) => MemberRole::Receiver,
        }
    }

    /// The word for it, in Redis, the API and on the page.
    pub fn name(self) -> &'static str {
        match self {
            MemberRole::Leader => "leader",
            MemberRole::Standby => "standby",
            MemberRole::Receiver => "receiver",
        }
    }
}

impl Member {
    /// As it is kept in Redis, by its name.
    pub fn to_json(&self) -> String {
        json!({
            "incarnation": self.incarnation,
            "advertise": self.advertise,
            "version": self.version,
            "configuration": self.configuration,
            "role": self.role.name(),
            "since": self.since,
            "last_sign": self.last_sign,
            "hears": self.hears,
        })
        .to_string()
    }

    /// One as it is kept; what a later version may add is left out, and what is missing is empty. None
    /// when it is no JSON object.
    pub fn from_json(name: &str, text: &str) -> Option<Member> {
        let value: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| value[key].as_i64().unwrap_or_default();
        Some(Member {
            name: name.to_owned(),
            incarnation: text("incarnation"),
            advertise: value["advertise"].as_str().map(str::to_owned),
            version: text("version"),
            configuration: value["configuration"].as_u64().unwrap_or_default() as u32,
            role: match value["role"].as_str() {
                Some("leader") => MemberRole::Leader,
                Some("receiver") => MemberRole::Receiver,
                _ => MemberRole::Standby,
            },
            since: number("since"),
            last_sign: number("last_sign"),
            hears: value["hears"].as_u64().unwrap_or_default(),
        })
    }
}

/// The nodes of a flat list of names and JSON, sorted by name.
pub fn from_hash(flat: &[String]) -> Vec<Member> {
    let member = |pair: &[String]| Member::from_json(&pair[0], &pair[1]);
    let mut members: Vec<Member> = flat.chunks_exact(2).filter_map(member).collect();
    members.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    members
}

/// All nodes that told of themselves, sorted by name.
///
/// # Errors
/// Those of Redis.
pub fn read(redis: &mut MasterConnection, keys: &Keys) -> Result<Vec<Member>, RedisFault> {
    let flat: Vec<String> = redis.ask(redis::cmd("HGETALL").arg(keys.nodes()))?;
    Ok(from_hash(&flat))
}

/// Forgets a node that is gone; whether it was known. One that lives tells of itself again.
///
/// # Errors
/// Those of Redis.
pub fn forget(redis: &mut MasterConnection, keys: &Keys, node: &str) -> Result<bool, RedisFault> {
    redis.ask(redis::cmd("HDEL").arg(keys.nodes()).arg(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_as_it_is_written() {
        let member = Member {
            name: "hb1".into(),
            incarnation: "4f0a".into(),
            advertise: Some("http://hb1:9099".into()),
            version: "0.4.0".into(),
            configuration: 0xffff_4f2a,
            role: MemberRole::Leader,
            since: 1_700_000_000_000,
            last_sign: 1_700_000_001_000,
            hears: 9981,
        };
        assert_eq!(Member::from_json("hb1", &member.to_json()), Some(member));
    }

    #[test]
    fn what_another_version_tells_is_understood_as_far_as_it_goes() {
        let member = Member::from_json("hb2", r#"{"role": "leader", "mood": [1], "hears": -1}"#);
        let member = member.unwrap();
        assert_eq!((member.role, member.hears, member.advertise), (MemberRole::Leader, 0, None));
        for text in ["", "7", "[]", "{", "null"] {
            assert_eq!(Member::from_json("hb2", text), None, "{text}");
        }
        let flat = ["b", "{}", "c", "?", "a", "{}"].map(String::from);
        let names: Vec<String> = from_hash(&flat).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
