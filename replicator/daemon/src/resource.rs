//! A resource that is up: its thread, and the main thread's handle to it.

mod backing;
mod buffer;
mod disk;
mod event_loop;
mod mailbox;
mod nbd_conn;
mod peer_conn;
mod pieces;
mod ring;
mod send_queue;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tandem_control::{LastSeen, ResourceSpec};
use tandem_core::Engine;
use tandem_core::config::{AL_EXTENT_BYTES, EngineConfig, PeerConfig};
use tandem_core::divergence::Divergence;
use tandem_core::handler::Handler;
use tandem_core::io::Command;
use tandem_core::status::Status;
use tandem_core::units::Timestamp;
use tokio::sync::{
    Mutex, Notify, mpsc::UnboundedReceiver, mpsc::UnboundedSender, mpsc::unbounded_channel, oneshot,
};

use event_loop::{EventLoop, Links};
use mailbox::Mail;
pub(crate) use mailbox::{Attempt, Clients, ExportState, Mailbox, Reign, SharedExport, Snapshot, Wish};
pub(crate) use nbd_conn::NbdClient;

use crate::failure::Failure;
use crate::handlers;
use crate::watchers::News;

/// A thread that does not answer a question for its state within this time is reading metadata, or stuck.
const STATUS_LIMIT: Duration = Duration::from_secs(1);
/// The same where much may have to be listed, and whoever asks has nothing else to do.
const DIVERGENCES_LIMIT: Duration = Duration::from_secs(8);

/// What became of a resource that died, and what to do.
pub(crate) const ENDED: &str =
    "the resource's thread has ended; see the daemon's log, then 'tandemadm down' and 'up'";

/// The main thread's handle to a resource's thread.
pub(crate) struct Resource {
    mailbox: Mailbox,
    export: SharedExport,
    /// Closes when the thread has ended.
    alive: Mutex<oneshot::Receiver<()>>,
}

impl Resource {
    /// Starts the thread. It reports what it comes to as `news`, and `changed` is rung whenever a state has changed; the receivers yield the thread's wishes, and
    /// the handlers to be run.
    pub(crate) fn start(
        spec: &ResourceSpec,
        last_seen: LastSeen,
        changed: Arc<Notify>,
        news: UnboundedSender<News>,
    ) -> Result<(Resource, UnboundedReceiver<Wish>, UnboundedReceiver<handlers::Run>), Failure> {
        let failure = |e: io::Error| Failure::unnumbered(format_args!("the resource cannot be started: {e}"));
        let entropy = crate::entropy::draw().map_err(failure)?;
        let (mailbox, mail, bell) = Mailbox::new()?;
        let (wishes, wishes_receiver) = unbounded_channel();
        let (handlers, handlers_receiver) = unbounded_channel();
        let export = SharedExport::new();
        let links = Links { mail, bell, wishes, handlers, export: export.clone(), last_seen, changed, news };
        let (alive_sender, alive) = oneshot::channel();
        let thread_spec = spec.clone();
        let thread = move || {
            run(thread_spec, entropy, links);
            drop(alive_sender);
        };
        std::thread::Builder::new().name(format!("r-{}", spec.name)).spawn(thread).map_err(failure)?;
        Ok((Resource { mailbox, export, alive: Mutex::new(alive) }, wishes_receiver, handlers_receiver))
    }

    /// Where to send what the resource is told besides commands.
    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Size and role, as last published.
    pub(crate) fn export(&self) -> &SharedExport {
        &self.export
    }

    /// Opens the disk and takes it into use.
    pub(crate) async fn attach(&self) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Mail::Attach(reply));
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Does one thing that needs nothing but the engine.
    pub(crate) async fn command(&self, command: Command) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Mail::Command(command, reply));
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// From now on it is as this says.
    pub(crate) async fn change(&self, spec: &ResourceSpec) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Mail::Change(Box::new(spec.clone()), reply));
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// What the engine says, unless the thread is too busy to tell.
    pub(crate) async fn status(&self) -> Option<Status> {
        Some(self.snapshot().await?.engine)
    }

    /// A snapshot, unless the thread is too busy to give one.
    pub(crate) async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Mail::Status(reply));
        tokio::time::timeout(STATUS_LIMIT, answer).await.ok()?.ok()
    }

    /// What a device that is open may know of the data.
    pub(crate) async fn reign(&self) -> Option<Reign> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Mail::Reign(reply));
        answer.await.ok()
    }

    /// What is known of copies that went on without each other, unless the thread is too busy to say.
    pub(crate) async fn divergences(&self, from_bytes: u64) -> Option<Vec<Divergence>> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Mail::Divergences(from_bytes, reply));
        tokio::time::timeout(DIVERGENCES_LIMIT, answer).await.ok()?.ok()
    }

    /// Serves an NBD client.
    pub(crate) fn serve(&self, client: NbdClient) {
        self.mailbox.send(Mail::Nbd(client));
    }

    /// The resync of another resource comes first, or no longer.
    pub(crate) fn resync_must_wait(&self, wait: bool) {
        self.mailbox.send(Mail::ResyncMustWait(wait));
    }

    /// Drops NBD clients and waits until their requests have ended.
    pub(crate) async fn stop_clients(&self, which: Clients) {
        let (stopped, answer) = oneshot::channel();
        self.mailbox.send(Mail::StopClients(which, stopped));
        // An error says that the thread has ended, and its clients with it.
        let _ = answer.await;
    }

    /// True once the thread has ended, which without [`Resource::end`] means that io_uring failed.
    pub(crate) fn has_ended(&self) -> bool {
        let closed =
            |alive: &mut oneshot::Receiver<()>| alive.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        self.alive.try_lock().is_ok_and(|mut alive| closed(&mut alive))
    }

    /// Ends the thread; to be called when the resource is down. It is waited for at most `limit`: a disk that hangs
    /// must not keep the daemon.
    pub(crate) async fn end(&self, limit: Duration) {
        self.mailbox.send(Mail::Exit);
        let mut alive = self.alive.lock().await;
        if !alive.is_terminated() && tokio::time::timeout(limit, &mut *alive).await.is_err() {
            tracing::error!("a resource's thread does not end; its disk may hang");
        }
    }
}

#[cfg(test)]
impl Resource {
    /// One whose thread never answers, and what keeps it so: when that is dropped, the thread has died.
    pub(crate) fn mute() -> (Resource, impl Sized) {
        let (mailbox, mail, _) = Mailbox::new().unwrap();
        let (alive_sender, alive) = oneshot::channel::<()>();
        let resource = Resource { mailbox, export: SharedExport::new(), alive: Mutex::new(alive) };
        (resource, (mail, alive_sender))
    }
}

fn run(spec: ResourceSpec, entropy: u64, links: Links) {
    let name = spec.name.clone();
    let ended = EventLoop::new(spec, entropy, links).and_then(|mut resource| resource.run());
    if let Err(error) = ended {
        tracing::error!(resource = name, "io_uring failed, the resource is down: {error}");
    }
}

fn ended() -> Failure {
    Failure::unnumbered(ENDED)
}

/// The state of a resource of which nothing is known but its configuration.
pub(crate) fn initial_status(spec: &ResourceSpec) -> Status {
    Engine::new(engine_config(spec), 0, Timestamp(0)).status(Timestamp(0))
}

fn engine_config(spec: &ResourceSpec) -> EngineConfig {
    EngineConfig {
        resource: spec.name.clone(),
        node: spec.node.id,
        node_name: spec.node.name.clone(),
        peers: spec.peers.iter().map(|peer| PeerConfig { id: peer.id, name: peer.name.clone() }).collect(),
        al_extent_bytes: AL_EXTENT_BYTES,
        options: spec.options.clone(),
        handlers: handlers_of(spec),
    }
}

fn handlers_of(spec: &ResourceSpec) -> BTreeSet<Handler> {
    spec.handlers.commands.keys().copied().collect()
}
