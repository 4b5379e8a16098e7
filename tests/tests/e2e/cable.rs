//! Two network namespaces joined by a cable that can be cut: what lies between two hosts.
//!
//! A namespace lives as long as the process that holds it, and that one is found by the pair's folder in its
//! environment, as the daemons are: whatever becomes of the test, nothing is left behind.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::node::Outcome;
use crate::wait;

/// In each namespace.
const INTERFACE: &str = "eth0";

/// The cable. Both ends have lost it when this is dropped.
pub(crate) struct Cable {
    ends: [End; 2],
}

/// What is wrong with the cable. Ends are 0 and 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// Nothing gets through, and nobody is told.
    Silent,
    /// Nothing of this TCP port gets through; everything else does.
    Port { port: u16 },
    /// Nothing gets from this end to the other; the other way it does.
    OneWay { from: usize },
    /// The interface of this end is down, and the other end has lost its carrier.
    Down { end: usize },
}

/// One end: a namespace, held by a process.
struct End {
    holder: Child,
    address: Ipv4Addr,
}

impl Cable {
    /// A cable that works, for daemons whose folders lie in `folder`.
    pub(crate) fn new(folder: &Path) -> Cable {
        let ends = [1, 2].map(|last| End::new(folder, Ipv4Addr::new(10, 77, 0, last)));
        let other = ends[1].holder.id().to_string();
        ends[0].run(
            "ip",
            &["link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", &other],
        );
        for end in &ends {
            for address in [end.address, end.second_address()] {
                end.run("ip", &["address", "add", &format!("{address}/24"), "dev", INTERFACE]);
            }
            end.run("ip", &["link", "set", "lo", "up"]);
            end.run("ip", &["link", "set", INTERFACE, "up"]);
        }
        Cable { ends }
    }

    /// The address of an end.
    pub(crate) fn address(&self, end: usize) -> Ipv4Addr {
        self.ends[end].address
    }

    /// Another address of an end, on another network.
    pub(crate) fn second_address(&self, end: usize) -> Ipv4Addr {
        self.ends[end].second_address()
    }

    /// What a program is to be started with in order to run at this end.
    pub(crate) fn prefix(&self, end: usize) -> Vec<String> {
        self.ends[end].prefix()
    }

    /// Runs something, and the threads that it starts, at this end.
    pub(crate) fn run_at<T: Send>(&self, end: usize, what: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.ends[end].namespace()).unwrap();
        let enter = || setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter();
                    what()
                })
                .join()
                .unwrap()
        })
    }

    /// From this end to the other no more than so much gets through in a second.
    pub(crate) fn slow_down(&self, end: usize, megabits: u32) {
        let rate = format!("{megabits}mbit");
        let line = format!("qdisc add dev {INTERFACE} root tbf rate {rate} burst 32k latency 50ms");
        self.ends[end].run("tc", &line.split(' ').collect::<Vec<_>>());
    }

    /// As fast as it can again.
    pub(crate) fn speed_up(&self, end: usize) {
        self.ends[end].run("tc", &["qdisc", "del", "dev", INTERFACE, "root"]);
    }

    pub(crate) fn cut(&self, cut: Cut) {
        let dropping =
            |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; policy drop; }}\n");
        match cut {
            Cut::Silent => self.ends[0].filter(&(dropping("input") + &dropping("output"))),
            Cut::Port { port } => {
                let refusing = |hook: &str| {
                    format!(
                        "chain {hook} {{ type filter hook {hook} priority 0; tcp dport {port} drop; tcp sport {port} drop; }}\n"
                    )
                };
                self.ends[0].filter(&(refusing("input") + &refusing("output")));
            }
            Cut::OneWay { from } => self.ends[from].filter(&dropping("output")),
            Cut::Down { end } => self.ends[end].run("ip", &["link", "set", INTERFACE, "down"]),
        }
    }

    /// Everything gets through again.
    pub(crate) fn mend(&self) {
        for end in &self.ends {
            end.filter("");
            end.run("ip", &["link", "set", INTERFACE, "up"]);
        }
    }
}

impl End {
    fn new(folder: &Path, address: Ipv4Addr) -> End {
        let holder = Command::new("unshare")
            .args(["--net", "--", "sleep", "infinity"])
            .env("TANDEM_RUN_DIR", folder.join("cable"))
            .spawn()
            .unwrap_or_else(|e| panic!("unshare: {e}"));
        let end = End { holder, address };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let namespace = end.namespace();
        wait::until("the namespace is there", || std::fs::read_link(&namespace).is_ok_and(|n| n != own));
        end
    }

    fn second_address(&self) -> Ipv4Addr {
        let [a, b, c, last] = self.address.octets();
        Ipv4Addr::new(a, b + 1, c, last)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    fn prefix(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.namespace()), "--".into()]
    }

    fn command(&self, program: &str) -> Command {
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = self.command(program);
        command.args(arguments);
        Outcome::of(command).ok();
    }

    /// Makes these the only packet filters.
    fn filter(&self, chains: &str) {
        let rules = format!("flush ruleset\ntable inet cut {{\n{chains}}}\n");
        let mut nft = self.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refuses:\n{rules}");
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
