//! What of the history is wanted: the query of `GET /api/v1/notifications`. Pure.

use super::routes::percent_decoded;

/// How many are shown when it is not said.
const USUAL: usize = 100;
/// How many are shown at most.
const MOST: usize = 1000;

/// A part of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// So many at most.
    pub limit: usize,
    /// Only what is older than the notification of this id.
    pub before: Option<u64>,
    /// Only about this host.
    pub host: Option<String>,
    /// Only through this channel.
    pub channel: Option<String>,
    /// Only what arrived, or only what did not (or not yet).
    pub delivered: Option<bool>,
}

/// Reads the query of a target; an error is a sentence for whoever wrote the client.
pub fn wanted(target: &str) -> Result<Wanted, String> {
    let mut wanted =
        Wanted { limit: USUAL, before: None, host: None, channel: None, delivered: None };
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decoded(value).ok_or_else(|| format!("{name}: bad encoding"))?;
        match name {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| *limit > 0);
                let limit: usize = limit.ok_or("limit: must be a number from 1 to 1000")?;
                wanted.limit = limit.min(MOST);
            }
            "before" => {
                let id = u64::from_str_radix(&value, 16).ok();
                wanted.before = Some(id.ok_or("before: must be the id of a notification")?);
            }
            "host" => wanted.host = Some(value),
            "channel" => wanted.channel = Some(value),
            "delivered" => match value.as_str() {
                "true" => wanted.delivered = Some(true),
                "false" => wanted.delivered = Some(false),
                _ => return Err("delivered: must be true or false".into()),
            },
            _ => {
                return Err(format!(
                    "{name}: unknown, there are: limit, before, host, channel, delivered"
                ));
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_narrows_the_history() {
        let usual = Wanted { limit: 100, before: None, host: None, channel: None, delivered: None };
        let all = "/n?limit=5000&before=01a2&host=m%C3%BCnster&channel=a.b&delivered=false";
        assert_eq!(wanted("/n").unwrap(), usual);
        assert_eq!(wanted("/n?").unwrap(), usual);
        assert_eq!(
            wanted(all).unwrap(),
            Wanted {
                limit: 1000,
                before: Some(0x1a2),
                host: Some("m\u{fc}nster".into()),
                channel: Some("a.b".into()),
                delivered: Some(false),
            }
        );
    }

    #[test]
    fn what_is_no_query_is_refused_by_its_name() {
        for query in
            ["limit=0", "limit=-1", "limit=x", "limit", "before=xyz", "delivered=yes", "chanel=a"]
        {
            let name = query.split('=').next().unwrap();
            let why = wanted(&format!("/n?{query}")).unwrap_err();
            assert!(why.starts_with(name), "{query}: {why}");
        }
        assert!(wanted("/n?host=%ff").is_err());
    }
}
