//! The address of an Alertmanager that is polled, as operators copy it: from a browser, from a script,
//! from memory. Pure.

use crate::address::BaseUrl;

/// Where addresses end that lead into an Alertmanager.
const INNER_PATHS: [&str; 12] = [
    "/api/v2/alerts/groups",
    "/api/v2/alerts",
    "/api/v2/status",
    "/api/v2",
    "/api/v1/alerts",
    "/api/v1",
    "/api",
    "/metrics",
    "/-/healthy",
    "/-/ready",
    "/-/reload",
    "/alerts",
];
const EXAMPLE: &str = "http://127.0.0.1:9093";
/// Where Prometheus listens, which knows other alerts and another API.
const PROMETHEUS_PORT: &str = ":9090";

/// The address without a trailing slash.
///
/// # Errors
/// What is wrong with it, and what it should be.
pub fn parse(text: &str) -> Result<String, String> {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        let url = base(text).map(|base| format!("http://{base}"));
        return Err(format!(
            "must begin with http:// or https://: {}",
            url.as_deref().unwrap_or(EXAMPLE)
        ));
    };
    if rest.contains('@') {
        return Err("must not hold a user or a password: hbd asks without a login, name an address without one"
            .into());
    }
    let scheme = scheme.to_ascii_lowercase();
    let base = base(rest);
    let url = base.map(|base| format!("{scheme}://{base}"));
    let url = BaseUrl::parse(url.as_deref().unwrap_or(text))?;
    if base == Some(rest.trim_end_matches('/')) {
        return Ok(url.text);
    }
    Err(format!("must be the address alone, without what is behind it: {}", url.text))
}

/// What looks wrong with an address that was parsed.
pub fn warning(url: &str) -> Option<&'static str> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let has_port = !authority.ends_with(']') && authority.contains(':');
    if authority.ends_with(PROMETHEUS_PORT) {
        Some("is where Prometheus listens: an Alertmanager listens on port 9093, mostly")
    } else if !has_port && scheme == "http" && path.is_empty() {
        Some("has no port, which means 80: an Alertmanager listens on port 9093, mostly")
    } else {
        None
    }
}

/// Host, port and the prefix of the path, without what leads into the Alertmanager; none where there
/// is no host.
fn base(rest: &str) -> Option<&str> {
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let mut base = rest.split(['?', '#']).next()?.trim_end_matches('/');
    if let Some(inner) = INNER_PATHS.iter().find(|inner| base.ends_with(*inner)) {
        base = base.strip_suffix(inner)?.trim_end_matches('/');
    }
    BaseUrl::parse(base).is_ok().then_some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_could_never_be_polled_was_taken() {
        for (text, expected) in [
            ("http://127.0.0.1:9093", Ok("http://127.0.0.1:9093")),
            ("HTTP://127.0.0.1:9093/", Ok("http://127.0.0.1:9093")),
            ("https://[::1]:9093//", Ok("https://[::1]:9093")),
            ("http://büro.example:9093/", Ok("http://xn--bro-hoa.example:9093")),
            ("https://mon.example.com/alertmanager/", Ok("https://mon.example.com/alertmanager")),
            ("127.0.0.1:9093", Err(": http://127.0.0.1:9093")),
            ("localhost:9093/api/v2/alerts", Err(": http://localhost:9093")),
            ("", Err(": http://127.0.0.1:9093")),
            ("http:/127.0.0.1:9093", Err(": http://127.0.0.1:9093")),
            ("http://127.0.0.1:9093/api/v2/alerts", Err(": http://127.0.0.1:9093")),
            ("http://127.0.0.1:9093/api/v2/alerts/", Err(": http://127.0.0.1:9093")),
            ("http://h:9093/api/v2/alerts?active=true", Err(": http://h:9093")),
            ("http://h:9093/am/api/v2", Err(": http://h:9093/am")),
            ("http://h:9093/#/alerts", Err(": http://h:9093")),
            ("http://h:9093/?x=y", Err(": http://h:9093")),
            ("http://h:9093/-/healthy", Err(": http://h:9093")),
            ("http://ann:hunter2@h:9093", Err("without a login")),
            ("ann:hunter2@h:9093", Err(": http://h:9093")),
            ("ftp://h:9093", Err("must begin with https:// or http://, not ftp://")),
            ("http://h:99999", Err("port from 1 to 65535")),
            ("http://:9093", Err("cannot be the name of a host")),
            ("http://", Err("cannot be the name of a host")),
        ] {
            let found = parse(text);
            match expected {
                Ok(url) => assert_eq!(found.as_deref(), Ok(url), "{text}"),
                Err(words) => {
                    let why = found.expect_err(text);
                    assert!(why.contains(words) && !why.contains("hunter2"), "{text}: {why}");
                }
            }
        }
    }

    #[test]
    fn a_port_where_no_alertmanager_listens_is_said() {
        for (url, words) in [
            ("http://127.0.0.1:9090/x", Some("Prometheus")),
            ("http://[::1]", Some("no port")),
            ("http://mon.example.com", Some("no port")),
            ("http://mon.example.com/alertmanager", None),
            ("https://mon.example.com", None),
            ("http://127.0.0.1:9093", None),
            ("http://[::1]:9093", None),
        ] {
            let said = warning(url);
            assert_eq!(said.is_some(), words.is_some(), "{url}");
            assert!(said.is_none_or(|said| said.contains(words.unwrap())), "{url}");
        }
    }
}
