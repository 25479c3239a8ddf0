//! Addresses of a Redis as operators write them: `redis://127.0.0.1:6379`. Pure.

use redis::IntoConnectionInfo;

/// The schemes of a Redis URL.
const SCHEMES: [&str; 4] = ["redis", "rediss", "redis+unix", "unix"];

/// What is wrong with the scheme of an address.
pub fn scheme_error(url: &str) -> Option<&'static str> {
    match url.split_once("://").map(|(scheme, _)| SCHEMES.contains(&scheme)) {
        None => Some("must be such as redis://127.0.0.1:6379"),
        Some(false) => Some("must begin with redis://, rediss:// or redis+unix:///"),
        Some(true) => None,
    }
}

/// Scheme, host and port of the address, or the socket's path.
pub fn describe_server(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = if scheme.ends_with("unix") { "?#" } else { "/?#" };
    let rest = rest.split(|c| end.contains(c)).next().unwrap_or_default();
    // The settings have taken the login out already; what is left of one must not be shown either.
    let place = rest.rsplit('@').next().unwrap_or_default();
    // One without TLS takes the handshake for the beginning of a long command, and never answers.
    format!("Redis at {place}{}", if scheme == "rediss" { " over TLS" } else { "" })
}

/// User and password as they stand in a URL.
#[derive(Default)]
pub struct UrlLogin {
    /// The user; empty when none is named.
    pub user: String,
    /// The password, as it is written; empty when there is none.
    pub password: String,
}

impl UrlLogin {
    /// Removes the login from a URL: what stands before the last `@`, since a password may hold a
    /// slash or another `@`; and `user=` and `pass=`, as the URLs of sockets have them.
    pub fn take_from(url: &mut String) -> UrlLogin {
        let mut login = UrlLogin::default();
        let Some((scheme, mut rest)) = url.split_once("://") else { return login };
        // A socket's path may hold an @.
        if !(scheme.ends_with("unix") && rest.starts_with('/'))
            && let Some((before, server)) = rest.rsplit_once('@')
        {
            let (user, password) = before.split_once(':').unwrap_or((before, ""));
            (login.user, login.password) = (user.to_owned(), password.to_owned());
            rest = server;
        }
        let (server, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut kept = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("user", user)) => login.user = user.to_owned(),
                Some(("pass", password)) => login.password = password.to_owned(),
                _ => kept.push(part),
            }
        }
        let mark = if kept.is_empty() { "" } else { "?" };
        *url = format!("{scheme}://{server}{mark}{}", kept.join("&"));
        login
    }
}

/// What is wrong with an address that has one of our schemes and no login.
pub fn address_error(url: &str) -> Option<&'static str> {
    let (scheme, rest) = url.split_once("://")?;
    let is_socket = scheme.ends_with("unix");
    if let Some(what) = url_extras_error(rest, is_socket) {
        return Some(what);
    }
    if is_socket {
        if !rest.starts_with('/') {
            return Some("needs three slashes and a whole path: redis+unix:///run/redis.sock");
        }
    } else {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let (host, port) = port.map_or((authority, None), |(host, port)| (host, Some(port)));
        if host.is_empty() {
            return Some("names no host: it must be such as redis://127.0.0.1:6379");
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Some("its port must be 1 to 65535");
        }
    }
    let why = match url.into_connection_info() {
        Ok(info) if info.redis_settings().db() >= 0 => return None,
        Ok(_) => "a negative database".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(match why.contains("database") {
        true => "its database must be a number, as in redis://127.0.0.1:6379/0",
        false => "is no address of a Redis: it must be such as redis://127.0.0.1:6379",
    })
}

/// What is wrong with the part of an address after `?` or `#`, which the library reads without
/// complaint, or follows although nobody should.
fn url_extras_error(rest: &str, is_socket: bool) -> Option<&'static str> {
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    if fragment == "insecure" {
        return Some(
            "#insecure would switch off the check of the certificate: leave it out, and have the \
             system trust that certificate",
        );
    }
    if !fragment.is_empty() {
        return Some("has a # that stands for nothing; one in a path is written as %23");
    }
    let (_, query) = rest.split_once('?')?;
    let mut names =
        query.split('&').map(|part| part.split_once('=').map_or(part, |(name, _)| name));
    let unknown = names.find(|name| *name != "protocol" && !(is_socket && *name == "db"))?;
    Some(match unknown {
        "db" => "has its database after a slash, as in redis://127.0.0.1:6379/2",
        "ssl" | "tls" => "says that it speaks TLS by its scheme: rediss://127.0.0.1:6379",
        _ if is_socket => "may have only db, user, pass and protocol after its ?",
        _ => "may have only user, pass and protocol after its ?",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_named_without_a_login() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379", "Redis at 127.0.0.1:6379"),
            ("redis://u:p@127.0.0.1:6379/2?x=1", "Redis at 127.0.0.1:6379"),
            ("redis+unix:///run/redis.sock?db=2", "Redis at /run/redis.sock"),
            ("rediss://127.0.0.1:6380/0", "Redis at 127.0.0.1:6380 over TLS"),
        ] {
            assert_eq!(describe_server(url), expected);
        }
    }
    #[test]
    fn no_part_of_a_login_stays_in_the_url() {
        for (url, user, password, left) in [
            ("redis://h:1/2", "", "", "redis://h:1/2"),
            ("redis://ops:pw@h:1/2", "ops", "pw", "redis://h:1/2"),
            ("redis://:pw@h", "", "pw", "redis://h"),
            ("redis://ops:pa/ss@wo?r#d@h/2", "ops", "pa/ss@wo?r#d", "redis://h/2"),
            ("redis://h?pass=pw&protocol=3", "", "pw", "redis://h?protocol=3"),
            ("unix:///run/r@1?db=2&user=ops&pass=p@w", "ops", "p@w", "unix:///run/r@1?db=2"),
            ("redis+unix://ops:pw@/run/r?pass=", "ops", "", "redis+unix:///run/r"),
        ] {
            let mut rest = url.to_owned();
            let login = UrlLogin::take_from(&mut rest);
            assert_eq!(
                (login.user.as_str(), login.password.as_str(), rest.as_str()),
                (user, password, left),
                "{url}"
            );
        }
    }

    #[test]
    fn an_address_that_can_never_work_is_said() {
        for (url, what) in [
            ("redis://127.0.0.1:6379", None),
            ("redis://localhost/2", None),
            ("rediss://redis.example.com:6380/2", None),
            ("redis://[::1]:6379/", None),
            ("redis://[::1]", None),
            ("redis+unix:///run/redis.sock?db=2", None),
            ("unix:///run/redis.sock", None),
            ("redis://127.0.0.1:99999", Some("port")),
            ("redis://127.0.0.1:0", Some("port")),
            ("redis://127.0.0.1:", Some("port")),
            ("redis://", Some("host")),
            ("redis://:6379", Some("host")),
            ("redis:///2", Some("host")),
            ("redis://127.0.0.1/abc", Some("database")),
            ("redis+unix:///run/redis.sock?db=x", Some("database")),
            ("redis+unix://run/redis.sock", Some("three slashes")),
            ("redis://0.0.0.0", Some("no address")),
            ("redis://127.0.0.1/-1", Some("database")),
            ("redis+unix:///run/redis.sock?db=-2", Some("database")),
            ("redis://127.0.0.1/2/3", Some("database")),
            ("rediss://127.0.0.1:6380/0#insecure", Some("certificate")),
            ("rediss://127.0.0.1:6380?protocol=3#insecure", Some("certificate")),
            ("redis://127.0.0.1#insecure", Some("certificate")),
            ("rediss://127.0.0.1#Insecure", Some("stands for nothing")),
            ("redis+unix:///run/redis#1.sock", Some("stands for nothing")),
            ("redis://127.0.0.1?protocol=3", None),
            ("redis://127.0.0.1?protocol=4", Some("no address")),
            ("redis://127.0.0.1?db=2", Some("after a slash")),
            ("redis://127.0.0.1/0?ssl=true", Some("rediss://")),
            ("redis://127.0.0.1?ssl_cert_reqs=none", Some("only user, pass and protocol")),
            ("redis://127.0.0.1?timeout=5s", Some("only user, pass and protocol")),
            ("redis+unix:///run/redis.sock?database=2", Some("only db")),
            ("redis://a b", Some("no address")),
        ] {
            let said = address_error(url);
            let right = match (said, what) {
                (None, None) => true,
                (Some(said), Some(what)) => said.contains(what),
                _ => false,
            };
            assert!(right, "{url}: {said:?}");
        }
    }
}
