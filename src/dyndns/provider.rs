//! The URL that is requested from a provider, and the meaning of its answer: the dyndns2 protocol
//! (<https://help.dyn.com/remote-access-api/return-codes/>) and its relatives, such as DuckDNS
//! (<https://www.duckdns.org/spec.jsp>). Pure.

use std::time::Duration;

use super::method::{Provider, UpdateError, UpdateRequest};
use super::names::RecordFamily;
use crate::address::{BaseUrl, is_loopback};
use crate::escape::{LineBreaks, PercentEncoded, visible};
use crate::secret::{Secret, scrub};

/// The placeholders of a URL template.
pub const PLACEHOLDERS: [&str; 5] = ["{ip}", "{ipv4}", "{ipv6}", "{name}", "{host}"];
/// The pause that the answers `911` and `dnserr` demand.
const MAINTENANCE_PAUSE: Duration = Duration::from_secs(30 * 60);
/// How many characters of an answer are quoted.
const MAX_QUOTE_CHARS: usize = 120;
/// Shorter parts of a URL are not taken for a token.
const MIN_TOKEN_LENGTH: usize = 6;

/// The answers of dyndns2 that no further attempt will change.
const FORBIDDEN: [(&str, &str); 9] = [
    ("badauth", "user or password are wrong"),
    ("badagent", "this program is not welcome there"),
    ("notfqdn", "the name is not a full one"),
    ("nohost", "it has no such name in this account"),
    ("numhost", "too many names at once"),
    ("abuse", "the name is blocked for abuse"),
    ("!donator", "this needs an account that is paid for"),
    ("!yours", "the name belongs to somebody else"),
    ("KO", "the token or the name is wrong"),
];

/// Validates a URL template.
///
/// # Errors
/// What is wrong with it; never repeats it, for it may hold a token.
pub fn validate(template: &str, in_clear: bool) -> Result<(), String> {
    let (scheme, rest) = template.split_once("://").ok_or("must begin with https://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let base = BaseUrl::parse(&format!("{scheme}://{authority}"))?;
    if base.in_clear() && !in_clear {
        return Err(format!(
            "goes to {} in clear: use https://, or say allow_http: true",
            base.host
        ));
    }
    if !path.is_ascii() {
        return Err(
            "must have no letters beyond ASCII behind the host: write them as %C3%BC".into()
        );
    }
    if path.contains('#') || path.contains(char::is_whitespace) {
        return Err("must not hold spaces or a #".into());
    }
    let mut open = path;
    while let Some(at) = open.find('{') {
        let word = open[at..].split_inclusive('}').next().unwrap_or_default();
        if !PLACEHOLDERS.contains(&word) {
            let known = PLACEHOLDERS.join(", ");
            return Err(format!("{word} is not known here: there are {known}"));
        }
        open = &open[at + word.len()..];
    }
    let before_query = path.split('?').next().unwrap_or_default();
    if ["{ipv4}", "{ipv6}"].iter().any(|word| before_query.contains(word)) {
        return Err("{ipv4} and {ipv6} may stand behind the ? only: one may not be known".into());
    }
    if !["{ip}", "{ipv4}", "{ipv6}"].iter().any(|word| path.contains(word)) {
        return Err("names no address: {ip}, {ipv4} or {ipv6} must stand in it".into());
    }
    Ok(())
}

/// A valid template whose host is in A-labels.
pub fn with_ascii_host(template: &Secret) -> Secret {
    let text = template.reveal();
    let authority = text.find("://").map_or(0, |at| at + 3);
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |at| authority + at);
    match BaseUrl::parse(&text[..end]) {
        Ok(base) if !text.is_ascii() => Secret::new(format!("{}{}", base.text, &text[end..])),
        _ => template.clone(),
    }
}

impl Provider {
    /// Scheme, host and port: the part of the URL that may be shown.
    pub fn server_label(&self) -> String {
        let url = self.url.reveal();
        let authority = url.find("://").map_or(0, |at| at + 3);
        let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
        url[..end].to_owned()
    }

    /// Whether each request carries one address.
    pub fn one_address_per_request(&self) -> bool {
        self.url.reveal().contains("{ip}")
    }

    /// The families whose addresses the template takes.
    pub fn families(&self) -> &'static [RecordFamily] {
        let takes = |word| self.url.reveal().contains(word);
        match (self.one_address_per_request(), takes("{ipv4}"), takes("{ipv6}")) {
            (true, ..) | (_, true, true) => &RecordFamily::ALL,
            (_, _, true) => &[RecordFamily::V6],
            (_, _, false) => &[RecordFamily::V4],
        }
    }

    /// The URL to request. Behind the `?`, a part whose address is not known is left out: many
    /// providers take an empty one as the address of the sender.
    pub fn url(&self, request: &UpdateRequest) -> Secret {
        let ip = request.addresses.first().copied();
        let fill = |text: &str| -> Option<String> {
            let mut filled = text.replace("{name}", &PercentEncoded(&request.name).to_string());
            filled = filled.replace("{host}", &PercentEncoded(&request.host).to_string());
            let addresses = [
                ("{ip}", ip),
                ("{ipv4}", request.known(RecordFamily::V4)),
                ("{ipv6}", request.known(RecordFamily::V6)),
            ];
            for (word, address) in addresses {
                if filled.contains(word) {
                    filled = filled.replace(word, &address?.to_string());
                }
            }
            Some(filled)
        };
        let url = self.url.reveal();
        let (path, query) = match url.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (url, None),
        };
        let path = fill(path).unwrap_or_default();
        let query: Option<Vec<String>> =
            query.map(|query| query.split('&').filter_map(fill).collect());
        Secret::new(query.map_or(path.clone(), |parts| format!("{path}?{}", parts.join("&"))))
    }

    /// The URL as it may be shown: values that are not placeholders are hidden, since one of them may
    /// be the token.
    pub fn redacted_url(&self, request: &UpdateRequest) -> String {
        let hide = |value: &str| {
            let fixed = !value.is_empty() && !value.contains('{');
            if fixed { "[secret]".to_owned() } else { value.to_owned() }
        };
        let (label, url) = (self.server_label(), self.url.reveal());
        let (path, query) = url[label.len()..].split_once('?').unwrap_or((&url[label.len()..], ""));
        let path: Vec<String> = path
            .split('/')
            .map(|part| if looks_secret(part) { hide(part) } else { part.to_owned() })
            .collect();
        let query: Vec<String> = query
            .split('&')
            .map(|part| match part.split_once('=') {
                Some((name, value)) => format!("{name}={}", hide(value)),
                None => hide(part),
            })
            .collect();
        let rest = if url.contains('?') { format!("?{}", query.join("&")) } else { String::new() };
        let masked = Secret::new(format!("{label}{}{rest}", path.join("/")));
        Provider { url: masked, ..self.clone() }.url(request).reveal().to_owned()
    }

    /// Whether an answer means that the update was made.
    ///
    /// # Errors
    /// What follows if not.
    pub fn classify(
        &self,
        request: &UpdateRequest,
        status: u16,
        body: &str,
        pause: Option<Duration>,
    ) -> Result<(), UpdateError> {
        let label = self.server_label();
        let text = body.trim_start_matches('\u{feff}').trim();
        let word = text.split_whitespace().next().unwrap_or_default();
        let says = |what: &str| format!("{label} answers {what}");
        if let Some((code, meaning)) = FORBIDDEN.iter().find(|(code, _)| *code == word) {
            return Err(UpdateError::Forbidden(says(&format!("{code}: {meaning}"))));
        }
        if matches!(word, "911" | "dnserr") {
            let why = says(&format!("{word}: it has trouble of its own"));
            return Err(UpdateError::Busy(why, MAINTENANCE_PAUSE.max(pause.unwrap_or_default())));
        }
        match status {
            200..=299 => {}
            401 | 403 => {
                return Err(UpdateError::Forbidden(says(&format!(
                    "{status}: user or password are wrong"
                ))));
            }
            429 | 500..=599 => {
                let why = says(&status.to_string());
                return Err(pause
                    .map_or(UpdateError::Unreachable(why.clone()), |p| UpdateError::Busy(why, p)));
            }
            300..=399 => {
                return Err(UpdateError::Refused(says(&format!(
                    "{status}: the address leads elsewhere"
                ))));
            }
            other => return Err(UpdateError::Refused(says(&other.to_string()))),
        }
        // How dyndns2 says that the client breaks the rules and was ignored.
        let ours = |text: &str| request.addresses.iter().any(|address| address.to_string() == text);
        let ignored = |text: &str| is_loopback(text) && !ours(text);
        if word == "good" && text.split_whitespace().nth(1).is_some_and(ignored) {
            return Err(UpdateError::Forbidden(says("good 127.0.0.1: the update was ignored")));
        }
        let answer = words(text);
        if let Some(refusal) = self.refuse.iter().find(|refusal| answer.contains(&words(refusal))) {
            return Err(UpdateError::Forbidden(says(&format!(
                "\"{}\", a refusal by {refusal:?}",
                self.quote_answer(text)
            ))));
        }
        if self.expect.iter().any(|expected| begins(&answer, expected)) {
            return Ok(());
        }
        Err(UpdateError::Refused(says(&format!(
            "\"{}\", which is not expected",
            self.quote_answer(text)
        ))))
    }

    /// The answer, without secrets that it may repeat.
    fn quote_answer(&self, text: &str) -> String {
        let url = self.url.reveal();
        let parts = url[self.server_label().len()..].split(['/', '?', '&', '=']);
        let mut secrets: Vec<Secret> = parts
            .filter(|part| part.len() >= MIN_TOKEN_LENGTH && !part.contains('{'))
            .map(Secret::new)
            .collect();
        secrets.extend(self.password.clone());
        let text = scrub(text, &secrets);
        let clean: String = visible(&text, LineBreaks::Remove).take(MAX_QUOTE_CHARS).collect();
        clean.trim().to_owned()
    }
}

/// Text with one space between its words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether an answer begins as expected: one word is its first word as a whole, several words and
/// markup are its beginning, as far as they go.
fn begins(answer: &str, expected: &str) -> bool {
    let expected = words(expected);
    if expected.contains(' ') || is_markup(&expected) {
        return answer.starts_with(&expected);
    }
    answer.split(' ').next() == Some(&*expected)
}

fn is_markup(text: &str) -> bool {
    text.starts_with(['<', '{', '['])
}

/// Whether an expected beginning is that of every answer in XML, HTML or JSON.
pub fn tells_nothing(expected: &str) -> bool {
    let expected = words(expected);
    let lower = expected.to_ascii_lowercase();
    let prologue = ["<?xml", "<!doctype", "<html"].iter().any(|start| lower.starts_with(start));
    let after = expected.split_once("?>").map_or("", |(_, after)| after.trim());
    let markup_alone = is_markup(&expected) && !expected.contains(char::is_alphanumeric);
    markup_alone || (prologue && !after.contains(['>', '=']))
}

/// Whether a part of a path is long enough to be a token.
fn looks_secret(part: &str) -> bool {
    part.len() >= 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(url: &str) -> Provider {
        Provider {
            url: Secret::new(url),
            user: Some("ann".into()),
            password: Some(Secret::new("secret-word")),
            expect: vec!["good".into(), "nochg".into(), "OK".into()],
            refuse: Vec::new(),
            ca_file: None,
        }
    }

    fn request(known: &[&str]) -> UpdateRequest {
        let known: Vec<_> = known.iter().map(|address| address.parse().unwrap()).collect();
        UpdateRequest {
            host: "web_1".into(),
            name: "home.example.net".into(),
            addresses: known[..1].to_vec(),
            known,
        }
    }

    #[test]
    fn a_template_is_filled_and_what_is_not_known_is_left_out() {
        for (template, known, url) in [
            (
                "https://x/u?h={name}&ip={ip}",
                &["1.1.1.1"][..],
                "https://x/u?h=home.example.net&ip=1.1.1.1",
            ),
            ("https://x/u?h={host}&ip={ip}", &["2a00::1"], "https://x/u?h=web_1&ip=2a00::1"),
            ("https://x/{ip}/{name}", &["1.1.1.1"], "https://x/1.1.1.1/home.example.net"),
            (
                "https://x/u?a={ipv4}&b={ipv6}",
                &["1.1.1.1", "2a00::1"],
                "https://x/u?a=1.1.1.1&b=2a00::1",
            ),
            ("https://x/u?t=1&a={ipv4}&b={ipv6}", &["2a00::1"], "https://x/u?t=1&b=2a00::1"),
        ] {
            assert_eq!(provider(template).url(&request(known)).reveal(), url);
        }
    }

    #[test]
    fn a_provider_beyond_ascii_is_asked_by_its_a_labels() {
        for (template, ascii) in [
            (
                "https://dns.büro.example:8443?ip={ip}",
                "https://dns.xn--bro-hoa.example:8443?ip={ip}",
            ),
            ("https://x.example/u?t=1&ip={ip}", "https://x.example/u?t=1&ip={ip}"),
        ] {
            assert_eq!(validate(template, false), Ok(()));
            assert_eq!(with_ascii_host(&Secret::new(template)).reveal(), ascii);
        }
        assert!(validate("https://x.example/ü?ip={ip}", false).is_err());
    }

    #[test]
    fn the_families_follow_from_the_template() {
        use RecordFamily::{V4, V6};
        for (template, families, one_address_per_request) in [
            ("https://x/?a={ip}", &[V4, V6][..], true),
            ("https://x/?a={ipv4}", &[V4], false),
            ("https://x/?a={ipv6}", &[V6], false),
            ("https://x/?a={ipv4}&b={ipv6}", &[V4, V6], false),
        ] {
            let provider = provider(template);
            assert_eq!(
                (provider.families(), provider.one_address_per_request()),
                (families, one_address_per_request)
            );
        }
    }

    #[test]
    fn every_answer_has_its_consequence() {
        let provider = provider("https://dns.example/token-of-mine/update?host={name}&ip={ip}");
        let request = request(&["1.1.1.1"]);
        let classify = |status, body: &str| provider.classify(&request, status, body, None);
        for good in ["good 1.1.1.1", "nochg 1.1.1.1", "OK", " good\n", "OK\nUPDATED"] {
            assert_eq!(classify(200, good), Ok(()), "{good}");
        }
        let forbidden = [
            "badauth",
            "badagent",
            "notfqdn",
            "nohost",
            "numhost",
            "abuse",
            "!donator",
            "!yours",
            "KO",
            "good 127.0.0.1",
        ];
        for body in forbidden {
            assert!(matches!(classify(200, body), Err(UpdateError::Forbidden(_))), "{body}");
        }
        for status in [401, 403] {
            assert!(matches!(classify(status, "x"), Err(UpdateError::Forbidden(_))));
        }
        for body in ["911", "dnserr"] {
            let Err(UpdateError::Busy(_, pause)) = classify(200, body) else { panic!("{body}") };
            assert_eq!(pause, Duration::from_secs(1800));
        }
        for status in [429, 500, 503] {
            assert!(matches!(classify(status, "x"), Err(UpdateError::Unreachable(_))));
        }
        let pause = Some(Duration::from_secs(9));
        let busy = provider.classify(&request, 429, "", pause);
        assert!(matches!(busy, Err(UpdateError::Busy(_, pause)) if pause.as_secs() == 9));
        for (status, body) in [(301, ""), (404, ""), (200, ""), (200, "<html>good</html>")] {
            assert!(
                matches!(classify(status, body), Err(UpdateError::Refused(_))),
                "{status} {body}"
            );
        }
        // A code in the body counts for more than the status.
        assert!(matches!(classify(500, "abuse"), Err(UpdateError::Forbidden(_))));
    }

    #[test]
    fn of_an_answer_of_several_words_only_the_first_was_looked_at() {
        let provider = |expect: &[&str], refuse: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
            Provider {
                expect: owned(expect),
                refuse: owned(refuse),
                ..provider("https://dns.example/update?ip={ip}")
            }
        };
        const XML: &str = "<?xml version=\"1.0\"?>\n<r>\n <error>0</error></r>";
        const REFUSED: &str = "<?xml version=\"1.0\"?>\n<r>\n <error>7</error></r>";
        let begin = "<?xml version=\"1.0\"?> <r> <error>0<";
        let request = request(&["1.1.1.1"]);
        for (expect, refuse, body, kept) in [
            (&[begin][..], &[][..], XML, true),
            (&[begin], &[], REFUSED, false),
            (&["<?xml"], &["<error>7<"], XML, true),
            (&["<?xml"], &["<error>7<"], REFUSED, false),
            (&["{\"ok\":true"], &[], "{\"ok\":true,\"ip\":\"1.1.1.1\"}", true),
            (&["{\"ok\":true"], &[], "{\"ok\":false}", false),
            (&["Update successful"], &[], "Update  successful.", true),
            (&["Update successful"], &[], "Update failed", false),
            (&["good"], &["not changed"], "good, but not changed", false),
            (&["good"], &[], "goodbye", false),
            (&["good"], &[], "\u{feff}good 1.1.1.1", true),
            (&["<?xml"], &[], "\u{feff}<?xml version=\"1.0\"?>", true),
        ] {
            let ended = provider(expect, refuse).classify(&request, 200, body, None);
            assert_eq!(ended.is_ok(), kept, "{expect:?} {refuse:?} {body}");
        }
        for (expected, nothing) in [
            ("<?xml", true),
            ("<?xml version=\"1.0\"?>", true),
            ("{", true),
            ("<html>", true),
            (begin, false),
            ("{\"ok\":true", false),
            ("good", false),
            ("Update", false),
        ] {
            assert_eq!(tells_nothing(expected), nothing, "{expected}");
        }
    }

    #[test]
    fn no_secret_is_in_what_is_said() {
        let provider = provider("https://dns.example:8443/token-of-mine-long/u?t=abcdefgh&ip={ip}");
        let request = request(&["1.1.1.1"]);
        let echo = "no token-of-mine-long abcdefgh secret-word\u{1b}[31m";
        let why = provider.classify(&request, 200, echo, None).unwrap_err();
        let shown = provider.redacted_url(&request);
        for text in [why.why(), &shown, &format!("{provider:?}"), &provider.server_label()] {
            for secret in ["token-of", "abcdefgh", "secret-word", "\u{1b}"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert_eq!(shown, "https://dns.example:8443/[secret]/u?t=[secret]&ip=1.1.1.1");
    }
}
