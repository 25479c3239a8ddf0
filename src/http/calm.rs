//! Silences and acknowledgements over HTTP: the API, and the forms of the page.

use std::sync::Arc;

use super::calm_request::{CalmCommand, RequestFields, RequestSource};
use super::exchange::{ApiRequest, Deferral, Handled, is_of_type};
use super::response::Response;
use super::routes::{CalmRoute, FormRoute};
use super::service::{CalmRefusal, Daemon};
use crate::view::calm::CalmAnswer;

/// Answers a request of a program.
pub fn handle(daemon: &Arc<dyn Daemon>, route: CalmRoute, request: &ApiRequest) -> Handled {
    if !is_of_type(request.content_type, "application/json") {
        let why = "the Content-Type must be application/json";
        return Handled::Ready(Response::error(request.target, 415, why));
    }
    let status = if route == CalmRoute::Silence { 201 } else { 200 };
    let fields = RequestFields::from_json(request.body, request.peer);
    let asked = fields.and_then(|fields| read(route, fields));
    answer(daemon, request, asked, move |answer| Response::json(status, answer))
}

fn read(route: CalmRoute, fields: RequestFields) -> Result<CalmCommand, String> {
    Ok(match route {
        CalmRoute::Silence => CalmCommand::Silence(fields.silence(RequestSource::Api)?),
        CalmRoute::Unsilence(id) => CalmCommand::Unsilence(fields.end(id)?),
        CalmRoute::Acknowledge => CalmCommand::Acknowledge(fields.acknowledgement()?),
        CalmRoute::Unacknowledge => CalmCommand::Unacknowledge(fields.end(None)?),
    })
}

/// Does what a form of the page asks for, and leads back to the page that it stands on.
pub fn handle_form(daemon: &Arc<dyn Daemon>, route: FormRoute, request: &ApiRequest) -> Handled {
    const FORM: &str = "application/x-www-form-urlencoded";
    if !is_of_type(request.content_type, FORM) {
        let why = format!("the Content-Type must be {FORM}");
        return Handled::Ready(Response::error(request.target, 415, &why));
    }
    let mut back = None;
    let fields = RequestFields::from_form(request.body, request.peer);
    let asked = fields.and_then(|mut fields| {
        back = fields.text("back").filter(|back| is_page(back));
        read_form(route, fields)
    });
    let back = back.unwrap_or_else(|| "/".into());
    answer(daemon, request, asked, |_| Response::text(303, "done").with_header("Location", back))
}

fn read_form(route: FormRoute, mut fields: RequestFields) -> Result<CalmCommand, String> {
    Ok(match route {
        FormRoute::Silence => CalmCommand::Silence(fields.silence(RequestSource::Page)?),
        FormRoute::Unsilence => {
            let id = fields.text("id").unwrap_or_default();
            CalmCommand::Unsilence(fields.end(Some(id))?)
        }
        FormRoute::Acknowledge if fields.text("undo").is_some() => {
            // The same form has a comment, which may be filled in.
            fields.text("comment");
            CalmCommand::Unacknowledge(fields.end(None)?)
        }
        FormRoute::Acknowledge => CalmCommand::Acknowledge(fields.acknowledgement()?),
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
    asked: Result<CalmCommand, String>,
    respond: impl FnOnce(&CalmAnswer) -> Response + Send + 'static,
) -> Handled {
    let target = request.target.to_owned();
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => return Handled::Ready(Response::error(&target, 400, &why)),
    };
    let daemon = Arc::clone(daemon);
    Handled::deferred(Deferral::History, move || {
        let (status, why) = match daemon.calm(asked) {
            Ok(answer) => return respond(&answer),
            Err(CalmRefusal::Invalid(why)) => (400, why),
            Err(CalmRefusal::NotFound(why)) => (404, why),
            Err(CalmRefusal::Conflict(why)) => (409, why),
            Err(CalmRefusal::Unavailable(why)) => (503, why),
        };
        Response::error(&target, status, &why)
    })
}
