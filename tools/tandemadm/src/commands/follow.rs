//! What the daemon goes on with by itself, watched to its end: a verify, or a resync that a command has begun.

use clap::Args;
use tandem_control::{ResourceSpec, ResourceStatus};
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::status::PeerStatus;

use super::wait::{POLL_INTERVAL, describe, is_in_sync};
use crate::bar::Bar;
use crate::failure::Failure;
use crate::output::errln;
use crate::progress;
use crate::session::{CalledAs, Session};

/// Looks at which nothing goes on, until it is certain that nothing is about to begin. A verify has begun when the command ends.
const CALM: u32 = 5;

/// Whether what was begun is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Args)]
pub struct Following {
    /// Stay until it has ended, and draw a progress bar, even if stderr is no terminal. On a terminal that is so anyway.
    #[arg(long)]
    pub progress: bool,
}

/// What was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begun {
    Verify { repair: bool },
    Resync,
}

/// The resources of which a command has begun something, each in turn.
pub(super) struct Follow<'a> {
    session: &'a Session,
    following: Following,
    begun: Begun,
    specs: Vec<ResourceSpec>,
}

impl<'a> Follow<'a> {
    pub(super) fn new(session: &'a Session, following: Following, begun: Begun) -> Follow<'a> {
        Follow { session, following, begun, specs: Vec::new() }
    }

    pub(super) fn add(&mut self, spec: &ResourceSpec) {
        self.specs.push(spec.clone());
    }

    /// Returns the exit code of what was watched, if it was.
    pub(super) fn to_the_end(&self, word: &str) -> u8 {
        let Follow { session, following, begun, ref specs } = *self;
        let bars = session.bars.with(following.progress);
        let asked = following.progress || (session.called == CalledAs::Tandemadm && bars.are_seen());
        if session.dry_run || specs.is_empty() || !asked {
            return 0;
        }
        errln!("{word} goes on by itself: Ctrl-C ends the watching only");
        session.for_each(word, specs, |spec| {
            let mut bar = Bar::new(bars);
            let status = watch(session, &spec.name, begun, &mut bar)?;
            drop(bar);
            status.engine.peers.iter().for_each(|peer| errln!("{}: {}", spec.name, outcome(peer)));
            Ok(())
        })
    }
}

fn watch(session: &Session, name: &str, begun: Begun, bar: &mut Bar) -> Result<ResourceStatus, Failure> {
    let mut calm = 0;
    loop {
        let status = session.require_status(name)?;
        if let Some(why) = is_over(&status, begun) {
            return Err(Failure::FollowEnded(name.to_owned(), why));
        }
        calm = if goes_on(&status, begun) { 0 } else { calm + 1 };
        let sure_at = if begun == (Begun::Verify { repair: false }) { 1 } else { CALM };
        if calm >= sure_at {
            return Ok(status);
        }
        let peers = &status.engine.peers;
        if calm == 0 {
            bar.draw(|_| {
                progress::line(name, peers).unwrap_or_else(|| format!("{name}: {}", describe(peers)))
            });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn goes_on(status: &ResourceStatus, begun: Begun) -> bool {
    let verifies = status.engine.peers.iter().any(|peer| peer.replication.is_verify());
    let disk = status.engine.disk;
    let good = |peer: &PeerStatus| [disk, peer.disk] == [DiskState::UpToDate; 2];
    match begun {
        Begun::Verify { repair: false } => verifies,
        _ => verifies || !is_in_sync(status) || !status.engine.peers.iter().all(good),
    }
}

/// Why it does not come to an end.
fn is_over(status: &ResourceStatus, begun: Begun) -> Option<String> {
    let lost = |peer: &&PeerStatus| match begun {
        // A resync goes on when they meet again.
        Begun::Resync => peer.connection == ConnectionState::StandAlone,
        Begun::Verify { .. } => peer.connection != ConnectionState::Connected,
    };
    let peer = status.engine.peers.iter().find(lost)?;
    let then = match begun {
        Begun::Resync => "'tandemadm connect' lets it go on",
        Begun::Verify { .. } => "the next verify goes on where it was",
    };
    Some(format!("{} is {}; {then}", peer.name, peer.connection))
}

fn outcome(peer: &PeerStatus) -> String {
    match peer.out_of_sync_bytes {
        0 => format!("in sync with {}", peer.name),
        bytes => format!("{} KiB differ from {}: tandemadm explain T404", bytes / 1024, peer.name),
    }
}
