//! A request as a handler gets it, and what becomes of it: a response, or work that makes one. Pure.

use std::net::{IpAddr, Ipv4Addr};

use super::front::request::PEER_HEADER;
use super::response::Response;

/// A request, as it was forwarded.
pub struct ApiRequest<'a> {
    /// GET, HEAD, POST ...
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The header of that name.
    pub content_type: Option<&'a str>,
    /// The header of that name.
    pub if_none_match: Option<&'a str>,
    /// The whole body.
    pub body: &'a [u8],
    /// The address of the client.
    pub peer: IpAddr,
}

impl<'a> ApiRequest<'a> {
    /// A request with these headers, those of the front among them.
    pub fn new(
        method: &'a str,
        target: &'a str,
        header: impl Fn(&'static str) -> Option<&'a str>,
        body: &'a [u8],
    ) -> ApiRequest<'a> {
        let peer = header(PEER_HEADER).and_then(|text| text.parse().ok());
        ApiRequest {
            method,
            target,
            content_type: header("Content-Type"),
            if_none_match: header("If-None-Match"),
            body,
            peer: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }
}

/// Makes a response that cannot be made at once.
pub type DeferredResponse = Box<dyn FnOnce() -> Response + Send>;

/// What became of a request.
pub enum Handled {
    /// Its response is here.
    Ready(Response),
    /// Its response is made by a thread that has time.
    Deferred(Deferral, DeferredResponse),
}

/// Why a response cannot be made at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// It takes up to half a minute.
    Wait,
    /// It waits for the disk.
    Commit,
    /// It reads the history, whose answer comes from a thread that may be busy for seconds.
    History,
    /// It is a page: it looks at every host, and into the history.
    Page,
    /// It is the page that strangers may see: they keep nobody else from a page.
    PublicPage,
}

impl Handled {
    /// A response that is made later.
    pub fn deferred(
        deferral: Deferral,
        work: impl FnOnce() -> Response + Send + 'static,
    ) -> Handled {
        Handled::Deferred(deferral, Box::new(work))
    }
}

/// Whether a `Content-Type` is this one, whatever its parameters.
pub fn is_of_type(content_type: Option<&str>, wanted: &str) -> bool {
    let kind = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(wanted)
}
