//! Servers that cannot be exhausted: a thread per connection, and a limit on their number and on their time.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Accepting may fail for a while, for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections.
pub(crate) trait Listener: Send + 'static {
    /// A connection.
    type Stream: Send + 'static;
    /// The next one.
    fn accept_one(&self) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept_one(&self) -> io::Result<TcpStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn accept_one(&self) -> io::Result<UnixStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

/// Has each connection handled by a thread of its own until the process ends; those beyond `limit` are closed at once.
pub(crate) fn serve<L: Listener>(
    listener: L,
    name: &'static str,
    limit: usize,
    handle: impl Fn(L::Stream) + Send + Sync + 'static,
) -> io::Result<()> {
    let handle = Arc::new(handle);
    let open = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        loop {
            let Ok(stream) = listener.accept_one() else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let slot = Slot::take(&open);
            if slot.number > limit {
                continue;
            }
            let handle = Arc::clone(&handle);
            let run = move || {
                handle(stream);
                drop(slot);
            };
            // Without a thread the connection is closed, and the slot is free again.
            let _ = thread::Builder::new().name(name.into()).spawn(run);
        }
    };
    thread::Builder::new().name(name.into()).spawn(accept).map(drop)
}

/// One of the open connections.
struct Slot {
    open: Arc<AtomicUsize>,
    number: usize,
}

impl Slot {
    fn take(open: &Arc<AtomicUsize>) -> Slot {
        Slot { number: open.fetch_add(1, Ordering::Relaxed) + 1, open: Arc::clone(open) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads what is there, but not beyond `end`: a limit for each read would let a slow sender go on for ever.
pub(crate) fn read_before(stream: &mut TcpStream, end: Instant, buffer: &mut [u8]) -> io::Result<usize> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    match stream.read(buffer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
        result => result,
    }
}
