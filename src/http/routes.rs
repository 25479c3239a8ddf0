//! The routes: method and path of everything that is answered. Pure.

use super::response::Response;
use crate::address::percent_decoded;

/// What a request is for. A new route is a variant here, a line in [`ROUTES`] and an arm in
/// `api::handle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A page for people.
    Page(PageRoute),
    /// The script of bars and graphs.
    ChartsScript,
    /// The icon of the pages.
    Icon,
    /// The process runs.
    Healthy,
    /// The daemon does its work.
    Ready,
    /// This node of a cluster leads.
    Leader,
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
    /// What is silent.
    Silences,
    /// What is held back.
    Held,
    /// Silences and acknowledgements.
    Calm(CalmRoute),
    /// The same by a form of the page.
    Form(FormRoute),
    /// A message to send at once.
    Notify,
    /// A test message to one channel, by a form of the page.
    TestChannel,
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
    /// The trouble of a backup plan is to end, by id or name.
    ForgetBackup(String),
    /// The nodes of the cluster.
    Cluster,
    /// The leader is to hand over to another node.
    StepDown,
    /// The description of this API (OpenAPI 3.1).
    OpenApi,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageRoute {
    /// Of everything.
    Overview,
    /// Of one host, by name.
    Host(String),
    /// Of one metric of a host, by the host's name.
    Graph(String),
    /// Of the event log.
    Events,
    /// Of what everybody may see.
    Public,
}

/// What programs ask of silences and acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalmRoute {
    /// A silence is to be set.
    Silence,
    /// A silence is to end, by id; those of the scope in the body without one.
    Unsilence(Option<String>),
    /// Open alarms are to be acknowledged.
    Acknowledge,
    /// They are not to be acknowledged any more.
    Unacknowledge,
}

/// What a form of the page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormRoute {
    /// A silence.
    Silence,
    /// Its end.
    Unsilence,
    /// An acknowledgement, or the end of one.
    Acknowledge,
}

pub(super) type Make = fn(String) -> Route;

/// Method, path (`*` is one segment, percent-decoded), route. HEAD goes with GET.
pub(super) const ROUTES: [(&str, &str, Make); 41] = [
    ("GET", "/", |_| Route::Page(PageRoute::Overview)),
    ("GET", "/hosts/*", |host| Route::Page(PageRoute::Host(host))),
    ("GET", "/hosts/*/graph", |host| Route::Page(PageRoute::Graph(host))),
    ("GET", "/events", |_| Route::Page(PageRoute::Events)),
    ("GET", "/public", |_| Route::Page(PageRoute::Public)),
    ("GET", "/charts.js", |_| Route::ChartsScript),
    ("GET", "/favicon.ico", |_| Route::Icon),
    ("GET", "/-/healthy", |_| Route::Healthy),
    ("GET", "/-/ready", |_| Route::Ready),
    ("GET", "/-/leader", |_| Route::Leader),
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
    ("DELETE", "/api/v1/backups/*", Route::ForgetBackup),
    ("GET", "/api/v1/silences", |_| Route::Silences),
    ("POST", "/api/v1/silences", |_| Route::Calm(CalmRoute::Silence)),
    ("POST", "/api/v1/silences/end", |_| Route::Calm(CalmRoute::Unsilence(None))),
    ("POST", "/api/v1/silences/*/end", |id| Route::Calm(CalmRoute::Unsilence(Some(id)))),
    ("POST", "/api/v1/acknowledgements", |_| Route::Calm(CalmRoute::Acknowledge)),
    ("POST", "/api/v1/acknowledgements/end", |_| Route::Calm(CalmRoute::Unacknowledge)),
    ("GET", "/api/v1/held", |_| Route::Held),
    ("POST", "/silence", |_| Route::Form(FormRoute::Silence)),
    ("POST", "/unsilence", |_| Route::Form(FormRoute::Unsilence)),
    ("POST", "/ack", |_| Route::Form(FormRoute::Acknowledge)),
    ("POST", "/test", |_| Route::TestChannel),
    ("GET", "/api/v1/cluster", |_| Route::Cluster),
    ("POST", "/api/v1/cluster/step-down", |_| Route::StepDown),
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
    // A webhook that is refused is lost: a slash too many is no reason.
    let path = if path.trim_matches('/') == "alert" { "/alert" } else { path };
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
            ("GET", "/-/leader", Ok(Route::Leader)),
            ("GET", "/api/v1/cluster", Ok(Route::Cluster)),
            ("POST", "/api/v1/cluster/step-down", Ok(Route::StepDown)),
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
            ("DELETE", "/api/v1/backups/7", Ok(Route::ForgetBackup("7".into()))),
            ("GET", "/api/v1/backups/7", Err(NoRoute::WrongMethod("DELETE".into()))),
            ("GET", "/api/v1/notify", Err(NoRoute::WrongMethod("POST".into()))),
            ("GET", "/api/v1/silences", Ok(Route::Silences)),
            ("POST", "/api/v1/silences/end", Ok(Route::Calm(CalmRoute::Unsilence(None)))),
            (
                "POST",
                "/api/v1/silences/s1/end",
                Ok(Route::Calm(CalmRoute::Unsilence(Some("s1".into())))),
            ),
            ("PUT", "/api/v1/silences", Err(NoRoute::WrongMethod("GET, HEAD, POST".into()))),
            ("GET", "/silence", Err(NoRoute::WrongMethod("POST".into()))),
            ("GET", "/api/v1/hosts/", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/a/b", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/%", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/%+1", Err(NoRoute::NotFound)),
            ("GET", "/api/v1/hosts/%ff", Err(NoRoute::NotFound)),
            ("GET", "/", Ok(Route::Page(PageRoute::Overview))),
            ("GET", "/?q=a&state=wrong", Ok(Route::Page(PageRoute::Overview))),
            ("GET", "/hosts/web%2D1", Ok(Route::Page(PageRoute::Host("web-1".into())))),
            ("GET", "/hosts/a%2Fb/graph?metric=m", Ok(Route::Page(PageRoute::Graph("a/b".into())))),
            ("GET", "/events?q=web", Ok(Route::Page(PageRoute::Events))),
            ("GET", "/charts.js", Ok(Route::ChartsScript)),
            ("GET", "/favicon.ico", Ok(Route::Icon)),
            ("GET", "/public?page=2", Ok(Route::Page(PageRoute::Public))),
            ("POST", "/public", Err(NoRoute::WrongMethod("GET, HEAD".into()))),
            ("GET", "/public/x", Err(NoRoute::NotFound)),
            ("POST", "/test", Ok(Route::TestChannel)),
            ("POST", "/alert/", Ok(Route::Alert)),
            ("POST", "//alert?x", Ok(Route::Alert)),
            ("GET", "/alert/", Err(NoRoute::WrongMethod("POST".into()))),
            ("POST", "/alert/x", Err(NoRoute::NotFound)),
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
