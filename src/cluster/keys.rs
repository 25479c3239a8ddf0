//! The names of a cluster's keys in Redis. Pure.
//!
//! All of them have one hash tag, so that a script may touch them together: `{hb:NAME}:lease`.

/// The names of the keys of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    tag: String,
}

impl Keys {
    /// Those of the cluster `name` (`cluster.name`).
    pub fn new(name: &str) -> Keys {
        Keys { tag: format!("{{hb:{name}}}") }
    }

    fn of(&self, what: &str) -> String {
        format!("{}:{what}", self.tag)
    }

    /// A string without a TTL: the [`super::token::Token`] that a change must come with.
    pub fn fence(&self) -> String {
        self.of("fence")
    }

    /// The same token; its TTL says when another node may lead.
    pub fn lease(&self) -> String {
        self.of("lease")
    }

    /// An integer: the number of the last commit.
    pub fn seq(&self) -> String {
        self.of("seq")
    }

    /// A hash: how many bytes each table of the history has.
    pub fn bytes(&self) -> String {
        self.of("bytes")
    }

    /// A list: parts of a commit that is too large for one call, before it is made.
    pub fn staged(&self, token: &str) -> String {
        self.of("staged:") + token
    }

    /// What the keys of all tables begin with.
    pub fn tables_prefix(&self) -> String {
        self.of("t:")
    }

    /// A hash: the rows of a table.
    pub fn table(&self, name: &str) -> String {
        self.tables_prefix() + name
    }

    /// What the keys of all indexes begin with.
    pub fn indexes_prefix(&self) -> String {
        self.of("i:")
    }

    /// A sorted set whose scores are 0: the keys of a table's rows in their order.
    pub fn index(&self, name: &str) -> String {
        self.indexes_prefix() + name
    }

    /// A stream: what other nodes accepted for the leader.
    pub fn inbox(&self) -> String {
        self.of("in")
    }

    /// A stream: the rows of each commit.
    pub fn log(&self) -> String {
        self.of("log")
    }

    /// A channel: beats that nodes hear.
    pub fn beats(&self) -> String {
        self.of("beats")
    }

    /// A hash: by name, what each node tells of itself, as JSON.
    pub fn nodes(&self) -> String {
        self.of("nodes")
    }

    /// A hash: by a kernel's tag, what Redis' clock is ahead of the monotonic one of that boot, in
    /// milliseconds.
    pub fn clocks(&self) -> String {
        self.of("clocks")
    }

    /// An integer: the version of rows and scripts that is in use.
    pub fn format(&self) -> String {
        self.of("format")
    }

    /// A string: made with the first lease, and never changed. Two clusters that came to use one name in
    /// one Redis by accident have two of them.
    pub fn id(&self) -> String {
        self.of("id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_keys_are_a_contract_between_versions() {
        let keys = Keys::new("hbd");
        let names = [keys.fence(), keys.lease(), keys.seq(), keys.table("hosts"), keys.inbox()];
        let expected = ["fence", "lease", "seq", "t:hosts", "in"];
        assert_eq!(names, expected.map(|name| format!("{{hb:hbd}}:{name}")));
        let names = [
            keys.index("events"),
            keys.log(),
            keys.beats(),
            keys.nodes(),
            keys.clocks(),
            keys.id(),
        ];
        let expected = ["i:events", "log", "beats", "nodes", "clocks", "id"];
        assert_eq!(names, expected.map(|name| format!("{{hb:hbd}}:{name}")));
        assert_eq!(Keys::new("test").format(), "{hb:test}:format");
        let names = [keys.bytes(), keys.staged("1:hb1:a")];
        assert_eq!(names, ["{hb:hbd}:bytes", "{hb:hbd}:staged:1:hb1:a"]);
    }
}
