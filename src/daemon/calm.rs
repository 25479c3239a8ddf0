//! Silences and acknowledgements: what people ask for, checked against what there is, and passed on
//! to the courier.

use std::time::Duration;

use crate::heartbeat::monitor::Monitor;
use crate::http::calm_request::{
    AcknowledgeRequest, CalmCommand, EndRequest, RequestSource, SilenceRequest,
};
use crate::http::service::CalmRefusal;
use crate::notify::calm::scope::{CalmScope, Inventory};
use crate::notify::calm::{CalmError, NewSilence, Origin, SilenceSelection};
use crate::notify::courier::{CalmRequest, Courier, NewAcknowledgement};
use crate::view::HostView;
use crate::view::calm::CalmAnswer;

/// How long an answer of the courier is waited for.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How many hosts are inspected each time that the monitor's lock is held.
const HOSTS_PER_LOCK: usize = 1000;

/// As the HTTP server answers it.
fn refusal(why: CalmError) -> CalmRefusal {
    match why {
        CalmError::Invalid { .. } => CalmRefusal::Invalid(why.to_string()),
        CalmError::NotFound(why) => CalmRefusal::NotFound(why),
        CalmError::Conflict(why) => CalmRefusal::Conflict(why),
        CalmError::NotStored(why) => CalmRefusal::Unavailable(why),
    }
}

fn scope(text: &str) -> Result<CalmScope, CalmRefusal> {
    CalmScope::parse(text).map_err(|why| CalmRefusal::Invalid(format!("scope: {why}")))
}

/// Passes on what people ask for.
pub fn answer(
    monitor: &Monitor,
    courier: &Courier,
    command: CalmCommand,
) -> Result<CalmAnswer, CalmRefusal> {
    let request = match command {
        CalmCommand::Silence(request) => {
            let scope = existing_scope(&request.scope, monitor, courier)?;
            CalmRequest::Silence(new_silence(scope, request))
        }
        CalmCommand::Unsilence(EndRequest { which, by_id, by }) => {
            CalmRequest::Unsilence { which: selection(which, by_id)?, by }
        }
        CalmCommand::Acknowledge(AcknowledgeRequest { scope, comment, by, length }) => {
            let scope = existing_scope(&scope, monitor, courier)?;
            let new = NewAcknowledgement { scope, by, comment, length };
            CalmRequest::Acknowledge(new)
        }
        CalmCommand::Unacknowledge(EndRequest { which, by, .. }) => {
            CalmRequest::UndoAcknowledgement { scope: scope(&which)?, by }
        }
    };
    courier.request(request, TIMEOUT).map_err(refusal)
}

fn new_silence(scope: CalmScope, request: SilenceRequest) -> NewSilence {
    NewSilence {
        scope,
        length: request.length,
        by: request.by,
        comment: request.comment,
        unless: request.unless,
        origin: match request.source {
            RequestSource::Api => Origin::Api,
            RequestSource::Page => Origin::Page,
        },
    }
}

/// The silence of an id such as `s17`, or all of a scope.
fn selection(which: String, by_id: bool) -> Result<SilenceSelection, CalmRefusal> {
    if by_id {
        return Ok(SilenceSelection::Id(which));
    }
    Ok(match scope(&which)? {
        CalmScope::All => SilenceSelection::All,
        scope => SilenceSelection::Scope(scope),
    })
}

/// A scope of something that there is.
fn existing_scope(
    text: &str,
    monitor: &Monitor,
    courier: &Courier,
) -> Result<CalmScope, CalmRefusal> {
    let scope = scope(text)?;
    check(&scope, monitor, courier)?;
    Ok(scope)
}

/// Whether there is anything that a scope is about.
fn check(scope: &CalmScope, monitor: &Monitor, courier: &Courier) -> Result<(), CalmRefusal> {
    let plans = match scope {
        CalmScope::Plan(_) => super::history::plans(courier).map_err(CalmRefusal::Unavailable)?,
        CalmScope::All | CalmScope::Hosts(_) | CalmScope::Parts { .. } => Vec::new(),
    };
    let plans: Vec<String> = plans.into_iter().map(|plan| plan.plan).collect();
    // Of one host that there is, the others need not be looked at.
    let one = scope.host().filter(|host| monitor.view(host).is_some()).map(str::to_owned);
    let hosts = match (scope, one) {
        (CalmScope::All | CalmScope::Plan(_), _) => Vec::new(),
        (_, Some(host)) => vec![host],
        (_, None) => hosts(monitor),
    };
    let parts = |host: &str| monitor.view(host).map(parts).unwrap_or_default();
    let inventory = Inventory { hosts: &hosts, parts: &parts, plans: &plans };
    scope.check(&inventory).map_err(|none| CalmRefusal::NotFound(none.0))
}

fn hosts(monitor: &Monitor) -> Vec<String> {
    let mut names = Vec::new();
    for from in (0..monitor.count()).step_by(HOSTS_PER_LOCK) {
        names.extend(monitor.views(from, HOSTS_PER_LOCK).into_iter().map(|view| view.name));
    }
    names
}

fn parts(view: HostView) -> Vec<String> {
    let connections = view.connections.into_iter().map(|connection| connection.name);
    connections.chain(view.metrics.into_iter().map(|metric| metric.path)).collect()
}
