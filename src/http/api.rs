//! The HTTP API: what each route answers.

use std::io::Read;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::auth::Authenticator;
use super::calm;
use super::channel_test::{self, ChannelTests};
use super::current_service::CurrentService;
use super::exchange::{ApiRequest, Deferral, Handled, is_of_type};
use super::ingest_response::{after_commit, alert_response, heartbeat_response};
use super::metrics::{self, HOSTS_AT_ONCE};
use super::openapi;
use super::page::{self, PageRequest, badge};
use super::query;
use super::refusals::RefusedAlerts;
use super::response::{GeneratedBody, Response};
use super::routes::{NoRoute, PageRoute, Route, route};
use super::service::{Daemon, SendResponse, Service};
use super::standby;
use crate::clock::{Now, Wall};
use crate::escape;
use crate::event::EventId;
use crate::view::{
    AlertView, AvailabilityView, ChannelView, DyndnsView, EventView, HostView, NotificationView,
    PlanView, SeriesView, always,
};

/// Handles requests.
pub struct Handler {
    /// What is asked.
    pub service: Arc<CurrentService>,
    /// What was refused, for `/metrics`.
    pub refused: Arc<RefusedAlerts>,
    /// Knows what everybody may see.
    pub authenticator: Arc<Authenticator>,
    /// The last test of each channel.
    pub tests: ChannelTests,
}

impl Handler {
    /// Handles a request that may be made: the front has checked its token.
    pub fn handle(&self, request: &ApiRequest) -> Handled {
        match self.service.get() {
            Service::Daemon(daemon) => self.handle_for(&daemon, request),
            Service::Standby(node) => standby::handle(&node, request),
        }
    }

    fn handle_for(&self, daemon: &Arc<dyn Daemon>, request: &ApiRequest) -> Handled {
        let Handler { refused, tests, .. } = self;
        let target = request.target;
        let ready = match route(request.method, target) {
            Err(none) => none.response(target),
            Ok(Route::Healthy) => Response::text(200, "ok"),
            Ok(Route::Ready) => match daemon.ready() {
                Ok(()) => Response::text(200, "ready"),
                Err(why) => Response::error(target, 503, &why),
            },
            Ok(Route::Leader) => leader(&**daemon, target),
            Ok(Route::Cluster) => cluster(&**daemon, target),
            Ok(Route::StepDown) => step_down(&**daemon, target),
            Ok(Route::Metrics) => Response::stream(
                metrics::CONTENT_TYPE,
                metrics::body(Arc::clone(daemon), Arc::clone(refused)),
            ),
            Ok(Route::Hosts) => {
                Response::stream("application/json", hosts(Arc::clone(daemon), Now::read().wall))
            }
            Ok(Route::Host(name)) => {
                of_host(daemon, target, &name, |host| Response::json(200, host))
            }
            Ok(Route::Badge(name)) => of_host(daemon, target, &name, badge::badge),
            Ok(Route::Forget(name)) => forget(daemon, target, &name),
            Ok(Route::OpenApi) => Response::json_bytes(openapi::document()),
            Ok(Route::Channels) => channels(daemon),
            Ok(Route::Icon) => page::icon(),
            Ok(Route::ChartsScript) => page::charts_script(),
            Ok(Route::ForgetBackup(plan)) => forget_backup(daemon, &plan, target),
            Ok(Route::Dyndns) => dyndns(daemon),
            Ok(Route::Calm(route)) => return calm::handle(daemon, route, request),
            Ok(Route::Form(route)) => return calm::handle_form(daemon, route, request),
            Ok(Route::Notify) => return notify(daemon, request),
            Ok(Route::Notifications) => return notifications(daemon, target),
            Ok(Route::TestChannel) => return channel_test::handle(daemon, tests, request),
            Ok(Route::Page(route)) => return self.page(daemon, route, request),
            Ok(Route::Events) => return events(daemon, target),
            Ok(Route::Alerts) => return alerts(daemon, target),
            Ok(Route::Backups) => return backups(daemon, target),
            Ok(Route::Silences) => return silences(daemon, target),
            Ok(Route::Held) => return held(daemon, target),
            Ok(Route::History(host)) => return history(daemon, host, target),
            Ok(Route::Heartbeat) => {
                let ingest = daemon.ingest_heartbeat(request.body, request.peer);
                return after_commit(target, ingest, heartbeat_response);
            }
            Ok(Route::Alert) => {
                return after_commit(target, daemon.ingest_alert(request.body), alert_response);
            }
            Ok(Route::Reload) => {
                let daemon = Arc::clone(daemon);
                return Handled::deferred(Deferral::Wait, move || {
                    Response::reloaded(daemon.reload())
                });
            }
        };
        Handled::Ready(ready)
    }

    /// A page, for a thread that has time.
    fn page(&self, daemon: &Arc<dyn Daemon>, route: PageRoute, request: &ApiRequest) -> Handled {
        let public = self.authenticator.public();
        let deferral = match route {
            PageRoute::Public if public.is_on() => Deferral::PublicPage,
            PageRoute::Public => {
                return Handled::Ready(NoRoute::NotFound.response(request.target));
            }
            _ => Deferral::Page,
        };
        let (daemon, tests) = (Arc::clone(daemon), self.tests.clone());
        let target = request.target.to_owned();
        let etag = request.if_none_match.map(str::to_owned);
        Handled::deferred(deferral, move || {
            let (etag, now) = (etag.as_deref(), Now::read().wall);
            let request = PageRequest { target: &target, etag, now };
            match route {
                PageRoute::Overview => page::overview(&*daemon, &tests.results(), request),
                PageRoute::Host(name) => page::host(&*daemon, &name, request),
                PageRoute::Graph(name) => page::graph(&*daemon, &name, request),
                PageRoute::Events => page::events(&*daemon, request),
                PageRoute::Public => page::public(&*daemon, &public, request),
            }
        })
    }
}

const NO_CLUSTER: &str = "this hbd is no node of a cluster";

fn leader(daemon: &dyn Daemon, target: &str) -> Response {
    match daemon.cluster() {
        Some(_) => Response::text(200, "leader"),
        None => Response::error(target, 404, NO_CLUSTER),
    }
}

fn cluster(daemon: &dyn Daemon, target: &str) -> Response {
    match daemon.cluster() {
        Some(cluster) => Response::json(200, &cluster),
        None => Response::error(target, 404, NO_CLUSTER),
    }
}

fn step_down(daemon: &dyn Daemon, target: &str) -> Response {
    match daemon.step_down() {
        Ok(()) => Response::json(200, &json!({ "stepping_down": true })),
        Err(why) if daemon.cluster().is_none() => Response::error(target, 404, &why),
        Err(why) => Response::error(target, 409, &why),
    }
}

fn forget(daemon: &Arc<dyn Daemon>, target: &str, host: &str) -> Response {
    let connection = match query::parse_forget(target) {
        Ok(connection) => connection,
        Err(why) => return Response::error(target, 400, &why),
    };
    match daemon.forget(host, connection.as_deref()) {
        Ok(()) => Response::json(200, &json!({ "forgotten": true })),
        Err(why) => Response::error(target, 404, &why),
    }
}

#[derive(Serialize)]
struct Channels {
    now: String,
    channels: Vec<ChannelView>,
}

fn channels(daemon: &Arc<dyn Daemon>) -> Response {
    let now = Now::read().wall.to_string();
    Response::json(200, &Channels { now, channels: daemon.channels() })
}

#[derive(Serialize)]
struct Dyndns {
    now: String,
    names: Vec<DyndnsView>,
}

fn dyndns(daemon: &Arc<dyn Daemon>) -> Response {
    let now = Now::read().wall.to_string();
    Response::json(200, &Dyndns { now, names: daemon.dyndns() })
}

/// `next` goes into `before` of the next request; null when there is no more.
#[derive(Serialize)]
struct Notifications {
    notifications: Vec<NotificationView>,
    next: Option<String>,
}

fn notifications(daemon: &Arc<dyn Daemon>, target: &str) -> Handled {
    let query = match query::parse_notifications(target) {
        Ok(query) => query,
        Err(why) => return Handled::Ready(Response::error(target, 400, &why)),
    };
    read_history(daemon, target, move |daemon| {
        let (notifications, next) = daemon.notifications(&query)?;
        let next = next.map(|id| EventId(id).to_string());
        Ok(Response::json(200, &Notifications { notifications, next }))
    })
}

fn notify(daemon: &Arc<dyn Daemon>, request: &ApiRequest) -> Handled {
    let target = request.target.to_owned();
    if !is_of_type(request.content_type, "application/json") {
        let why = "the Content-Type must be application/json";
        return Handled::Ready(Response::error(&target, 415, why));
    }
    match query::parse_notify(request.body).map(|request| daemon.notify(request)) {
        Err(why) => Handled::Ready(Response::error(&target, 400, &why)),
        Ok(Err(why)) => Handled::Ready(Response::not_sent(&target, why)),
        Ok(Ok(send)) => Handled::deferred(Deferral::Wait, move || match send() {
            Ok(report) => notify_response(report),
            Err(why) => Response::not_sent(&target, why),
        }),
    }
}

fn notify_response(SendResponse { results, why }: SendResponse) -> Response {
    let mut answer = json!({ "results": results });
    if !why.is_empty() {
        answer["why"] = json!(why);
    }
    Response::json(200, &answer)
}

/// All hosts as JSON, made while it is read.
fn hosts(daemon: Arc<dyn Daemon>, now: Wall) -> impl Read + Send {
    let mut from = 0;
    let mut begun = false;
    GeneratedBody::new(move |piece| {
        if !std::mem::replace(&mut begun, true) {
            piece.extend_from_slice(format!("{{\"now\":\"{now}\",\"hosts\":[").as_bytes());
            return true;
        }
        let hosts = daemon.hosts(from, HOSTS_AT_ONCE);
        for (index, host) in hosts.iter().enumerate() {
            if from + index > 0 {
                piece.push(b',');
            }
            let written = serde_json::to_string(host).expect("a view is always JSON");
            piece.extend_from_slice(escape::json(written).as_bytes());
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

fn events(daemon: &Arc<dyn Daemon>, target: &str) -> Handled {
    let query = match query::parse_events(target) {
        Ok(query) => query,
        Err(why) => return Handled::Ready(Response::error(target, 400, &why)),
    };
    read_history(daemon, target, move |daemon| {
        let (events, next) = daemon.events(&query)?;
        let next = next.map(|id| id.to_string());
        Ok(Response::json(200, &Events { events, next }))
    })
}

#[derive(Serialize)]
struct Alerts {
    #[serde(serialize_with = "always")]
    now: Wall,
    alerts: Vec<AlertView>,
}

fn alerts(daemon: &Arc<dyn Daemon>, target: &str) -> Handled {
    read_history(daemon, target, |daemon| {
        let now = Now::read().wall;
        Ok(Response::json(200, &Alerts { now, alerts: daemon.alerts()? }))
    })
}

#[derive(Serialize)]
struct Backups {
    #[serde(serialize_with = "always")]
    now: Wall,
    plans: Vec<PlanView>,
}

fn backups(daemon: &Arc<dyn Daemon>, target: &str) -> Handled {
    read_history(daemon, target, |daemon| {
        let now = Now::read().wall;
        Ok(Response::json(200, &Backups { now, plans: daemon.plans()? }))
    })
}

fn silences(daemon: &Arc<dyn Daemon>, target: &str) -> Handled {
    read_history(daemon, target, |daemon| Ok(Response::json(200, &daemon.silences()?)))
}

fn held(daemon: &Arc<dyn Daemon>, target: &str) -> Handled {
    read_history(daemon, target, |daemon| Ok(Response::json(200, &daemon.held(None)?)))
}

fn forget_backup(daemon: &Arc<dyn Daemon>, plan: &str, target: &str) -> Response {
    match daemon.forget_plan(plan) {
        Some(id) => Response::json(200, &json!({ "plan": id })),
        None => Response::error(target, 404, &format!("no trouble is open of a plan \"{plan}\"")),
    }
}

#[derive(Serialize)]
struct History {
    host: String,
    #[serde(flatten)]
    past: AvailabilityView,
    series: Vec<SeriesView>,
}

/// The availability of a host, and the metrics that are asked for.
fn history(daemon: &Arc<dyn Daemon>, host: String, target: &str) -> Handled {
    let query = match query::parse_series(target) {
        Ok(query) => query,
        Err(why) => return Handled::Ready(Response::error(target, 400, &why)),
    };
    if daemon.host(&host).is_none() {
        return Handled::Ready(no_host(target, &host));
    }
    read_history(daemon, target, move |daemon| {
        let past = daemon.availability(&host)?.unwrap_or_default();
        let series = if query.metrics.is_empty() {
            Vec::new()
        } else {
            daemon.series(&host, &query)?.unwrap_or_default()
        };
        Ok(Response::json(200, &History { host, past, series }))
    })
}

/// What `respond` makes of the host of that name.
fn of_host(
    daemon: &Arc<dyn Daemon>,
    target: &str,
    name: &str,
    respond: fn(&HostView) -> Response,
) -> Response {
    daemon.host(name).map_or_else(|| no_host(target, name), |host| respond(&host))
}

fn no_host(target: &str, host: &str) -> Response {
    Response::error(target, 404, &format!("no host is called \"{host}\""))
}

/// A response out of the history. What cannot be read now may be asked for later.
fn read_history(
    daemon: &Arc<dyn Daemon>,
    target: &str,
    read: impl FnOnce(&dyn Daemon) -> Result<Response, String> + Send + 'static,
) -> Handled {
    let (daemon, target) = (Arc::clone(daemon), target.to_owned());
    Handled::deferred(Deferral::History, move || {
        read(&*daemon).unwrap_or_else(|why| Response::error(&target, 503, &why))
    })
}
