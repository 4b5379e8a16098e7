//! The line to tandemd: an NBD client with many requests in flight that connects again and again.
//!
//! A request stays pending until tandemd has answered it, and is sent again in its old place on every new connection.
//! Once the line has failed, by order or because tandemd stayed away too long, every request fails and nothing is sent.

use std::collections::BTreeMap;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use tandem_nbd::client::{self, Opened, ReplyHeader};
use tandem_nbd::constants::{CMD_DISC, CMD_READ, SIMPLE_REPLY_BYTES};
use tandem_nbd::{Errno as NbdErrno, RequestHeader};

/// First pause between attempts to connect; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// For tandemd's part of a handshake: it has none to do for longer.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
/// Read from the socket at a time: the headers of many replies.
const INPUT_BYTES: usize = 64 << 10;

/// Where tandemd is, and how long it may stay away.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    pub(crate) export: String,
    /// Then every request fails, for good; `None`: never.
    pub(crate) away_limit: Option<Duration>,
}

/// What the device is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) command: u16,
    pub(crate) flags: u16,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    /// The data of a write.
    pub(crate) payload: Bytes,
}

/// The data of a read (empty otherwise), or what the request failed with.
pub(crate) type Answer = Result<Vec<u8>, Errno>;
/// Takes the answer to a request.
pub(crate) type Done = Box<dyn FnOnce(Answer) + Send>;

struct Pending {
    request: Request,
    done: Done,
}

/// The line. Locks are taken in the order `sender`, `state`.
pub(crate) struct Line {
    server: Server,
    /// Whoever sends holds it; requests go out in the order of their cookies.
    sender: Mutex<Option<UnixStream>>,
    state: Mutex<State>,
    /// Rung when the line fails or closes.
    ended: Condvar,
}

struct State {
    pending: BTreeMap<u64, Pending>,
    last_cookie: u64,
    size_bytes: u64,
    /// To end what a sender or a reader waits for.
    stream: Option<UnixStream>,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Failed,
    Closed,
}

impl Line {
    /// Connects for the first time, for at most `limit`, and stays connected from then on.
    pub(crate) fn open(server: Server, limit: Duration) -> io::Result<Arc<Line>> {
        let (stream, opened) = connect_within(&server, limit)?;
        let line = Arc::new(Line {
            server,
            sender: Mutex::new(None),
            state: Mutex::new(State {
                pending: BTreeMap::new(),
                last_cookie: 0,
                size_bytes: opened.size_bytes,
                stream: None,
                end: None,
            }),
            ended: Condvar::new(),
        });
        let keeping = line.clone();
        thread::Builder::new().name("line".into()).spawn(move || keeping.keep(stream))?;
        Ok(line)
    }

    /// The size that was found when the line was opened, or by [`Line::look_at_size`].
    pub(crate) fn size_bytes(&self) -> u64 {
        self.state().size_bytes
    }

    /// Asks how large the export is by now; a device never shrinks.
    pub(crate) fn look_at_size(&self) -> io::Result<u64> {
        let opened = look(&self.server)?;
        let mut state = self.state();
        state.size_bytes = state.size_bytes.max(opened.size_bytes);
        Ok(state.size_bytes)
    }

    /// Whether tandemd serves us, how many requests wait, and whether every request fails.
    pub(crate) fn condition(&self) -> (bool, usize, bool) {
        let state = self.state();
        (state.stream.is_some(), state.pending.len(), state.end.is_some())
    }

    /// Passes a request on; `done` is called once, from any thread.
    pub(crate) fn submit(&self, request: Request, done: Done) {
        let mut sender = lock(&self.sender);
        let cookie = {
            let mut state = self.state();
            if state.end.is_some() {
                drop(state);
                return done(Err(Errno::EIO));
            }
            state.last_cookie += 1;
            let cookie = state.last_cookie;
            state.pending.insert(cookie, Pending { request: request.clone(), done });
            cookie
        };
        if let Some(stream) = sender.as_mut()
            && send(stream, cookie, &request).is_err()
        {
            // Whoever reads from it notices, and connects anew.
            hang_up(stream);
            *sender = None;
        }
    }

    /// Fails every request from now on, those that wait included. When this returns, nothing more is sent.
    pub(crate) fn fail(&self) {
        self.end(End::Failed);
    }

    /// Says goodbye. No request may follow.
    pub(crate) fn close(&self) {
        if let Some(stream) = lock(&self.sender).as_mut() {
            let goodbye = RequestHeader { flags: 0, command: CMD_DISC, cookie: 0, offset: 0, length: 0 };
            // It may have hung up.
            let _ = stream.write_all(&goodbye.encode());
        }
        self.end(End::Closed);
    }

    fn end(&self, how: End) {
        let orphans = {
            let mut state = self.state();
            state.end.get_or_insert(how);
            if let Some(stream) = state.stream.take() {
                hang_up(&stream);
            }
            std::mem::take(&mut state.pending)
        };
        self.ended.notify_all();
        // A sender that was in the middle of something is out of it.
        *lock(&self.sender) = None;
        orphans.into_values().for_each(|pending| (pending.done)(Err(Errno::EIO)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The thread that connects and reads.
impl Line {
    fn keep(self: Arc<Line>, first: UnixStream) {
        let mut next = Some(first);
        while let Some(stream) = next.take() {
            match self.serve(stream) {
                Ok(()) => tracing::info!("tandemd has ended the connection"),
                Err(error) => tracing::warn!("the connection to tandemd has ended: {error}"),
            }
            next = self.reconnect();
        }
    }

    /// Sends what is pending and reads replies until the connection ends.
    fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let mut sender = lock(&self.sender);
        {
            let mut state = self.state();
            if state.end.is_some() {
                return Ok(());
            }
            state.stream = Some(stream.try_clone()?);
        }
        let reading = stream.try_clone()?;
        let ended = thread::scope(|scope| {
            // Replies are read while requests are sent again, or both sides might wait for the other to read.
            let reader = scope.spawn(|| self.read(reading));
            let mut stream = stream;
            match self.send_again(&mut stream) {
                Ok(()) => *sender = Some(stream),
                Err(_) => hang_up(&stream),
            }
            drop(sender);
            reader.join().unwrap_or_else(|_| Err(Error::other("the reader has panicked")))
        });
        if let Some(stream) = self.state().stream.take() {
            hang_up(&stream);
        }
        *lock(&self.sender) = None;
        ended
    }

    fn send_again(&self, stream: &mut UnixStream) -> io::Result<()> {
        let mut sent = 0;
        loop {
            let next = {
                let state = self.state();
                let next = state.pending.range(sent + 1..).next();
                next.map(|(cookie, pending)| (*cookie, pending.request.clone()))
            };
            let Some((cookie, request)) = next else { return Ok(()) };
            send(stream, cookie, &request)?;
            sent = cookie;
        }
    }

    fn read(&self, stream: UnixStream) -> io::Result<()> {
        let mut stream = io::BufReader::with_capacity(INPUT_BYTES, stream);
        loop {
            let mut header = [0; SIMPLE_REPLY_BYTES];
            match stream.read_exact(&mut header) {
                Ok(()) => (),
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            }
            let reply = ReplyHeader::parse(&header).map_err(Error::other)?;
            if reply.error == NbdErrno::Eshutdown as u32 {
                return Ok(()); // It was not done: the next one will do it.
            }
            let read_bytes = {
                let state = self.state();
                let Some(pending) = state.pending.get(&reply.cookie) else {
                    if state.end.is_some() {
                        return Ok(());
                    }
                    return Err(Error::other("a reply to a request that was not made"));
                };
                let reads = pending.request.command == CMD_READ && reply.error == 0;
                if reads { pending.request.length as usize } else { 0 }
            };
            let mut data = vec![0; read_bytes];
            stream.read_exact(&mut data)?;
            let Some(pending) = self.state().pending.remove(&reply.cookie) else { return Ok(()) };
            (pending.done)(match reply.error {
                0 => Ok(data),
                error if error == NbdErrno::Enospc as u32 => Err(Errno::ENOSPC),
                _ => Err(Errno::EIO),
            });
        }
    }

    /// A new connection; `None` when the line has ended, by itself too when tandemd stays away too long.
    fn reconnect(&self) -> Option<UnixStream> {
        let lost_at = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut last_error = String::new();
        loop {
            let state = self.state();
            if state.end.is_some() {
                return None;
            }
            let size_bytes = state.size_bytes;
            drop(state);
            match connect(&self.server) {
                Ok((stream, opened)) if opened.size_bytes >= size_bytes => {
                    tracing::info!("connected to tandemd again after {:?}", lost_at.elapsed());
                    return Some(stream);
                }
                Ok((_, opened)) => {
                    let now_bytes = opened.size_bytes;
                    self.note(&mut last_error, format!("the export has shrunk to {now_bytes} bytes"));
                }
                Err(error) => self.note(&mut last_error, error.to_string()),
            }
            if self.server.away_limit.is_some_and(|limit| lost_at.elapsed() >= limit) {
                tracing::error!("tandemd has stayed away too long: every request fails from now on");
                self.fail();
                return None;
            }
            let state = self.state();
            if state.end.is_none() {
                drop(self.ended.wait_timeout(state, pause));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Logs why requests wait, once for each reason.
    fn note(&self, last: &mut String, reason: String) {
        if *last != reason {
            tracing::warn!("requests wait for tandemd: {reason}");
            *last = reason;
        }
    }
}

/// Connects, for at most `limit`: tandemd may not have noticed yet that it is Primary.
pub(crate) fn connect_within(server: &Server, limit: Duration) -> io::Result<(UnixStream, Opened)> {
    let give_up_at = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        match connect(server) {
            Err(_) if Instant::now() < give_up_at => thread::sleep(pause),
            connected => return connected,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Asks how large the export is, and opens nothing.
pub(crate) fn look(server: &Server) -> io::Result<Opened> {
    client::look(&mut dial(server)?, &server.export)
}

fn dial(server: &Server) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(&server.socket)?;
    stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    stream.set_write_timeout(Some(HANDSHAKE_LIMIT))?;
    Ok(stream)
}

/// Opens the export once.
pub(crate) fn connect(server: &Server) -> io::Result<(UnixStream, Opened)> {
    let mut stream = dial(server)?;
    let opened = client::open(&mut stream, &server.export)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok((stream, opened))
}

fn send(stream: &mut UnixStream, cookie: u64, request: &Request) -> io::Result<()> {
    let Request { command, flags, offset, length, .. } = *request;
    let header = RequestHeader { flags, command, cookie, offset, length }.encode();
    let mut parts = [io::IoSlice::new(&header), io::IoSlice::new(&request.payload)];
    let mut parts = &mut parts[..];
    while !parts.is_empty() {
        match stream.write_vectored(parts) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => io::IoSlice::advance_slices(&mut parts, bytes),
            Err(e) if e.kind() == ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Ok(());
        }
    }
    Ok(())
}

fn hang_up(stream: &UnixStream) {
    // It fails if the other side was faster.
    let _ = stream.shutdown(Shutdown::Both);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
