//! NBD clients until the end of their handshake; then the resource's thread has them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt};
use tandem_core::state::Role;
use tandem_nbd::{
    BlockSize, ExportCatalog, ExportInfo, ExportSummary, Negotiation, OpenError, Step, TransmissionFlags,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::daemon::{Daemon, Entry};
use crate::log_limit::LogLimit;
use crate::resource::NbdClient;
use crate::sockets::accept_failed;

/// For the whole handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Handshakes at once on one listener. Apart from the clients that are served: who has not said what it wants takes
/// nobody's place, and strangers on TCP none of the local ones'.
const MAX_HANDSHAKES: usize = 64;
/// Read at a time during the handshake.
const INPUT_BYTES: usize = 4096;
/// A client on TCP that vanished is noticed after about two minutes: idle time, then five probes, in seconds.
const KEEPALIVE_IDLE_S: u32 = 60;
const KEEPALIVE_INTERVAL_S: u32 = 10;
const KEEPALIVE_PROBES: u32 = 5;
/// The same for one that owes us an acknowledgement, or takes no replies.
const TCP_USER_TIMEOUT_MS: u32 = 120_000;

/// Serves the clients of the Unix socket.
pub(crate) async fn serve_unix(daemon: Rc<Daemon>, listener: UnixListener) {
    let door = Door::new(daemon);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let who = Caller::local(&stream);
                door.admit(stream, who, |stream| stream.into_std().map(OwnedFd::from));
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Serves the clients of a TCP address.
pub(crate) async fn serve_tcp(daemon: Rc<Daemon>, listener: TcpListener) {
    let door = Door::new(daemon);
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => match set_options(&stream) {
                Ok(()) => {
                    let who = Caller { name: remote_name(remote), pid: None };
                    door.admit(stream, who, |stream| stream.into_std().map(OwnedFd::from))
                }
                Err(error) => debug!(%remote, "an NBD client is gone already: {error}"),
            },
            Err(error) => accept_failed(&error).await,
        }
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &TCP_USER_TIMEOUT_MS)?;
    Ok(())
}

/// A listener's clients until their handshake is over.
struct Door {
    daemon: Rc<Daemon>,
    handshakes: Arc<Semaphore>,
    /// For what those who knock can cause to be logged.
    strangers: Rc<LogLimit>,
}

impl Door {
    fn new(daemon: Rc<Daemon>) -> Door {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        Door { daemon, handshakes, strangers: Rc::new(LogLimit::new()) }
    }

    fn admit<S>(&self, stream: S, who: Caller, into_fd: fn(S) -> io::Result<OwnedFd>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Ok(shaking_hands) = self.handshakes.clone().try_acquire_owned() else {
            if let Some(permit) = self.strangers.permit() {
                warn!(client = who.name, "NBD client refused: too many handshakes at once{permit}");
            }
            return;
        };
        let (daemon, strangers) = (self.daemon.clone(), self.strangers.clone());
        tokio::task::spawn_local(async move {
            let ended = negotiate(&daemon, stream, &who, into_fd).await;
            drop(shaking_hands);
            if let Err(error) = ended
                && let Some(permit) = strangers.permit()
            {
                info!(client = who.name, "NBD handshake ended: {error}{permit}");
            }
        });
    }
}

async fn negotiate<S>(
    daemon: &Daemon,
    mut stream: S,
    who: &Caller,
    into_fd: fn(S) -> io::Result<OwnedFd>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::new();
    let handshake = timeout(HANDSHAKE_LIMIT, shake_hands(daemon, &mut stream, &mut input));
    let Some(export) = handshake.await.map_err(|_| io::Error::other("it took too long"))?? else {
        return Ok(());
    };
    let Some((entry, volume)) = daemon.volume(&export.name) else {
        return Err(io::Error::other("the resource has just been taken down"));
    };
    let size_bytes = entry.resource.export().get().volume_bytes(volume);
    if size_bytes != export.size_bytes {
        return Err(io::Error::other("the volume has just changed"));
    }
    let permit = daemon.clients.clone().try_acquire_owned().map_err(io::Error::other)?;
    let fd = into_fd(stream)?;
    // The ring waits for what would block; with O_NONBLOCK it would not.
    nix::fcntl::fcntl(&fd, nix::fcntl::F_SETFL(nix::fcntl::OFlag::empty()))?;
    let name = format!("{} at {}", who.name, tandem_control::utc::format(SystemTime::now()));
    let is_device = entry.devices.is_kept_by(volume, who.pid);
    if is_device && entry.devices.are_adopted() {
        return Err(io::Error::other("the resource has just been brought up anew"));
    }
    entry.resource.serve(NbdClient { socket: fd, input, name, export, volume, is_device, permit });
    Ok(())
}

/// The chosen export, or `None` if the client left in good order.
async fn shake_hands<S>(
    daemon: &Daemon,
    stream: &mut S,
    input: &mut BytesMut,
) -> io::Result<Option<ExportInfo>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut negotiation = Negotiation::new();
    let mut out = BytesMut::new();
    stream.write_all(&Negotiation::greeting()).await?;
    loop {
        let step = negotiation.receive(input, daemon, &mut out);
        stream.write_all(&out).await?;
        out.clear();
        match step {
            Step::SendFirst => (),
            Step::Transmit { export } => return Ok(Some(export)),
            Step::Close { reason: tandem_nbd::CloseReason::Aborted } => return Ok(None),
            Step::Close { reason } => return Err(io::Error::other(reason)),
            Step::NeedMore => {
                input.reserve(INPUT_BYTES);
                if stream.read_buf(input).await? == 0 {
                    return Ok(None);
                }
            }
        }
    }
}

impl Daemon {
    /// The volume, counted from 0, that an export is: `r0/1`, or `r0` if that has one volume.
    fn volume(&self, export: &str) -> Option<(Rc<Entry>, usize)> {
        let (name, number) = match export.split_once('/') {
            Some((name, number)) => (name, Some(number.parse::<u16>().ok()?)),
            None => (export, None),
        };
        let entry = self.entry(name).ok()?;
        let spec = entry.spec();
        let index = match number {
            Some(number) => spec.volumes().position(|volume| volume.number == number)?,
            None if spec.more_volumes.is_empty() => 0,
            None => return None,
        };
        Some((entry, index))
    }
}

/// The exports are the resources' volumes.
impl ExportCatalog for Daemon {
    fn list(&self) -> Vec<ExportSummary> {
        let summaries = |entry: &Rc<Entry>| -> Vec<ExportSummary> {
            let spec = entry.spec();
            let summary = |volume| ExportSummary {
                name: spec.export_name(volume),
                description: volume.device.display().to_string(),
            };
            spec.volumes().map(summary).collect()
        };
        self.entries().iter().flat_map(summaries).collect()
    }

    fn open(&self, export: &str) -> Result<ExportInfo, OpenError> {
        let (entry, index) = self.volume(export).ok_or(OpenError::Unknown)?;
        let spec = entry.spec();
        let name = spec.name.as_str();
        if self.clients.available_permits() == 0 {
            return Err(OpenError::Refused("too many clients are connected to this daemon".into()));
        }
        let state = entry.resource.export().get().clone();
        let size_bytes = state.volume_bytes(index);
        match (state.role, state.primary_peer, size_bytes) {
            (Role::Primary, _, 0) => Err(OpenError::Refused(format!(
                "{name} has no data here: attach a disk or connect to the peer"
            ))),
            // Refused and not hung up on: what the kernel sends over a connection that ends waits for its time limit.
            (Role::Primary, ..) if entry.devices.are_adopted() => Err(OpenError::Refused(format!(
                "what the device of {name} was opened with is being compared with the data"
            ))),
            (Role::Primary, _, size_bytes) => Ok(ExportInfo {
                name: export.to_owned(),
                description: spec.volumes().nth(index).map_or("".into(), |v| v.device.display().to_string()),
                size_bytes,
                flags: TransmissionFlags::SEND_FLUSH
                    | TransmissionFlags::SEND_FUA
                    | TransmissionFlags::SEND_TRIM
                    | TransmissionFlags::SEND_WRITE_ZEROES
                    // All connections share one engine: a flush covers what any of them was told is written.
                    | TransmissionFlags::CAN_MULTI_CONN,
                block_size: BlockSize::default(),
            }),
            (_, Some(primary), _) => Err(OpenError::Refused(format!(
                "{name} is Secondary on {}: connect to {primary}, where it is Primary",
                spec.node.name
            ))),
            (_, None, _) => Err(OpenError::Refused(format!(
                "{name} is Secondary on {}: make one node Primary with 'tandemadm primary {name}'",
                spec.node.name
            ))),
        }
    }
}

/// Who wants to be a client.
struct Caller {
    name: String,
    /// If it is a process of this machine.
    pid: Option<i32>,
}

impl Caller {
    fn local(stream: &UnixStream) -> Caller {
        let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
        Caller { name: pid.map_or("nbd client".into(), process_name), pid }
    }
}

fn process_name(pid: i32) -> String {
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match command.trim() {
        "" => format!("nbd client (pid {pid})"),
        command => format!("{command} (pid {pid})"),
    }
}

fn remote_name(remote: SocketAddr) -> String {
    format!("nbd client ({remote})")
}
