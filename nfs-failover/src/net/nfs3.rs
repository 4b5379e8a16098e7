//! As much of an NFSv3 client as a drill needs: one file, written durably and read.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReuseAddr, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, connect,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::rpc::{Caller, Credential, MOUNT, NFS};

const VERSION: u32 = 3;
const NFS_PORT: u16 = 2049;
/// Both servers' is fixed there.
const MOUNT_PORT: u16 = 20048;
/// Who may bind these is root: exports without `insecure` want it. Those of old services are left alone.
const PRIVILEGED: std::ops::RangeInclusive<u16> = 665..=1022;
/// Procedure of the mount program.
const MOUNT_FOLDER: u32 = 1;
const READ: u32 = 6;
const WRITE: u32 = 7;
const CREATE: u32 = 8;
const REMOVE: u32 = 12;
/// Durable before it is acknowledged.
const FILE_SYNC: u32 = 2;
/// Whoever has made it before.
const UNCHECKED: u32 = 0;
/// Attributes of a file in an answer.
const ATTRIBUTES_BYTES: usize = 84;
/// Attributes of a file before a change.
const BEFORE_BYTES: usize = 24;

/// A file on a server.
#[derive(Debug)]
pub struct File {
    server: IpAddr,
    limit: Duration,
    folder: Vec<u8>,
    name: String,
    handle: Vec<u8>,
    /// None after something went wrong: the next call connects.
    caller: Option<Caller>,
}

impl File {
    /// Makes it anew, empty, in an exported folder. No answer is waited for longer than `limit`.
    pub fn create(server: IpAddr, export: &Path, name: &str, limit: Duration) -> io::Result<File> {
        let mut arguments = Vec::new();
        put(&mut arguments, export.to_string_lossy().as_bytes());
        let mut mountd = connect_as_root((server, MOUNT_PORT).into(), limit)?;
        let reply = mountd.call(MOUNT, VERSION, MOUNT_FOLDER, Credential::Root, &arguments)?;
        let folder = Reader::of(&reply)?.bytes()?;
        let mut file =
            File { server, limit, folder, name: name.to_owned(), handle: Vec::new(), caller: None };
        let mut arguments = file.place();
        // Mode 0600, length 0; neither owner nor times.
        for word in [UNCHECKED, 1, 0o600, 0, 0, 1, 0, 0, 0, 0] {
            arguments.extend(word.to_be_bytes());
        }
        let reply = file.call(CREATE, &arguments)?;
        let mut reader = Reader::of(&reply)?;
        if reader.word()? == 0 {
            return Err(io::Error::new(
                ErrorKind::Unsupported,
                "the server hands out no handle of a new file",
            ));
        }
        file.handle = reader.bytes()?;
        Ok(file)
    }

    /// For how long an answer is waited for from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
        self.caller = None;
    }

    /// Writes; it is durable on the server when this returns.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut arguments = Vec::new();
        put(&mut arguments, &self.handle);
        arguments.extend(offset.to_be_bytes());
        arguments.extend((data.len() as u32).to_be_bytes());
        arguments.extend(FILE_SYNC.to_be_bytes());
        put(&mut arguments, data);
        let reply = self.call(WRITE, &arguments)?;
        let mut reader = Reader::of(&reply)?;
        reader.optional(BEFORE_BYTES)?;
        reader.optional(ATTRIBUTES_BYTES)?;
        let (count, stable) = (reader.word()?, reader.word()?);
        match count as usize == data.len() && stable == FILE_SYNC {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::WriteZero, "not all of it is durable")),
        }
    }

    /// Reads up to so many bytes.
    pub fn read(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        let mut arguments = Vec::new();
        put(&mut arguments, &self.handle);
        arguments.extend(offset.to_be_bytes());
        arguments.extend(length.to_be_bytes());
        let reply = self.call(READ, &arguments)?;
        let mut reader = Reader::of(&reply)?;
        reader.optional(ATTRIBUTES_BYTES)?;
        // How much, and whether it ends there.
        reader.skip(8)?;
        reader.bytes()
    }

    /// Removes it.
    pub fn remove(&mut self) -> io::Result<()> {
        let arguments = self.place();
        Reader::of(&self.call(REMOVE, &arguments)?).map(drop)
    }

    fn place(&self) -> Vec<u8> {
        let mut arguments = Vec::new();
        put(&mut arguments, &self.folder);
        put(&mut arguments, self.name.as_bytes());
        arguments
    }

    fn call(&mut self, procedure: u32, arguments: &[u8]) -> io::Result<Vec<u8>> {
        let mut caller = match self.caller.take() {
            Some(caller) => caller,
            None => connect_as_root((self.server, NFS_PORT).into(), self.limit)?,
        };
        let reply = caller.call(NFS, VERSION, procedure, Credential::Root, arguments)?;
        self.caller = Some(caller);
        Ok(reply)
    }
}

/// Connects from a port that only root may have.
fn connect_as_root(server: SocketAddr, limit: Duration) -> io::Result<Caller> {
    for port in PRIVILEGED.rev() {
        match connect_from(port, server, limit) {
            Ok(stream) => return Caller::new(stream, limit),
            // Somebody else has it, or a connection from it is not forgotten yet.
            Err(Errno::EADDRINUSE | Errno::EADDRNOTAVAIL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(ErrorKind::AddrInUse, "every port that NFS servers trust is in use"))
}

fn connect_from(port: u16, server: SocketAddr, limit: Duration) -> nix::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    // Connecting takes no longer, either.
    setsockopt(
        &socket,
        SendTimeout,
        &TimeVal::new(limit.as_secs() as i64, i64::from(limit.subsec_micros())),
    )?;
    let (own, other): (Box<dyn SockaddrLike>, Box<dyn SockaddrLike>) = match server {
        SocketAddr::V4(to) => (Box::new(SockaddrIn::new(0, 0, 0, 0, port)), Box::new(SockaddrIn::from(to))),
        SocketAddr::V6(to) => {
            let any = std::net::SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, port, 0, 0);
            (Box::new(SockaddrIn6::from(any)), Box::new(SockaddrIn6::from(to)))
        }
    };
    bind(socket.as_raw_fd(), own.as_ref())?;
    connect(socket.as_raw_fd(), other.as_ref()).map_err(|error| match error {
        // It goes on without us.
        Errno::EINPROGRESS => Errno::ETIMEDOUT,
        error => error,
    })?;
    Ok(TcpStream::from(socket))
}

/// Bytes with their length, up to a multiple of four.
fn put(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend((bytes.len() as u32).to_be_bytes());
    message.extend(bytes);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// What is left of an answer.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Every answer begins with how it went.
    fn of(reply: &'a [u8]) -> io::Result<Reader<'a>> {
        let mut reader = Reader(reply);
        match reader.word()? {
            0 => Ok(reader),
            status => Err(io::Error::other(format!("the server refuses: {}", meaning(status)))),
        }
    }

    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(length).ok_or(ErrorKind::UnexpectedEof)?;
        self.0 = left;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> io::Result<()> {
        self.take(length).map(drop)
    }

    fn word(&mut self) -> io::Result<u32> {
        Ok(self.take(4)?.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    fn optional(&mut self, length: usize) -> io::Result<()> {
        match self.word()? {
            0 => Ok(()),
            _ => self.skip(length),
        }
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = self.word()? as usize;
        self.take(length).map(<[u8]>::to_vec)
    }
}

fn meaning(status: u32) -> String {
    match status {
        1 => "not permitted (is it exported with root_squash?)".into(),
        2 => "no such file or folder".into(),
        13 => "permission denied (is this node among the export's clients?)".into(),
        28 => "no space left".into(),
        30 => "exported read-only".into(),
        70 => "stale handle".into(),
        10_008 => "try again later".into(),
        other => format!("error {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_padded() {
        let mut message = Vec::new();
        put(&mut message, b"abcde");
        assert_eq!(message, [0, 0, 0, 5, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        put(&mut message, b"");
        assert_eq!(message.len(), 16);
    }

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
        let reply = words(&[0, 1, 7, 8, 0, 2]);
        let mut reader = Reader::of(&reply).unwrap();
        reader.optional(8).unwrap();
        reader.optional(84).unwrap();
        assert_eq!(reader.word().unwrap(), 2);
        assert!(reader.word().is_err());
        assert!(Reader(&words(&[9])).bytes().is_err());
        let said = Reader::of(&words(&[13])).err().unwrap().to_string();
        assert!(said.contains("permission denied"), "{said}");
    }
}
