//! The body of `POST /api/v1/notify`. Pure.

use serde::Deserialize;

use crate::event::Level;

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The channels of a host.
    Host(String),
    /// These channels.
    Channels(Vec<String>),
}

/// Something to be told at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whom.
    pub whom: Whom,
    /// What.
    pub message: String,
    /// How much it matters; none leaves it to the daemon.
    pub level: Option<Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    host: Option<String>,
    channels: Option<Vec<String>>,
    message: String,
    level: Option<Level>,
}

/// Reads the body; an error is a sentence for whoever wrote the client.
pub fn parse(body: &[u8]) -> Result<Notice, String> {
    let Body { host, channels, message, level } =
        serde_json::from_slice(body).map_err(|why| format!("the body: {why}"))?;
    let whom = match (host, channels) {
        (Some(host), None) => Whom::Host(host),
        (None, Some(channels)) if channels.is_empty() => {
            return Err("channels: must name at least one".into());
        }
        (None, Some(channels)) => Whom::Channels(channels),
        (Some(_), Some(_)) => return Err("give either host or channels, not both".into()),
        (None, None) => return Err("whom to tell is missing: host or channels".into()),
    };
    Ok(Notice { whom, message, level })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_has_one_address_and_a_message() {
        let notice = |whom, level| Ok(Notice { whom, message: "m".into(), level });
        let host = Whom::Host("web1".into());
        let channels = Whom::Channels(vec!["a".into(), "b".into()]);
        for (body, expected) in [
            (r#"{"host":"web1","message":"m"}"#, notice(host.clone(), None)),
            (
                r#"{"channels":["a","b"],"host":null,"message":"m","level":"critical"}"#,
                notice(channels, Some(Level::Critical)),
            ),
        ] {
            assert_eq!(parse(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_notice_is_refused_with_the_reason() {
        for (body, why) in [
            ("", "EOF"),
            ("[]", "invalid"),
            ("{\"message\":\"m\"}", "whom to tell is missing"),
            (r#"{"host":"a","channels":["b"],"message":"m"}"#, "not both"),
            (r#"{"channels":[],"message":"m"}"#, "at least one"),
            (r#"{"channels":"a","message":"m"}"#, "a sequence"),
            (r#"{"host":"a"}"#, "message"),
            (r#"{"host":"a","message":7}"#, "a string"),
            (r#"{"host":"a","message":"m","level":"loud"}"#, "loud"),
            (r#"{"hots":"a","message":"m"}"#, "hots"),
            ("{\"host\":\"\u{fffd}\"", "EOF"),
        ] {
            let said = parse(body.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{body}: {said}");
        }
        assert!(parse(b"{\"host\":\"\xff\",\"message\":\"m\"}").is_err());
    }
}
