//! Listens on the network of a host to who says that it has an address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nfs_failover::net::link::Link;

use crate::host::Host;
use crate::wait;

const PAUSE: Duration = Duration::from_millis(5);

/// Whoever listens.
pub(crate) struct Listener {
    heard: Arc<Mutex<Vec<String>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a host from now on.
    pub(crate) fn start(host: &Host, address: &str) -> Listener {
        let address: IpAddr = address.parse().unwrap();
        let (heard, end) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let ready = Arc::<AtomicBool>::default();
        let (own_heard, own_end, own_ready) = (Arc::clone(&heard), Arc::clone(&end), Arc::clone(&ready));
        let thread = host.network().spawn(move || {
            let link = Link::open("eth0", address).unwrap();
            own_ready.store(true, Ordering::Release);
            while !own_end.load(Ordering::Acquire) {
                while let Some(mac) = link.other_owner(address).unwrap() {
                    let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                    own_heard.lock().unwrap().push(mac.join(":"));
                }
                thread::sleep(PAUSE);
            }
        });
        wait::until("it listens", || ready.load(Ordering::Acquire));
        Listener { heard, end, thread: Some(thread) }
    }

    /// Waits until a host has said that the address is there.
    #[track_caller]
    pub(crate) fn expect(&self, host: &Host) {
        wait::until("the address is announced", || self.heard.lock().unwrap().contains(&host.mac));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has said all it has to say.
            let _ = thread.join();
        }
    }
}
