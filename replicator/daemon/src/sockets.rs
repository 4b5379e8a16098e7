//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::log_limit::LogLimit;

const BACKLOG: u32 = 128;
/// Pause after a failed accept: with every descriptor in use, the next one fails at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address`; to be called inside the runtime.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    try_listen(address, Address::IsHere).map_err(|error| failure(address, &error))
}

/// Whether an address must be this machine's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// Yes.
    IsHere,
    /// It may become so later.
    MayCome,
}

/// Listens on `address`; to be called inside the runtime.
pub(crate) fn try_listen(address: SocketAddr, presence: Address) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if presence == Address::MayCome {
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Why nobody can listen there, and what to do.
pub(crate) fn failure(address: SocketAddr, error: &io::Error) -> Failure {
    let failure = match error.kind() {
        io::ErrorKind::AddrInUse => Failure::numbered(102, "Local address(port) already in use."),
        io::ErrorKind::AddrNotAvailable => {
            Failure::unnumbered("this machine does not have the configured address; correct 'address'")
        }
        _ => Failure::unnumbered("cannot listen on the configured address"),
    };
    failure.because(format_args!("{address}: {error}"))
}

/// Logs a failed accept, but not each of a storm, and pauses.
pub(crate) async fn accept_failed(error: &io::Error) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(permit) = LIMIT.permit() {
        tracing::warn!("connections cannot be accepted: {error}{permit}");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Ends a task that listens. Its socket is closed when this returns.
pub(crate) async fn stop(listening: JoinHandle<()>) {
    listening.abort();
    // It says that the task was aborted.
    let _ = listening.await;
}
