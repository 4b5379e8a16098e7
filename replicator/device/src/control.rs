//! What a keeper can be asked: one JSON object per line on a Unix socket, a reply to each.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_control::RuntimeDir;

/// As many as a loop device has room for.
pub(crate) const MAX_LABEL_BYTES: usize = 63;
/// Longest request or reply in bytes.
pub const MAX_LINE_BYTES: u64 = 1 << 20;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How are you?
    Status,
    /// The same, and who uses the device: a search through every process of the machine.
    Openers,
    /// Take the device away, unless it is open, and end.
    Close,
    /// Fail every request that waits and every one that comes, for good.
    Fail,
    /// The export may have grown: make the device as large.
    Resize,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Why it was not done.
    pub error: Option<String>,
    /// Who uses the device; asked for by `openers`, and what keeps `close` from being done.
    #[serde(default)]
    pub openers: Vec<String>,
    /// What `status` and `openers` ask for, and what is said when the device has appeared.
    pub device: Option<DeviceStatus>,
}

impl Reply {
    /// It was not done.
    pub fn refused(error: impl ToString) -> Reply {
        Reply { error: Some(error.to_string()), ..Reply::default() }
    }
}

/// A device that is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// The keeper's process.
    pub pid: u32,
    /// How the device is made: `nbd` or `fuse`.
    pub driver: String,
    /// What the kernel calls it, such as `/dev/nbd3`.
    pub node: PathBuf,
    /// Bytes.
    pub size_bytes: u64,
    /// tandemd serves it.
    pub connected: bool,
    /// Requests that wait for an answer.
    pub pending: usize,
    /// Every request fails.
    pub failing: bool,
}

/// Where a keeper's files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// Holds the keeper's process id, and a lock while it lives.
    pub pid: PathBuf,
    /// Where it is asked.
    pub socket: PathBuf,
    /// A link to the kernel's device; every other name of the device leads here.
    pub node: PathBuf,
}

impl Files {
    /// Those of one volume.
    pub fn new(run: &RuntimeDir, resource: &str, volume: u16) -> Files {
        let path = |ending| run.devices().join(format!("{resource}-{volume}.{ending}"));
        Files { pid: path("pid"), socket: path("sock"), node: path("dev") }
    }

    /// What the kernel's device is labelled with, so that it is found when its keeper was killed. Containers share the
    /// kernel and may all have the same path: the folder's inode tells one's own from theirs.
    pub fn label(&self) -> io::Result<String> {
        let folder = self.node.parent().unwrap_or(Path::new("/")).metadata()?;
        let inode = format!("{:x}:{:x} ", folder.dev(), folder.ino());
        let path = self.node.display().to_string();
        let room = MAX_LABEL_BYTES - inode.len();
        let fits = |at: &usize| path.is_char_boundary(*at) && path.len() - at <= room;
        Ok(inode + &path[(0..=path.len()).find(fits).unwrap_or_default()..])
    }
}

/// Asks a keeper one thing. `limit` bounds the wait for its reply.
pub fn ask(socket: &Path, request: Request, limit: Duration) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write_line(&mut stream, &request)?;
    let mut line = String::new();
    BufReader::new(io::Read::take(stream, MAX_LINE_BYTES)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Writes a request or a reply.
pub(crate) fn write_line(stream: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_tells_a_folder_from_another_of_the_same_name() {
        let folder = std::env::temp_dir().join(format!("tandem-label-{}", std::process::id()));
        let files = Files::new(&RuntimeDir::new(&folder), &"r".repeat(80), 0);
        assert!(files.label().is_err());
        std::fs::create_dir_all(files.node.parent().unwrap()).unwrap();
        let label = files.label().unwrap();
        assert!(label.len() <= MAX_LABEL_BYTES && label.ends_with("rr-0.dev"), "{label}");
        assert_eq!(files.label().unwrap(), label);
        std::fs::rename(&folder, folder.with_extension("old")).unwrap();
        std::fs::create_dir_all(files.node.parent().unwrap()).unwrap();
        assert_ne!(files.label().unwrap(), label);
        std::fs::remove_dir_all(folder.with_extension("old")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
