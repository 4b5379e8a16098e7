//! Two nodes on this machine, and the commands that are typed on them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::{Result, run_command, shown, stdout};
use crate::repo;
use crate::sandbox::kill_and_wait;

/// The only resource.
pub(super) const RESOURCE: &str = "r0";
/// Where the search for a free port begins: below the range that the kernel hands out by itself.
const FIRST_PORT: u16 = 7789;

/// How long anything may take that happens by itself.
const LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// alpha and bravo, and the file that describes them.
pub(super) struct Pair {
    pub(super) config: PathBuf,
    pub(super) alpha: Node,
    pub(super) bravo: Node,
}

/// One node: a name, an address, a runtime folder and a disk.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) run_dir: PathBuf,
    pub(super) disk: PathBuf,
    /// The folder of the programs under show.
    pub(super) programs: PathBuf,
    config: PathBuf,
    address: IpAddr,
}

impl Pair {
    /// Writes the configuration and makes both disks; nothing runs yet.
    pub(super) fn new(folder: &Path, disk_bytes: u64) -> Result<Pair> {
        let config = folder.join("r0.res");
        let programs = repo::release_dir()?;
        let node = |name, last| -> Result<Node> {
            let disk = folder.join(name).with_extension("img");
            fs::File::create(&disk)?.set_len(disk_bytes)?;
            let address = Ipv4Addr::new(127, 0, 0, last).into();
            let run_dir = folder.join(name);
            Ok(Node { name, run_dir, disk, programs: programs.clone(), config: config.clone(), address })
        };
        let (alpha, bravo) = (node("alpha", 1)?, node("bravo", 2)?);
        let port = free_port(&[alpha.address, bravo.address])?;
        let on = |node: &Node| {
            format!(
                "  on {} {{\n    device    /dev/drbd0;\n    disk      {};\n    address   {}:{port};\n    meta-disk internal;\n  }}\n",
                node.name,
                node.disk.display(),
                node.address
            )
        };
        fs::write(
            &config,
            format!(
                // Both nodes share /dev.
                "global {{ device-driver none; }}\nresource {RESOURCE} {{\n  protocol C;\n{}{}}}\n",
                on(&alpha),
                on(&bravo)
            ),
        )?;
        Ok(Pair { config, alpha, bravo })
    }

    /// Both.
    pub(super) fn nodes(&self) -> [&Node; 2] {
        [&self.alpha, &self.bravo]
    }
}

impl Node {
    /// Types `tandemadm ARGS` on this node; its output goes to the terminal.
    pub(super) fn adm(&self, args: &[&str]) -> Result<()> {
        self.shell(&mut self.adm_command(args))
    }

    /// `tandemadm ARGS` as this node.
    pub(super) fn adm_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("tandemadm"));
        command.arg("-c").arg(&self.config).args(args);
        command.env("TANDEM_NODE", self.name).env("TANDEM_RUN_DIR", &self.run_dir);
        command
    }

    /// Waits until `tandemadm ARGS` prints what is wanted.
    pub(super) fn wait_until(&self, what: &str, args: &[&str], wanted: impl Fn(&str) -> bool) -> Result<()> {
        let start = Instant::now();
        while !wanted(stdout(&mut self.adm_command(args))?.trim()) {
            if start.elapsed() > LIMIT {
                return Err(format!("{}: not within {} s: {what}", self.name, LIMIT.as_secs()).into());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Shows a command with this node's prompt, and runs it.
    pub(super) fn shell(&self, command: &mut Command) -> Result<()> {
        println!("[{}]$ {}", self.name, shown(command));
        run_command(command)
    }

    /// kill -9 of the daemon.
    pub(super) fn kill(&self) -> Result<()> {
        let pid_file = self.run_dir.join("tandemd.pid");
        let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
        println!("[{}]$ kill -9 {pid}", self.name);
        kill_and_wait(Pid::from_raw(pid))
    }

    /// The resource as NBD clients on this node see it.
    pub(super) fn uri(&self) -> String {
        format!("nbd+unix:///{RESOURCE}?socket={}/nbd.sock", self.run_dir.display())
    }

    /// What makes a command speak of this node.
    pub(super) fn environment(&self) -> String {
        format!("TANDEM_NODE={} TANDEM_RUN_DIR={}", self.name, self.run_dir.display())
    }
}

/// A port that is free on every one of the addresses.
fn free_port(addresses: &[IpAddr]) -> Result<u16> {
    let free = |port: &u16| addresses.iter().all(|address| TcpListener::bind((*address, *port)).is_ok());
    Ok((FIRST_PORT..FIRST_PORT + 1000).find(free).ok_or("no free port from 7789 on")?)
}
