//! Checks against requests of other sites' pages (CSRF, DNS rebinding): a browser that visits one
//! must not be able to change anything here, nor to read what a token does not guard. Pure.

use std::net::IpAddr;

/// Where a request comes from, as far as a browser tells. Programs tell nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestOrigin<'a> {
    /// `Origin` (RFC 6454): whose page it was that asked.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site` (Fetch Metadata, section 2.4): how that page is related to us.
    pub site: Option<&'a str>,
    /// `Host`: under which name we were asked.
    pub host: Option<&'a str>,
    /// It came through TLS, which is ours.
    pub encrypted: bool,
}

/// Why a request that changes something is refused. Programs send no `Origin`, browsers always do;
/// and a browser that knows the token (as a password) shows it whatever page asks.
///
/// Where no token is needed (`public`), a site under a name of its own is refused even when it reaches
/// us under that name: names can be made to point here (DNS rebinding), addresses cannot.
pub fn cross_site_error(request: RequestOrigin, public: bool) -> Option<&'static str> {
    const OTHER: Option<&str> = Some("a page of another site may not do this");
    if request.site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return OTHER;
    }
    let origin = request.origin?;
    let secure = origin.strip_prefix("https://");
    // Under TLS of our own, a page without it is not ours. A proxy in front may have its own TLS.
    let site = secure.or(origin.strip_prefix("http://").filter(|_| !request.encrypted));
    let ours = |site: &&str| request.host.is_some_and(|host| host.eq_ignore_ascii_case(site));
    let Some(site) = site.filter(ours) else { return OTHER };
    (public && !is_here(site))
        .then_some("a page under this name may do this only with receiver.token")
}

/// Why nothing is shown under this `Host` where no token is needed. A browser tells no
/// `Origin` when a page looks at its own site, and a name can be made to point here.
pub fn rebinding_error(host: Option<&str>) -> Option<&'static str> {
    // Browsers always send it, and some programs do not.
    (!is_here(host?)).then_some(
        "under this name it is shown only with receiver.token: ask by address, or as localhost",
    )
}

/// `localhost` or an address, with or without a port.
fn is_here(site: &str) -> bool {
    let port = |text: &str| text.is_empty() || text.strip_prefix(':').is_some();
    if let Some((address, rest)) = site.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return port(rest) && address.parse::<IpAddr>().is_ok();
    }
    let name = site.split(':').next().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_and_programs_may_change_something() {
        let here = "127.0.0.1:9099";
        for (origin, host, with_token, without) in [
            (None, here, true, true),
            (Some("http://127.0.0.1:9099"), here, true, true),
            (Some("http://localhost:9099"), "LOCALHOST:9099", true, true),
            (Some("http://[::1]:9099"), "[::1]:9099", true, true),
            (Some("https://hbd.example"), "hbd.example", true, false),
            (Some("http://evil.example:9099"), "evil.example:9099", true, false),
            (Some("http://evil.example"), here, false, false),
            (Some("http://127.0.0.1"), here, false, false),
            (Some("http://127.0.0.1.evil.example:9099"), here, false, false),
            (Some("null"), here, false, false),
            (Some(""), "", false, false),
            (Some("file://"), here, false, false),
        ] {
            for (open, expected) in [(false, with_token), (true, without)] {
                let request =
                    RequestOrigin { origin, host: Some(host), ..RequestOrigin::default() };
                let taken = cross_site_error(request, open).is_none();
                assert_eq!(taken, expected, "{origin:?} at {host}, open: {open}");
            }
        }
        let nameless = RequestOrigin { origin: Some("http://a"), ..RequestOrigin::default() };
        assert!(cross_site_error(nameless, false).is_some());
    }

    #[test]
    fn what_the_browser_says_of_the_page_counts_and_so_does_the_scheme() {
        for (site, origin, encrypted, taken) in [
            (Some("cross-site"), None, false, false),
            (Some("same-site"), None, false, false),
            (Some("cross-site"), Some("http://127.0.0.1"), false, false),
            (Some("same-origin"), Some("http://127.0.0.1"), false, true),
            (Some("none"), None, false, true),
            (Some("same-origin"), Some("http://evil.example"), false, false),
            (None, Some("http://127.0.0.1"), true, false),
            (None, Some("https://127.0.0.1"), true, true),
            (None, Some("https://127.0.0.1"), false, true),
        ] {
            let request = RequestOrigin { origin, site, host: Some("127.0.0.1"), encrypted };
            assert_eq!(cross_site_error(request, false).is_none(), taken, "{request:?}");
        }
    }

    #[test]
    fn only_a_name_that_nobody_can_point_here_is_answered() {
        for (host, answered) in [
            (None, true),
            (Some("localhost:9099"), true),
            (Some("127.0.0.1"), true),
            (Some("[::1]:9099"), true),
            (Some("192.0.2.1:80"), true),
            (Some("evil.example:9099"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some("localhost.evil.example"), false),
            (Some(""), false),
        ] {
            assert_eq!(rebinding_error(host).is_none(), answered, "{host:?}");
        }
    }
}
