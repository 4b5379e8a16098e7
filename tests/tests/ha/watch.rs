//! Looks at both servers all the time: the volume is never used by two.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tandem_control::{Request, RuntimeDir, ask};
use tandem_core::state::{ConnectionState, Role};

use crate::host::Host;

const PAUSE: Duration = Duration::from_millis(5);
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// Whoever looks. It must be asked at the end.
pub(crate) struct Watch {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// The root folder of each host, as long as it is on.
    roots: Mutex<Vec<PathBuf>>,
    mounted_twice: AtomicBool,
    written_twice: AtomicBool,
    end: AtomicBool,
}

impl Watch {
    pub(crate) fn new(hosts: [&Host; 2]) -> Watch {
        let seen = Arc::new(Seen::default());
        let own = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            while !own.end.load(Ordering::Relaxed) {
                own.look();
                thread::sleep(PAUSE);
            }
        });
        let watch = Watch { seen, thread: Some(thread) };
        hosts.into_iter().for_each(|host| watch.add(host));
        watch
    }

    /// A host that was switched on.
    pub(crate) fn add(&self, host: &Host) {
        self.seen.roots.lock().unwrap().push(host.outside(""));
    }

    /// The volume was mounted on one of them at a time.
    #[track_caller]
    pub(crate) fn expect_one_mount(&self) {
        assert!(!self.seen.mounted_twice.load(Ordering::Relaxed), "mounted on both at the same time");
        self.expect_one_writer();
    }

    /// Where it was mounted on both, one could not write.
    #[track_caller]
    pub(crate) fn expect_one_writer(&self) {
        assert!(!self.seen.written_twice.load(Ordering::Relaxed), "writable on both at the same time");
    }
}

impl Seen {
    fn look(&self) {
        let roots = self.roots.lock().unwrap().clone();
        if roots.iter().filter(|root| is_mounted(root)).count() < 2 {
            return;
        }
        self.mounted_twice.store(true, Ordering::Relaxed);
        // Looked at later than the mounts: who was frozen then is frozen, or has given up.
        if roots.iter().filter(|root| writes_alone(root)).count() > 1 {
            self.written_twice.store(true, Ordering::Relaxed);
        }
    }
}

fn is_mounted(root: &Path) -> bool {
    fs::read_to_string(root.join("proc/1/mounts")).is_ok_and(|mounts| mounts.contains(" /srv/nfs "))
}

/// Whether its requests complete without anybody else's consent. Who still takes the peer for connected waits for its
/// acknowledgement of every write, and a Primary gives none.
fn writes_alone(root: &Path) -> bool {
    let socket = RuntimeDir::new(root.join("run/tandem")).control_socket();
    let status = ask(&socket, &Request::Status { resource: None }, STATUS_LIMIT);
    status.is_ok_and(|reply| {
        reply.status.iter().map(|status| &status.engine).any(|engine| {
            let is_alone = engine.peers.iter().all(|peer| peer.connection != ConnectionState::Connected);
            engine.role == Role::Primary && !engine.suspended.any() && is_alone
        })
    })
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seen.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
