//! The status page: all hosts, or one, as HTML.
//!
//! The server renders everything. The script of the page fetches its `<main>` again every few
//! seconds and replaces what changed; without a script the browser reloads it.

use self::events::EventFilter;
use self::filter::{HostSelector, PageQuery, Selection, TimeRange};
use self::graph::GraphPage;
use self::host::{HostPage, first_beat, no_such_host};
use self::hosts::{HostList, ListedHost};
use self::html::{Document, Html, content_security_policy, full_page};
use self::sort::{HostOrder, SortColumn};
use self::summary::{Headline, PageSummary, class_of};
use super::channel_test::ChannelTest;
use super::metrics::HOSTS_AT_ONCE;
use super::public::PublicHosts;
use super::response::Response;
use super::service::Daemon;
use crate::clock::Wall;
use crate::event::Level;
use crate::view::query::{EventQuery, NotificationQuery, SeriesQuery};
use crate::view::{AlertView, HostState, HostView, MetricView, SeriesView};

pub(super) mod badge;
mod calm;
mod charts;
mod events;
mod filter;
mod format;
mod graph;
mod host;
mod hosts;
mod html;
mod panels;
mod problem;
mod sort;
mod summary;

/// Events, and notifications of a host, that are shown.
const MAX_EVENTS: usize = 20;
/// Events that are looked through for reasons, and marked in a graph.
const MAX_MARKS: usize = 200;

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A request for a page.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// Path and query.
    pub target: &'a str,
    /// The entity tag of what the browser has already.
    pub etag: Option<&'a str>,
    /// The time.
    pub now: Wall,
}

fn all_hosts(daemon: &dyn Daemon) -> impl Iterator<Item = HostView> {
    let mut from = 0;
    let slices = std::iter::from_fn(move || {
        let slice = daemon.hosts(from, HOSTS_AT_ONCE);
        from += slice.len();
        (!slice.is_empty()).then_some(slice)
    });
    slices.flatten()
}

/// The page of everything; `tests` are the test messages that were sent by its buttons.
pub fn overview(daemon: &dyn Daemon, tests: &[ChannelTest], request: PageRequest) -> Response {
    let query = PageQuery::of(request.target);
    let (selection, rows, trouble) =
        select_hosts(daemon, &query, &mut all_hosts(daemon), &|_| true);
    let (alerts, plans, ready) = (daemon.alerts(), daemon.plans(), daemon.ready());
    let channels = daemon.channels();
    let counts = &selection.counts;
    let summary =
        PageSummary { counts, channels: &channels, alerts: &alerts, plans: &plans, ready: &ready };
    let headline = summary.headline();
    let mut html = Html::default();
    begin_head(&mut html, &headline);
    if counts.all() > 0 {
        hosts::counts(&mut html, &selection);
    }
    html.markup("</div>");
    let quiet = daemon.silences().and_then(|silences| Ok((silences, daemon.held(None)?)));
    // One note is enough of a disk that is slow.
    if quiet.is_ok() || alerts.is_ok() {
        calm::quiet(&mut html, &quiet);
    }
    calm::alerts(&mut html, &alerts, &|alert| metric_of(daemon, alert), request.now);
    if counts.all() == 0 {
        first_beat(&mut html, None);
    } else {
        let trouble = trouble.as_deref();
        let list = HostList {
            query: &query,
            selection: &selection,
            rows: &rows,
            error: trouble,
            public: false,
            now: request.now,
        };
        list.render(&mut html);
    }
    html.markup("<div class=cols><div>");
    panels::plans(&mut html, &plans, request.now);
    panels::channels(&mut html, &channels, tests, request.now);
    panels::nodes(&mut html, daemon.cluster().as_ref());
    hosts::dns_names(&mut html, &daemon.dyndns());
    html.markup("</div>");
    let all = EventFilter::named(&query.name);
    let events = EventQuery { limit: MAX_EVENTS, ..all.query() };
    events::panel(&mut html, &daemon.events(&events).map(|(events, _)| events), &all);
    html.markup("</div>");
    let document = Document {
        title: &headline.title(),
        level: headline.level,
        refresh_seconds: refresh_seconds(counts.all()),
        content: &html,
        public: false,
    };
    respond(200, &document, &query, request)
}

/// The page of what everybody may see: names, states and bars of the hosts of some groups.
pub fn public(daemon: &dyn Daemon, public: &PublicHosts, request: PageRequest) -> Response {
    let PageQuery { page, part, .. } = PageQuery::of(request.target);
    let order = HostOrder { column: SortColumn::Group, reversed: false };
    let query = PageQuery { page, part, order, ..PageQuery::default() };
    // Strangers ask: only for the hosts that they may see.
    let mut listed = public.hosts.iter().filter_map(|name| daemon.host(name));
    let mut all = all_hosts(daemon).filter(|host| public.has(&host.name));
    let hosts: &mut dyn Iterator<Item = HostView> =
        if public.has_patterns() { &mut all } else { &mut listed };
    let (selection, rows, trouble) =
        select_hosts(daemon, &query, hosts, &|host| public.reduce(host));
    let nothing = (&[], &Ok(Vec::new()), &Ok(Vec::new()), &Ok(()));
    let (channels, alerts, plans, ready) = nothing;
    let counts = &selection.counts;
    let headline = PageSummary { counts, channels, alerts, plans, ready }.headline();
    let mut html = Html::default();
    begin_head(&mut html, &headline);
    html.markup("</div>");
    let list = HostList {
        query: &query,
        selection: &selection,
        rows: &rows,
        error: trouble.as_deref(),
        public: true,
        now: request.now,
    };
    list.render(&mut html);
    let document = Document {
        title: &headline.title(),
        level: headline.level,
        refresh_seconds: 10,
        content: &html,
        public: true,
    };
    respond(200, &document, &query, request)
}

/// Begins the first element of a page, which says whether all is well.
fn begin_head(html: &mut Html, headline: &Headline) {
    html.markup("<div").attribute("class", format_args!("head {}", class_of(headline.level)));
    html.markup("><h1 aria-live=polite>").text(&headline.words).markup("</h1>");
}

/// The metric that an alert is about.
fn metric_of(daemon: &dyn Daemon, alert: &AlertView) -> Option<MetricView> {
    let name = alert.host.as_deref()?;
    let path = alert.scope.as_deref()?.strip_prefix(name)?.strip_prefix('/')?;
    let metrics = daemon.host(name)?.metrics;
    let found = |metric: &MetricView| metric.path == path && metric.level > Some(Level::Ok);
    metrics.into_iter().find(found)
}

/// Those of `hosts` that are on the page, and why their availability is not known. `adapt` takes away what is not to be
/// shown of a host, and says whether anything is left.
fn select_hosts(
    daemon: &dyn Daemon,
    query: &PageQuery,
    hosts: &mut dyn Iterator<Item = HostView>,
    adapt: &dyn Fn(&mut HostView) -> bool,
) -> (Selection, Vec<ListedHost>, Option<String>) {
    let mut selector = HostSelector::new(query);
    for mut host in hosts {
        if adapt(&mut host) {
            selector.add(&host);
        }
    }
    let selection = selector.selection();
    let names: Vec<&str> = selection.names.iter().map(String::as_str).collect();
    let (pasts, trouble) = match daemon.availabilities(&names) {
        Ok(pasts) => (pasts, None),
        Err(why) => (vec![None; names.len()], Some(why)),
    };
    // A reload may have taken one out meanwhile.
    let row = |(name, past): (&&str, _)| {
        let mut host = daemon.host(name)?;
        adapt(&mut host).then_some((host, past))
    };
    let rows = names.iter().zip(pasts).filter_map(row).collect();
    (selection, rows, trouble)
}

/// How many seconds the script waits: to look through very many hosts costs.
fn refresh_seconds(hosts: usize) -> usize {
    (2 + hosts / 5000).min(10)
}

/// The page of one host.
pub fn host(daemon: &dyn Daemon, name: &str, request: PageRequest) -> Response {
    let query = PageQuery::of(request.target);
    let Some(view) = daemon.host(name) else {
        return unknown_host(name, &query, request);
    };
    let events = EventFilter::of_host(name, None).query();
    let since = Some(request.now - DAY);
    let day = EventQuery { limit: MAX_MARKS, since, fold_reminders: false, ..events.clone() };
    let events = EventQuery { limit: MAX_EVENTS, ..events };
    let notifications = NotificationQuery {
        limit: MAX_EVENTS,
        host: Some(name.to_owned()),
        ..NotificationQuery::default()
    };
    let (span, series) = series(daemon, &view, query.span);
    let held = daemon.held(Some(name)).map(|list| list.held).unwrap_or_default();
    let page = HostPage {
        span,
        host: &view,
        dependencies: &daemon.dependencies(name),
        held: &held,
        past: &daemon.availability(name),
        series: &series,
        events: &daemon.events(&events).map(|(events, _)| events),
        day: &daemon.events(&day).map(|(events, _)| events).unwrap_or_default(),
        notifications: &daemon.notifications(&notifications).map(|(list, _)| list),
        now: request.now,
    };
    let mut html = Html::default();
    page.render(&mut html);
    let mut kept = daemon.dyndns();
    kept.retain(|kept| kept.host == name);
    hosts::dns_names(&mut html, &kept);
    let (level, title) = page.headline();
    let title = format!("{title} \u{b7} Heartbeat");
    let document =
        Document { title: &title, level, refresh_seconds: 2, content: &html, public: false };
    respond(200, &document, &query, request)
}

fn unknown_host(name: &str, query: &PageQuery, request: PageRequest) -> Response {
    let mut html = Html::default();
    no_such_host(&mut html, name);
    let (title, level) = ("No such host \u{b7} Heartbeat", Level::Info);
    let document = Document { title, level, refresh_seconds: 10, content: &html, public: false };
    respond(404, &document, query, request)
}

/// The metrics of a host over time. Of one whose beats do not come they may have ended long ago: as far
/// back as it takes, where the query does not say how far.
fn series(
    daemon: &dyn Daemon,
    host: &HostView,
    span: Option<TimeRange>,
) -> (TimeRange, Result<Vec<SeriesView>, String>) {
    let read = |span: TimeRange| {
        let (_, days) = span.label_and_days();
        let query = SeriesQuery { range: DAY * days as u32, ..SeriesQuery::default() };
        daemon.series(&host.name, &query).map(Option::unwrap_or_default)
    };
    let first = span.unwrap_or_default();
    let found = read(first);
    let is_gone = matches!(host.state, HostState::Overdue | HostState::Shutdown);
    if span.is_none() && is_gone && found.as_ref().is_ok_and(Vec::is_empty) {
        for longer in TimeRange::all().skip(1) {
            let found = read(longer);
            if !found.as_ref().is_ok_and(Vec::is_empty) {
                return (longer, found);
            }
        }
    }
    (first, found)
}

/// The page of one metric of a host.
pub fn graph(daemon: &dyn Daemon, name: &str, request: PageRequest) -> Response {
    let query = PageQuery::of(request.target);
    let Some(view) = daemon.host(name) else {
        return unknown_host(name, &query, request);
    };
    let (span, path) = (query.span.unwrap_or_default(), query.metric.as_str());
    let (_, days) = span.label_and_days();
    let series = SeriesQuery { metrics: vec![path.to_owned()], range: DAY * days as u32 };
    let series = daemon.series(name, &series).map(|found| {
        let mut own = found.unwrap_or_default().into_iter().filter(|series| series.path == path);
        own.next().unwrap_or_default()
    });
    let window = span.until(request.now);
    let events = EventQuery {
        limit: MAX_MARKS,
        kinds: graph::MARKED.map(str::to_owned).to_vec(),
        since: Some(window.from),
        fold_reminders: false,
        ..EventFilter::of_host(name, None).query()
    };
    let page = GraphPage {
        host: &view,
        path,
        span,
        series: &series,
        limits: &daemon.limits(name, path),
        windows: &daemon.windows(name, &(window.from..window.to)),
        events: &daemon.events(&events).map(|(events, _)| events).unwrap_or_default(),
        now: request.now,
    };
    let mut html = Html::default();
    page.render(&mut html);
    let document = Document {
        title: &format!("{} \u{b7} Heartbeat", page.title()),
        level: Level::Info,
        refresh_seconds: 30,
        content: &html,
        public: false,
    };
    respond(200, &document, &query, request)
}

/// The page of the event log.
pub fn events(daemon: &dyn Daemon, request: PageRequest) -> Response {
    let filter = EventFilter::of(request.target);
    let mut html = Html::default();
    filter.render(&mut html, &daemon.events(&filter.query()));
    let refresh_seconds = if filter.is_old() { 60 } else { 10 };
    let (title, level) = ("What happened \u{b7} Heartbeat", Level::Info);
    let document = Document { title, level, refresh_seconds, content: &html, public: false };
    respond(200, &document, &PageQuery::of(request.target), request)
}

/// The script of bars and graphs.
pub fn charts_script() -> Response {
    Response::with_body(200, "text/javascript; charset=utf-8", html::charts_script().into())
        .with_header("Cross-Origin-Resource-Policy", "same-origin")
}

/// The icon, for browsers that ask for one whatever the page says.
pub fn icon() -> Response {
    Response::with_body(200, "image/svg+xml", html::ICON.into())
}

/// The whole page, or only what may have changed, or that nothing has.
fn respond(status: u16, document: &Document, query: &PageQuery, request: PageRequest) -> Response {
    let main = document.main();
    let tag = html::tag(&main);
    if query.part && status == 200 && request.etag == Some(&tag) {
        return Response::not_modified().with_header("ETag", tag);
    }
    let body = if query.part { main } else { full_page(document, main, &tag, request.now) };
    Response::with_body(status, "text/html; charset=utf-8", body.into_bytes())
        .with_header("ETag", tag)
        .with_header("Content-Security-Policy", content_security_policy())
        .with_header("X-Frame-Options", "DENY")
        .with_header("Referrer-Policy", "same-origin")
        .with_header("Cross-Origin-Opener-Policy", "same-origin")
        .with_header("Cross-Origin-Resource-Policy", "same-origin")
}
