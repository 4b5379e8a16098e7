//! Keeps the status file: written when a state changes and each second, if its content differs. What is looked at then
//! also tells which resyncs must wait for others, and is told to those who watch.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_uring::fs::{File, rename};
use tracing::warn;

use crate::daemon::Daemon;
use crate::openers::Openers;
use crate::{proc_drbd, resync_order};

const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the file until the daemon ends.
pub(crate) async fn keep(daemon: Rc<Daemon>, path: PathBuf) {
    let mut written = None;
    let mut complained = false;
    // A search through every process is not for every change.
    let (mut openers, mut searched) = (Openers::default(), None::<Instant>);
    loop {
        daemon.watchers.begin_look();
        let statuses = daemon.statuses().await;
        resync_order::keep(&daemon, &statuses);
        let text = proc_drbd::render(&statuses);
        if written.as_ref() != Some(&text) {
            match replace(&path, text.clone().into_bytes()).await {
                Ok(()) => (written, complained) = (Some(text), false),
                Err(error) if !complained => {
                    warn!(path = %path.display(), "the status file cannot be written: {error}");
                    complained = true;
                }
                Err(_) => (),
            }
        }
        if daemon.watchers.any() && searched.is_none_or(|at| at.elapsed() >= INTERVAL) {
            openers = daemon.openers(&statuses).await;
            searched = Some(Instant::now());
        }
        daemon.watchers.tell(statuses, &openers);
        // Either way it is time to look.
        let _ = timeout(INTERVAL, daemon.changed.notified()).await;
    }
}

/// Readers see the old content or the new, never a part.
async fn replace(path: &Path, content: Vec<u8>) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let file = File::create(&temporary).await?;
    let (written, _) = file.write_all_at(content, 0).await;
    file.close().await?;
    written?;
    rename(&temporary, path).await
}
