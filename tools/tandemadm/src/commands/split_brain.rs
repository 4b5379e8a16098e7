//! What both sides of a split brain have written, and whose data is kept.
//!
//! Who gives its data up asks the other side first what would happen, so that it knows every block that will be overwritten;
//! saves them if told to; and connects only when that file is known to be good and nothing has changed meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tandem_control::{Action, NodeSpec, ResourceSpec};
use tandem_core::divergence::{Divergence, Meeting};
use tandem_core::split_brain::Outcome;
use tandem_core::state::{ConnectionState, Role};
use tandem_core::units::ByteRange;

use super::change::no_node;
use super::{restore, wait};
use crate::bar::{Bar, Bars};
use crate::cli::Resolve;
use crate::device::{Access, Target};
use crate::divergence_text::size;
use crate::failure::Failure;
use crate::output::{errln, out, outln};
use crate::saved_blocks::{self, Header};
use crate::session::Session;
use crate::{divergence_json, divergence_text};

/// For the other node to answer once it is connected to.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const WOULD_BE_TARGET: &str = "dry-run connect: Would become SyncTarget";

pub(crate) fn show(session: &Session, specs: &[ResourceSpec], json: bool) -> u8 {
    let mut all = Vec::new();
    let code = session.for_each("split-brain show", specs, |spec| {
        let divergences = session.divergences(&spec.name)?;
        match json {
            true => all.push(divergence_json::resource(spec, &divergences)),
            false => out!("{}", divergence_text::show(spec, &divergences)),
        }
        Ok(())
    });
    if json {
        outln!("{:#}", Value::Array(all));
    }
    code
}

pub(crate) fn resolve(session: &Session, specs: &[ResourceSpec], options: &Resolve) -> u8 {
    session.for_each("split-brain resolve", specs, |spec| {
        if specs.len() > 1 {
            return Err(Failure::NotResolved("one resource at a time".into()));
        }
        if let Some(file) = &options.restore {
            return restore::restore(session, spec, file, options.save.as_deref());
        }
        let keep = options.keep.as_deref().unwrap_or_default();
        if keep == spec.node.name {
            return keep_own(session, spec, options.save.is_some());
        }
        match spec.peers.iter().find(|peer| peer.name == keep) {
            Some(peer) => give_up(session, spec, peer, options.save.as_deref()),
            None => Err(no_node(spec, keep)),
        }
    })
}

/// This node's data is kept: it waits for the others to give theirs up.
fn keep_own(session: &Session, spec: &ResourceSpec, save: bool) -> Result<(), Failure> {
    let (name, own) = (&spec.name, &spec.node.name);
    if save {
        let text = format!(
            "{own} keeps its data: nothing of it needs to be saved. --save belongs to the command on the other node"
        );
        return Err(Failure::NotResolved(text));
    }
    let peers = session.require_status(name)?.engine.peers;
    if let Some(peer) = peers.iter().find(|p| p.connection == ConnectionState::Connected) {
        return Err(Failure::NotResolved(format!(
            "{own} is connected to {}: there is no split brain",
            peer.name
        )));
    }
    let stands_alone = peers.iter().any(|p| p.connection == ConnectionState::StandAlone);
    if stands_alone && !session.dry_run {
        session.act(name, Action::Connect { discard_my_data: false, tentative: false })?;
    }
    let waits = if session.dry_run { "would wait" } else { "waits" };
    for peer in &spec.peers {
        outln!(
            "{name}: {own} keeps its data, and {waits} for {}. To give up the data there, run there:",
            peer.name
        );
        outln!("    tandemadm split-brain resolve {name} --keep {own} --save FILE");
    }
    Ok(())
}

/// This node's data is given up for the peer's.
fn give_up(
    session: &Session,
    spec: &ResourceSpec,
    peer: &NodeSpec,
    save: Option<&Path>,
) -> Result<(), Failure> {
    let really = Session { dry_run: false, ..session.clone() };
    check_that_it_may_give_up(&really, spec, peer)?;
    let (divergence, meeting) = ask(&really, spec, peer)?;
    let overwritten = overwritten(&divergence, &meeting, peer)?;
    tell(spec, peer, &divergence, &meeting, &overwritten);
    if session.dry_run {
        outln!("{}: nothing was changed", spec.name);
        return Ok(());
    }
    if let Some(path) = save {
        let saved = save_blocks(&really, spec, path, &divergence, &meeting, &overwritten)
            .inspect_err(|_| errln!("{}: nothing was changed", spec.name))?;
        outln!("{}: {} saved in {}, and verified", spec.name, size(saved.data_bytes), path.display());
        // The file is as old as the question.
        if divergence_with(&really, spec, peer)?.here != divergence.here {
            let text = format!(
                "{} was written to meanwhile: {} does not hold everything. Nothing was changed; remove it, and try again",
                spec.name,
                path.display()
            );
            return Err(Failure::NotResolved(text));
        }
    }
    really.act(&spec.name, Action::Connect { discard_my_data: true, tentative: false })?;
    tell_what_follows(&really, spec, peer)
}

fn check_that_it_may_give_up(session: &Session, spec: &ResourceSpec, peer: &NodeSpec) -> Result<(), Failure> {
    let (name, own, keep) = (&spec.name, &spec.node.name, &peer.name);
    let status = session.require_status(name)?.engine;
    if status.role == Role::Primary {
        return Err(Failure::NotResolved(format!(
            "{own} is Primary: its data is in use. Stop what uses it, run 'tandemadm secondary {name}', and try again"
        )));
    }
    match status.peers.iter().find(|p| p.id == peer.id).map(|p| p.connection) {
        Some(ConnectionState::StandAlone) => Ok(()),
        Some(ConnectionState::Connected) => {
            Err(Failure::NotResolved(format!("{own} is connected to {keep}: there is no split brain")))
        }
        _ => Err(Failure::NotResolved(format!(
            "{own} is trying to connect to {keep} already: run 'tandemadm disconnect {name}', and try again"
        ))),
    }
}

/// What the other side says would happen; neither changes anything.
fn ask(session: &Session, spec: &ResourceSpec, peer: &NodeSpec) -> Result<(Divergence, Meeting), Failure> {
    let (name, keep) = (&spec.name, &peer.name);
    errln!(
        "{name}: asking {keep}. If it stands alone, run there: tandemadm split-brain resolve {name} --keep {keep}"
    );
    session.act(name, Action::Connect { discard_my_data: true, tentative: true })?;
    let peers = session.require_status(name)?.engine.peers;
    let answer = peers.iter().find(|p| p.id == peer.id).and_then(|p| p.standalone_reason.clone());
    let answer = answer.unwrap_or_else(|| "no answer".into());
    let divergence = divergence_with(session, spec, peer)?;
    let ours = |m: &Meeting| m.outcome == Outcome::Manual { i_win: false };
    match divergence.meeting.clone().filter(ours) {
        Some(meeting) if answer.starts_with(WOULD_BE_TARGET) => Ok((divergence, meeting)),
        _ => Err(Failure::NotResolved(format!(
            "there is no split brain with {keep} that could be resolved so ({answer}); nothing was changed. If this answer is \
             what you want, run 'tandemadm connect {name}' on both nodes"
        ))),
    }
}

fn divergence_with(session: &Session, spec: &ResourceSpec, peer: &NodeSpec) -> Result<Divergence, Failure> {
    let all = session.divergences(&spec.name)?;
    let found = all.into_iter().find(|divergence| divergence.peer == peer.id);
    found.ok_or_else(|| Failure::NotResolved(format!("{} is no peer of this node", peer.name)))
}

/// Every block that the peer's data will overwrite.
fn overwritten(
    divergence: &Divergence,
    meeting: &Meeting,
    peer: &NodeSpec,
) -> Result<Vec<ByteRange>, Failure> {
    if !meeting.bitmaps_tell {
        return Ok(vec![ByteRange::new(0, divergence.volume_bytes)]);
    }
    divergence.differing().ok_or_else(|| {
        let text = format!(
            "the connection broke before {} had told what it has written; nothing was changed: try again",
            peer.name
        );
        Failure::NotResolved(text)
    })
}

fn tell(
    spec: &ResourceSpec,
    peer: &NodeSpec,
    divergence: &Divergence,
    meeting: &Meeting,
    overwritten: &[ByteRange],
) {
    let (name, own, keep) = (&spec.name, &spec.node.name, &peer.name);
    let bytes: u64 = overwritten.iter().map(|range| range.length).sum();
    let [lost, kept] = [&divergence.here, &meeting.there].map(|copy| size(copy.changed_bytes));
    outln!("{name}: last common generation {:016X}", meeting.common);
    outln!("{name}: {own} gives up what it has written since: {lost}");
    outln!("{name}: {keep} keeps what it has written since: {kept}");
    outln!("{name}: {keep}'s data overwrites {} on {own}", size(bytes));
    if meeting.there.role == Role::Primary {
        outln!(
            "{name}: {keep} is Primary: blocks that it changes from now on are overwritten as well, and cannot be saved"
        );
    }
}

fn save_blocks(
    session: &Session,
    spec: &ResourceSpec,
    path: &Path,
    divergence: &Divergence,
    meeting: &Meeting,
    overwritten: &[ByteRange],
) -> Result<Header, Failure> {
    // As it was brought up, whatever the configuration says now.
    let status = session.require_status(&spec.name)?;
    let (layout, target) = (status.layout(), Target::open_all(&status.spec, Access::Look)?);
    let header = Header {
        resource: spec.name.clone(),
        volume_bytes: divergence.volume_bytes,
        layout: layout.clone(),
        common: meeting.common,
        generation: divergence.here.current,
        kept_generation: meeting.there.current,
        node: spec.node.id,
        kept_node: divergence.peer,
        pieces: 0,
        data_bytes: 0,
    };
    let mut shown = ShownSave::new(session.bars, &spec.name, overwritten);
    saved_blocks::save(path, &header, overwritten, |range| {
        shown.read(range);
        Ok(target.read_space(&layout, range)?)
    })
}

/// How far a file of saved blocks is: all is read twice, to write it and to compare.
pub(super) struct ShownSave {
    bar: Bar,
    what: String,
    done_bytes: u64,
    total_bytes: u64,
}

impl ShownSave {
    pub(super) fn new(bars: Bars, resource: &str, ranges: &[ByteRange]) -> ShownSave {
        let total_bytes = 2 * ranges.iter().map(|range| range.length).sum::<u64>();
        ShownSave { bar: Bar::new(bars), what: format!("{resource}: saving"), done_bytes: 0, total_bytes }
    }

    pub(super) fn read(&mut self, range: ByteRange) {
        self.done_bytes += range.length;
        self.bar.draw_work(&self.what, self.done_bytes, self.total_bytes);
    }
}

fn tell_what_follows(session: &Session, spec: &ResourceSpec, peer: &NodeSpec) -> Result<(), Failure> {
    let (name, keep) = (&spec.name, &peer.name);
    let limit = Instant::now() + ANSWER_LIMIT;
    loop {
        let peers = session.require_status(name)?.engine.peers;
        let Some(status) = peers.into_iter().find(|p| p.id == peer.id) else { return Ok(()) };
        match status.connection {
            ConnectionState::Connected => {
                outln!("{name}: connected; {keep}'s data is coming: tandemadm wait-sync {name}");
                return Ok(());
            }
            ConnectionState::StandAlone => {
                let reason = status.standalone_reason.unwrap_or_default();
                return Err(Failure::NotResolved(format!("{name}: StandAlone: {reason}")));
            }
            _ if Instant::now() >= limit => {
                outln!("{name}: waiting for {keep}; if it stands alone, run there: tandemadm connect {name}");
                return Ok(());
            }
            _ => std::thread::sleep(wait::POLL_INTERVAL),
        }
    }
}
