//! The NULL call of ONC RPC: whoever answers it serves.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const NFS_PROGRAM: u32 = 100_003;
const RPC_VERSION: u32 = 2;
const CALL: u32 = 0;
const REPLY: u32 = 1;
/// Any number; the answer must bear it.
const TRANSACTION: u32 = 0x7a6e_6401;
/// The record is the last of its message.
const LAST_RECORD: u32 = 1 << 31;
const CALL_BYTES: u32 = 40;
const REPLY_BYTES: usize = 28;

/// Whether an NFS server of this version answers.
pub fn answers(server: SocketAddr, version: u32, limit: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(&null_call(version))?;
    let mut reply = [0; REPLY_BYTES];
    stream.read_exact(&mut reply)?;
    match is_success(&reply) {
        true => Ok(()),
        false => {
            Err(io::Error::new(ErrorKind::InvalidData, format!("it does not serve NFS version {version}")))
        }
    }
}

fn null_call(version: u32) -> Vec<u8> {
    // No procedure, no credentials, no verifier.
    let words =
        [LAST_RECORD | CALL_BYTES, TRANSACTION, CALL, RPC_VERSION, NFS_PROGRAM, version, 0, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn is_success(reply: &[u8; REPLY_BYTES]) -> bool {
    let word = |at: usize| u32::from_be_bytes([reply[at], reply[at + 1], reply[at + 2], reply[at + 3]]);
    // Accepted, no verifier, and done.
    word(4) == TRANSACTION && word(8) == REPLY && word(12) == 0 && word(16) == 0 && word(24) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_one_record() {
        let call = null_call(3);
        assert_eq!(call.len(), 44);
        assert_eq!(&call[..8], [0x80, 0, 0, 40, 0x7a, 0x6e, 0x64, 0x01]);
        assert_eq!(&call[12..24], [0, 0, 0, 2, 0, 1, 0x86, 0xa3, 0, 0, 0, 3]);
    }

    #[test]
    fn only_an_accepted_call_is_an_answer() {
        let words = |status: u32| [LAST_RECORD | 24, TRANSACTION, REPLY, 0, 0, 0, status];
        let reply = |status| {
            let bytes: Vec<u8> = words(status).iter().flat_map(|word| word.to_be_bytes()).collect();
            <[u8; REPLY_BYTES]>::try_from(bytes).unwrap()
        };
        assert!(is_success(&reply(0)));
        // The version is not served.
        assert!(!is_success(&reply(2)));
        assert!(!is_success(&[0; REPLY_BYTES]));
    }
}
