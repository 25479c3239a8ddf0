//! What a node of a cluster answers that does not lead: it takes in what hosts and Alertmanagers say, and
//! for the rest it says where the leader is.

use std::sync::Arc;

use serde_json::json;

use super::exchange::{ApiRequest, Deferral, Handled};
use super::ingest_response::{after_commit, alert_response, heartbeat_response};
use super::metrics;
use super::openapi;
use super::response::Response;
use super::routes::{Route, route};
use super::service::StandbyDaemon;

/// When a client should come back: a takeover takes no longer.
const RETRY_AFTER: &str = "2";

/// Handles a request on a node that does not lead.
pub fn handle(standby: &Arc<dyn StandbyDaemon>, request: &ApiRequest) -> Handled {
    let target = request.target;
    Handled::Ready(match route(request.method, target) {
        Err(none) => none.response(target),
        Ok(Route::Healthy) => Response::text(200, "ok"),
        Ok(Route::Ready) => match standby.ready() {
            Ok(()) => Response::text(200, "ready"),
            Err(why) => Response::error(target, 503, &why),
        },
        Ok(Route::Cluster) => Response::json(200, &standby.cluster()),
        Ok(Route::OpenApi) => Response::json_bytes(openapi::document()),
        Ok(Route::Metrics) => {
            let text = metrics::standby(&standby.cluster(), standby.last_reload_refused());
            let mut response = Response::text(200, text);
            response.content_type = metrics::CONTENT_TYPE;
            response
        }
        Ok(Route::Reload) => {
            let standby = Arc::clone(standby);
            return Handled::deferred(Deferral::Wait, move || Response::reloaded(standby.reload()));
        }
        Ok(Route::Heartbeat) => {
            let ingest = standby.ingest_heartbeat(request.body, request.peer);
            return after_commit(target, ingest, heartbeat_response);
        }
        Ok(Route::Alert) => {
            let ingest = standby.ingest_alert(request.body, request.peer);
            return after_commit(target, ingest, alert_response);
        }
        Ok(_) => elsewhere(target, &**standby),
    })
}

/// 503: the leader answers this, and a client that comes back may find it here.
fn elsewhere(target: &str, standby: &dyn StandbyDaemon) -> Response {
    let cluster = standby.cluster();
    let why = match (&cluster.leader, &cluster.redis_trouble) {
        (Some(leader), _) => format!("{} stands by, and {leader} leads", cluster.node),
        (None, Some(why)) => format!("{} stands by, and no leader is known: {why}", cluster.node),
        (None, None) => format!("{} stands by, and no node leads now", cluster.node),
    };
    let response = if target.starts_with("/api/") {
        let (leader, url) = (cluster.leader, cluster.leader_url);
        Response::json(503, &json!({ "error": why, "leader": leader, "leader_url": url }))
    } else {
        let at = cluster.leader_url.map_or_else(String::new, |url| format!(" at {url}"));
        Response::text(503, why + &at)
    };
    response.with_header("Retry-After", RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::response::ResponseBody;
    use super::super::service::{Ingest, IngestResult, ReloadResult};
    use super::*;
    use crate::clock::Wall;
    use crate::view::cluster::{ClusterView, NodeState};

    struct Node(Option<&'static str>);

    impl StandbyDaemon for Node {
        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn cluster(&self) -> ClusterView {
            ClusterView {
                now: Wall(0),
                name: "hbd".into(),
                node: "hb2".into(),
                role: NodeState::Standby,
                leader: self.0.map(str::to_owned),
                leader_url: self.0.map(|name| format!("http://{name}:9099")),
                epoch: 7,
                takeovers: 0,
                connections: 12,
                redis_trouble: None,
                nodes: Vec::new(),
            }
        }

        fn ingest_heartbeat(&self, body: &[u8], _: IpAddr) -> Ingest {
            self.ingest_alert(body, IpAddr::from([192, 0, 2, 7]))
        }

        fn ingest_alert(&self, body: &[u8], _: IpAddr) -> Ingest {
            if body == b"?" {
                return Ingest::Done(IngestResult::Malformed("it is no JSON".into()));
            }
            let is_confirmed = body == b"{}";
            Ingest::Pending(Box::new(move || match is_confirmed {
                true => IngestResult::Stored,
                false => IngestResult::Unavailable("Redis did not confirm it".into()),
            }))
        }

        fn last_reload_refused(&self) -> bool {
            false
        }

        fn reload(&self) -> ReloadResult {
            ReloadResult::NotTried("not here".into())
        }
    }

    fn answer(leader: Option<&'static str>, method: &str, target: &str) -> (u16, String, bool) {
        let node: Arc<dyn StandbyDaemon> = Arc::new(Node(leader));
        let request = ApiRequest::new(method, target, |_| None, b"");
        let Handled::Ready(response) = handle(&node, &request) else { panic!("{target}") };
        let retry = response.headers.iter().any(|(name, _)| *name == "Retry-After");
        let ResponseBody::Whole(body) = response.body else { panic!("{target}") };
        (response.status, String::from_utf8(body).unwrap(), retry)
    }

    #[test]
    fn a_standby_answers_what_it_can_and_names_the_leader_for_the_rest() {
        for (method, target, status) in [
            ("GET", "/-/healthy", 200),
            ("GET", "/-/ready", 200),
            ("GET", "/-/leader", 503),
            ("GET", "/api/v1/cluster", 200),
            ("GET", "/metrics", 200),
            ("GET", "/", 503),
            ("GET", "/api/v1/hosts", 503),
            ("POST", "/api/v1/notify", 503),
            ("GET", "/nothing", 404),
            ("GET", "/alert", 405),
        ] {
            let (found, body, retry) = answer(Some("hb1"), method, target);
            assert_eq!(found, status, "{method} {target}: {body}");
            assert_eq!(retry, status == 503, "{method} {target}");
            assert!(status != 503 || body.contains("http://hb1:9099"), "{target}: {body}");
        }
        for target in ["/alert", "/api/v1/heartbeat"] {
            for (body, status) in [("{}", 200), ("?", 400), ("{ }", 503)] {
                let node: Arc<dyn StandbyDaemon> = Arc::new(Node(None));
                let request = ApiRequest::new("POST", target, |_| None, body.as_bytes());
                let response = match handle(&node, &request) {
                    Handled::Ready(response) => response,
                    Handled::Deferred(Deferral::Commit, wait) => wait(),
                    Handled::Deferred(..) => panic!("it waits for more than the disk"),
                };
                assert_eq!(response.status, status, "{target} {body}");
            }
        }
        let (_, body, _) = answer(None, "GET", "/api/v1/hosts");
        assert!(body.contains("no node leads now"), "{body}");
        let (_, body, _) = answer(Some("hb1"), "GET", "/metrics");
        for line in ["hbd_cluster_leader 0\n", "hbd_cluster_epoch 7\n", "hbd_cluster_redis_up 1\n"]
        {
            assert!(body.contains(line), "{body}");
        }
    }
}
