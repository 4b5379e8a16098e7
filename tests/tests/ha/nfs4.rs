//! An NFSv4 client in small: each of its steps is a call of its own, so that what a server says to each of them can be seen.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nfs_failover::net::rpc::{Caller, Credential, NFS};

use crate::host::Host;
use crate::lab::VIP;
use crate::servers::EXPORT;
use crate::xdr::{Arguments, Results};

const VERSION: u32 = 4;
const COMPOUND: u32 = 1;
const LIMIT: Duration = Duration::from_secs(10);

// Operations, by their numbers.
const GETATTR: u32 = 9;
const GETFH: u32 = 10;
const LOCK: u32 = 12;
const LOOKUP: u32 = 15;
const OPEN: u32 = 18;
const OPEN_CONFIRM: u32 = 20;
const PUTFH: u32 = 22;
const PUTROOTFH: u32 = 24;
const RENEW: u32 = 30;
const SETCLIENTID: u32 = 35;
const SETCLIENTID_CONFIRM: u32 = 36;
const EXCHANGE_ID: u32 = 42;

/// The bit of the lease among the attributes.
const LEASE: u32 = 1 << 10;
const READ_AND_WRITE: u32 = 3;
const CREATE: u32 = 1;
const BY_NAME: u32 = 0;
const AS_BEFORE: u32 = 1;
/// That an open has still to be confirmed.
const CONFIRM: u32 = 2;
const WRITE_LOCK: u32 = 2;

/// What a server says no with.
pub(crate) type Refusal = u32;
/// Another one has the lock.
pub(crate) const DENIED: Refusal = 10010;
/// Only what was there before the server was started is granted yet.
pub(crate) const GRACE: Refusal = 10013;
/// This server does not know the client.
pub(crate) const STALE_CLIENT: Refusal = 10022;

/// A client, as the server that it is connected to knows it.
pub(crate) struct Client {
    name: &'static str,
    caller: Caller,
    number: u64,
    /// Of the owners of opens and locks, each of which begins to count anew.
    owners: u32,
}

/// A file that a client has open.
pub(crate) struct Opened {
    pub(crate) handle: Vec<u8>,
    state: [u8; 16],
    sequence: u32,
}

impl Client {
    /// A client that is known to whoever serves.
    pub(crate) fn new(host: &Host, name: &'static str) -> Client {
        let mut client = Client::stranger(host, name);
        client.introduce();
        client
    }

    /// One that is connected, and no more.
    fn stranger(host: &Host, name: &'static str) -> Client {
        let server = SocketAddr::new(VIP.parse().unwrap(), 2049);
        let stream = host.network().run(move || TcpStream::connect_timeout(&server, LIMIT).unwrap());
        Client { name, caller: Caller::new(stream, LIMIT).unwrap(), number: 0, owners: 0 }
    }

    /// Connects anew, as the same client that it was.
    pub(crate) fn reconnect(&mut self, host: &Host) {
        let known = self.number;
        *self = Client { number: known, ..Client::stranger(host, self.name) };
    }

    /// Tells the server who it is: the same each time, as long as its machine runs.
    pub(crate) fn introduce(&mut self) {
        let mut call = Arguments::default();
        call.operation(SETCLIENTID).fixed(&[7; 8]).opaque(self.name.as_bytes());
        // It cannot be called back.
        call.word(0).opaque(b"tcp").opaque(b"0.0.0.0.0.0").word(0);
        let mut results = self.send(call);
        results.expect(SETCLIENTID).unwrap();
        self.number = results.long();
        let verifier: [u8; 8] = results.fixed();
        let mut call = Arguments::default();
        call.operation(SETCLIENTID_CONFIRM).long(self.number).fixed(&verifier);
        self.send(call).expect(SETCLIENTID_CONFIRM).unwrap();
    }

    /// What the server calls itself to a client of NFSv4.1, who reclaims from another one only if it calls itself the same:
    /// owner and scope.
    pub(crate) fn server(host: &Host) -> (Vec<u8>, Vec<u8>) {
        let mut onlooker = Client::stranger(host, "onlooker");
        let mut call = Arguments::default();
        // No state of its own is protected, and what it is made by is nobody's concern.
        call.operation(EXCHANGE_ID).fixed(&[7; 8]).opaque(onlooker.name.as_bytes()).word(0).word(0).word(0);
        let mut results = onlooker.send_as(1, call);
        results.expect(EXCHANGE_ID).unwrap();
        // Its number, sequence and flags, the protection, and the owner's minor number.
        results.skip(2 + 1 + 1 + 1 + 2);
        (results.opaque(), results.opaque())
    }

    /// Says that it is still there.
    pub(crate) fn renew(&mut self) -> Result<(), Refusal> {
        let mut call = Arguments::default();
        call.operation(RENEW).long(self.number);
        self.send(call).expect(RENEW)
    }

    /// How often it has to.
    pub(crate) fn lease_s(&mut self) -> u32 {
        let mut call = Arguments::default();
        call.operation(PUTROOTFH).operation(GETATTR).word(1).word(LEASE);
        let mut results = self.send(call);
        results.expect(PUTROOTFH).unwrap();
        results.expect(GETATTR).unwrap();
        assert_eq!((results.word(), results.word(), results.word()), (1, LEASE, 4));
        results.word()
    }

    /// Opens a file of the export, which is made if it is not there.
    pub(crate) fn open(&mut self, name: &str) -> Result<Opened, Refusal> {
        let mut call = Arguments::default();
        call.operation(PUTROOTFH);
        let folders: Vec<&str> = EXPORT.split('/').skip(1).collect();
        folders.iter().for_each(|folder| {
            call.operation(LOOKUP).opaque(folder.as_bytes());
        });
        self.begin_open(&mut call);
        // Whatever it is, with no attributes.
        call.word(CREATE).word(0).word(0).opaque(b"").word(BY_NAME).opaque(name.as_bytes()).operation(GETFH);
        let mut results = self.send(call);
        results.expect(PUTROOTFH)?;
        folders.iter().try_for_each(|_| results.expect(LOOKUP))?;
        self.end_open(results)
    }

    /// Opens a file that it had open at a server before this one.
    pub(crate) fn open_again(&mut self, handle: &[u8]) -> Result<Opened, Refusal> {
        let mut call = Arguments::default();
        call.operation(PUTFH).opaque(handle);
        self.begin_open(&mut call);
        call.word(0).word(AS_BEFORE).word(0).operation(GETFH);
        let mut results = self.send(call);
        results.expect(PUTFH)?;
        self.end_open(results)
    }

    /// Locks all of it, if nobody else has; or takes the lock again that it had at a server before this one.
    pub(crate) fn lock(&mut self, file: &mut Opened, again: bool) -> Result<(), Refusal> {
        let mut call = Arguments::default();
        call.operation(PUTFH).opaque(&file.handle);
        call.operation(LOCK).word(WRITE_LOCK).word(again.into()).long(0).long(u64::MAX);
        let owner = self.owner();
        // A new owner of locks, for whom this open vouches.
        call.word(1)
            .word(file.sequence)
            .fixed(&file.state)
            .word(0)
            .long(self.number)
            .opaque(owner.as_bytes());
        // Each is counted, whatever comes of it.
        file.sequence += 1;
        let mut results = self.send(call);
        results.expect(PUTFH)?;
        results.expect(LOCK)
    }

    fn begin_open(&mut self, call: &mut Arguments) {
        let owner = self.owner();
        call.operation(OPEN).word(0).word(READ_AND_WRITE).word(0).long(self.number).opaque(owner.as_bytes());
    }

    fn end_open(&mut self, mut results: Results) -> Result<Opened, Refusal> {
        results.expect(OPEN)?;
        let mut state: [u8; 16] = results.fixed();
        // How the folder has changed.
        results.skip(5);
        let flags = results.word();
        let attributes = results.word() as usize;
        results.skip(attributes);
        assert_eq!(results.word(), 0, "a delegation, which nobody has asked for");
        results.expect(GETFH)?;
        let handle = results.opaque();
        let mut sequence = 1;
        if flags & CONFIRM != 0 {
            let mut call = Arguments::default();
            call.operation(PUTFH).opaque(&handle).operation(OPEN_CONFIRM).fixed(&state).word(sequence);
            let mut results = self.send(call);
            results.expect(PUTFH)?;
            results.expect(OPEN_CONFIRM)?;
            state = results.fixed();
            sequence += 1;
        }
        Ok(Opened { handle, state, sequence })
    }

    fn owner(&mut self) -> String {
        self.owners += 1;
        format!("{} {}", self.name, self.owners)
    }

    fn send(&mut self, call: Arguments) -> Results {
        self.send_as(0, call)
    }

    fn send_as(&mut self, minor_version: u32, call: Arguments) -> Results {
        // No tag.
        let mut arguments = [0, minor_version, call.operations].map(u32::to_be_bytes).concat();
        arguments.extend(call.bytes);
        let answer = self.caller.call(NFS, VERSION, COMPOUND, Credential::Root, &arguments).unwrap();
        let mut results = Results::new(answer);
        // Its end, which the last operation has, too; no tag; how many there are.
        results.skip(3);
        results
    }
}

/// Answers to operations follow each other; behind one that was refused there is nothing.
trait Operations {
    fn expect(&mut self, operation: u32) -> Result<(), Refusal>;
}

impl Operations for Results {
    fn expect(&mut self, operation: u32) -> Result<(), Refusal> {
        assert_eq!(self.word(), operation);
        match self.word() {
            0 => Ok(()),
            refusal => Err(refusal),
        }
    }
}
