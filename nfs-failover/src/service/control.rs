//! What programs on this machine say to its service: one JSON object per line on a Unix socket that only root may use.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_control::reason;
use thiserror::Error;

use super::Wish;
use super::mailbox::Mailbox;
use crate::health::ServiceView;
use crate::here::make_folder;

/// Longest request or reply.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// For what is answered at once.
pub(super) const QUICK_LIMIT: Duration = Duration::from_secs(2);
/// A plan may be under way, and each export that has changed takes its time.
const RELOAD_LIMIT: Duration = Duration::from_secs(180);

/// What is asked of the service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(super) enum Request {
    /// There may be a new wish.
    Ring {
        /// For which service.
        service: String,
    },
    /// Do this and answer when it is done or has failed.
    Change {
        /// Which service.
        service: String,
        /// What is to be done with it.
        wish: Wish,
        /// Give up waiting after this.
        limit_ms: u64,
    },
    /// Nothing is left of what could not be demoted.
    Clear {
        /// Of which service.
        service: String,
    },
    /// Read the configuration again: the exports may have changed.
    Reload {
        /// Of which service.
        service: String,
    },
    /// This node has lost the right to its data.
    Lost {
        /// Which resource's.
        resource: String,
        /// Why.
        reason: String,
    },
    /// How everything is.
    Views,
}

/// The service's answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reply {
    /// What was wrong with the request.
    pub(super) error: Option<String>,
    /// The services that were asked about.
    pub(super) services: Vec<ServiceView>,
    /// What was changed.
    #[serde(default)]
    pub(super) changed: Vec<String>,
}

/// Whether the service has heard of a wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// It has.
    Heard,
    /// It does not run: it will find the wish when it does.
    Away,
}

/// Why the service could not be told something.
#[derive(Debug, Error)]
pub enum WishError {
    /// The folder is not to be used.
    #[error("the wish could not be left in {0}: {why}", why = reason(.1))]
    Mailbox(PathBuf, io::Error),
    /// The conversation broke.
    #[error("talking to nfs-failover on {0}: {why}", why = reason(.1))]
    Io(PathBuf, io::Error),
    /// It does not want to.
    #[error("{0}")]
    Refused(String),
}

/// The service's socket in its folder.
pub(super) fn socket(run: &Path) -> PathBuf {
    run.join("control.sock")
}

/// Leaves a wish and returns at once, whatever becomes of it.
pub fn leave_wish(run: &Path, service: &str, wish: Wish) -> Result<Ring, WishError> {
    let in_folder = |error| WishError::Mailbox(run.to_owned(), error);
    make_folder(run).map_err(in_folder)?;
    Mailbox::new(run, service).leave(wish).map_err(in_folder)?;
    match ask(run, &Request::Ring { service: service.to_owned() }, QUICK_LIMIT) {
        Ok(Some(_)) => Ok(Ring::Heard),
        Ok(None) | Err(WishError::Io(..)) => Ok(Ring::Away),
        Err(error) => Err(error),
    }
}

/// Notes what the operator does while no service runs: the next one is not to undo it for an older wish.
pub(crate) fn note_by_hand(run: &Path, service: &str, wish: Wish) -> Result<(), WishError> {
    let noted = Mailbox::new(run, service).leave_by_hand(wish);
    noted.map(drop).map_err(|error| WishError::Mailbox(run.to_owned(), error))
}

/// Has the service do something and waits until it is done or has failed; `None` if the service does not run.
pub fn change(
    run: &Path,
    service: &str,
    wish: Wish,
    limit: Duration,
) -> Result<Option<ServiceView>, WishError> {
    let limit_ms = limit.as_millis() as u64;
    let request = Request::Change { service: service.to_owned(), wish, limit_ms };
    Ok(ask(run, &request, limit + QUICK_LIMIT)?.and_then(|reply| reply.services.into_iter().next()))
}

/// How every service is; `None` if the service does not run.
pub fn views(run: &Path) -> Result<Option<Vec<ServiceView>>, WishError> {
    Ok(ask(run, &Request::Views, QUICK_LIMIT)?.map(|reply| reply.services))
}

/// Has the service read its configuration again; what that has changed, or `None` if it does not run.
pub fn reload(run: &Path, service: &str) -> Result<Option<Vec<String>>, WishError> {
    let request = Request::Reload { service: service.to_owned() };
    Ok(ask(run, &request, RELOAD_LIMIT)?.map(|reply| reply.changed))
}

/// Says that nothing is left of what could not be demoted. Whether the service runs.
pub fn clear(run: &Path, service: &str) -> Result<bool, WishError> {
    Ok(ask(run, &Request::Clear { service: service.to_owned() }, QUICK_LIMIT)?.is_some())
}

/// Says that this node has lost the right to a resource's data. Whether the service runs.
pub fn lost(run: &Path, resource: &str, reason: &str) -> Result<bool, WishError> {
    let request = Request::Lost { resource: resource.to_owned(), reason: reason.to_owned() };
    Ok(ask(run, &request, QUICK_LIMIT)?.is_some())
}

/// `None` if nobody listens.
fn ask(run: &Path, request: &Request, limit: Duration) -> Result<Option<Reply>, WishError> {
    let path = socket(run);
    let converse = || -> io::Result<Reply> {
        let stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(QUICK_LIMIT))?;
        say(&stream, request)?;
        hear(&stream)
    };
    match converse() {
        Ok(Reply { error: Some(error), .. }) => Err(WishError::Refused(error)),
        Ok(reply) => Ok(Some(reply)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(WishError::Io(path, error)),
    }
}

/// Answers one connection's one request.
pub(super) fn answer(stream: &UnixStream, answer: impl FnOnce(Request) -> Reply) -> io::Result<()> {
    stream.set_read_timeout(Some(QUICK_LIMIT))?;
    stream.set_write_timeout(Some(QUICK_LIMIT))?;
    let reply = match hear(stream) {
        Ok(request) => answer(request),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Reply { error: Some(format!("the request was not understood: {error}")), ..Reply::default() }
        }
        Err(error) => return Err(error),
    };
    say(stream, &reply)
}

fn say(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn hear<T: serde::de::DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE_BYTES)).read_line(&mut line)?;
    match line.is_empty() {
        true => Err(ErrorKind::UnexpectedEof.into()),
        false => serde_json::from_str(&line).map_err(|e| io::Error::new(ErrorKind::InvalidData, e)),
    }
}
