//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::failure::Failure;

const BACKLOG: u32 = 128;
/// Pause after a failed accept: with every descriptor in use, the next one fails at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Listens on `address`; to be called inside the runtime.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listen = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        let failure = match error.kind() {
            io::ErrorKind::AddrInUse => Failure::numbered(102, "Local address(port) already in use."),
            io::ErrorKind::AddrNotAvailable => {
                Failure::unnumbered("this machine does not have the configured address; correct 'address'")
            }
            _ => Failure::unnumbered("cannot listen on the configured address"),
        };
        failure.because(format_args!("{address}: {error}"))
    })
}

/// Logs a failed accept, but not each of a storm, and pauses.
pub(crate) async fn accept_failed(error: &io::Error) {
    static LAST_COMPLAINT: Mutex<Option<Instant>> = Mutex::new(None);
    {
        let mut last = LAST_COMPLAINT.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            tracing::warn!("connections cannot be accepted: {error}");
            *last = Some(Instant::now());
        }
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Ends a task that listens. Its socket is closed when this returns.
pub(crate) async fn stop(listening: JoinHandle<()>) {
    listening.abort();
    // It says that the task was aborted.
    let _ = listening.await;
}
