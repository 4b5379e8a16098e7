//! A host without a virtual machine: network, mount, process, host-name and IPC namespaces of its own, `/run`, `/srv`, `/dev`
//! and what daemons keep under `/var` of its own. Its disk is a folder that outlives it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, stat};
use nix::unistd::Pid;

use crate::outcome::Outcome;
use crate::switch::{Port, Switch};
use crate::wait;

/// What is a host's own, and is empty when it is switched on.
const EMPTY: &[&str] = &["/run", "/srv", "/dev/shm", "/mnt"];
/// What is a host's own, and stays on its disk.
const KEPT: &[&str] = &["/var/lib/nfs", "/var/lib/tandem", "/var/log"];
const DEVICES: &[&str] =
    &["null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse", "loop-control"];
/// Loop devices, which all hosts share with the machine, each by its number.
const LOOP_MAJOR: u64 = 7;
const LOOPS: u64 = 256;

/// A host.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    /// Its addresses on the switch.
    pub(crate) address: String,
    pub(crate) address6: String,
    pub(crate) mac: String,
    /// Its disk; seen under the same path by itself.
    pub(crate) folder: PathBuf,
    power: Option<Power>,
}

/// What there is of a host while it is switched on.
struct Power {
    holder: Child,
    /// Its first process; everything on the host goes with it.
    init: i32,
    port: Port,
}

impl Host {
    /// A host that is switched off; its addresses end with this number.
    pub(crate) fn new(folder: &Path, name: &'static str, last: u8) -> Host {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        for kept in KEPT {
            let own = folder.join(&kept[1..]);
            fs::create_dir_all(&own).unwrap();
        }
        make_devices(&folder.join("dev"));
        Host {
            name,
            address: format!("10.99.0.{last}"),
            address6: format!("fd00:99::{last}"),
            mac: format!("02:00:00:00:00:{last:02x}"),
            folder,
            power: None,
        }
    }

    /// Switches it on and connects it.
    pub(crate) fn power_on(&mut self, switch: &Switch) {
        assert!(!self.is_on(), "{} is on", self.name);
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--", "bash", "-c", &self.init_script()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // By this, whoever cleans up after an interrupted run finds it.
            .env("TANDEM_RUN_DIR", self.folder.join("power"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(File::create(self.folder.join("console.log")).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("unshare: {e}"));
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let mut init = 0;
        wait::until("the host is on", || {
            init = fs::read_to_string(&children).ok().and_then(|pids| pids.trim().parse().ok()).unwrap_or(0);
            init != 0 && Path::new(&format!("/proc/{init}/root/run/ready")).exists()
        });
        let port = switch.connect(init, &self.mac);
        self.power = Some(Power { holder, init, port });
        for line in [
            "link set lo up",
            &format!("address add {}/24 dev eth0", self.address),
            &format!("address add {}/64 dev eth0 nodad", self.address6),
            "link set eth0 up",
        ] {
            self.run("ip", &line.split(' ').collect::<Vec<_>>()).ok();
        }
    }

    /// Everything on it ends at once, and nothing of that is seen on the network.
    pub(crate) fn power_off(&mut self, switch: &Switch) {
        self.cord().cut(switch);
        drop(self.power.take());
    }

    /// Whether it is switched on: others may have cut its power.
    pub(crate) fn is_on(&self) -> bool {
        self.power.is_some() && self.cord().is_on()
    }

    /// Runs a program on it to its end.
    pub(crate) fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Outcome {
        let mut command = self.command(program);
        command.args(arguments);
        Outcome::of(command)
    }

    /// Sends a signal to the oldest process of this name on it.
    pub(crate) fn signal(&self, name: &str, signal: &str) {
        let pid = self.run("pgrep", &["-o", "-x", name]).ok().stdout;
        self.run("kill", &["-s", signal, pid.trim()]).ok();
    }

    /// A path of its own, as seen from outside; it leads nowhere once it is switched off.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.power().init))
    }

    /// Its network.
    pub(crate) fn network(&self) -> Network {
        Network(self.outside("/proc/1/ns/net"))
    }

    /// Where it is connected.
    pub(crate) fn port(&self) -> &Port {
        &self.power().port
    }

    /// What it takes to cut its power, as long as it is not switched on anew.
    pub(crate) fn cord(&self) -> Cord {
        let Power { init, port, .. } = self.power();
        Cord { init: *init, port: port.clone() }
    }

    /// A program on it, as its own first process would start it.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.power().init.to_string();
        command.args(["--target", &target, "--mount", "--uts", "--ipc", "--net", "--pid", "--"]);
        command.arg(program.as_ref()).current_dir("/").stdin(Stdio::null());
        command.env_remove("TANDEM_NODE").env_remove("TANDEM_RUN_DIR");
        command
    }

    fn power(&self) -> &Power {
        self.power.as_ref().unwrap_or_else(|| panic!("{} is off", self.name))
    }

    fn init_script(&self) -> String {
        let folder = self.folder.display();
        let mut script = format!("set -e; hostname {}; mount --bind {folder}/dev /dev\n", self.name);
        for empty in EMPTY {
            script += &format!("mount -t tmpfs tmpfs {empty}\n");
        }
        for kept in KEPT {
            script += &format!("mkdir -p {kept}; mount --bind {folder}{kept} {kept}\n");
        }
        // It reaps those whose parents have gone.
        script
            + "mkdir /run/lock /run/rpcbind; touch /run/ready; set +e; while :; do sleep 3600 & wait; done\n"
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.init), Signal::SIGKILL);
        let _ = self.holder.wait();
    }
}

/// The network of a host, which threads of the tests may enter.
pub(crate) struct Network(PathBuf);

impl Network {
    /// Does something on it.
    pub(crate) fn run<T: Send + 'static>(&self, does: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(does).join().unwrap()
    }

    /// A thread that is on it from its beginning.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        does: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = File::open(&self.0).unwrap();
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            does()
        })
    }
}

/// What a host is switched off by.
#[derive(Clone, Debug)]
pub(crate) struct Cord {
    init: i32,
    port: Port,
}

impl Cord {
    /// Whether its host is still on.
    pub(crate) fn is_on(&self) -> bool {
        Path::new(&format!("/proc/{}", self.init)).exists()
    }

    /// Everything on the host ends at once, and nothing of that is seen on the network.
    pub(crate) fn cut(&self, switch: &Switch) {
        if !self.is_on() {
            return;
        }
        switch.unplug(&self.port);
        let loops = self.loops();
        // The kernel ends all processes of the host with its first.
        let _ = kill(Pid::from_raw(self.init), Signal::SIGKILL);
        wait::until("the host is off", || !self.is_on());
        for device in loops {
            // A machine's devices go with it; these are the kernel's that runs the tests, and it has but so many. One that
            // is still mounted goes with the host's mounts.
            let _ = Command::new("losetup").arg("--detach").arg(device).output();
        }
    }

    /// The loop devices that the host's replicated devices are made of.
    fn loops(&self) -> Vec<PathBuf> {
        let folder = format!("/proc/{}/root/run/tandem/device", self.init);
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
    }
}

/// A `/dev` whose names are the host's own.
fn make_devices(folder: &Path) {
    fs::create_dir_all(folder.join("shm")).unwrap();
    let mode = Mode::from_bits_truncate(0o666);
    for name in DEVICES {
        let number = stat(Path::new("/dev").join(name).as_path())
            .unwrap_or_else(|e| panic!("/dev/{name}: {e}"))
            .st_rdev;
        let path = folder.join(name);
        mknod(&path, SFlag::S_IFCHR, mode, number).unwrap();
        // For everybody, whatever the mask.
        fs::set_permissions(&path, Permissions::from_mode(mode.bits())).unwrap();
    }
    for number in 0..LOOPS {
        let path = folder.join(format!("loop{number}"));
        mknod(&path, SFlag::S_IFBLK, mode, makedev(LOOP_MAJOR, number)).unwrap();
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, folder.join(name)).unwrap();
    }
}
