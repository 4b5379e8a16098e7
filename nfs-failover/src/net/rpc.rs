//! Calls of ONC RPC over TCP. Whoever answers the one that asks for nothing serves.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// NFS's number among programs.
pub const NFS: u32 = 100_003;
/// The number of the program that hands out the handles of exported folders.
pub const MOUNT: u32 = 100_005;
const RPC_VERSION: u32 = 2;
const CALL: u32 = 0;
const REPLY: u32 = 1;
/// The procedure of every program that does nothing.
const NULL: u32 = 0;
/// Any number; the answer must bear it.
const FIRST_TRANSACTION: u32 = 0x7a6e_6401;
/// The record is the last of its message.
const LAST_RECORD: u32 = 1 << 31;
/// Longer than any answer here.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Credential {
    /// Nobody in particular.
    None,
    /// Root of this machine.
    Root,
}

impl Credential {
    fn words(self) -> &'static [u32] {
        match self {
            Credential::None => &[0, 0],
            // Stamp, no machine name, user, group, no more groups.
            Credential::Root => &[1, 20, 0, 0, 0, 0, 0],
        }
    }
}

/// Whether an NFS server of this version answers.
pub fn answers(server: SocketAddr, version: u32, limit: Duration) -> io::Result<()> {
    let mut caller = Caller::new(TcpStream::connect_timeout(&server, limit)?, limit)?;
    let answer = caller.call(NFS, version, NULL, Credential::None, &[]);
    answer.map(drop).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => {
            io::Error::new(ErrorKind::InvalidData, format!("it does not serve NFS version {version}"))
        }
        _ => error,
    })
}

/// Asks `rpc.mountd` for the exports, whatever they are.
pub fn exports(mountd: SocketAddr, limit: Duration) -> io::Result<()> {
    const VERSION: u32 = 3;
    const EXPORT: u32 = 5;
    let mut caller = Caller::new(TcpStream::connect_timeout(&mountd, limit)?, limit)?;
    caller.call(MOUNT, VERSION, EXPORT, Credential::None, &[]).map(drop)
}

/// A connection to a server.
#[derive(Debug)]
pub struct Caller {
    stream: TcpStream,
    transaction: u32,
}

impl Caller {
    /// Of a connection; each answer is waited for so long.
    pub fn new(stream: TcpStream, limit: Duration) -> io::Result<Caller> {
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(Caller { stream, transaction: FIRST_TRANSACTION })
    }

    /// Calls a procedure; its results.
    pub fn call(
        &mut self,
        program: u32,
        version: u32,
        procedure: u32,
        credential: Credential,
        arguments: &[u8],
    ) -> io::Result<Vec<u8>> {
        self.transaction = self.transaction.wrapping_add(1);
        let mut words = vec![self.transaction, CALL, RPC_VERSION, program, version, procedure];
        words.extend(credential.words());
        // No verifier.
        words.extend([0, 0]);
        let length = words.len() * 4 + arguments.len();
        let mut message: Vec<u8> = (LAST_RECORD | length as u32).to_be_bytes().to_vec();
        words.iter().for_each(|word| message.extend(word.to_be_bytes()));
        message.extend(arguments);
        self.stream.write_all(&message)?;
        let reply = self.receive()?;
        let results = results(&reply, self.transaction);
        results.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the server does not do that"))
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut reply = Vec::new();
        loop {
            let mut mark = [0; 4];
            self.stream.read_exact(&mut mark)?;
            let mark = u32::from_be_bytes(mark);
            let length = (mark & !LAST_RECORD) as usize;
            if reply.len() + length > MAX_REPLY_BYTES {
                return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
            }
            let begin = reply.len();
            reply.resize(begin + length, 0);
            self.stream.read_exact(&mut reply[begin..])?;
            if mark & LAST_RECORD != 0 {
                return Ok(reply);
            }
        }
    }
}

/// What stands behind the header of an answer, if the call was accepted and done.
fn results(reply: &[u8], transaction: u32) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_be_bytes(reply.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != transaction || word(4)? != REPLY || word(8)? != 0 {
        return None;
    }
    let end_of_verifier = 20usize.checked_add(word(16)? as usize)?;
    (word(end_of_verifier)? == 0).then(|| reply[end_of_verifier + 4..].to_vec())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A server that takes one call and says this.
    fn server(reply: impl FnOnce(u32) -> Vec<u32> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut call = [0; 44];
            stream.read_exact(&mut call).unwrap();
            assert_eq!(&call[..4], [0x80, 0, 0, 40]);
            assert_eq!(&call[8..24], [0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0x86, 0xa3, 0, 0, 0, 4]);
            let transaction = u32::from_be_bytes([call[4], call[5], call[6], call[7]]);
            let bytes: Vec<u8> = reply(transaction).iter().flat_map(|word| word.to_be_bytes()).collect();
            stream.write_all(&bytes).unwrap();
        });
        address
    }

    #[test]
    fn only_an_accepted_call_is_an_answer() {
        answers(server(|own| vec![LAST_RECORD | 24, own, REPLY, 0, 0, 0, 0]), 4, LONG).unwrap();
        // In two pieces.
        answers(server(|own| vec![8, own, REPLY, LAST_RECORD | 16, 0, 0, 0, 0]), 4, LONG).unwrap();
        for wrong in [
            (|own| vec![LAST_RECORD | 24, own, REPLY, 0, 0, 0, 2]) as fn(u32) -> Vec<u32>,
            |own| vec![LAST_RECORD | 24, own ^ 1, REPLY, 0, 0, 0, 0],
            |own| vec![LAST_RECORD | 24, own, REPLY, 1, 0, 0, 0],
            |own| vec![LAST_RECORD | 24, own, REPLY, 0, 0, u32::MAX, 0],
            |_| vec![LAST_RECORD | 4, 0],
            |_| vec![LAST_RECORD | 0x7fff_ffff],
        ] {
            let said = answers(server(wrong), 4, LONG).unwrap_err().to_string();
            assert!(said.contains("does not serve NFS version 4"), "{said}");
        }
        assert!(answers(server(|_| Vec::new()), 4, LONG).is_err());
    }
}
