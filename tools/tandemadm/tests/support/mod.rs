#![allow(dead_code, unreachable_pub)] // Each test file uses its part of this.
#![allow(clippy::unwrap_used, missing_docs)]
//! A node in a temporary folder: its configuration, its disk, and a daemon that gives canned answers.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tandem_control::{Reply, Request, ResourceStatus, RuntimeDir};

/// Removed with everything in it when the test ends.
pub struct Node {
    folder: PathBuf,
    pub program: PathBuf,
}

impl Node {
    /// A node whose resource `r0` has a disk of this size, all zero.
    pub fn new(disk_bytes: u64) -> Node {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tandemadm-test-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join("run")).unwrap();
        let node = Node { folder, program: env!("CARGO_BIN_EXE_tandemadm").into() };
        File::create(node.disk()).unwrap().set_len(disk_bytes).unwrap();
        node.configure("internal");
        node
    }

    pub fn configure(&self, meta_disk: &str) {
        let resource = |name: &str, port: u16, disk: &Path, meta_disk: &str| {
            format!(
                "resource {name} {{\n  device minor {minor};\n  disk {disk};\n  meta-disk {meta_disk};\n  \
                 on alpha {{ address 127.0.0.1:{port}; }}\n  on bravo {{ address 127.0.0.2:{port}; }}\n}}\n",
                minor = port - 7788,
                disk = disk.display(),
            )
        };
        let second = self.path("second");
        fs::write(
            self.config(),
            resource("r0", 7788, &self.disk(), meta_disk) + &resource("r1", 7789, &second, "internal"),
        )
        .unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    pub fn config(&self) -> PathBuf {
        self.path("tandem.conf")
    }

    pub fn run_dir(&self) -> RuntimeDir {
        RuntimeDir::new(self.path("run"))
    }

    pub fn write_to_disk(&self, offset: u64, bytes: &[u8]) {
        File::options().write(true).open(self.disk()).unwrap().write_all_at(bytes, offset).unwrap();
    }

    /// Runs `tandemadm -c CONFIG ARGUMENTS` on alpha, without a terminal.
    pub fn adm(&self, arguments: &str) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.config()).args(arguments.split_whitespace());
        command.env("TANDEM_RUN_DIR", self.path("run")).env("TANDEM_NODE", "alpha").stdin(Stdio::null());
        command
    }

    /// Listens on the control socket and answers each request with what `answer` makes of it.
    pub fn daemon(&self, answer: impl Fn(&Request) -> Reply + Send + 'static) -> Arc<Mutex<Vec<Request>>> {
        let listener = UnixListener::bind(self.run_dir().control_socket()).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let request: Request = serde_json::from_str(&line).unwrap();
                let mut reply = serde_json::to_vec(&answer(&request)).unwrap();
                reply.push(b'\n');
                log.lock().unwrap().push(request);
                let _ = reader.get_mut().write_all(&reply);
            }
        });
        asked
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Ended with `code`, and all these parts are in what it printed.
    #[track_caller]
    pub fn expect(&self, code: i32, parts: &[&str]) -> &Ran {
        assert_eq!(self.code, code, "{self:#?}");
        for part in parts {
            assert!(self.stdout.contains(part) || self.stderr.contains(part), "no {part:?} in {self:#?}");
        }
        self
    }
}

/// A daemon's answer of one resource's snapshot.
pub fn snapshot(status: ResourceStatus) -> Reply {
    Reply { status: vec![status], ..Reply::default() }
}

/// `r0`, Primary on alpha, connected to bravo.
pub fn connected() -> ResourceStatus {
    let json = r#"{
        "spec": {
            "name": "r0", "node": {"id": 0, "name": "alpha"}, "peers": [{"id": 1, "name": "bravo"}], "paths": [PATH],
            "volume": {"number": 0, "minor": 0, "device": "/dev/drbd0", "disk": "/x", "meta_disk": null},
            "options": OPTIONS,
            "handlers": {"commands": {}, "limit_ms": 60000, "config_file": "/etc/tandem.conf"}, "connect_interval_ms": 10000, "nbd_listen": null, "block_device": {"driver": "none", "away_limit_ms": 0}
        },
        "engine": {
            "resource": "r0", "node": 0, "role": "Primary", "disk": "UpToDate", "protocol": "C",
            "write_ordering": "f", "size_bytes": 1048576, "disk_read_bytes": 0, "disk_written_bytes": 0,
            "bitmap_writes": 0, "activity_log_writes": 0, "local_pending": 0, "client_pending": 0, "epochs": 0,
            "suspended": {"user": false, "fencing": false, "quorum": false}, "quorum": true, "openers": [], "generations": {"current": 4, "history": [HISTORY]},
            "peers": [{
                "id": 1, "name": "bravo", "connection": "Connected", "replication": "Established",
                "role": "Secondary", "disk": "UpToDate", "standalone_reason": null, "sent_bytes": 0,
                "received_bytes": 0, "pending": 0, "unacked": 0, "out_of_sync_bytes": 0,
                "resync_suspended": { "user": false, "peer": false, "dependency": false }, "resync": null
            }]
        },
        "used_paths": [PATH]
    }"#;
    let json = json.replace("PATH", r#"{"peer": 1, "local": "127.0.0.1:7788", "remote": "127.0.0.2:7788"}"#);
    let options = serde_json::to_string(&tandem_core::config::Options::default()).unwrap();
    let json = json.replace("HISTORY", &vec!["0"; 32].join(",")).replace("OPTIONS", &options);
    serde_json::from_str(&json).unwrap()
}
