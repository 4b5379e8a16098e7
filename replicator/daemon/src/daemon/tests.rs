//! What the daemon says of resources, without any of their threads.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::time::Instant;

use tandem_control::{BlockDeviceSpec, DeviceDriver, HandlersSpec, NodeSpec, PathSpec, VolumeSpec};
use tandem_core::config::Options;
use tandem_core::units::NodeId;

use super::*;

/// As long as a thread that does not answer is waited for, and no more than that for all of them.
#[test]
fn resources_that_hang_are_asked_at_the_same_time() {
    let daemon = new_daemon();
    let mute: Vec<_> = ["r0", "r1", "r2"].map(|name| add_mute(&daemon, name)).into();
    let start = Instant::now();
    tokio_uring::start(daemon.statuses());
    assert!(start.elapsed() < Duration::from_secs(2), "they were asked one after the other");
    drop(mute);
}

#[test]
fn a_dead_resource_does_not_keep_its_last_state() {
    let daemon = new_daemon();
    let mute = add_mute(&daemon, "r0");
    let entry = daemon.entry("r0").unwrap();
    let engine =
        Status { role: Role::Primary, disk: DiskState::UpToDate, ..resource::initial_status(&entry.spec()) };
    *entry.last_status.borrow_mut() = Some(Snapshot { engine, used_paths: Vec::new(), disk_failure: None });
    let status = tokio_uring::start(daemon.statuses()).remove(0).engine;
    assert_eq!((status.role, status.disk), (Role::Primary, DiskState::UpToDate), "it may only be busy");
    drop(mute);
    let status = tokio_uring::start(daemon.statuses()).remove(0).engine;
    assert_eq!((status.role, status.disk), (Role::Unknown, DiskState::Failed));
    assert_eq!(status.peers[0].connection, ConnectionState::StandAlone);
    assert!(status.peers[0].standalone_reason.as_ref().unwrap().contains("thread has ended"));
}

#[test]
fn a_resource_that_is_not_up_is_unknown_in_drbds_words() {
    let daemon = new_daemon();
    let act = Request::Act { resource: "r9".into(), action: Action::Secondary { force: false } };
    let reply = tokio_uring::start(daemon.handle(act));
    assert_eq!((reply.exit_code, reply.error.as_deref()), (10, Some("r9: Failure: (158) Unknown resource")));
}

#[test]
fn a_resource_that_cannot_be_made_leaves_no_listener_behind() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let free = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut spec = spec("r0");
    spec.paths[0].local = taken.local_addr().unwrap();
    spec.nbd_listen = Some(free);
    let daemon = new_daemon();
    let reply = tokio_uring::start(daemon.handle(Request::Up { spec }));
    assert_eq!(reply.error.as_deref(), Some("r0: Failure: (102) Local address(port) already in use."));
    StdListener::bind(free).expect("nobody listens any more");
}

#[test]
fn a_resource_is_kept_until_it_is_whole_and_made_then() {
    let daemon = new_daemon();
    let ask = |was: Option<&ResourceSpec>, becomes: Option<&ResourceSpec>| {
        let boxed = |spec: Option<&ResourceSpec>| spec.cloned().map(Box::new);
        tokio_uring::start(daemon.handle(Request::Prepare { was: boxed(was), becomes: boxed(becomes) }))
    };
    let act = |action| tokio_uring::start(daemon.handle(Request::Act { resource: "r0".into(), action }));
    let whole = spec("r0");
    let mut empty = whole.clone();
    empty.peers.clear();
    empty.paths.clear();
    empty.set_volumes(Vec::new());
    let mut with_volume = empty.clone();
    with_volume.set_volumes(vec![VolumeSpec::without_disk(0, 7)]);

    assert_eq!(ask(None, Some(&empty)), Reply::default());
    assert!(ask(None, Some(&with_volume)).error.unwrap().ends_with("try again"), "it is there already");
    assert_eq!(ask(Some(&empty), Some(&with_volume)), Reply::default());
    let status = tokio_uring::start(daemon.statuses()).remove(0);
    assert_eq!(
        (&status.spec, status.engine.disk, status.volumes().len()),
        (&with_volume, DiskState::Diskless, 1)
    );
    for (action, code) in [
        (Action::Primary { force: true }, 17),
        (Action::Disconnect, 0),
        (Action::Connect { discard_my_data: false, tentative: false }, 10),
        (Action::Attach, 10),
        (Action::Secondary { force: false }, 0),
    ] {
        assert_eq!(act(action).exit_code, code, "{action:?}");
    }
    assert_eq!(act(Action::Down), Reply::default());
    assert_eq!(tokio_uring::start(daemon.statuses()), []);

    // What cannot be made stays in pieces.
    assert_eq!(ask(None, Some(&with_volume)), Reply::default());
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let mut unlucky = whole.clone();
    unlucky.paths[0].local = taken.local_addr().unwrap();
    assert!(ask(Some(&with_volume), Some(&unlucky)).error.unwrap().contains("(102)"));
    assert_eq!(tokio_uring::start(daemon.statuses()).remove(0).spec, with_volume);
    assert_eq!(ask(Some(&with_volume), None), Reply::default());
    assert_eq!(tokio_uring::start(daemon.statuses()), []);
}

fn new_daemon() -> Rc<Daemon> {
    Daemon::new(RuntimeDir::new("/no/such/folder"))
}

fn add_mute(daemon: &Daemon, name: &str) -> impl Sized + use<> {
    let (resource, life) = Resource::mute();
    let entry = Rc::new(Entry::new(&spec(name), &daemon.run, &daemon.spare, resource, None));
    daemon.entries.borrow_mut().insert(name.into(), entry);
    life
}

fn spec(name: &str) -> ResourceSpec {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let node = |id, name: &str| NodeSpec { id: NodeId(id), name: name.into() };
    ResourceSpec {
        name: name.into(),
        node: node(0, "alpha"),
        peers: vec![node(1, "bravo")],
        paths: vec![PathSpec { peer: NodeId(1), local: address, remote: address }],
        volume: VolumeSpec {
            number: 0,
            minor: 0,
            device: PathBuf::from("/dev/drbd0"),
            disk: PathBuf::from("/no/such/disk"),
            meta_disk: None,
            size_bytes: None,
        },
        more_volumes: Vec::new(),
        undo_log: None,
        options: Options::default(),
        handlers: HandlersSpec { commands: [].into(), limit_ms: 1000, config_file: PathBuf::new() },
        resync_after: None,
        connect_interval_ms: 10_000,
        nbd_listen: None,
        block_device: BlockDeviceSpec { driver: DeviceDriver::None, away_limit_ms: 0 },
    }
}
