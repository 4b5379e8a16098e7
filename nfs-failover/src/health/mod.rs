//! What others may ask over HTTP: whether this node serves, and how its replica is.
//!
//! [`answer`] is a function from a [`Snapshot`] and a request to a reply; [`http`] puts sockets around it. The paths are
//! those of Patroni, so that a proxy's checks look alike: the status alone says yes (200) or no (503).

pub mod http;
mod metrics;
mod snapshot;

#[cfg(test)]
pub(crate) use snapshot::samples;

use serde_json::{Value, json};
use tandem_control::ResourceStatus;
use tandem_core::state::{ConnectionState, DiskState, Role};

pub use snapshot::{Phase, Replica, ServiceView, Snapshot};

/// What is asked: a path and its query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question<'a> {
    /// Such as `/replica`.
    pub path: &'a str,
    /// What stands behind the `?`.
    pub query: &'a str,
}

/// The reply, without what belongs to the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// HTTP's name for the body's form.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

const METRICS: &str = "/metrics";
/// What there is to ask.
const PATHS: [&str; 6] = ["/primary", "/secondary", "/replica?oos=0", "/nfs", "/health", METRICS];

/// Whether the answer needs to know who has the devices open.
pub fn wants_all(question: &Question<'_>) -> bool {
    question.path == METRICS
}

/// The reply of service `service` to one question.
pub fn answer(snapshot: &Snapshot, service: &str, question: &Question<'_>) -> Answer {
    if wants_all(question) {
        let body = metrics::text(snapshot);
        return Answer { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", body };
    }
    let Some(view) = snapshot.services.iter().find(|s| s.name == service) else {
        return said(503, json!({ "error": format!("service {service} is not known yet") }));
    };
    let status = snapshot.resource(&view.resource);
    let yes = match question.path {
        "/primary" => is_primary(view, status),
        "/nfs" => is_primary(view, status) && view.server_answers,
        "/secondary" => status.is_some_and(|s| s.engine.role == Role::Secondary),
        "/replica" => match lag_allowed(question.query) {
            Ok(limit) => status.is_some_and(|s| is_replica(s, limit)),
            Err(error) => return said(400, json!({ "error": error })),
        },
        "/health" => status.is_some_and(|s| is_healthy(view, s)),
        _ => return said(404, json!({ "error": "no such path", "paths": PATHS })),
    };
    said(if yes { 200 } else { 503 }, body(snapshot, view))
}

fn said(status: u16, body: Value) -> Answer {
    Answer { status, content_type: "application/json", body: format!("{body}\n") }
}

/// Everything is up, from the device to the address. While a promotion or a demotion is under way it is not.
fn is_primary(view: &ServiceView, status: Option<&ResourceStatus>) -> bool {
    let device = status.is_some_and(|s| s.engine.role == Role::Primary && !s.engine.suspended.any());
    view.phase == Phase::Up && view.must_fence.is_none() && device
}

/// The replica could take over and lacks no more than `limit` bytes.
fn is_replica(status: &ResourceStatus, limit: u64) -> bool {
    let replica = Replica::of(status);
    let connected = status.engine.peers.iter().any(|p| p.connection == ConnectionState::Connected);
    status.engine.role == Role::Secondary
        && status.engine.disk == DiskState::UpToDate
        && connected
        && replica.out_of_sync_bytes <= limit
}

/// The node is good for something: its data is the newest, or it is Primary through its peer; nothing is stuck.
fn is_healthy(view: &ServiceView, status: &ResourceStatus) -> bool {
    let engine = &status.engine;
    let through_peer = engine.role == Role::Primary
        && engine
            .peers
            .iter()
            .any(|p| p.disk == DiskState::UpToDate && p.connection == ConnectionState::Connected);
    view.must_fence.is_none()
        && !engine.suspended.any()
        && (engine.disk == DiskState::UpToDate || through_peer)
}

/// `oos=N`, in bytes or with a unit of 1024; without it there is no limit.
fn lag_allowed(query: &str) -> Result<u64, String> {
    let Some(value) = query.split('&').find_map(|pair| pair.strip_prefix("oos=")) else {
        return Ok(u64::MAX);
    };
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        unit => return Err(format!("oos={value}: no such unit as '{unit}', use k, m or g")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("oos={value}: not a number of bytes"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("oos={value}: too large"))
}

fn body(snapshot: &Snapshot, view: &ServiceView) -> Value {
    let mut body = json!({
        "service": view.name,
        "phase": view.phase,
        "wish": view.wish,
        "server_answers": view.server_answers,
        "must_fence": view.must_fence,
        "trouble": view.trouble,
        "resource": view.resource,
    });
    match &snapshot.resources {
        Ok(_) => {
            let status = snapshot.resource(&view.resource);
            body["replica"] = status.map_or(Value::Null, |s| json!(Replica::of(s)));
        }
        Err(error) => body["tandemd"] = json!(error),
    }
    body
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;

    fn ask(snapshot: &Snapshot, path: &str) -> u16 {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        answer(snapshot, "nfs", &Question { path, query }).status
    }

    fn asked(snapshot: &Snapshot) -> Vec<(&'static str, u16)> {
        PATHS.into_iter().map(|path| (path, ask(snapshot, path))).collect()
    }

    #[test]
    fn a_serving_primary() {
        let snapshot = snapshot(Phase::Up, primary());
        let expected = [200, 503, 503, 200, 200, 200];
        assert_eq!(asked(&snapshot), PATHS.into_iter().zip(expected).collect::<Vec<_>>());
    }

    #[test]
    fn a_primary_says_so_only_while_everything_is_up() {
        for phase in [Phase::Unknown, Phase::Down, Phase::Promoting, Phase::Demoting] {
            let snapshot = snapshot(phase, primary());
            assert_eq!((ask(&snapshot, "/primary"), ask(&snapshot, "/nfs")), (503, 503), "{phase:?}");
        }
        let mut deaf = snapshot(Phase::Up, primary());
        deaf.services[0].server_answers = false;
        assert_eq!((ask(&deaf, "/primary"), ask(&deaf, "/nfs")), (200, 503));
        let mut frozen = primary();
        frozen.engine.suspended.fencing = true;
        assert_eq!(ask(&snapshot(Phase::Up, frozen), "/primary"), 503);
        let mut stuck = snapshot(Phase::Up, primary());
        stuck.services[0].must_fence = Some("umount hangs".into());
        assert_eq!((ask(&stuck, "/primary"), ask(&stuck, "/health")), (503, 503));
    }

    #[test]
    fn a_replica_is_measured_by_what_it_lacks() {
        let mut status = secondary();
        status.engine.peers[0].out_of_sync_bytes = 8192;
        let snapshot = snapshot(Phase::Down, status);
        for (path, code) in [
            ("/secondary", 200),
            ("/replica", 200),
            ("/replica?oos=0", 503),
            ("/replica?oos=4k", 503),
            ("/replica?oos=8K", 200),
            ("/replica?oos=8192", 200),
            ("/replica?x=1&oos=1g", 200),
            ("/replica?oos=many", 400),
            ("/replica?oos=1t", 400),
            ("/replica?oos=99999999999999999999", 400),
            ("/replica?oos=18446744073709551615k", 400),
            ("/primary", 503),
            ("/nfs", 503),
        ] {
            assert_eq!(ask(&snapshot, path), code, "{path}");
        }
    }

    #[test]
    fn nobody_is_told_to_use_a_replica_that_could_not_take_over() {
        for break_it in [
            (|s: &mut ResourceStatus| s.engine.disk = DiskState::Inconsistent) as fn(&mut ResourceStatus),
            |s| s.engine.disk = DiskState::Outdated,
            |s| s.engine.peers[0].connection = ConnectionState::Connecting,
            |s| s.engine.role = Role::Primary,
        ] {
            let mut status = secondary();
            break_it(&mut status);
            assert_eq!(ask(&snapshot(Phase::Down, status), "/replica"), 503);
        }
    }

    #[test]
    fn without_the_daemon_everything_is_refused_with_its_reason() {
        let mut snapshot = snapshot(Phase::Down, secondary());
        snapshot.resources = Err("tandemd is not running".into());
        for path in ["/primary", "/secondary", "/replica", "/nfs", "/health"] {
            assert_eq!(ask(&snapshot, path), 503, "{path}");
        }
        let said = answer(&snapshot, "nfs", &Question { path: "/health", query: "" });
        assert!(said.body.contains("tandemd is not running"), "{}", said.body);
        assert_eq!(ask(&snapshot, "/metrics"), 200);
        assert_eq!(answer(&snapshot, "other", &Question { path: "/nfs", query: "" }).status, 503);
        assert_eq!(ask(&snapshot, "/"), 404);
    }
}
