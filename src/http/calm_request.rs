//! Parsing of what people ask of silences and acknowledgements, as JSON or from a form of the page.
//! Errors name each field that is wrong. Pure.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::address::percent_decoded;
use crate::event::Level;

/// The longest name of a person, in characters.
const MAX_NAME: usize = 100;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestSource {
    /// A program.
    Api,
    /// The page.
    Page,
}

/// A silence to set. What its scope is, and whether its length and comment are allowed, is for the
/// daemon to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilenceRequest {
    /// What is to be silent, as an operator writes it.
    pub scope: String,
    /// For how long.
    pub length: Duration,
    /// Why.
    pub comment: Option<String>,
    /// Who asks for it.
    pub by: String,
    /// Events of this level and above are to be told all the same.
    pub unless: Option<Level>,
    /// Where it comes from.
    pub source: RequestSource,
}

/// Open alarms to acknowledge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcknowledgeRequest {
    /// Which, as an operator writes it.
    pub scope: String,
    /// A comment.
    pub comment: Option<String>,
    /// Who.
    pub by: String,
    /// For how long; none: as long as the alarm lasts.
    pub length: Option<Duration>,
}

/// Silences or acknowledgements to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// Which: a scope as an operator writes it, or the id of a silence.
    pub which: String,
    /// It is the id of a silence: a host may be called like one.
    pub by_id: bool,
    /// Who.
    pub by: String,
}

/// What people ask of silences and acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalmCommand {
    /// To set a silence.
    Silence(SilenceRequest),
    /// To end silences.
    Unsilence(EndRequest),
    /// To acknowledge the open alarms within a scope.
    Acknowledge(AcknowledgeRequest),
    /// To take the acknowledgements within a scope back.
    Unacknowledge(EndRequest),
}

/// The fields of a request, each taken once.
pub struct RequestFields {
    values: Map<String, Value>,
    known: Vec<&'static str>,
    wrong: Vec<String>,
    peer: IpAddr,
}

impl RequestFields {
    /// Those of a JSON object; none when the body is empty.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn from_json(body: &[u8], peer: IpAddr) -> Result<RequestFields, String> {
        let values = match body {
            [] => Map::new(),
            _ => serde_json::from_slice(body).map_err(|why| format!("the body: {why}"))?,
        };
        Ok(RequestFields::new(values, peer))
    }

    /// Those of a form (`application/x-www-form-urlencoded`, WHATWG URL, section 5.1). A field that
    /// is empty was not filled in.
    ///
    /// # Errors
    /// It is no form.
    pub fn from_form(body: &[u8], peer: IpAddr) -> Result<RequestFields, String> {
        let mut values = Map::new();
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let pair = std::str::from_utf8(pair).ok().map(|pair| pair.replace('+', " "));
            let pair = pair.as_deref().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let pair = pair.and_then(|(a, b)| Some((percent_decoded(a)?, percent_decoded(b)?)));
            let (name, value) = pair.ok_or("the body: bad encoding")?;
            let value = match value.parse::<u32>() {
                Ok(number) if name == "seconds" => Value::from(number),
                _ => Value::from(value),
            };
            if value != "" {
                values.insert(name, value);
            }
        }
        Ok(RequestFields::new(values, peer))
    }

    fn new(values: Map<String, Value>, peer: IpAddr) -> RequestFields {
        RequestFields { values, known: Vec::new(), wrong: Vec::new(), peer }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.remove(name).filter(|value| !value.is_null())
    }

    fn complain(&mut self, name: &str, what: &str) {
        self.wrong.push(format!("{name}: {what}"));
    }

    /// A text; none when it is left out.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.complain(name, "must be a text");
                None
            }
        }
    }

    /// What `read` makes of a field that must be there.
    fn required<T: Default>(
        &mut self,
        name: &'static str,
        read: fn(&mut RequestFields, &'static str) -> Option<T>,
    ) -> T {
        let complaints = self.wrong.len();
        let value = read(self, name);
        if value.is_none() && self.wrong.len() == complaints {
            self.complain(name, "is missing");
        }
        value.unwrap_or_default()
    }

    fn seconds(&mut self, name: &'static str) -> Option<Duration> {
        let seconds = self.take(name)?.as_f64().filter(|seconds| *seconds >= 0.0);
        if seconds.is_none() {
            self.complain(name, "must be a number of seconds such as 3600");
        }
        // What is beyond all numbers is beyond the limit.
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// Who asks; where that is not said, the address that it comes from.
    fn by(&mut self) -> String {
        let by = self.text("by").map(|by| by.trim().to_owned());
        let Some(by) = by else { return self.peer.to_canonical().to_string() };
        if by.is_empty() || by.chars().count() > MAX_NAME || by.chars().any(char::is_control) {
            self.complain("by", &format!("must be a name of 1 to {MAX_NAME} characters"));
        }
        by
    }

    fn level(&mut self, name: &'static str) -> Option<Level> {
        let value = self.take(name)?;
        let level = serde_json::from_value(value).ok();
        if level.is_none() {
            self.complain(name, "must be ok, info, warning or critical");
        }
        level
    }

    fn finish<T>(mut self, request: T) -> Result<T, String> {
        let known = self.known.join(", ");
        for name in std::mem::take(&mut self.values).keys() {
            self.complain(name, &format!("unknown, there are: {known}"));
        }
        if self.wrong.is_empty() { Ok(request) } else { Err(self.wrong.join("; ")) }
    }

    /// A silence to set.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn silence(mut self, source: RequestSource) -> Result<SilenceRequest, String> {
        let request = SilenceRequest {
            scope: self.required("scope", RequestFields::text),
            length: self.required("seconds", RequestFields::seconds),
            comment: self.text("comment"),
            by: self.by(),
            unless: self.level("unless"),
            source,
        };
        self.finish(request)
    }

    /// Open alarms to acknowledge.
    ///
    /// # Errors
    /// As [`RequestFields::silence`].
    pub fn acknowledgement(mut self) -> Result<AcknowledgeRequest, String> {
        let request = AcknowledgeRequest {
            scope: self.required("scope", RequestFields::text),
            comment: self.text("comment"),
            by: self.by(),
            length: self.seconds("seconds"),
        };
        self.finish(request)
    }

    /// The name of a channel.
    ///
    /// # Errors
    /// As [`RequestFields::silence`].
    pub fn channel(mut self) -> Result<String, String> {
        let channel = self.required("channel", RequestFields::text);
        self.finish(channel)
    }

    /// Silences or acknowledgements to end: `id`, or those of the scope in the body.
    ///
    /// # Errors
    /// As [`RequestFields::silence`].
    pub fn end(mut self, id: Option<String>) -> Result<EndRequest, String> {
        let by_id = id.is_some();
        let which = id.unwrap_or_else(|| self.required("scope", RequestFields::text));
        let request = EndRequest { which, by_id, by: self.by() };
        self.finish(request)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn json(body: &str) -> Result<RequestFields, String> {
        RequestFields::from_json(body.as_bytes(), PEER)
    }

    #[test]
    fn a_silence_is_read_field_by_field() {
        let full =
            r#"{"scope":"web*","seconds":90.5,"comment":"c","by":"ann","unless":"critical"}"#;
        let request = SilenceRequest {
            scope: "web*".into(),
            length: Duration::from_millis(90_500),
            comment: Some("c".into()),
            by: "ann".into(),
            unless: Some(Level::Critical),
            source: RequestSource::Api,
        };
        let read = |body| json(body).and_then(|fields| fields.silence(RequestSource::Api));
        assert_eq!(read(full), Ok(request.clone()));
        let short = r#"{"scope":"web*","seconds":1e300,"comment":null}"#;
        let expected = SilenceRequest {
            length: Duration::MAX,
            comment: None,
            by: "192.0.2.7".into(),
            unless: None,
            ..request
        };
        assert_eq!(read(short), Ok(expected));
        for (body, why) in [
            ("{}", "scope: is missing; seconds: is missing"),
            (r#"{"scope":7,"seconds":"1"}"#, "scope: must be a text; seconds: must be a number"),
            (r#"{"scope":"a","seconds":-1}"#, "seconds: must be a number"),
            (r#"{"scope":"a","seconds":1,"by":" "}"#, "by: must be a name"),
            (r#"{"scope":"a","seconds":1,"by":"a\nb"}"#, "by: must be a name"),
            (r#"{"scope":"a","seconds":1,"unless":"bad"}"#, "unless: must be ok, info"),
            (r#"{"scope":"a","seconds":1,"hots":1}"#, "hots: unknown, there are: scope, seconds,"),
            ("[]", "the body: "),
            ("{", "the body: "),
        ] {
            let said = read(body).unwrap_err();
            assert!(said.starts_with(why), "{body}: {said}");
        }
    }

    #[test]
    fn a_form_is_read_as_its_browser_wrote_it() {
        let form = |body: &str| RequestFields::from_form(body.as_bytes(), PEER);
        let read = form("scope=web1%2Fipv4&comment=on+my%20way%21&seconds=3600&by=").unwrap();
        let read = read.silence(RequestSource::Page).unwrap();
        assert_eq!((read.scope.as_str(), read.length.as_secs()), ("web1/ipv4", 3600));
        assert_eq!(read.comment.as_deref(), Some("on my way!"));
        let acknowledged = form("scope=web1&comment=").unwrap().acknowledgement().unwrap();
        assert_eq!((acknowledged.comment, acknowledged.length), (None, None));
        assert!(form("scope=%ff").is_err());
        assert!(form("scope=a&seconds=soon").unwrap().acknowledgement().is_err());
        let ended = form("").unwrap().end(Some("s1".into())).unwrap();
        assert_eq!(ended, EndRequest { which: "s1".into(), by_id: true, by: "192.0.2.7".into() });
    }
}
