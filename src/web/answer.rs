//! What is done about a request: from route to reply.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;

use super::house::{Answer, House};
use super::metrics::{self, HOSTS_AT_ONCE};
use super::reply::Reply;
use super::routes::{Route, route};
use super::stream::Pieces;
use super::token::Token;
use crate::clock::{Now, Wall};

/// A request, as it is after the gate.
pub struct Request<'a> {
    /// GET, HEAD, POST ...
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The header of that name.
    pub authorization: Option<&'a str>,
    /// The whole body.
    pub body: &'a [u8],
    /// Who asks.
    pub peer: IpAddr,
}

/// Answers a request. The token is asked for before anything is said, even about what exists.
pub fn answer(house: &Arc<dyn House>, token: Option<&Token>, request: &Request) -> Reply {
    let target = request.target;
    let route = route(request.method, target);
    let open = route == Ok(Route::Healthy);
    if !open && token.is_some_and(|token| !token.admits(request.authorization)) {
        return Reply::problem(target, 401, "the token is missing or wrong")
            .with("WWW-Authenticate", "Basic realm=\"hbd\"");
    }
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
            None => Reply::problem(target, 404, &format!("no host is called \"{name}\"")),
        },
        Ok(Route::Heartbeat) => heard(target, house.hear(request.body, request.peer)),
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
