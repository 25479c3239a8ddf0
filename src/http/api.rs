//! What is done about a request: from route to reply.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::auth::{Admission, Guard};
use super::metrics::{self, HOSTS_AT_ONCE};
use super::openapi;
use super::origin::{Asking, foreign_name, stranger};
use super::page::{self, Visit, badge};
use super::query::{self, wanted};
use super::response::{Pieces, Reply};
use super::routes::{NoRoute, Route, route};
use super::service::{Answer, House, NotSent, Reloaded, SentNow, Taken};
use crate::clock::{Now, Wall};
use crate::event::EventId;
use crate::view::{
    AlertView, ChannelView, DyndnsView, EventView, NotificationView, PastView, PlanView,
    SeriesView, always,
};

/// A request, as it is after the gate.
pub struct Request<'a> {
    /// GET, HEAD, POST ...
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The header of that name.
    pub authorization: Option<&'a str>,
    /// The header of that name.
    pub content_type: Option<&'a str>,
    /// The header of that name.
    pub host: Option<&'a str>,
    /// The header of that name.
    pub origin: Option<&'a str>,
    /// The header `Sec-Fetch-Site`.
    pub site: Option<&'a str>,
    /// It came through TLS.
    pub encrypted: bool,
    /// The header of that name.
    pub if_none_match: Option<&'a str>,
    /// The whole body.
    pub body: &'a [u8],
    /// Who asks.
    pub peer: IpAddr,
}

/// An answer, or what must be done for it by a thread that has time.
pub enum Answered {
    /// Here it is.
    Now(Reply),
    /// It takes up to half a minute.
    Later(Box<dyn FnOnce() -> Reply + Send>),
    /// It waits for the disk.
    Stored(Box<dyn FnOnce() -> Reply + Send>),
    /// It reads the history, whose answer comes from a thread that may be busy for seconds.
    Searched(Box<dyn FnOnce() -> Reply + Send>),
    /// It is a page: it looks at every host, and into the history.
    Drawn(Box<dyn FnOnce() -> Reply + Send>),
}

/// Answers a request. The token is asked for before anything is said, even about what exists.
pub fn answer(house: &Arc<dyn House>, guard: &Guard, request: &Request) -> Answered {
    let target = request.target;
    let route = route(request.method, target);
    let open = match route {
        Ok(Route::Healthy) => true,
        _ => match guard.judge(request.authorization, request.peer, Now::read().mono) {
            Admission::Open => true,
            Admission::Admitted => false,
            Admission::Refused => return Answered::Now(unauthorized(target)),
            Admission::Later(wait) => return Answered::Now(too_often(target, wait)),
        },
    };
    let changes = !matches!(request.method, "GET" | "HEAD");
    let asking = Asking {
        origin: request.origin,
        site: request.site,
        host: request.host,
        encrypted: request.encrypted,
    };
    if let Some(why) = stranger(asking, open).filter(|_| changes) {
        return Answered::Now(Reply::problem(target, 403, why));
    }
    let shown_to_all = matches!(route, Ok(Route::Healthy | Route::Ready | Route::Metrics));
    let guarded = !open || changes || shown_to_all;
    if let Some(why) = foreign_name(request.host).filter(|_| !guarded) {
        return Answered::Now(Reply::problem(target, 403, why));
    }
    match route {
        Ok(Route::Notify) => notify(house, request),
        Ok(Route::Notifications) => notifications(house, target),
        Ok(Route::Page) => drawn(house, None, request),
        Ok(Route::HostPage(name)) => drawn(house, Some(name), request),
        Ok(Route::Events) => events(house, target),
        Ok(Route::Alerts) => alerts(house, target),
        Ok(Route::Backups) => backups(house, target),
        Ok(Route::History(host)) => history(house, host, target),
        Ok(Route::Heartbeat) => taken(target, house.hear(request.body, request.peer), heard),
        Ok(Route::Alert) => taken(target, house.alert(request.body), alerted),
        Ok(Route::Reload) => {
            let house = Arc::clone(house);
            Answered::Later(Box::new(move || reloaded(house.reload())))
        }
        route => Answered::Now(at_once(house, route, request)),
    }
}

fn unauthorized(target: &str) -> Reply {
    Reply::problem(target, 401, "the token is missing or wrong")
        .with("WWW-Authenticate", "Basic realm=\"hbd\"")
}

fn too_often(target: &str, wait: Duration) -> Reply {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Reply::problem(target, 429, "too many wrong tokens came from this address: try again later")
        .with("Retry-After", seconds.max(1).to_string())
}

/// Always JSON: scripts want to know what is wrong and where.
fn reloaded(reloaded: Reloaded) -> Reply {
    match reloaded {
        Reloaded::Taken { changes, warnings } => {
            Reply::json(200, &json!({ "changes": changes, "warnings": warnings.0 }))
        }
        Reloaded::Refused(problems) => {
            let error = "the configuration is refused, the old one stays";
            Reply::json(400, &json!({ "error": error, "problems": problems.0 }))
        }
        Reloaded::NotTried(why) => {
            Reply::json(503, &json!({ "error": why })).with("Retry-After", "5")
        }
    }
}

fn at_once(house: &Arc<dyn House>, route: Result<Route, NoRoute>, request: &Request) -> Reply {
    let target = request.target;
    match route {
        Err(none) => none.reply(target),
        Ok(Route::Healthy) => Reply::text(200, "ok"),
        Ok(Route::Ready) => match house.ready() {
            Ok(()) => Reply::text(200, "ready"),
            Err(why) => Reply::problem(target, 503, &why),
        },
        Ok(Route::Metrics) => {
            Reply::stream(metrics::CONTENT_TYPE, metrics::body(Arc::clone(house)))
        }
        Ok(Route::Hosts) => {
            Reply::stream("application/json", hosts(Arc::clone(house), Now::read().wall))
        }
        Ok(Route::Host(name)) => match house.host(&name) {
            Some(host) => Reply::json(200, &host),
            None => no_host(target, &name),
        },
        Ok(Route::Badge(name)) => match house.host(&name) {
            Some(host) => badge::badge(&host),
            None => no_host(target, &name),
        },
        Ok(Route::OpenApi) => Reply::document(openapi::document()),
        Ok(Route::Channels) => {
            let now = Now::read().wall.to_string();
            Reply::json(200, &Channels { now, channels: house.channels() })
        }
        Ok(Route::Icon) => page::icon(),
        Ok(Route::Dyndns) => {
            let now = Now::read().wall.to_string();
            Reply::json(200, &Dyndns { now, names: house.dyndns() })
        }
        Ok(
            Route::Notifications
            | Route::Notify
            | Route::Heartbeat
            | Route::Alert
            | Route::Reload
            | Route::Page
            | Route::HostPage(_)
            | Route::Events
            | Route::Alerts
            | Route::Backups
            | Route::History(_),
        ) => Reply::problem(target, 500, "it is answered elsewhere"),
    }
}

/// The page of everything, or of one host.
fn drawn(house: &Arc<dyn House>, host: Option<String>, request: &Request) -> Answered {
    let (house, target) = (Arc::clone(house), request.target.to_owned());
    let has = request.if_none_match.map(str::to_owned);
    Answered::Drawn(Box::new(move || {
        let visit = Visit { target: &target, has: has.as_deref(), now: Now::read().wall };
        match host {
            Some(name) => page::host(&*house, &name, visit),
            None => page::overview(&*house, visit),
        }
    }))
}

#[derive(Serialize)]
struct Channels {
    now: String,
    channels: Vec<ChannelView>,
}

#[derive(Serialize)]
struct Dyndns {
    now: String,
    names: Vec<DyndnsView>,
}

/// `next` goes into `before` of the next request; null when there is no more.
#[derive(Serialize)]
struct Notifications {
    notifications: Vec<NotificationView>,
    next: Option<String>,
}

fn notifications(house: &Arc<dyn House>, target: &str) -> Answered {
    let wanted = match wanted(target) {
        Ok(wanted) => wanted,
        Err(why) => return Answered::Now(Reply::problem(target, 400, &why)),
    };
    let (house, target) = (Arc::clone(house), target.to_owned());
    Answered::Searched(Box::new(move || match house.notifications(&wanted) {
        Ok((notifications, next)) => {
            let next = next.map(|id| EventId(id).to_string());
            Reply::json(200, &Notifications { notifications, next })
        }
        Err(why) => Reply::problem(&target, 503, &why),
    }))
}

fn notify(house: &Arc<dyn House>, request: &Request) -> Answered {
    let target = request.target.to_owned();
    if !is_json(request.content_type) {
        let why = "the Content-Type must be application/json";
        return Answered::Now(Reply::problem(&target, 415, why));
    }
    match query::parse(request.body).map(|notice| house.notify(notice)) {
        Err(why) => Answered::Now(Reply::problem(&target, 400, &why)),
        Ok(Err(why)) => Answered::Now(not_sent(&target, why)),
        Ok(Ok(sending)) => Answered::Later(Box::new(move || match sending() {
            Ok(sent) => sent_now(sent),
            Err(why) => not_sent(&target, why),
        })),
    }
}

fn not_sent(target: &str, why: NotSent) -> Reply {
    match why {
        NotSent::Nobody(why) => Reply::problem(target, 400, &why),
        NotSent::Busy(why) => Reply::problem(target, 503, &why),
    }
}

fn sent_now(SentNow { results, why }: SentNow) -> Reply {
    let mut answer = json!({ "results": results });
    if !why.is_empty() {
        answer["why"] = json!(why);
    }
    Reply::json(200, &answer)
}

fn is_json(content_type: Option<&str>) -> bool {
    let kind = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// An answer that may have to wait for the disk.
fn taken(target: &str, taken: Taken, reply: fn(&str, Answer) -> Reply) -> Answered {
    match taken {
        Taken::Now(answer) => Answered::Now(reply(target, answer)),
        Taken::Later(wait) => {
            let target = target.to_owned();
            Answered::Stored(Box::new(move || reply(&target, wait())))
        }
    }
}

/// An Alertmanager reads the status alone: 5xx comes again, anything else does not.
fn alerted(target: &str, answer: Answer) -> Reply {
    match answer {
        Answer::Stored => Reply::text(200, "ok"),
        Answer::Malformed(why) => Reply::problem(target, 400, &why),
        Answer::Unsigned(why)
        | Answer::Forbidden(why)
        | Answer::UnknownHost(why)
        | Answer::Unavailable(why) => Reply::problem(target, 503, &why),
    }
}

fn heard(target: &str, answer: Answer) -> Reply {
    match answer {
        Answer::Stored => Reply::json(200, &json!({ "stored": true })),
        Answer::Malformed(why) => Reply::problem(target, 400, &why),
        Answer::Unsigned(why) => Reply::problem(target, 401, &why),
        Answer::Forbidden(why) => Reply::problem(target, 403, &why),
        Answer::UnknownHost(why) => Reply::problem(target, 404, &why),
        Answer::Unavailable(why) => Reply::problem(target, 503, &why),
    }
}

/// All hosts as JSON, made while it is read.
fn hosts(house: Arc<dyn House>, now: Wall) -> impl Read + Send {
    let mut from = 0;
    let mut begun = false;
    Pieces::new(move |piece| {
        if !std::mem::replace(&mut begun, true) {
            piece.extend_from_slice(format!("{{\"now\":\"{now}\",\"hosts\":[").as_bytes());
            return true;
        }
        let hosts = house.hosts(from, HOSTS_AT_ONCE);
        for (index, host) in hosts.iter().enumerate() {
            if from + index > 0 {
                piece.push(b',');
            }
            serde_json::to_writer(&mut *piece, host).expect("a view is always JSON");
        }
        from += hosts.len();
        if hosts.is_empty() {
            piece.extend_from_slice(b"]}\n");
        }
        !hosts.is_empty()
    })
}

/// `next` goes into `before` of the next request; null when there is no more.
#[derive(Serialize)]
struct Events {
    events: Vec<EventView>,
    next: Option<String>,
}

/// What happened.
pub fn events(house: &Arc<dyn House>, target: &str) -> Answered {
    let wanted = match query::events(target) {
        Ok(wanted) => wanted,
        Err(why) => return Answered::Now(Reply::problem(target, 400, &why)),
    };
    searched(house, target, move |house| {
        let (events, next) = house.events(&wanted)?;
        let next = next.map(|id| EventId(id).to_string());
        Ok(Reply::json(200, &Events { events, next }))
    })
}

#[derive(Serialize)]
struct Alerts {
    #[serde(serialize_with = "always")]
    now: Wall,
    alerts: Vec<AlertView>,
}

/// What is wrong.
pub fn alerts(house: &Arc<dyn House>, target: &str) -> Answered {
    searched(house, target, |house| {
        let now = Now::read().wall;
        Ok(Reply::json(200, &Alerts { now, alerts: house.alerts()? }))
    })
}

#[derive(Serialize)]
struct Backups {
    #[serde(serialize_with = "always")]
    now: Wall,
    plans: Vec<PlanView>,
}

/// How backups fared.
pub fn backups(house: &Arc<dyn House>, target: &str) -> Answered {
    searched(house, target, |house| {
        let now = Now::read().wall;
        Ok(Reply::json(200, &Backups { now, plans: house.plans()? }))
    })
}

#[derive(Serialize)]
struct History {
    host: String,
    #[serde(flatten)]
    past: PastView,
    series: Vec<SeriesView>,
}

/// How a host fared, and the metrics that are asked for.
pub fn history(house: &Arc<dyn House>, host: String, target: &str) -> Answered {
    let wanted = match query::series(target) {
        Ok(wanted) => wanted,
        Err(why) => return Answered::Now(Reply::problem(target, 400, &why)),
    };
    if house.host(&host).is_none() {
        return Answered::Now(no_host(target, &host));
    }
    searched(house, target, move |house| {
        let past = house.past(&host)?.unwrap_or_default();
        let series = if wanted.metrics.is_empty() {
            Vec::new()
        } else {
            house.series(&host, &wanted)?.unwrap_or_default()
        };
        Ok(Reply::json(200, &History { host, past, series }))
    })
}

/// There is no such host.
pub fn no_host(target: &str, host: &str) -> Reply {
    Reply::problem(target, 404, &format!("no host is called \"{host}\""))
}

/// Something that takes its time; what cannot be read now is asked for later.
fn searched(
    house: &Arc<dyn House>,
    target: &str,
    search: impl FnOnce(&dyn House) -> Result<Reply, String> + Send + 'static,
) -> Answered {
    let (house, target) = (Arc::clone(house), target.to_owned());
    Answered::Searched(Box::new(move || {
        search(&*house).unwrap_or_else(|why| Reply::problem(&target, 503, &why))
    }))
}
