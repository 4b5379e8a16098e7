//! Commands for a machine, over a virtio serial port: no network is needed, and every call has a limit.
//!
//! A call is a shell script in the folder that host and guests share; the port carries its name and its exit status.
//! What it printed stays in that folder.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Result;

/// QEMU makes the socket within this time.
const SOCKET_LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What a guest says when it begins to listen.
const READY: &str = "ready";

/// The host's end of one machine's control channel.
pub(super) struct Channel {
    machine: String,
    socket: UnixStream,
    /// Bytes of an answer that is not whole yet.
    received: Vec<u8>,
    folder: PathBuf,
    calls: u32,
    /// Exit statuses of calls that nobody has asked for yet.
    ended: HashMap<String, i32>,
}

/// A script that was begun.
#[must_use]
pub(super) struct Call(String);

/// What came of a script.
pub(super) struct Reply {
    pub(super) status: i32,
    /// Standard output and standard error.
    pub(super) text: String,
}

impl Channel {
    /// Connects to the socket, once it is there, and waits until the guest listens. Scripts go through `folder`, which
    /// the guest sees as `/host/calls`.
    pub(super) fn open(machine: &str, socket: &Path, folder: &Path, limit: Duration) -> Result<Channel> {
        let start = Instant::now();
        let socket = loop {
            match UnixStream::connect(socket) {
                Ok(connected) => break connected,
                Err(_) if start.elapsed() < SOCKET_LIMIT => thread::sleep(POLL_INTERVAL),
                Err(error) => return Err(format!("{machine}: its control channel: {error}").into()),
            }
        };
        let mut channel = Channel {
            machine: machine.to_owned(),
            socket,
            received: Vec::new(),
            folder: folder.to_owned(),
            calls: 0,
            ended: HashMap::new(),
        };
        let deadline = start + limit;
        while channel.line(deadline, "not up")? != READY {}
        Ok(channel)
    }

    /// Begins a script; it stops at the first command that fails.
    pub(super) fn begin(&mut self, script: &str) -> Result<Call> {
        self.calls += 1;
        let name = loop {
            let name = format!("{}-{:04}", self.machine, self.calls);
            // The machine may have been started before, and its calls are kept.
            if !self.folder.join(&name).with_extension("sh").exists() {
                break name;
            }
            self.calls += 1;
        };
        fs::write(self.folder.join(&name).with_extension("sh"), script)?;
        writeln!(self.socket, "{name}").map_err(|e| format!("{}: its control channel: {e}", self.machine))?;
        Ok(Call(name))
    }

    /// Waits for the end of a script. The error says what was printed until the limit was reached.
    pub(super) fn finish(&mut self, call: &Call, limit: Duration) -> Result<Reply> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended.remove(&call.0) {
                return Ok(Reply { status, text: self.printed(call)? });
            }
            let complaint = format!("no answer within {} s to {}", limit.as_secs(), call.0);
            let line = match self.line(deadline, &complaint) {
                Ok(line) => line,
                Err(error) => return Err(format!("{error}\n{}", self.printed(call)?).into()),
            };
            if let Some((name, status)) = line.split_once(' ') {
                self.ended.insert(name.to_owned(), status.parse()?);
            }
        }
    }

    fn printed(&self, call: &Call) -> Result<String> {
        let bytes = fs::read(self.folder.join(&call.0).with_extension("out")).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The next line from the guest.
    fn line(&mut self, deadline: Instant, complaint: &str) -> Result<String> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=end).collect::<Vec<u8>>();
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{}: {complaint}", self.machine).into());
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(format!("{}: it is off: {complaint}", self.machine).into()),
                Ok(length) => self.received.extend_from_slice(&bytes[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(format!("{}: its control channel: {error}", self.machine).into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::unistd::mkdtemp;

    use super::*;

    /// A guest that answers as told, one line per line received, and then nothing.
    fn channel(answers: &'static [&'static str]) -> (Result<Channel>, PathBuf) {
        let folder = mkdtemp(&std::env::temp_dir().join("tandem-channel-XXXXXX")).unwrap();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut guest, _) = listener.accept().unwrap();
            for answer in answers {
                guest.write_all(answer.as_bytes()).unwrap();
            }
            // Stays connected until the host has gone.
            let _ = guest.read_to_end(&mut Vec::new());
        });
        (Channel::open("m", &path, &folder, Duration::from_secs(5)), folder)
    }

    #[test]
    fn answers_find_their_calls_in_any_order() {
        let (channel, folder) = channel(&["noise\nrea", "dy\nm-0002 0\nm-0001 3\n"]);
        let mut channel = channel.unwrap();
        let (first, second) = (channel.begin("false").unwrap(), channel.begin("true").unwrap());
        fs::write(folder.join("m-0001.out"), "it failed\n").unwrap();
        let reply = channel.finish(&first, Duration::from_secs(5)).unwrap();
        assert_eq!((reply.status, reply.text.as_str()), (3, "it failed\n"));
        assert_eq!(channel.finish(&second, Duration::from_secs(5)).unwrap().status, 0);
        assert_eq!(fs::read_to_string(folder.join("m-0002.sh")).unwrap(), "true");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn silence_is_an_error_that_names_the_call() {
        let (channel, folder) = channel(&["ready\n"]);
        let mut channel = channel.unwrap();
        let call = channel.begin("sleep 600").unwrap();
        fs::write(folder.join("m-0001.out"), "so far so good").unwrap();
        let error = channel.finish(&call, Duration::from_millis(20)).err().unwrap().to_string();
        assert!(error.contains("m: no answer") && error.contains("m-0001\nso far so good"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
