//! Telling whoever elects that this node should, or should not, be elected.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_control::output::errln;

use super::Word;
use crate::config::{Decider, Service};
use crate::system::pacemaker::Instance;

/// What keepalived adds to the priority of an instance that must not be elected: FAULT.
const FAULT: &str = "-254\n";
const NO_FAULT: &str = "0\n";

/// What has UCARP step back; to one that has only just been started, it would be the end.
const STEP_BACK: Signal = Signal::SIGUSR2;

/// How a service's elector is told.
#[derive(Clone, Debug)]
pub(crate) struct Telling {
    service: String,
    decider: Decider,
    addresses: Vec<String>,
    track_file: PathBuf,
    lives: Arc<AtomicU64>,
}

impl Telling {
    /// `run` is the service's folder.
    pub(crate) fn new(service: &Service, run: &Path) -> Telling {
        Telling {
            service: service.name.clone(),
            decider: service.decider,
            addresses: addresses(service),
            track_file: run.join(format!("{}.track", service.name)),
            lives: Arc::default(),
        }
    }

    /// The service is promoted: what was wrong with it before is of no interest any more.
    pub(crate) fn begins_anew(&self) {
        self.lives.fetch_add(1, Ordering::SeqCst);
    }

    /// Tells it, of a service that was up or not. HAProxy finds out by the health endpoint.
    pub(crate) fn tell(&self, word: &Word, was_up: bool) -> io::Result<()> {
        match (self.decider, word) {
            (Decider::Ucarp, Word::Unfit(_)) => {
                let ucarps = processes("ucarp")?.into_iter().filter(|one| is_ours(one, &self.addresses));
                for Process { pid, .. } in ucarps.filter(|one| catches(&one.status(), STEP_BACK)) {
                    // It steps back, runs its down script, and listens for 3 s before it competes again.
                    let _ = kill(pid, STEP_BACK);
                }
                Ok(())
            }
            (Decider::Keepalived, Word::Unfit(_)) => fs::write(&self.track_file, FAULT),
            (Decider::Keepalived, Word::Fit) => fs::write(&self.track_file, NO_FAULT),
            // How a promotion has ended, its agent says itself.
            (Decider::Pacemaker, Word::Unfit(_)) if was_up => {
                let service = self.service.clone();
                let still_lives = self.this_life();
                // Nothing waits for the cluster, least of all the demotion.
                thread::spawn(move || {
                    if let Err(error) = report(|| Instance::of(&service), still_lives, Instance::has_failed) {
                        errln!("{service}: the cluster finds out by its monitor: {error}");
                    }
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Tells, whenever it is asked, whether the service is still the one that it is now.
    fn this_life(&self) -> impl Fn() -> bool + use<> {
        let (lives, this) = (Arc::clone(&self.lives), self.lives.load(Ordering::SeqCst));
        move || lives.load(Ordering::SeqCst) == this
    }
}

/// Has the instance fail, once it is found. The cluster takes its time to answer: by then it may have seen for itself, and have had
/// the service promoted again.
fn report<I>(
    find: impl FnOnce() -> Result<I, String>,
    still_lives: impl Fn() -> bool,
    fail: impl FnOnce(I) -> Result<(), String>,
) -> Result<(), String> {
    let instance = find()?;
    if still_lives() { fail(instance) } else { Ok(()) }
}

/// What is amiss if the one who is to elect a service does not run on this node.
pub(crate) fn missing(service: &Service) -> Option<String> {
    let addresses = addresses(service);
    let (name, hint) = match service.decider {
        Decider::None => return None,
        Decider::Ucarp => ("ucarp", "systemctl enable --now ucarp@NAME"),
        Decider::Keepalived => ("keepalived", "systemctl enable --now keepalived"),
        Decider::Pacemaker => ("pacemakerd", "systemctl enable --now pacemaker"),
    };
    let is_there = |found: &[Process]| {
        found.iter().any(|one| service.decider != Decider::Ucarp || is_ours(one, &addresses))
    };
    match processes(name) {
        Ok(found) if !is_there(&found) => Some(format!(
            "no {name} for {} runs here, which `decider` says elects it: {hint}, or `decider none;` on both nodes",
            addresses.join(" and ")
        )),
        _ => None,
    }
}

fn addresses(service: &Service) -> Vec<String> {
    service.vips.iter().map(|vip| vip.address.to_string()).collect()
}

/// A process of a decider.
#[derive(Debug, PartialEq)]
struct Process {
    pid: Pid,
    folder: PathBuf,
}

impl Process {
    fn status(&self) -> String {
        fs::read_to_string(self.folder.join("status")).unwrap_or_default()
    }
}

/// Whether a process has one of these addresses on its command line.
fn is_ours(process: &Process, addresses: &[String]) -> bool {
    names_one(&fs::read(process.folder.join("cmdline")).unwrap_or_default(), addresses)
}

/// Processes of this name that live in this network.
fn processes(name: &str) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    let network = fs::read_link("/proc/thread-self/ns/net")?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let is_near = || fs::read_link(entry.path().join("ns/net")).is_ok_and(|other| other == network);
        if comm.trim_end() == name && is_near() {
            found.push(Process { pid: Pid::from_raw(pid), folder: entry.path() });
        }
    }
    Ok(found)
}

/// Whether a process, by its `/proc/PID/status`, has a handler for a signal.
fn catches(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}

/// As a word of its own, or behind `--addr=` or `-a`.
fn names_one(command_line: &[u8], addresses: &[String]) -> bool {
    let mut words = command_line.split(|b| *b == 0).map(String::from_utf8_lossy);
    words.any(|word| {
        let value = word.strip_prefix("--addr=").or_else(|| word.strip_prefix("-a")).unwrap_or(&word);
        addresses.iter().any(|address| address == value)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_service_that_was_promoted_since_is_not_failed() {
        let config = "service nfs { resource r0; mount /srv; server none; vip 10.0.0.100/24 dev eth0; }";
        let config = crate::config::Config::parse(Path::new("test"), config).unwrap();
        let telling = Telling::new(&config.services[0], Path::new("/run"));
        let fails = |meanwhile: fn(&Telling)| {
            let has_failed = Cell::new(false);
            let find = || {
                meanwhile(&telling);
                Ok(())
            };
            let fail = |()| {
                has_failed.set(true);
                Ok(())
            };
            report(find, telling.this_life(), fail).unwrap();
            has_failed.get()
        };
        assert!(fails(|_| ()) && !fails(Telling::begins_anew) && fails(|_| ()));
    }

    #[test]
    fn the_ucarp_of_this_address_is_found() {
        let addresses = ["10.0.0.100".to_owned()];
        for (line, is_ours) in [
            (&b"/usr/sbin/ucarp\0-i\0eth0\0-a\x0010.0.0.100\0"[..], true),
            (b"ucarp\0--addr=10.0.0.100\0", true),
            (b"ucarp\0-a10.0.0.100\0", true),
            (b"ucarp\0--addr=10.0.0.10\0", false),
            (b"ucarp\0--addr=10.0.0.1001\0", false),
            (b"", false),
        ] {
            assert_eq!(names_one(line, &addresses), is_ours, "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(processes("no-such-program").unwrap(), []);
    }

    #[test]
    fn a_decider_that_does_not_run_is_missed() {
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; state /srv/nfs/.state; \
                    vip 203.0.113.7/24 dev eth0; }";
        let mut service =
            crate::config::Config::parse("nfs.conf".as_ref(), text).unwrap().services[0].clone();
        assert_eq!(missing(&service), None, "nobody was to elect it");
        service.decider = Decider::Ucarp;
        assert!(missing(&service).unwrap().starts_with("no ucarp for 203.0.113.7 runs here"));
    }

    #[test]
    fn who_would_be_killed_is_not_told() {
        // SIGUSR2 is signal 12.
        for (status, does) in [
            ("Name:\tucarp\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000800\n", true),
            ("SigCgt:\t00000001c0014a03\n", true),
            ("SigIgn:\t0000000000000800\nSigCgt:\t0000000000000400\n", false),
            ("SigCgt:\t0000000000000000\n", false),
            ("", false),
        ] {
            assert_eq!(catches(status, STEP_BACK), does, "{status}");
        }
    }
}
