//! The REST server before a destination, asked directly: `rclone serve restic`, as NethServer 8 runs
//! it, says 404 of a repository's config file whatever error the destination answered with. Its list of
//! keys tells them apart.

use std::io::Read;
use std::time::Duration;

use super::restic_output::{NO_CONFIG, RepoError};
use crate::address::{basic_login, percent_decoded_lossy, split_login};
use crate::tls::{http_agent, roots, system_roots};

/// The version of the protocol in which a list of files is JSON of names and sizes.
/// (https://restic.readthedocs.io/en/stable/REST_backend.html)
const API_VERSION: &str = "application/vnd.x.restic.rest.v2";

/// How much of the list is read: whether it is empty is seen at its beginning.
const MAX_LIST: u64 = 64 * 1024;

/// The words for a 404 that may mean either.
pub const EITHER: &str = "there is no repository at this place, or the destination could not be asked: \
                          what is before it answers 404 to both";

/// What is at a place of which restic said that there is no repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The server was asked.
    Told(RepoError),
    /// It did not answer in time.
    TimedOut,
}

/// The parts of a request for the list of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysRequest {
    url: String,
    /// The value of the header `Authorization`.
    login: Option<String>,
}

impl KeysRequest {
    /// The request for a repository's address, if a REST server is asked there: `rest:http...`.
    pub fn new(repository: &str) -> Option<KeysRequest> {
        let url = repository.strip_prefix("rest:")?;
        let (scheme, rest) = url.split_once("://")?;
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let (login, rest) = split_login(rest);
        let encode = |login: &str| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let [user, password] = [user, password].map(percent_decoded_lossy);
            basic_login(&user, &password)
        };
        let url = format!("{scheme}://{}/keys/", rest.trim_end_matches('/'));
        Some(KeysRequest { url, login: login.map(encode) })
    }

    /// Asks for the list of keys; `ca_file` holds the certificate authorities that restic is told to
    /// trust.
    pub fn send(&self, ca_file: Option<&str>, timeout: Duration) -> Probe {
        let answer = match ca_file {
            Some(path) => roots(Some(path.as_ref())).and_then(|roots| self.ask(&roots, timeout)),
            None => self.ask(system_roots(), timeout),
        };
        match answer {
            Ok(Some(answer)) => Probe::Told(answer.judge()),
            Ok(None) => Probe::TimedOut,
            Err(why) => Probe::Told(RepoError::Unreachable(why)),
        }
    }

    /// The answer; none when it did not come in time.
    fn ask(
        &self,
        roots: &[rustls::pki_types::CertificateDer],
        timeout: Duration,
    ) -> Result<Option<Answer>, String> {
        let agent = http_agent(timeout, Some(roots));
        let mut request = agent.get(&self.url).header("Accept", API_VERSION);
        if let Some(login) = &self.login {
            request = request.header("Authorization", login);
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(ureq::Error::Timeout(_)) => return Ok(None),
            Err(why) => return Err(format!("its server could not be asked once more: {why}")),
        };
        let server = response.headers().get("server");
        let server = server.and_then(|name| name.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let read = response.body_mut().as_reader().take(MAX_LIST).read_to_end(&mut body);
        read.map_err(|why| format!("its server's answer breaks off: {why}"))?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Some(Answer { status, server, body }))
    }
}

/// An answer to the request for the list of keys.
struct Answer {
    status: u16,
    server: Option<String>,
    body: String,
}

impl Answer {
    fn judge(&self) -> RepoError {
        let list = self.body.trim();
        let server = self.server.as_deref();
        let unreachable = |why: String| RepoError::Unreachable(why);
        match self.status {
            200 if matches!(list, "[]" | "null") => RepoError::NotFound,
            200 if list.starts_with('[') => RepoError::Damaged(NO_CONFIG.into()),
            200 => unreachable("what answers there is no restic server".into()),
            401 | 403 => unreachable(format!("its server refuses the login ({})", self.status)),
            // restic's own rest-server, which has no name, knows no folder of a repository that is not
            // there.
            404 if server.is_none() => RepoError::NotFound,
            404 if server.is_some_and(|name| name.starts_with("rclone/")) => unreachable(
                "the destination could not be asked: rclone before it answers 404, whatever the \
                 destination's error is"
                    .into(),
            ),
            404 => unreachable(EITHER.into()),
            status => unreachable(format!(
                "the destination could not be asked: its server answers {status}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_is_asked_for_with_the_login_of_the_address() {
        let request = KeysRequest::new("rest:http://node:p%40ss@[::1]:4694/d1/mail/u/").unwrap();
        assert_eq!(request.url, "http://[::1]:4694/d1/mail/u/keys/");
        assert_eq!(request.login.as_deref(), Some("Basic bm9kZTpwQHNz"), "node:p@ss");
        let request = KeysRequest::new("rest:https://backup.example.com").unwrap();
        assert_eq!(
            (request.url.as_str(), request.login),
            ("https://backup.example.com/keys/", None)
        );
        for other in ["/srv/d1", "s3:https://x/y", "rest:http+unix:///run/x:/y", "sftp:a@b:/c"] {
            assert_eq!(KeysRequest::new(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_destination_that_was_asked_has_no_repository() {
        let rclone = Some("rclone/v1.60.1");
        for (status, server, body, word) in [
            (200, rclone, "[]\n", None),
            (200, rclone, "null", None),
            (404, None, "Not Found", None),
            (404, rclone, "Not Found", Some("the destination could not be asked: rclone")),
            (404, Some("nginx"), "", Some("or the destination could not be asked")),
            (401, None, "", Some("refuses the login (401)")),
            (403, Some("nginx"), "", Some("refuses the login (403)")),
            (200, None, "<html>", Some("no restic server")),
            (200, None, "", Some("no restic server")),
            (302, None, "", Some("answers 302")),
            (507, rclone, "", Some("answers 507")),
        ] {
            let answer = Answer { status, server: server.map(str::to_owned), body: body.into() };
            match (answer.judge(), word) {
                (RepoError::NotFound, None) => {}
                (RepoError::Unreachable(why), Some(word)) if why.contains(word) => {}
                (told, _) => panic!("{status} {server:?} {body}: {told:?}"),
            }
        }
        let keys = r#"[{"name":"abc","size":3}]"#;
        let answer = Answer { status: 200, server: None, body: keys.into() };
        assert!(matches!(answer.judge(), RepoError::Damaged(_)));
    }
}
