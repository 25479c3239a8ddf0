//! What is answered about what was: events, alerts, backups, and how a host fared.

use std::sync::Arc;

use serde::Serialize;

use super::answer::Answered;
use super::house::House;
use super::reply::Reply;
use super::wanted;
use crate::clock::{Now, Wall};
use crate::event::EventId;
use crate::view::{AlertView, EventView, PastView, PlanView, SeriesView, always};

/// `next` goes into `before` of the next request; null when there is no more.
#[derive(Serialize)]
struct Events {
    events: Vec<EventView>,
    next: Option<String>,
}

/// What happened.
pub fn events(house: &Arc<dyn House>, target: &str) -> Answered {
    let wanted = match wanted::events(target) {
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
    let wanted = match wanted::series(target) {
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
