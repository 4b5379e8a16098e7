//! A conversation in which the daemon does the talking: what it is asked to watch, and then again whenever that changes.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tandem_core::handler::Handler;
use tandem_core::units::NodeId;

use crate::{ClientError, Reply, Request};

const READ_BYTES: usize = 64 << 10;

/// One of the administrator's programs was started, or has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HelperEvent {
    /// For whom.
    pub resource: String,
    /// The peer that it is about, if it is about one.
    pub peer: Option<NodeId>,
    /// Which.
    pub handler: Handler,
    /// How it has ended, as `wait(2)` says it; `None` while it runs.
    pub wait_status: Option<u32>,
}

/// The client's end.
#[derive(Debug)]
pub struct Watch {
    stream: UnixStream,
    /// What has come of the next reply.
    received: Vec<u8>,
}

impl Watch {
    /// Asks for a resource, or all. The first reply tells how they are, the others what has changed.
    pub fn begin(socket: &Path, resource: Option<&str>) -> Result<Watch, ClientError> {
        let io = |source| ClientError::Io { path: socket.to_owned(), source };
        let mut stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(socket.to_owned()),
            _ => io(e),
        })?;
        let request = Request::Watch { resource: resource.map(str::to_owned) };
        let mut line = serde_json::to_vec(&request).map_err(|e| io(e.into()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(io)?;
        stream.set_nonblocking(true).map_err(io)?;
        Ok(Watch { stream, received: Vec::new() })
    }

    /// What has come since the last call; waits for nothing. An error is the end: the daemon has gone.
    pub fn take(&mut self) -> io::Result<Vec<Reply>> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let Some(end) = self.received.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.received.split_off(end + 1);
        let lines = std::mem::replace(&mut self.received, rest);
        let replies = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        replies.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
