//! What is refused by the head of a request alone, before a byte of its body is read: a missing or
//! wrong token, and what a page of another site asks for.

use std::net::IpAddr;
use std::time::Duration;

use super::auth::{Authenticator, Decision};
use super::front::request::{HttpError, RequestHead};
use super::origin::{RequestOrigin, cross_site_error, rebinding_error};
use super::routes::{Route, route};
use crate::clock::Mono;

const TOO_OFTEN: &str = "the token is wrong, and too many wrong ones came from this address";

/// The error of a request that may not be made. The token comes first: without it nothing is
/// answered, not even about what exists.
pub fn refuse(
    head: &RequestHead,
    client: IpAddr,
    encrypted: bool,
    authenticator: &Authenticator,
    now: Mono,
) -> Option<HttpError> {
    let route = route(&head.method, &head.target);
    let public = match route {
        Ok(Route::Healthy) => true,
        // Under any name, as all is with the token. Without one it is guarded as everything else is.
        Ok(ref route) if authenticator.opens(route) => false,
        _ => match authenticator.check(head.header("Authorization"), client, now) {
            Decision::Public => true,
            Decision::Allowed => false,
            Decision::Denied => return Some(unauthorized()),
            // An Alertmanager does not repeat what was answered with 429.
            Decision::RetryAfter(_) if matches!(route, Ok(Route::Alert)) => {
                return Some(HttpError::new(503, TOO_OFTEN));
            }
            Decision::RetryAfter(wait) => return Some(too_often(wait)),
        },
    };
    let changes = !matches!(head.method.as_str(), "GET" | "HEAD");
    let host = head.header("Host");
    let (origin, site) = (head.header("Origin"), head.header("Sec-Fetch-Site"));
    let origin = RequestOrigin { origin, site, host, encrypted };
    // `/-/healthy` tells nobody anything, and is answered to all even where there is a token.
    let guarded = !public || changes || matches!(route, Ok(Route::Healthy));
    let why = cross_site_error(origin, public)
        .filter(|_| changes)
        .or_else(|| rebinding_error(host).filter(|_| !guarded))?;
    Some(HttpError::new(403, why))
}

fn unauthorized() -> HttpError {
    HttpError::new(401, "the token is missing or wrong")
        .with_header("WWW-Authenticate", "Basic realm=\"hbd\"")
}

fn too_often(wait: Duration) -> HttpError {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HttpError::new(429, TOO_OFTEN).with_header("Retry-After", seconds.max(1).to_string())
}
