//! What is asked of a provider over HTTP, and what its answer means: the dyndns2 protocol
//! (<https://help.dyn.com/remote-access-api/return-codes/>) and its relatives, such as DuckDNS
//! (<https://www.duckdns.org/spec.jsp>). Pure.

use std::time::Duration;

use super::method::{Bad, Provider, Wish};
use super::names::Family;
use crate::address::{BaseUrl, is_loopback};
use crate::escape::PercentEncoded;
use crate::secret::{Secret, scrub};

/// What may stand in the template.
pub const PLACEHOLDERS: [&str; 5] = ["{ip}", "{ipv4}", "{ipv6}", "{name}", "{host}"];
/// `911` and `dnserr` ask for so long a pause.
const MAINTENANCE: Duration = Duration::from_secs(30 * 60);
/// So much of an answer is repeated.
const LONGEST_WORDS: usize = 120;
/// Shorter parts of an address are no tokens.
const SHORTEST_TOKEN: usize = 6;

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

/// Checks a template.
///
/// # Errors
/// What is wrong with it; never repeats it, for it may hold a token.
pub fn check(template: &str, in_clear: bool) -> Result<(), String> {
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

impl Provider {
    /// Scheme, host and port: what may be shown of the address.
    pub fn place(&self) -> String {
        let url = self.url.reveal();
        let authority = url.find("://").map_or(0, |at| at + 3);
        let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
        url[..end].to_owned()
    }

    /// Whether each request carries one address.
    pub fn one_by_one(&self) -> bool {
        self.url.reveal().contains("{ip}")
    }

    /// The families whose addresses the template takes.
    pub fn families(&self) -> &'static [Family] {
        let takes = |word| self.url.reveal().contains(word);
        match (self.one_by_one(), takes("{ipv4}"), takes("{ipv6}")) {
            (true, ..) | (_, true, true) => &Family::ALL,
            (_, _, true) => &[Family::V6],
            (_, _, false) => &[Family::V4],
        }
    }

    /// The address that is asked for. Behind the `?`, a part whose address is not known is left
    /// out: an empty one means to many providers that they should take the sender's.
    pub fn url(&self, wish: &Wish) -> Secret {
        let ip = wish.addresses.first().copied();
        let fill = |text: &str| -> Option<String> {
            let mut filled = text.replace("{name}", &PercentEncoded(&wish.name).to_string());
            filled = filled.replace("{host}", &PercentEncoded(&wish.host).to_string());
            let addresses = [
                ("{ip}", ip),
                ("{ipv4}", wish.known(Family::V4)),
                ("{ipv6}", wish.known(Family::V6)),
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

    /// The address as it may be shown: values that are not placeholders are hidden, for one of
    /// them may be the token.
    pub fn shown(&self, wish: &Wish) -> String {
        let hide = |value: &str| {
            let fixed = !value.is_empty() && !value.contains('{');
            if fixed { "[secret]".to_owned() } else { value.to_owned() }
        };
        let (place, url) = (self.place(), self.url.reveal());
        let (path, query) = url[place.len()..].split_once('?').unwrap_or((&url[place.len()..], ""));
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
        let masked = Secret::new(format!("{place}{}{rest}", path.join("/")));
        Provider { url: masked, ..self.clone() }.url(wish).reveal().to_owned()
    }

    /// What an answer means.
    ///
    /// # Errors
    /// What follows from a bad one.
    pub fn judge(
        &self,
        wish: &Wish,
        status: u16,
        body: &str,
        pause: Option<Duration>,
    ) -> Result<(), Bad> {
        let place = self.place();
        let text = body.trim();
        let word = text.split_whitespace().next().unwrap_or_default();
        let says = |what: &str| format!("{place} answers {what}");
        if let Some((code, meaning)) = FORBIDDEN.iter().find(|(code, _)| *code == word) {
            return Err(Bad::Forbidden(says(&format!("{code}: {meaning}"))));
        }
        if matches!(word, "911" | "dnserr") {
            let why = says(&format!("{word}: it has trouble of its own"));
            return Err(Bad::Busy(why, MAINTENANCE.max(pause.unwrap_or_default())));
        }
        match status {
            200..=299 => {}
            401 | 403 => {
                return Err(Bad::Forbidden(says(&format!("{status}: user or password are wrong"))));
            }
            429 | 500..=599 => {
                let why = says(&status.to_string());
                return Err(pause.map_or(Bad::Unreachable(why.clone()), |p| Bad::Busy(why, p)));
            }
            300..=399 => {
                return Err(Bad::Refused(says(&format!("{status}: the address leads elsewhere"))));
            }
            other => return Err(Bad::Refused(says(&other.to_string()))),
        }
        // Who is told this did not follow the rules, and was ignored.
        let ours = |text: &str| wish.addresses.iter().any(|address| address.to_string() == text);
        let ignored = |text: &str| is_loopback(text) && !ours(text);
        if word == "good" && text.split_whitespace().nth(1).is_some_and(ignored) {
            return Err(Bad::Forbidden(says("good 127.0.0.1: the update was ignored")));
        }
        if self.expect.iter().any(|expected| expected == word) {
            return Ok(());
        }
        Err(Bad::Refused(says(&format!("\"{}\", which is not expected", self.quoted(text)))))
    }

    /// Words of the provider, without what it may repeat of ours.
    fn quoted(&self, text: &str) -> String {
        let url = self.url.reveal();
        let parts = url[self.place().len()..].split(['/', '?', '&', '=']);
        let mut secrets: Vec<Secret> = parts
            .filter(|part| part.len() >= SHORTEST_TOKEN && !part.contains('{'))
            .map(Secret::new)
            .collect();
        secrets.extend(self.password.clone());
        let clean: String = scrub(text, &secrets)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LONGEST_WORDS)
            .collect();
        clean.trim().to_owned()
    }
}

/// Part of a path that is long, and no placeholder.
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
            ca_file: None,
        }
    }

    fn wish(known: &[&str]) -> Wish {
        let known: Vec<_> = known.iter().map(|address| address.parse().unwrap()).collect();
        Wish {
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
            assert_eq!(provider(template).url(&wish(known)).reveal(), url);
        }
    }

    #[test]
    fn the_families_follow_from_the_template() {
        use Family::{V4, V6};
        for (template, families, one_by_one) in [
            ("https://x/?a={ip}", &[V4, V6][..], true),
            ("https://x/?a={ipv4}", &[V4], false),
            ("https://x/?a={ipv6}", &[V6], false),
            ("https://x/?a={ipv4}&b={ipv6}", &[V4, V6], false),
        ] {
            let provider = provider(template);
            assert_eq!((provider.families(), provider.one_by_one()), (families, one_by_one));
        }
    }

    #[test]
    fn every_answer_has_its_consequence() {
        let provider = provider("https://dns.example/token-of-mine/update?host={name}&ip={ip}");
        let wish = wish(&["1.1.1.1"]);
        let judge = |status, body: &str| provider.judge(&wish, status, body, None);
        for good in ["good 1.1.1.1", "nochg 1.1.1.1", "OK", " good\n", "OK\nUPDATED"] {
            assert_eq!(judge(200, good), Ok(()), "{good}");
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
            assert!(matches!(judge(200, body), Err(Bad::Forbidden(_))), "{body}");
        }
        for status in [401, 403] {
            assert!(matches!(judge(status, "x"), Err(Bad::Forbidden(_))));
        }
        for body in ["911", "dnserr"] {
            let Err(Bad::Busy(_, pause)) = judge(200, body) else { panic!("{body}") };
            assert_eq!(pause, Duration::from_secs(1800));
        }
        for status in [429, 500, 503] {
            assert!(matches!(judge(status, "x"), Err(Bad::Unreachable(_))));
        }
        let pause = Some(Duration::from_secs(9));
        let busy = provider.judge(&wish, 429, "", pause);
        assert!(matches!(busy, Err(Bad::Busy(_, pause)) if pause.as_secs() == 9));
        for (status, body) in [(301, ""), (404, ""), (200, ""), (200, "<html>good</html>")] {
            assert!(matches!(judge(status, body), Err(Bad::Refused(_))), "{status} {body}");
        }
        // In its own words too a code counts for more than the status.
        assert!(matches!(judge(500, "abuse"), Err(Bad::Forbidden(_))));
    }

    #[test]
    fn no_secret_is_in_what_is_said() {
        let provider = provider("https://dns.example:8443/token-of-mine-long/u?t=abcdefgh&ip={ip}");
        let wish = wish(&["1.1.1.1"]);
        let echo = "no token-of-mine-long abcdefgh secret-word\u{1b}[31m";
        let why = provider.judge(&wish, 200, echo, None).unwrap_err();
        let shown = provider.shown(&wish);
        for text in [why.why(), &shown, &format!("{provider:?}"), &provider.place()] {
            for secret in ["token-of", "abcdefgh", "secret-word", "\u{1b}"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert_eq!(shown, "https://dns.example:8443/[secret]/u?t=[secret]&ip=1.1.1.1");
    }
}
