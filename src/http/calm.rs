//! Silences and acknowledgements over HTTP: the API, and the forms of the page.

use std::sync::Arc;

use super::calm_request::{RequestFields, RequestSource};
use super::exchange::{ApiRequest, Deferral, Handled, is_of_type};
use super::response::Response;
use super::routes::{CalmRoute, FormRoute};
use super::service::{CalmRefusal, Daemon};

/// Answers a request of a program.
pub fn handle(daemon: &Arc<dyn Daemon>, route: CalmRoute, request: &ApiRequest) -> Handled {
    let reads = matches!(route, CalmRoute::Silences | CalmRoute::Held);
    if !reads && !is_of_type(request.content_type, "application/json") {
        let why = "the Content-Type must be application/json";
        return Handled::Ready(Response::error(request.target, 415, why));
    }
    let body = if reads { &[] } else { request.body };
    let fields = RequestFields::from_json(body, request.peer);
    answer(daemon, request, move |daemon| {
        let invalid = CalmRefusal::Invalid;
        let fields = fields.map_err(invalid)?;
        Ok(match route {
            CalmRoute::Silences => Response::json(200, &daemon.silences()?),
            CalmRoute::Held => Response::json(200, &daemon.held()?),
            CalmRoute::Silence => {
                let request = fields.silence(RequestSource::Api).map_err(invalid)?;
                Response::json(201, &daemon.silence(request)?)
            }
            CalmRoute::Unsilence(id) => {
                let request = fields.end(id).map_err(invalid)?;
                Response::json(200, &daemon.unsilence(request)?)
            }
            CalmRoute::Acknowledge => {
                let request = fields.acknowledgement().map_err(invalid)?;
                Response::json(200, &daemon.acknowledge(request)?)
            }
            CalmRoute::Unacknowledge => {
                let request = fields.end(None).map_err(invalid)?;
                Response::json(200, &daemon.unacknowledge(request)?)
            }
        })
    })
}

/// Does what a form of the page asks for, and leads back to the page that it stands on.
pub fn handle_form(daemon: &Arc<dyn Daemon>, route: FormRoute, request: &ApiRequest) -> Handled {
    const FORM: &str = "application/x-www-form-urlencoded";
    if !is_of_type(request.content_type, FORM) {
        let why = format!("the Content-Type must be {FORM}");
        return Handled::Ready(Response::error(request.target, 415, &why));
    }
    let fields = RequestFields::from_form(request.body, request.peer);
    answer(daemon, request, move |daemon| {
        let invalid = CalmRefusal::Invalid;
        let mut fields = fields.map_err(invalid)?;
        let back = fields.text("back").filter(|back| is_page(back)).unwrap_or_else(|| "/".into());
        match route {
            FormRoute::Silence => {
                daemon.silence(fields.silence(RequestSource::Page).map_err(invalid)?).map(drop)?;
            }
            FormRoute::Unsilence => {
                let id = fields.text("id").unwrap_or_default();
                daemon.unsilence(fields.end(Some(id)).map_err(invalid)?).map(drop)?;
            }
            FormRoute::Acknowledge if fields.text("undo").is_some() => {
                // The same form has a comment, which may be filled in.
                fields.text("comment");
                daemon.unacknowledge(fields.end(None).map_err(invalid)?).map(drop)?;
            }
            FormRoute::Acknowledge => {
                daemon.acknowledge(fields.acknowledgement().map_err(invalid)?).map(drop)?;
            }
        }
        Ok(Response::text(303, "done").with_header("Location", back))
    })
}

/// Whether it is a page of this site, as the page itself writes it.
fn is_page(target: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    target == "/" || target.starts_with("/hosts/") && target.bytes().all(is_plain)
}

fn answer(
    daemon: &Arc<dyn Daemon>,
    request: &ApiRequest,
    act: impl FnOnce(&dyn Daemon) -> Result<Response, CalmRefusal> + Send + 'static,
) -> Handled {
    let (daemon, target) = (Arc::clone(daemon), request.target.to_owned());
    Handled::deferred(Deferral::History, move || {
        act(&*daemon).unwrap_or_else(|refused| {
            let (status, why) = match &refused {
                CalmRefusal::Invalid(why) => (400, why),
                CalmRefusal::NotFound(why) => (404, why),
                CalmRefusal::Conflict(why) => (409, why),
                CalmRefusal::Unavailable(why) => (503, why),
            };
            Response::error(&target, status, why)
        })
    })
}
