//! The whole service on a made-up volume: wishes by file and socket, the peer, health.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tandem_control::RuntimeDir;

use super::*;
use crate::carry_out::Way;
use crate::config::Config;
use crate::health::Phase;
use crate::peer::{Ask, Peer};
use crate::plan::Cancel;

const LIMIT: Duration = Duration::from_secs(10);

/// A volume on which every move succeeds at once, except a promotion that is told to wait.
#[derive(Default)]
struct Volume {
    up: AtomicBool,
    moves: Mutex<Vec<&'static str>>,
    is_slow: AtomicBool,
    is_stuck: AtomicBool,
    /// Getting ready takes until this is false.
    is_busy: AtomicBool,
}

impl Mover for Arc<Volume> {
    fn run(&self, which: Way, cancel: &Cancel) -> Outcome {
        let name = match which {
            Way::Promote => "promote",
            Way::Demote => "demote",
        };
        self.moves.lock().unwrap().push(name);
        while which == Way::Promote && self.is_slow.load(Ordering::Acquire) {
            if cancel.is_set() {
                return Outcome::Cancelled;
            }
            std::thread::yield_now();
        }
        if which == Way::Demote && self.is_stuck.load(Ordering::Acquire) {
            return Outcome::Stuck("somebody sits on it".into());
        }
        self.up.store(which == Way::Promote, Ordering::Release);
        Outcome::Done
    }

    fn found(&self) -> Found {
        if self.up.load(Ordering::Acquire) { Found::Up } else { Found::Down }
    }

    fn prepare(&self) {
        while self.is_busy.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn server_answers(&self) -> bool {
        true
    }

    fn yield_role(&self) {
        self.moves.lock().unwrap().push("yield");
    }

    fn kill_server(&self) {
        self.moves.lock().unwrap().push("kill");
    }
}

/// One machine with a service. There is no tandemd: what needs it says so.
struct Machine {
    run: PathBuf,
    config: Config,
    volume: Arc<Volume>,
    served: Option<Served>,
}

impl Machine {
    fn new(name: &str) -> Machine {
        let run = std::env::temp_dir().join(format!("tandem-service-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&run);
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; state /srv/nfs/.state; \
                    vip 10.0.0.100/24 dev eth0; health 127.0.0.1:8008; peer 127.0.0.1:7790; \
                    shared-secret \"quiet one\"; decider keepalived; }";
        let mut config = Config::parse("nfs-failover.conf".as_ref(), text).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        (config.services[0].health, config.services[0].peers) = (Some(any), vec![any]);
        let mut machine = Machine { run, config, volume: Arc::default(), served: None };
        machine.start();
        machine
    }

    fn start(&mut self) {
        let volume = Arc::clone(&self.volume);
        let mover = move |_: &crate::config::Service| Arc::new(Arc::clone(&volume)) as Arc<dyn Mover>;
        let tandem = RuntimeDir::new(self.run.join("no-tandemd"));
        self.served = Some(serve(&self.config, tandem, &self.run, mover).unwrap());
    }

    fn wish(&self, wish: Wish) {
        assert_eq!(leave_wish(&self.run, "nfs", wish).unwrap(), Ring::Heard);
    }

    fn wait_for(&self, phase: Phase) {
        let end = Instant::now() + LIMIT;
        while views(&self.run).unwrap().unwrap()[0].phase != phase {
            assert!(Instant::now() < end, "{:?}, not {phase:?}", views(&self.run));
            std::thread::yield_now();
        }
    }

    fn moves(&self) -> Vec<&'static str> {
        self.volume.moves.lock().unwrap().clone()
    }

    fn track_file(&self) -> String {
        std::fs::read_to_string(self.run.join("nfs.track")).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.run);
    }
}

#[test]
fn wishes_are_answered_at_once_and_the_newest_is_granted() {
    let machine = Machine::new("wishes");
    machine.volume.is_slow.store(true, Ordering::Release);
    machine.wish(Wish::Up);
    machine.wait_for(Phase::Promoting);
    machine.wish(Wish::Down);
    machine.wait_for(Phase::Down);
    machine.volume.is_slow.store(false, Ordering::Release);
    machine.wish(Wish::Up);
    machine.wait_for(Phase::Up);
    machine.wish(Wish::Up);
    machine.wish(Wish::Down);
    machine.wait_for(Phase::Down);
    assert_eq!(machine.moves(), ["promote", "promote", "demote"]);
    assert!(matches!(leave_wish(&machine.run, "other", Wish::Up), Err(WishError::Refused(_))));
}

#[test]
fn a_wish_that_was_left_while_nobody_was_there_is_found() {
    let machine = Machine::new("away");
    let other = machine.run.join("other");
    assert_eq!(leave_wish(&other, "nfs", Wish::Down).unwrap(), Ring::Away);
    assert_eq!(leave_wish(&other, "nfs", Wish::Up).unwrap(), Ring::Away);
    let second = Machine { run: other, config: machine.config.clone(), volume: Arc::default(), served: None };
    let mut config = second.config.clone();
    config.services[0].peers.clear();
    let volume = Arc::clone(&second.volume);
    let mover = move |_: &crate::config::Service| Arc::new(Arc::clone(&volume)) as Arc<dyn Mover>;
    let _served = serve(&config, RuntimeDir::new("/nonexistent"), &second.run, mover).unwrap();
    second.wait_for(Phase::Up);
    assert_eq!(second.moves(), ["promote"]);
    assert!(matches!(
        serve(&config, RuntimeDir::new("/nonexistent"), &second.run, |_| unreachable!()),
        Err(ServeError::Running(_))
    ));
}

#[test]
fn the_operator_waits_for_the_end() {
    let machine = Machine::new("operator");
    let up = change(&machine.run, "nfs", Wish::Up, LIMIT).unwrap().unwrap();
    assert_eq!((up.phase, up.trouble), (Phase::Up, None));
    machine.volume.is_stuck.store(true, Ordering::Release);
    let stuck = change(&machine.run, "nfs", Wish::Down, LIMIT).unwrap().unwrap();
    assert_eq!(stuck.must_fence.as_deref(), Some("somebody sits on it"));
    assert_eq!(machine.track_file(), "-254\n");
    machine.volume.is_stuck.store(false, Ordering::Release);
    assert!(clear(&machine.run, "nfs").unwrap());
    machine.wait_for(Phase::Down);
    let cleared = &views(&machine.run).unwrap().unwrap()[0];
    assert_eq!(cleared.must_fence, None);
    assert_eq!(machine.track_file(), "0\n");
    assert_eq!(change(std::path::Path::new("/nonexistent"), "nfs", Wish::Up, LIMIT).unwrap(), None);
}

#[test]
fn who_has_lost_its_data_to_the_peer_steps_down_and_stays_down() {
    let machine = Machine::new("lost");
    machine.wish(Wish::Up);
    machine.wait_for(Phase::Up);
    assert!(lost(&machine.run, "r0", "the witness says no").unwrap());
    machine.wait_for(Phase::Down);
    let view = &views(&machine.run).unwrap().unwrap()[0];
    assert_eq!((view.wish, view.trouble.as_deref()), (None, Some("the witness says no")));
    assert_eq!((machine.moves(), machine.track_file().as_str()), (vec!["promote", "demote"], "-254\n"));
    // A service that is started anew does not grant it again.
    let mailbox = mailbox::Mailbox::new(&machine.run, "nfs");
    assert_eq!(mailbox.newest().unwrap(), None);
    assert!(lost(&machine.run, "r1", "not ours").unwrap());
    assert!(!lost(std::path::Path::new("/nonexistent"), "r0", "nobody").unwrap());
}

#[test]
fn an_elected_peer_is_given_way_and_the_operator_may_send_the_service_over() {
    let machine = Machine::new("peer");
    // The conversation is with oneself.
    let service = &machine.config.services[0];
    let own = machine.served.as_ref().unwrap().peers[0].1;
    let secret = service.shared_secret.clone().unwrap();
    let channel = crate::channel::Channel::connect(own, &secret, "peer nfs", LIMIT).unwrap();
    let mut peer = Peer::over(channel);
    let state = peer.ask(Ask::State).unwrap();
    assert!(state.is_down() && state.replica.is_none());
    peer.ask(Ask::PromotePlease).unwrap();
    machine.wait_for(Phase::Up);
    assert!(!peer.ask(Ask::DemotePlease).unwrap().is_down() || peer.ask(Ask::State).unwrap().is_down());
    machine.wait_for(Phase::Down);
    assert!(peer.ask(Ask::State).unwrap().is_down());
    assert_eq!(machine.moves(), ["promote", "demote"]);
    // What is down may still be Primary, if tandemd was started anew.
    peer.ask(Ask::DemotePlease).unwrap();
    assert_eq!(machine.moves(), ["promote", "demote", "yield"]);
    assert!(Peer::connect(service, LIMIT).is_err(), "nobody is one's own peer");
}

#[test]
fn what_went_wrong_before_the_operators_wish_says_nothing_about_it() {
    let machine = Machine::new("stale");
    machine.wish(Wish::Up);
    machine.wait_for(Phase::Up);
    machine.volume.is_busy.store(true, Ordering::Release);
    assert!(lost(&machine.run, "r0", "the disk is Failed").unwrap());
    machine.wait_for(Phase::Down);
    let trouble = || views(&machine.run).unwrap().unwrap()[0].trouble.clone();
    assert_eq!(trouble().as_deref(), Some("the disk is Failed"));
    // It gets ready, and has not heard of the wish.
    let run = machine.run.clone();
    let asking = std::thread::spawn(move || change(&run, "nfs", Wish::Up, LIMIT));
    let end = Instant::now() + LIMIT;
    while trouble().is_some() {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    assert_eq!(views(&machine.run).unwrap().unwrap()[0].phase, Phase::Down);
    machine.volume.is_busy.store(false, Ordering::Release);
    let view = asking.join().unwrap().unwrap().unwrap();
    assert_eq!((view.phase, view.trouble), (Phase::Up, None));
}

#[test]
fn health_says_why_not() {
    let machine = Machine::new("health");
    let (_, address) = machine.served.as_ref().unwrap().health[0].clone();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    };
    let end = Instant::now() + LIMIT;
    while !ask("/primary").contains("tandemd is not running") {
        assert!(Instant::now() < end, "{}", ask("/primary"));
    }
    assert!(ask("/primary").starts_with("HTTP/1.1 503 "));
    let metrics = ask("/metrics");
    for line in ["tandem_daemon_up 0", "nfs_failover_up{service=\"nfs\",resource=\"r0\"} 0"] {
        assert!(metrics.lines().any(|l| l == line), "{metrics}");
    }
}
