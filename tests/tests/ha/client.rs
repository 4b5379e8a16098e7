//! The client: appends records over NFSv3 through the virtual address, and knows which the server has acknowledged as
//! durable.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::lab::VIP;
use crate::outcome::Outcome;
use crate::wait;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ha/client.c");
const FILE: &str = "/records";
const RECORD_BYTES: usize = 64;

/// The program, built.
pub(crate) struct Program {
    path: PathBuf,
    url: String,
}

/// A client that is writing.
pub(crate) struct Client {
    child: Child,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

/// One who tries to connect all the time.
pub(crate) struct Prober(Child);

/// What the client has seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Records that the server has acknowledged, from the first on.
    pub(crate) acknowledged: u64,
    /// The longest that one of them took.
    pub(crate) longest: Duration,
    last: Option<Instant>,
}

impl Program {
    /// Builds it; `export` is the path of the exported folder.
    pub(crate) fn build(folder: &Path, export: &str) -> Program {
        let path = folder.join("client");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&path).arg(SOURCE).arg("-lnfs");
        Outcome::of(gcc).ok();
        Program { path, url: url(VIP, export) }
    }

    /// The same program for another address and export.
    pub(crate) fn at(&self, address: &str, export: &str) -> Program {
        Program { path: self.path.clone(), url: url(address, export) }
    }

    /// Begins to write.
    pub(crate) fn start(&self, host: &Host) -> Client {
        let mut command = host.command(&self.path);
        command.args([&self.url, FILE, "append"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let noted = Arc::clone(&seen);
        let reader = thread::spawn(move || lines.map_while(Result::ok).for_each(|line| note(&noted, &line)));
        Client { child, seen, reader: Some(reader) }
    }

    /// What the file holds, read by another client.
    pub(crate) fn read(&self, host: &Host) -> String {
        host.run(&self.path, &[&self.url, FILE, "read"]).ok().stdout
    }

    /// Mounts and finds that there are no records yet.
    #[track_caller]
    pub(crate) fn read_nothing(&self, host: &Host) {
        let outcome = host.run(&self.path, &[&self.url, FILE, "read"]);
        assert!(outcome.stderr.contains("NFS3ERR_NOENT"), "{outcome:?}");
    }

    /// Whether it can mount; there are no records yet.
    pub(crate) fn finds_nothing(&self, host: &Host) -> bool {
        host.run(&self.path, &[&self.url, FILE, "read"]).stderr.contains("NFS3ERR_NOENT")
    }

    /// Mounts, makes the file if it is not there, and opens it for writing.
    pub(crate) fn try_to_write(&self, host: &Host) -> Outcome {
        // Its input has ended before it begins.
        host.run(&self.path, &[&self.url, FILE, "append"])
    }

    /// Every acknowledged record is there, in order, and nothing but records.
    #[track_caller]
    pub(crate) fn expect(&self, host: &Host, acknowledged: u64) {
        let text = self.read(host);
        let records = text.as_bytes().chunks(RECORD_BYTES);
        assert!(
            records.len() as u64 >= acknowledged,
            "{} of {acknowledged} records are there",
            records.len()
        );
        for (number, record) in records.enumerate() {
            let expected = format!("{number:063}\n");
            assert_eq!(String::from_utf8_lossy(record), expected, "record {number} of {acknowledged}");
        }
    }
}

/// The library wants IPv6 without brackets.
fn url(address: &str, export: &str) -> String {
    format!("nfs://{address}{export}?version=3&nfsport=2049&mountport=20048")
}

fn note(seen: &Mutex<Seen>, line: &str) {
    let (number, took_us) = line.split_once(' ').unwrap();
    let took = Duration::from_micros(took_us.parse().unwrap());
    let mut seen = seen.lock().unwrap();
    assert_eq!(number.parse::<u64>().unwrap(), seen.acknowledged, "records are acknowledged in order");
    seen.acknowledged += 1;
    seen.longest = seen.longest.max(took);
    seen.last = Some(Instant::now());
}

impl Prober {
    pub(crate) fn start(program: &Program, host: &Host) -> Prober {
        let mut command = host.command(&program.path);
        command.args([&program.url, FILE, "probe"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Prober(command.spawn().unwrap())
    }

    /// It was let in, or heard nothing, but was never refused.
    #[track_caller]
    pub(crate) fn expect_no_refusal(mut self) {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        println!("connected, refused: {}", said.trim());
        assert!(said.trim().ends_with(" 0") && !said.starts_with("0 "), "connected, refused: {said}");
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Client {
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }

    /// Waits until some more records are acknowledged.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let before = self.seen().acknowledged;
        wait::until("the client goes on", || self.seen().acknowledged > before + 20);
    }

    /// The longest stall so far; the next one is counted anew.
    pub(crate) fn longest_stall(&self) -> Duration {
        std::mem::take(&mut self.seen.lock().unwrap().longest)
    }

    /// Lets it end; what it has seen.
    pub(crate) fn end(mut self) -> Seen {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success(), "the client failed");
        self.reader.take().map(JoinHandle::join).transpose().unwrap();
        self.seen()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
