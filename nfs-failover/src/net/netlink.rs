//! What is asked of the kernel once, over a socket of its own.

use std::io;
use std::thread;
use std::time::Duration;

use nix::sys::socket::SockProtocol;
use tandem_netlink::{Message, Socket};

/// Sends them as one, and waits until the last of those that are `asked` for is done. `around` stand before and behind
/// them, and are not answered.
pub fn ask(
    protocol: SockProtocol,
    asked: &[Message],
    around: Option<[Message; 2]>,
    limit: Duration,
) -> io::Result<()> {
    let mut socket = Socket::open(protocol, limit)?;
    let answered = socket.ask(asked, around);
    // Before the kernel closes a socket by which rules were deleted, it waits until no packet is looked at that has met them.
    let _ = thread::Builder::new().spawn(move || drop(socket));
    answered.map(drop)
}
