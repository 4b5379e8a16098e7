//! What many scenarios begin with, and what they look at.

use tandem_core::config::Protocol;
use tandem_core::io::{ClientOp, Command};
use tandem_core::state::{ConnectionState, Role};
use tandem_core::status::{PeerStatus, Status};
use tandem_core::units::ByteRange;

use crate::harness::Pair;

pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::A, Protocol::B, Protocol::C];
pub(crate) const PROMOTE: Command = Command::Primary { force: false };

pub(crate) fn status(pair: &Pair, n: usize) -> Status {
    pair.nodes[n].engine.status(pair.now)
}

pub(crate) fn peer(pair: &Pair, n: usize) -> PeerStatus {
    status(pair, n).peers.remove(0)
}

pub(crate) fn roles(pair: &Pair) -> [Role; 2] {
    [status(pair, 0).role, status(pair, 1).role]
}

pub(crate) fn connections(pair: &Pair) -> [ConnectionState; 2] {
    [peer(pair, 0).connection, peer(pair, 1).connection]
}

/// Node 0 is Primary, both disks are UpToDate.
pub(crate) fn synced(protocol: Protocol) -> Pair {
    let mut pair = Pair::new(protocol);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    pair
}

pub(crate) fn read(pair: &mut Pair, n: usize, offset: u64) -> u8 {
    pair.client(n, ClientOp::Read(ByteRange::new(offset, 4096))).unwrap()[0]
}

pub(crate) fn start_again(pair: &mut Pair, n: usize) {
    pair.attach(n).unwrap();
    pair.command(n, Command::Connect).unwrap();
}
