//! What runs beside the daemon on a primary: the export as a block device, a file system on it, a database in that.
//!
//! All of it lives in a mount and a process namespace whose first process is killed when the machine is dropped. The
//! kernel then ends everything in it at once, unmounts and detaches: that is both a power cut and the cleaning up, and
//! whatever becomes of the test, nothing is left behind.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::node::{Node, Outcome};
use crate::wait;

/// PostgreSQL refuses to be root.
const DATABASE_USER: &str = "postgres";
/// Small files: the disks are small too.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "min_wal_size=4MB",
    "max_wal_size=32MB",
    "shared_buffers=16MB",
    "synchronous_commit=on",
    "fsync=on",
    // One system call instead of one per file: on a busy disk the difference is a minute.
    "recovery_init_sync_method=syncfs",
];

/// For the database to recover: it writes all that it has replayed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);

/// A machine that is switched on.
pub(crate) struct Machine {
    /// It dies with this, and everything on it.
    holder: Child,
    /// Its first process.
    init: i32,
    folder: PathBuf,
    environment: (&'static str, PathBuf),
    /// It has so many; a database's log lies on the last, the rest on the first.
    disks: usize,
    programs: Vec<Child>,
}

impl Machine {
    /// A machine with nothing on it; its sockets and logs go to `folder`, which must not exist.
    pub(crate) fn new(folder: PathBuf) -> Machine {
        // Where the database's user can get at them.
        for path in folder.ancestors().skip(1).take_while(|path| path.starts_with(std::env::temp_dir())) {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            fs::set_permissions(path, Permissions::from_mode(mode | 0o111)).unwrap();
        }
        for (path, mode) in [(&folder, 0o755), (&folder.join("socket"), 0o777)] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let environment = ("TANDEM_RUN_DIR", folder.join("run"));
        let holder = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--", "sleep", "infinity"])
            .env(environment.0, &environment.1)
            .spawn()
            .unwrap_or_else(|e| panic!("unshare: {e}"));
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let mut init = None;
        wait::until("the machine is on", || {
            init = fs::read_to_string(&children).ok().and_then(|pids| pids.trim().parse().ok());
            init.is_some_and(|pid: i32| {
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("sleep"))
            })
        });
        let init = init.unwrap_or_default();
        Machine { holder, init, folder, environment, disks: 0, programs: Vec::new() }
    }

    /// The node's exports as files, from which loop devices can be made.
    pub(crate) fn attach(&mut self, node: &Node) {
        for uri in node.uris() {
            fs::create_dir(self.folder.join(format!("fuse{}", self.disks))).unwrap();
            fs::create_dir(self.mount_point(self.disks)).unwrap();
            let disk = self.disk(self.disks);
            let mut nbdfuse = self.command("nbdfuse");
            nbdfuse.arg(&disk).arg(uri);
            self.start(nbdfuse);
            let seen = format!("/proc/{}/root{}", self.init, disk.display());
            wait::until("nbdfuse shows the export", || fs::metadata(&seen).is_ok_and(|file| file.len() > 0));
            self.disks += 1;
        }
    }

    pub(crate) fn make_file_systems(&self) {
        for number in 0..self.disks {
            let mut mkfs = self.command("mkfs.ext4");
            mkfs.args(["-q", "-F"]).arg(self.disk(number));
            Outcome::of(mkfs).ok();
        }
    }

    /// Mounts the file systems; their journals are replayed.
    pub(crate) fn mount(&self) {
        for number in 0..self.disks {
            let mut mount = self.command("mount");
            // The loop device goes with the mount.
            mount.args(["-t", "ext4", "-o", "loop"]).arg(self.disk(number)).arg(self.mount_point(number));
            Outcome::of(mount).ok();
        }
    }

    /// Checks the file systems, which must not be mounted.
    pub(crate) fn check_file_systems(&self) {
        for number in 0..self.disks {
            let mut fsck = self.command("e2fsck");
            fsck.arg("-fn").arg(self.disk(number));
            Outcome::of(fsck).ok();
        }
    }

    /// Shuts the database down and unmounts.
    pub(crate) fn shut_down(&mut self) {
        Outcome::of(self.database_program("pg_ctl", &["stop", "-m", "fast", "-w"])).ok();
        for number in 0..self.disks {
            let mut umount = self.command("umount");
            umount.arg(self.mount_point(number));
            Outcome::of(umount).ok();
        }
    }

    pub(crate) fn make_database(&self) {
        let log = self.log();
        for folder in [&self.data()].into_iter().chain(&log) {
            let mut install = self.command("install");
            install.args(["-d", "-m", "700", "-o", DATABASE_USER]).arg(folder);
            Outcome::of(install).ok();
        }
        let waldir = log.map(|log| format!("--waldir={}", log.display()));
        let options = ["--auth=trust", "--no-locale", "--encoding=UTF8", "--wal-segsize=1", "--no-sync"];
        let options: Vec<&str> = options.into_iter().chain(waldir.as_deref()).collect();
        Outcome::of(self.database_program("initdb", &options)).ok();
        Outcome::of(self.command("sync")).ok();
    }

    /// Starts the database and waits until it has recovered.
    pub(crate) fn start_database(&mut self) {
        if let Some(log) = self.log() {
            // On the machine before it was mounted elsewhere.
            let mut link = self.command("ln");
            link.args(["--symbolic", "--force", "--no-dereference"]).arg(log).arg(self.data().join("pg_wal"));
            Outcome::of(link).ok();
        }
        let socket = format!("unix_socket_directories={}", self.socket().display());
        let settings = SETTINGS.iter().copied().chain([socket.as_str()]).flat_map(|setting| ["-c", setting]);
        let mut postgres = self.database_program("postgres", &settings.collect::<Vec<_>>());
        let log = File::create(self.folder.join("postgres.log")).unwrap();
        postgres.stdout(log.try_clone().unwrap()).stderr(log);
        self.start(postgres);
        let ready = wait::holds_within(RECOVERY_LIMIT, || {
            Outcome::of(self.client("pg_isready", &["--quiet"])).code == Some(0)
        });
        assert!(ready, "the database does not start:\n{}", self.database_log());
    }

    /// What one SQL command answers.
    pub(crate) fn query(&self, sql: &str) -> String {
        let said =
            Outcome::of(self.client("psql", &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]));
        said.ok().stdout.trim().to_owned()
    }

    /// A client program of the database, as its superuser.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut client = Command::new(database_folder().join(program));
        client.arg("-h").arg(self.socket()).args(["-U", DATABASE_USER, "-d", DATABASE_USER]).args(arguments);
        client.env(self.environment.0, &self.environment.1).current_dir("/");
        client
    }

    /// Without what it says to those who ask too early.
    fn database_log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("postgres.log")).unwrap_or_default();
        log.lines()
            .filter(|line| !line.contains("FATAL:  the database system is"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn database_program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.command("setpriv");
        command.args(["--reuid", DATABASE_USER, "--regid", DATABASE_USER, "--init-groups", "--"]);
        command.arg(database_folder().join(program)).arg("-D").arg(self.data()).args(arguments);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", &self.init.to_string(), "--", program]);
        command.env(self.environment.0, &self.environment.1).current_dir("/").stdin(Stdio::null());
        command
    }

    fn start(&mut self, mut command: Command) {
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        self.programs.push(child);
    }

    fn disk(&self, number: usize) -> PathBuf {
        self.folder.join(format!("fuse{number}/disk"))
    }

    fn mount_point(&self, number: usize) -> PathBuf {
        self.folder.join(format!("mnt{number}"))
    }

    fn data(&self) -> PathBuf {
        self.mount_point(0).join("database")
    }

    /// The database's log, if it has a disk of its own.
    fn log(&self) -> Option<PathBuf> {
        (self.disks > 1).then(|| self.mount_point(self.disks - 1).join("log"))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its first process follows it, and everything else that one.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        for program in &mut self.programs {
            let _ = program.wait();
        }
        wait::holds_within(wait::LIMIT, || !Path::new(&format!("/proc/{}", self.init)).exists());
    }
}

/// The newest version's programs.
fn database_folder() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("postgres").exists());
    folders.max().expect("PostgreSQL's server is not installed: apt-get install postgresql")
}
