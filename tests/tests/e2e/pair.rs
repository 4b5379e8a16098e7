//! Two nodes on loopback with one resource, in a folder that takes everything along when it is dropped.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkdtemp};
use tandem_control::RuntimeDir;
use tandem_core::config::Protocol;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};

use crate::cable::Cable;
use crate::node::{Node, RESOURCE};
use crate::wait;

/// How a pair is made.
pub(crate) struct Setup {
    pub(crate) protocol: Protocol,
    /// Size of each node's disk file; a pair of sizes makes unequal disks.
    pub(crate) disk_bytes: [u64; 2],
    /// Where alpha's disk is, if not a file in the pair's folder.
    pub(crate) alpha_disk: Option<PathBuf>,
    /// A volume 1 beside volume 0, with files of these sizes.
    pub(crate) second_disk_bytes: Option<[u64; 2]>,
    /// Where alpha's disk for volume 1 is, if not a file in the pair's folder.
    pub(crate) alpha_second_disk: Option<PathBuf>,
    /// Statements for `net { }`.
    pub(crate) net: &'static str,
    /// More of what stands in the resource.
    pub(crate) statements: String,
    /// Each node's device and what makes it; without, both share /dev and have none.
    pub(crate) devices: Option<[PathBuf; 2]>,
    /// Each node in a network namespace of its own, with a cable between them, instead of both on loopback.
    pub(crate) own_networks: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            protocol: Protocol::C,
            disk_bytes: [32 << 20; 2],
            alpha_disk: None,
            second_disk_bytes: None,
            alpha_second_disk: None,
            net: "",
            statements: String::new(),
            devices: None,
            own_networks: false,
        }
    }
}

/// alpha on 127.0.0.1 and bravo on 127.0.0.2, or each at its end of a cable.
pub(crate) struct Pair {
    pub(crate) alpha: Node,
    pub(crate) bravo: Node,
    cable: Option<Cable>,
    folder: PathBuf,
}

impl Pair {
    /// The configuration and the disks; no metadata, nothing runs.
    pub(crate) fn new(setup: Setup) -> Pair {
        let folder = mkdtemp(&std::env::temp_dir().join("tandem-e2e-XXXXXX")).unwrap();
        let config = folder.join("r0.res");
        let cable = setup.own_networks.then(|| Cable::new(&folder));
        let port = free_port();
        let node = |name, end: usize, disk: PathBuf| Node {
            name,
            address: match &cable {
                Some(cable) => (cable.address(end), port).into(),
                None => (Ipv4Addr::new(127, 0, 0, end as u8 + 1), port).into(),
            },
            prefix: cable.as_ref().map_or(Vec::new(), |cable| cable.prefix(end)),
            run: RuntimeDir::new(folder.join(name)),
            disk,
            second_disk: None,
            config: config.clone(),
        };
        let own_file = |name: &str, bytes| {
            let path = folder.join(name);
            File::create(&path).unwrap().set_len(bytes).unwrap();
            path
        };
        let alpha_disk = setup.alpha_disk.unwrap_or_else(|| own_file("alpha.img", setup.disk_bytes[0]));
        let mut alpha = node("alpha", 0, alpha_disk);
        let mut bravo = node("bravo", 1, own_file("bravo.img", setup.disk_bytes[1]));
        if let Some(bytes) = setup.second_disk_bytes {
            let alpha_disk = setup.alpha_second_disk.unwrap_or_else(|| own_file("alpha-1.img", bytes[0]));
            alpha.second_disk = Some(alpha_disk);
            bravo.second_disk = Some(own_file("bravo-1.img", bytes[1]));
        }
        let driver = if setup.devices.is_some() { "auto" } else { "none" };
        let devices = setup.devices.unwrap_or(["/dev/drbd0", "/dev/drbd0"].map(PathBuf::from));
        let mut text = format!("global {{ device-driver {driver}; }}\n");
        writeln!(text, "resource {RESOURCE} {{\n  protocol {};", setup.protocol.letter()).unwrap();
        writeln!(text, "  net {{ {} }}\n  {}", setup.net, setup.statements).unwrap();
        for (node, device) in [&alpha, &bravo].into_iter().zip(devices) {
            let (name, address, device, disk) =
                (node.name, node.address, device.display(), node.disk.display());
            let first = format!("device {device} minor 0; disk {disk}; meta-disk internal;");
            let volumes = match &node.second_disk {
                None => first,
                Some(second) => format!(
                    "volume 0 {{ {first} }}\n    volume 1 {{ device {device}-1 minor 1; disk {}; meta-disk internal; }}",
                    second.display()
                ),
            };
            writeln!(text, "  on {name} {{ {volumes} address {address}; }}").unwrap();
        }
        text.push_str("}\n");
        fs::write(&config, text).unwrap();
        Pair { alpha, bravo, cable, folder }
    }

    /// Both nodes up, alpha Primary, both disks UpToDate.
    pub(crate) fn synced(setup: Setup) -> Pair {
        let pair = Pair::new(setup);
        pair.bring_up();
        pair
    }

    /// Both nodes up for the first time, alpha Primary, both disks UpToDate.
    pub(crate) fn bring_up(&self) {
        self.create_md();
        self.alpha.adm(&["up", RESOURCE]).ok();
        self.bravo.adm(&["up", RESOURCE]).ok();
        self.alpha.adm(&["primary", "--force", RESOURCE]).ok();
        self.wait_healed();
    }

    /// Both daemons are killed before either comes back from its disk alone.
    pub(crate) fn restart(&self) {
        for node in self.nodes() {
            node.kill();
        }
        for node in self.nodes() {
            node.adm(&["up", RESOURCE]).ok();
        }
        self.wait_healed();
    }

    pub(crate) fn create_md(&self) {
        for node in self.nodes() {
            node.adm(&["create-md", RESOURCE]).ok();
        }
    }

    pub(crate) fn nodes(&self) -> [&Node; 2] {
        [&self.alpha, &self.bravo]
    }

    /// The one that is not this one.
    pub(crate) fn other(&self, node: &Node) -> &Node {
        if node.name == self.alpha.name { &self.bravo } else { &self.alpha }
    }

    /// What joins the nodes, if they have networks of their own.
    pub(crate) fn cable(&self) -> &Cable {
        self.cable.as_ref().expect("the nodes have networks of their own")
    }

    /// The folder that goes with the pair.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until both nodes see each other, both disks are UpToDate and no block is out of sync.
    pub(crate) fn wait_healed(&self) {
        wait::until("both nodes are connected and UpToDate", || self.is_healed());
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.nodes().iter().all(|node| {
            node.status().is_some_and(|status| {
                status.disk == DiskState::UpToDate
                    && status.peers.iter().all(|peer| {
                        peer.connection == ConnectionState::Connected
                            && peer.replication == ReplicationState::Established
                            && peer.disk == DiskState::UpToDate
                            && peer.out_of_sync_bytes == 0
                    })
            })
        })
    }

    /// Every byte of the device is the same on both disks. Nobody may be writing.
    #[track_caller]
    pub(crate) fn assert_identical(&self) {
        for (number, bytes) in self.alpha.volume_sizes().into_iter().enumerate() {
            self.assert_volume_identical(number, bytes);
        }
    }

    #[track_caller]
    fn assert_volume_identical(&self, number: usize, bytes: u64) {
        assert!(bytes > 0, "the device has no size");
        let (a, b) = (self.alpha.bytes_of(number, bytes), self.bravo.bytes_of(number, bytes));
        let different: Vec<usize> = a
            .chunks(4096)
            .zip(b.chunks(4096))
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(i, _)| i)
            .collect();
        assert!(
            different.is_empty(),
            "{} blocks of volume {number} differ, among them {:?}",
            different.len(),
            &different[..different.len().min(8)]
        );
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in self.nodes() {
                println!("--- {}: {:#?}", node.name, node.adm(&["status", RESOURCE]).stdout);
                let log = node.log();
                let lines: Vec<&str> = log.lines().collect();
                println!("--- end of its log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
            }
        }
        for pid in self.inhabitants() {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
        }
        if std::env::var_os("TANDEM_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Pair {
    /// Processes that were started with a runtime folder in the pair's folder.
    fn inhabitants(&self) -> Vec<Pid> {
        let wanted = format!("TANDEM_RUN_DIR={}/", self.folder.display());
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|p| p.file_name().to_str()?.parse().ok());
        let lives_here = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|variable| variable.starts_with(wanted.as_bytes()))
        };
        pids.filter(lives_here).map(Pid::from_raw).collect()
    }
}

/// A port free on both addresses, below the range from which the kernel takes ports by itself, never given twice.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 17000 + (std::process::id() % 1000) as u16 * 10;
    let free = |port: u16| {
        let addresses: [IpAddr; 2] = [Ipv4Addr::new(127, 0, 0, 1).into(), Ipv4Addr::new(127, 0, 0, 2).into()];
        addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok())
    };
    (0..1000).map(|_| start + NEXT.fetch_add(1, Ordering::Relaxed)).find(|port| free(*port)).unwrap()
}
