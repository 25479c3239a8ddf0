//! The routes: method and path of everything that is answered. Pure.

use super::response::Response;
use crate::address::percent_decoded;

/// What a request is for. A new route is a variant here, a line in [`ROUTES`] and an arm in
/// `api::handle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The status page.
    Page,
    /// The page of one host, by name.
    HostPage(String),
    /// The icon of the pages.
    Icon,
    /// The process runs.
    Healthy,
    /// The daemon does its work.
    Ready,
    /// Metrics for Prometheus.
    Metrics,
    /// All hosts.
    Hosts,
    /// One host, by name.
    Host(String),
    /// A beat that comes over HTTP.
    Heartbeat,
    /// The webhook of an Alertmanager.
    Alert,
    /// The state of the channels.
    Channels,
    /// The state of the names in the DNS.
    Dyndns,
    /// What was sent, and what waits.
    Notifications,
    /// A message to send at once.
    Notify,
    /// The configuration is to be read again.
    Reload,
    /// The availability of a host, and its metrics over time.
    History(String),
    /// What is known of a host, or of one of its connections, is to be forgotten.
    Forget(String),
    /// The state of a host, as a picture.
    Badge(String),
    /// The event log.
    Events,
    /// What is wrong at present.
    Alerts,
    /// The last known outcome of each backup plan.
    Backups,
    /// The description of this API (OpenAPI 3.1).
    OpenApi,
}

pub(super) type Make = fn(String) -> Route;

/// Method, path (`*` is one segment, percent-decoded), route. HEAD goes with GET.
pub(super) const ROUTES: [(&str, &str, Make); 22] = [
    ("GET", "/", |_| Route::Page),
    ("GET", "/hosts/*", Route::HostPage),
    ("GET", "/favicon.ico", |_| Route::Icon),
    ("GET", "/-/healthy", |_| Route::Healthy),
    ("GET", "/-/ready", |_| Route::Ready),
    ("GET", "/metrics", |_| Route::Metrics),
    ("GET", "/api/v1/hosts", |_| Route::Hosts),
    ("GET", "/api/v1/hosts/*", Route::Host),
    ("POST", "/api/v1/heartbeat", |_| Route::Heartbeat),
    ("POST", "/alert", |_| Route::Alert),
    ("GET", "/api/v1/channels", |_| Route::Channels),
    ("GET", "/api/v1/dyndns", |_| Route::Dyndns),
    ("GET", "/api/v1/notifications", |_| Route::Notifications),
    ("POST", "/api/v1/notify", |_| Route::Notify),
    ("POST", "/-/reload", |_| Route::Reload),
    ("GET", "/api/v1/hosts/*/history", Route::History),
    ("GET", "/api/v1/hosts/*/badge.svg", Route::Badge),
    ("POST", "/api/v1/hosts/*/forget", Route::Forget),
    ("GET", "/api/v1/events", |_| Route::Events),
    ("GET", "/api/v1/alerts", |_| Route::Alerts),
    ("GET", "/api/v1/backups", |_| Route::Backups),
    ("GET", "/api/v1/openapi.json", |_| Route::OpenApi),
];

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing is there.
    NotFound,
    /// Only these methods are there.
    WrongMethod(String),
}

impl NoRoute {
    /// As a response.
    pub fn response(self, target: &str) -> Response {
        match self {
            NoRoute::NotFound => Response::error(target, 404, "there is nothing here"),
            NoRoute::WrongMethod(allowed) => {
                let why = format!("the method must be {}", allowed.replace(", ", " or "));
                Response::error(target, 405, &why).with_header("Allow", allowed)
            }
        }
    }
}

/// Finds the route of a method and a target (path and query).
pub fn route(method: &str, target: &str) -> Result<Route, NoRoute> {
    let path = target.split('?').next().unwrap_or_default();
    let method = if method == "HEAD" { "GET" } else { method };
    let mut allowed = Vec::new();
    for (wanted, pattern, make) in ROUTES {
        let Some(rest) = matched(pattern, path) else { continue };
        if wanted == method {
            return Ok(make(rest));
        }
        allowed.push(if wanted == "GET" { "GET, HEAD" } else { wanted });
    }
    Err(if allowed.is_empty() {
        NoRoute::NotFound
    } else {
        NoRoute::WrongMethod(allowed.join(", "))
    })
}

/// What stands in place of the `*`; empty when the pattern has none.
fn matched(pattern: &str, path: &str) -> Option<String> {
    match pattern.split_once('*') {
        None => (pattern == path).then(String::new),
        Some((front, back)) => {
            let segment = path.strip_prefix(front)?.strip_suffix(back)?;
            let single = !segment.is_empty() && !segment.contains('/');
            if single { percent_decoded(segment) } else { None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_finds_its_route() {
        for (method, target, expected) in [
            ("GET", "/-/healthy", Ok(Route::Healthy)),
            ("HEAD", "/-/healthy", Ok(Route::Healthy)),
            ("GET", "/-/ready?x=y", Ok(Route::Ready)),
            ("GET", "/metrics", Ok(Route::Metrics)),
            ("GET", "/api/v1/hosts", Ok(Route::Hosts)),
            ("GET", "/api/v1/hosts/web%2D1%2Fa", Ok(Route::Host("web-1/a".into()))),
            ("GET", "/api/v1/hosts/m%C3%BCnster", Ok(Route::Host("m\u{fc}nster".into()))),
            ("POST", "/api/v1/heartbeat", Ok(Route::Heartbeat)),
            ("GET", "/api/v1/channels", Ok(Route::Channels)),
            ("GET", "/api/v1/dyndns", Ok(Route::Dyndns)),
            ("GET", "/api/v1/notifications?limit=3", Ok(Route::Notifications)),
            ("POST", "/api/v1/notify", Ok(Route::Notify)),
            ("POST", "/-/reload", Ok(Route::Reload)),
            ("GET", "/-/reload", Err(NoRoute::WrongMethod("POST".into()))),
            ("GET", "/api/v1/hosts/a/history?x", Ok(Route::History("a".into()))),
            ("GET", "/api/v1/hosts/history", Ok(Route::Host("history".into()))),
            ("GET", "/api/v1/hosts/%3Cb%3E/badge.svg", Ok(Route::Badge("<b>".into()))),
            ("GET", "/api/v1/hosts//badge.svg", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/a/b/history", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/events?host=a", Ok(Route::Events)),
            ("POST", "/api/v1/alerts", Err(NoRoute::WrongMethod("GET, HEAD".into()))),
            ("GET", "/api/v1/notify", Err(NoRoute::WrongMethod("POST".into()))),
            ("GET", "/api/v1/hosts/", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/a/b", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/%", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/%+1", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/%ff", Err(NoRoute::NotFound)),
            ("GET", "/", Ok(Route::Page)),
            ("GET", "/?q=a&state=wrong", Ok(Route::Page)),
            ("GET", "/hosts/web%2D1", Ok(Route::HostPage("web-1".into()))),
            ("GET", "/favicon.ico", Ok(Route::Icon)),
            ("POST", "/", Err(NoRoute::WrongMethod("GET, HEAD".into()))),
            ("GET", "//", Err(NoRoute::NotFound)),
            ("GET", "/-/healthy/", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/heartbeat", Err(NoRoute::WrongMethod("POST".into()))),
            ("POST", "/metrics", Err(NoRoute::WrongMethod("GET, HEAD".into()))),
        ] {
            assert_eq!(route(method, target), expected, "{method} {target}");
        }
    }
}
