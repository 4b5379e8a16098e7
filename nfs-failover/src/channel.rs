//! Talking over TCP with somebody who knows the same secret: frames that nobody else can make, repeat or reorder.
//!
//! The server sends a random challenge, the client answers with its own and a proof that it knows the secret, the server
//! proves the same: HMAC-SHA256 over who speaks, for what, and both challenges. From them follows a key for this
//! connection, and each frame carries an HMAC under it over who speaks and the frame's number. Nothing is hidden.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::config::Secret;
use crate::sockets;

/// For both ends to prove that they know the secret; until then nobody is let stay for longer.
const PROOF_LIMIT: Duration = Duration::from_secs(5);
/// Longest frame. What is said is short.
const MAX_FRAME_BYTES: usize = 64 << 10;
const CHALLENGE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;
/// First of what is proven; with other versions no proof is right.
const VERSION: &[u8] = b"nfs-failover 1";

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Server,
    Client,
}

impl Side {
    fn name(self) -> &'static [u8] {
        match self {
            Side::Server => b"server",
            Side::Client => b"client",
        }
    }

    fn other(self) -> Side {
        match self {
            Side::Server => Side::Client,
            Side::Client => Side::Server,
        }
    }
}

/// A connection on which both ends have proven that they know the secret.
pub(crate) struct Channel {
    stream: TcpStream,
    side: Side,
    key: Vec<u8>,
    sent: u64,
    received: u64,
    limit: Duration,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:?}, {:?})", self.side, self.stream)
    }
}

impl Channel {
    /// Connects; the other end must say each thing within `limit`. `purpose` must be the server's.
    pub(crate) fn connect(
        address: SocketAddr,
        secret: &Secret,
        purpose: &str,
        limit: Duration,
    ) -> io::Result<Channel> {
        let end = Instant::now() + limit.min(PROOF_LIMIT);
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        prepare(&stream, limit)?;
        let theirs: [u8; CHALLENGE_BYTES] = exactly(&mut stream, end)?;
        let ours = challenge()?;
        let session = Session { secret, purpose, server: theirs, client: ours };
        stream.write_all(&[&ours[..], &session.proof(Side::Client)].concat())?;
        let proof: [u8; PROOF_BYTES] = exactly(&mut stream, end).map_err(|e| match e.kind() {
            // A server that does not believe us says nothing.
            ErrorKind::UnexpectedEof => not_believed(),
            _ => e,
        })?;
        session.check(Side::Server, &proof)?;
        Ok(session.channel(stream, Side::Client, limit))
    }

    /// The other end of [`Self::connect`].
    pub(crate) fn accept(
        mut stream: TcpStream,
        secret: &Secret,
        purpose: &str,
        limit: Duration,
    ) -> io::Result<Channel> {
        let end = Instant::now() + limit.min(PROOF_LIMIT);
        prepare(&stream, limit)?;
        let ours = challenge()?;
        stream.write_all(&ours)?;
        let theirs: [u8; CHALLENGE_BYTES] = exactly(&mut stream, end)?;
        let session = Session { secret, purpose, server: ours, client: theirs };
        let proof: [u8; PROOF_BYTES] = exactly(&mut stream, end)?;
        session.check(Side::Client, &proof)?;
        stream.write_all(&session.proof(Side::Server))?;
        Ok(session.channel(stream, Side::Server, limit))
    }

    /// Sends one message.
    pub(crate) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let payload = serde_json::to_vec(message)?;
        let proof = self.mac(self.side, self.sent, &payload);
        self.sent += 1;
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_FRAME_BYTES);
        let length =
            length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the message is too long"))?;
        self.stream.write_all(&[&length.to_be_bytes()[..], &payload, &proof.finalize().into_bytes()].concat())
    }

    /// The next message of the other end.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let end = Instant::now() + self.limit;
        let length = u32::from_be_bytes(exactly(&mut self.stream, end)?) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        fill(&mut self.stream, end, &mut payload)?;
        let proof: [u8; PROOF_BYTES] = exactly(&mut self.stream, end)?;
        let mac = self.mac(self.side.other(), self.received, &payload);
        mac.verify_slice(&proof).map_err(|_| not_believed())?;
        self.received += 1;
        Ok(serde_json::from_slice(&payload)?)
    }

    fn mac(&self, speaker: Side, number: u64, payload: &[u8]) -> Hmac<Sha256> {
        keyed(&self.key, &[speaker.name(), &number.to_be_bytes(), payload])
    }
}

/// What both ends know before the first frame.
struct Session<'a> {
    secret: &'a Secret,
    purpose: &'a str,
    server: [u8; CHALLENGE_BYTES],
    client: [u8; CHALLENGE_BYTES],
}

impl Session<'_> {
    fn proof(&self, speaker: Side) -> [u8; PROOF_BYTES] {
        self.mac(speaker.name()).finalize().into_bytes().into()
    }

    fn check(&self, speaker: Side, proof: &[u8]) -> io::Result<()> {
        self.mac(speaker.name()).verify_slice(proof).map_err(|_| not_believed())
    }

    fn channel(&self, stream: TcpStream, side: Side, limit: Duration) -> Channel {
        let key = self.mac(b"key").finalize().into_bytes().to_vec();
        Channel { stream, side, key, sent: 0, received: 0, limit }
    }

    fn mac(&self, word: &[u8]) -> Hmac<Sha256> {
        let purpose = self.purpose.as_bytes();
        keyed(self.secret.0.as_bytes(), &[VERSION, word, purpose, &self.server, &self.client])
    }
}

/// The parts with their lengths before them: no two lists of parts look alike.
fn keyed(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

fn prepare(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limit))
}

fn challenge() -> io::Result<[u8; CHALLENGE_BYTES]> {
    let mut bytes = [0; CHALLENGE_BYTES];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}

fn exactly<const N: usize>(stream: &mut TcpStream, end: Instant) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(stream, end, &mut bytes)?;
    Ok(bytes)
}

fn fill(stream: &mut TcpStream, end: Instant, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match sockets::read_before(stream, end, buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => buffer = &mut buffer[n..],
        }
    }
    Ok(())
}

fn not_believed() -> io::Error {
    io::Error::new(
        ErrorKind::PermissionDenied,
        "the other end does not know the same shared secret; it must be the same on both nodes",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn secret(text: &str) -> Secret {
        Secret(text.into())
    }

    /// A server that sends back what it is told, as long as it understands it.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handle = |stream| -> io::Result<()> {
            let mut channel = Channel::accept(stream, &secret("same"), "echo", LIMIT)?;
            loop {
                let said: String = channel.receive()?;
                channel.send(&said)?;
            }
        };
        sockets::serve(listener, "echo", 8, move |stream| drop(handle(stream))).unwrap();
        address
    }

    #[test]
    fn who_knows_the_secret_is_answered() {
        let mut channel = Channel::connect(echo(), &secret("same"), "echo", LIMIT).unwrap();
        for said in ["one", "two", ""] {
            channel.send(&said).unwrap();
            assert_eq!(channel.receive::<String>().unwrap(), said);
        }
        assert_eq!(channel.send(&"x".repeat(MAX_FRAME_BYTES)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn who_does_not_learns_nothing() {
        let address = echo();
        for (text, purpose) in [("other", "echo"), ("", "echo"), ("same", "witness")] {
            let error = Channel::connect(address, &secret(text), purpose, LIMIT).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        }
        // A server that does not know the secret is found out too.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let impostor = listener.local_addr().unwrap();
        let pretend = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[7; CHALLENGE_BYTES]).unwrap();
            let mut proof = [0; CHALLENGE_BYTES + PROOF_BYTES];
            stream.read_exact(&mut proof).unwrap();
            stream.write_all(&proof[CHALLENGE_BYTES..]).unwrap();
        });
        let error = Channel::connect(impostor, &secret("same"), "echo", LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        pretend.join().unwrap();
    }

    #[test]
    fn a_frame_cannot_be_repeated_forged_or_oversized() {
        let address = echo();
        let frame = |channel: &Channel, text: &str, number: u64| {
            let payload = serde_json::to_vec(text).unwrap();
            let proof = channel.mac(Side::Client, number, &payload).finalize().into_bytes();
            [&(payload.len() as u32).to_be_bytes()[..], &payload, &proof].concat()
        };
        let connect = || Channel::connect(address, &secret("same"), "echo", LIMIT).unwrap();
        let mut repeated = connect();
        let bytes = frame(&repeated, "go", 0);
        repeated.stream.write_all(&[&bytes[..], &bytes].concat()).unwrap();
        assert_eq!(repeated.receive::<String>().unwrap(), "go");
        assert!(repeated.receive::<String>().is_err());
        let mut forged = connect();
        let mut bytes = frame(&forged, "go", 0);
        bytes[5] ^= 1;
        forged.stream.write_all(&bytes).unwrap();
        assert!(forged.receive::<String>().is_err());
        let mut oversized = connect();
        oversized.stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(oversized.receive::<String>().is_err());
    }

    #[test]
    fn a_long_conversation_goes_on_as_long_as_each_answer_comes_in_time() {
        let limit = Duration::from_millis(500);
        let mut channel = Channel::connect(echo(), &secret("same"), "echo", limit).unwrap();
        let began = Instant::now();
        while began.elapsed() < 2 * limit {
            channel.send(&"well?").unwrap();
            assert_eq!(channel.receive::<String>().unwrap(), "well?");
        }
        assert_eq!(channel.receive::<String>().unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn the_hmac_is_that_of_everybody_else() {
        // RFC 4231, case 2.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
