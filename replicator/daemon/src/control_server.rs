//! The control socket: one JSON object per line, a reply to each.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tandem_control::{MAX_LINE_BYTES, Reply, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::daemon::Daemon;
use crate::log_limit::LogLimit;
use crate::sockets::accept_failed;

/// Conversations at once.
const MAX_CONVERSATIONS: usize = 64;

/// Serves administrators.
pub(crate) async fn serve(daemon: Rc<Daemon>, listener: UnixListener) {
    let conversations = Arc::new(Semaphore::new(MAX_CONVERSATIONS));
    let refused = LogLimit::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                accept_failed(&error).await;
                continue;
            }
        };
        let Ok(permit) = conversations.clone().try_acquire_owned() else {
            if let Some(permit) = refused.permit() {
                warn!("a conversation on the control socket was refused: too many at once{permit}");
            }
            continue;
        };
        let daemon = daemon.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            if let Err(error) = converse(&daemon, stream).await {
                debug!("a conversation on the control socket ended: {error}");
            }
        });
    }
}

async fn converse(daemon: &Rc<Daemon>, stream: UnixStream) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    let mut stream = BufReader::new(stream);
    if user != 0 && user != nix::unistd::geteuid().as_raw() {
        return answer(&mut stream, &error("only root may use the control socket")).await;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stream).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return answer(&mut stream, &error("the request is too long or not complete")).await;
        }
        match serde_json::from_slice::<Request>(&line) {
            Ok(Request::Watch { resource }) => {
                let ask = || daemon.changed.notify_one();
                return daemon.watchers.serve(stream.get_mut(), resource.as_deref(), ask).await;
            }
            Ok(request) => answer(&mut stream, &daemon.handle(request).await).await?,
            Err(e) => {
                let text = format!(
                    "the request was not understood ({e}); tandemadm and tandemd must be of the same release"
                );
                return answer(&mut stream, &error(&text)).await;
            }
        }
    }
}

async fn answer(stream: &mut BufReader<UnixStream>, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

fn error(text: &str) -> Reply {
    Reply { exit_code: 10, error: Some(text.to_owned()), ..Reply::default() }
}
