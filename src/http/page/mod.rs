//! The status page: what is asked of the house, and the answer as HTML.
//!
//! The server renders everything. The script of the page fetches its `<main>` again every few
//! seconds and replaces what changed; without a script the browser reloads it.

use self::filter::{Asked, Chosen, Sieve};
use self::host::{HostPage, first_beat, nobody};
use self::hosts::{List, Row};
use self::html::{Frame, Html, content_security_policy, whole};
use self::summary::{Standing, class_of};
use super::metrics::HOSTS_AT_ONCE;
use super::query::{EventsWanted, SeriesWanted, Wanted};
use super::response::Reply;
use super::service::House;
use crate::clock::Wall;
use crate::event::Level;

pub(super) mod badge;
mod charts;
mod filter;
mod format;
mod host;
mod hosts;
mod html;
mod panels;
mod summary;

/// Events, and notifications of a host, that are shown.
const MOST_EVENTS: usize = 20;

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// What a browser asked for.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// Path and query.
    pub target: &'a str,
    /// The tag of what it has already.
    pub has: Option<&'a str>,
    /// The time.
    pub now: Wall,
}

/// The page of everything.
pub fn overview(house: &dyn House, visit: Visit) -> Reply {
    let asked = Asked::of(visit.target);
    let (chosen, rows, trouble) = hosts(house, &asked);
    let (alerts, plans, ready) = (house.alerts(), house.plans(), house.ready());
    let channels = house.channels();
    let census = &chosen.census;
    let standing =
        Standing { census, channels: &channels, alerts: &alerts, plans: &plans, ready: &ready };
    let (level, words) = standing.headline();
    let mut html = Html::default();
    html.markup("<div").attribute("class", format_args!("head {}", class_of(level)));
    html.markup("><h1 aria-live=polite>").text(&words).markup("</h1>");
    if census.all() > 0 {
        hosts::census(&mut html, &chosen);
    }
    html.markup("</div>");
    panels::alerts(&mut html, &alerts, visit.now);
    if census.all() == 0 {
        first_beat(&mut html, None);
    } else {
        let trouble = trouble.as_deref();
        let list = List { asked: &asked, chosen: &chosen, rows: &rows, trouble, now: visit.now };
        list.put(&mut html);
    }
    html.markup("<div class=cols><div>");
    panels::plans(&mut html, &plans, visit.now);
    panels::channels(&mut html, &channels, visit.now);
    hosts::names(&mut html, &house.dyndns());
    html.markup("</div>");
    let wanted = EventsWanted { limit: MOST_EVENTS, ..EventsWanted::default() };
    panels::events(&mut html, &house.events(&wanted).map(|(events, _)| events));
    html.markup("</div>");
    let frame = Frame { title: &words, level, every: every(census.all()), content: &html };
    answer(200, &frame, &asked, visit)
}

/// The hosts of the page, and why it is not known how they fared.
fn hosts(house: &dyn House, asked: &Asked) -> (Chosen, Vec<Row>, Option<String>) {
    let mut sieve = Sieve::new(asked);
    let mut from = 0;
    loop {
        let slice = house.hosts(from, HOSTS_AT_ONCE);
        if slice.is_empty() {
            break;
        }
        from += slice.len();
        slice.iter().for_each(|host| sieve.take(host));
    }
    let chosen = sieve.chosen();
    let names: Vec<&str> = chosen.names.iter().map(String::as_str).collect();
    let (pasts, trouble) = match house.pasts(&names) {
        Ok(pasts) => (pasts, None),
        Err(why) => (vec![None; names.len()], Some(why)),
    };
    // A reload may have taken one out meanwhile.
    let rows = names.iter().zip(pasts);
    let rows = rows.filter_map(|(name, past)| Some((house.host(name)?, past))).collect();
    (chosen, rows, trouble)
}

/// How many seconds the script waits: to look through very many hosts costs.
fn every(hosts: usize) -> usize {
    (2 + hosts / 5000).min(10)
}

/// The page of one host.
pub fn host(house: &dyn House, name: &str, visit: Visit) -> Reply {
    let asked = Asked::of(visit.target);
    let mut html = Html::default();
    let Some(view) = house.host(name) else {
        nobody(&mut html, name);
        let (title, level) = ("No such host", Level::Info);
        let frame = Frame { title, level, every: 10, content: &html };
        return answer(404, &frame, &asked, visit);
    };
    let about = Some(name.to_owned());
    let events =
        EventsWanted { limit: MOST_EVENTS, host: about.clone(), ..EventsWanted::default() };
    let told =
        Wanted { limit: MOST_EVENTS, host: about, before: None, channel: None, delivered: None };
    let (_, days) = asked.span.words();
    let series = SeriesWanted { range: DAY * days as u32, ..SeriesWanted::default() };
    let page = HostPage {
        asked: &asked,
        host: &view,
        past: &house.past(name),
        series: &house.series(name, &series).map(Option::unwrap_or_default),
        events: &house.events(&events).map(|(events, _)| events),
        told: &house.notifications(&told).map(|(told, _)| told),
        now: visit.now,
    };
    page.put(&mut html);
    let mut kept = house.dyndns();
    kept.retain(|kept| kept.host == name);
    hosts::names(&mut html, &kept);
    let (level, title) = page.headline();
    answer(200, &Frame { title: &title, level, every: 2, content: &html }, &asked, visit)
}

/// For browsers that ask for one whatever the page says.
pub fn icon() -> Reply {
    Reply::whole(200, "image/svg+xml", html::ICON.into())
}

/// The whole page, or only what may have changed, or that nothing has.
fn answer(status: u16, frame: &Frame, asked: &Asked, visit: Visit) -> Reply {
    let main = frame.main();
    let tag = html::tag(&main);
    if asked.part && status == 200 && visit.has == Some(&tag) {
        return Reply::unchanged().with("ETag", tag);
    }
    let body = if asked.part { main } else { whole(frame, main, &tag, visit.now) };
    Reply::whole(status, "text/html; charset=utf-8", body.into_bytes())
        .with("ETag", tag)
        .with("Content-Security-Policy", content_security_policy())
        .with("X-Frame-Options", "DENY")
        .with("Referrer-Policy", "same-origin")
        .with("Cross-Origin-Opener-Policy", "same-origin")
        .with("Cross-Origin-Resource-Policy", "same-origin")
}
