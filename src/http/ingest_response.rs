//! What is answered to a heartbeat and to a webhook.

use serde_json::json;

use super::exchange::{Deferral, Handled};
use super::response::Response;
use super::service::{Ingest, IngestResult};

/// The response to what may have to be stored first.
pub(super) fn after_commit(
    target: &str,
    ingest: Ingest,
    respond: fn(&str, IngestResult) -> Response,
) -> Handled {
    match ingest {
        Ingest::Done(result) => Handled::Ready(respond(target, result)),
        Ingest::Pending(wait) => {
            let target = target.to_owned();
            Handled::deferred(Deferral::Commit, move || respond(&target, wait()))
        }
    }
}

/// An Alertmanager reads the status alone: 5xx comes again, anything else does not.
pub(super) fn alert_response(target: &str, result: IngestResult) -> Response {
    match result {
        IngestResult::Stored => Response::text(200, "ok"),
        IngestResult::Malformed(why) => Response::error(target, 400, &why),
        IngestResult::Unsigned(why)
        | IngestResult::Forbidden(why)
        | IngestResult::UnknownHost(why)
        | IngestResult::TooMany(why)
        | IngestResult::Unavailable(why) => Response::error(target, 503, &why),
    }
}

/// A heartbeat's sender reads the status, and people the reason.
pub(super) fn heartbeat_response(target: &str, result: IngestResult) -> Response {
    match result {
        IngestResult::Stored => Response::json(200, &json!({ "stored": true })),
        IngestResult::Malformed(why) => Response::error(target, 400, &why),
        IngestResult::Unsigned(why) => Response::error(target, 401, &why),
        IngestResult::Forbidden(why) => Response::error(target, 403, &why),
        IngestResult::UnknownHost(why) => Response::error(target, 404, &why),
        // A message of a host has its place again after a second.
        IngestResult::TooMany(why) => {
            Response::error(target, 429, &why).with_header("Retry-After", "1")
        }
        IngestResult::Unavailable(why) => Response::error(target, 503, &why),
    }
}
