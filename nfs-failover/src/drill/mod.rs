//! `nfs-failover drill`: a rehearsal on the live configuration. What a client sees of each part is measured, and what it
//! was promised is looked for afterwards.
//!
//! Only what goes away by itself or what a node mends by itself is done: a service that is moved, a server that is killed
//! and taken down by its own node, a link whose cut expires in the kernel. At the first surprise nothing more is done.

mod client;
mod cut;
mod findings;
mod probe;

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tandem_control::ResourceStatus;
use tandem_core::handler::Handler;
use tandem_core::state::{ConnectionState, DiskState, Role};

use crate::by_hand::Which;
use crate::check::complaints;
use crate::config::{Decider, Service};
use crate::health::{Phase, ServiceView};
use crate::here::Here;
use crate::peer::{Ask, Peer};
use crate::plan::{Trouble, trouble};
use crate::service;
use crate::steps;
use crate::switchover;
use crate::tandem;
use client::{Client, SETTLE_LIMIT, until};
use cut::Cut;
use findings::{Findings, Row};

/// For somebody to cut the power, for the other node to serve, and for the power to come back.
const BY_HAND_LIMIT: Duration = Duration::from_secs(600);
/// The other node is asked to do something.
const PEER_LIMIT: Duration = Duration::from_secs(5);
/// For a server that was killed to be silent.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What is rehearsed.
#[derive(Clone, Debug, Args)]
pub struct Drill {
    /// Which service.
    #[command(flatten)]
    pub which: Which,
    /// Do not ask first.
    #[arg(short, long)]
    pub yes: bool,
    /// What to rehearse, in this order; may be given several times.
    #[arg(short, long = "part", value_enum, value_name = "PART",
          default_values_t = [Part::Move, Part::Kill, Part::Cut])]
    pub parts: Vec<Part>,
}

/// A part of a drill.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Part {
    /// The service is moved to the other node and back.
    Move,
    /// The server that serves is killed, and the service moved home again.
    Kill,
    /// The replication link is cut for a moment.
    Cut,
    /// You are asked to cut the other node's power while it serves, and to switch it on again.
    PowerCut,
}

/// Rehearses; `ask` says whether the operator agrees to something.
pub(crate) fn drill(
    service: &Service,
    here: &Here,
    how: &Drill,
    ask: &mut dyn FnMut(&str) -> bool,
) -> Result<Findings, Trouble> {
    let status = tandem::status(here, &service.resource)?;
    expect_rehearsable(service, here, &how.parts, &status)?;
    if !how.yes && !ask(&intention(service, &status, &how.parts)) {
        return Err(Trouble::new("nothing was done"));
    }
    let client = Client::start(service)?;
    let mut rehearsal = Rehearsal { service, here, client, rows: Vec::new() };
    let stopped = how.parts.iter().try_for_each(|part| rehearsal.play(*part, ask)).err();
    let mut findings = rehearsal.client.conclude(service, rehearsal.rows);
    if let Some(trouble) = stopped {
        findings.stopped = Some(trouble.message);
        findings.left = left(service, here);
    }
    Ok(findings)
}

/// Whether what is rehearsed can be expected to work.
fn expect_rehearsable(
    service: &Service,
    here: &Here,
    parts: &[Part],
    status: &ResourceStatus,
) -> Result<(), Trouble> {
    let refuse = |why: String| Err(Trouble::new(format!("not now: {why}")));
    if !service.is_nfs() {
        return refuse("a client's view is measured by NFS, and this service has no NFS server".into());
    }
    if service.shared_secret.is_none() {
        return refuse("the other node cannot be asked: configure `peer` and `shared-secret`".into());
    }
    if let Some(complaint) = complaints(service, here).into_iter().next() {
        return refuse(format!("{complaint} (nfs-failover check says all that is wrong)"));
    }
    if !is_served(status) {
        return refuse(format!("nobody serves: nfs-failover promote {}", service.name));
    }
    // Who has lost its server is replaced by whom the decider elects.
    let missing = service::missing_decider(service).filter(|_| parts.contains(&Part::Kill));
    if let Some(missing) = missing {
        return refuse(missing);
    }
    match is_whole(service, here) {
        true => Ok(()),
        false => refuse(format!("both disks must be UpToDate: tandemadm status {}", service.resource)),
    }
}

fn is_served(ResourceStatus { engine, .. }: &ResourceStatus) -> bool {
    engine.role == Role::Primary || engine.peers.iter().any(|peer| peer.role == Role::Primary)
}

fn is_whole(service: &Service, here: &Here) -> bool {
    tandem::status(here, &service.resource).is_ok_and(|ResourceStatus { engine, .. }| {
        let peers_are_whole = engine.peers.iter().all(|peer| peer.disk == DiskState::UpToDate);
        engine.disk == DiskState::UpToDate && !engine.peers.is_empty() && peers_are_whole
    })
}

/// What the operator is asked to agree to.
fn intention(service: &Service, status: &ResourceStatus, parts: &[Part]) -> String {
    let Service { name, resource, .. } = service;
    let mut text = format!("{name}: its clients are going to see several short outages.\n");
    for part in parts {
        text += &match part {
            Part::Move => "- The service is moved to the other node, and back.\n".into(),
            Part::Kill => {
                let then = match service.decider {
                    Decider::None => "the other node is told to serve",
                    _ => "your decider has the other node serve",
                };
                format!(
                    "- The NFS server is killed where it runs. Its node finds that out, takes the service down, and \
                     {then}. Then it is moved back.\n"
                )
            }
            Part::Cut => format!(
                "- The replication link of {resource} is cut: this node drops its packets, by nft table inet {}. Even if \
                 this drill dies, the link is back after {} s.{}\n",
                cut::table(name),
                cut::LIFETIME.as_secs(),
                fencing(status)
            ),
            Part::PowerCut => {
                "- The service is moved to the other node, whose power you are asked to cut.\n".into()
            }
        };
    }
    text + "It stops at the first surprise, and says then what is left to do."
}

/// What else happens when the link is cut.
fn fencing(status: &ResourceStatus) -> String {
    match status.spec.handlers.commands.get(&Handler::FencePeer) {
        Some(command) => {
            format!(" tandemd fences as in earnest, which may switch the other node off: {command}")
        }
        None => " Nothing fences here: a node that is promoted meanwhile goes on beside the other.".into(),
    }
}

/// A drill under way.
struct Rehearsal<'a> {
    service: &'a Service,
    here: &'a Here,
    client: Client,
    rows: Vec<Row>,
}

impl Rehearsal<'_> {
    fn play(&mut self, part: Part, ask: &mut dyn FnMut(&str) -> bool) -> Result<(), Trouble> {
        match part {
            Part::Move => {
                self.switch("planned move there")?;
                self.switch("planned move back")
            }
            Part::Kill => {
                self.kill()?;
                self.switch("planned move home")
            }
            Part::Cut => self.cut(),
            Part::PowerCut => self.power_cut(ask),
        }
    }

    /// Moves the service to the other node, wherever it is.
    fn switch(&mut self, part: &'static str) -> Result<(), Trouble> {
        let (service, here) = (self.service, self.here);
        await_whole(service, here, SETTLE_LIMIT)?;
        self.rows.push(self.client.watch(part, || {
            timed(|| match switchover::leads_away(service, here)? {
                true => switchover::away(service, here).map(drop),
                false => switchover::to_this(service, here),
            })
        })?);
        Ok(())
    }

    /// Kills the server of the node that serves. That node takes the service down, and the other one is elected.
    fn kill(&mut self) -> Result<(), Trouble> {
        let (service, here, client) = (self.service, self.here, &self.client);
        await_whole(service, here, SETTLE_LIMIT)?;
        let is_here = switchover::leads_away(service, here)?;
        await_fit(service, here, !is_here)?;
        let row = client.watch("server killed", || {
            timed(|| {
                match is_here {
                    true => steps::kill_server(service, here)?,
                    false => ask_other(service, Ask::KillServer).map(drop)?,
                }
                client.wait_for_outage(KILL_LIMIT)?;
                if service.decider == Decider::None {
                    until("the node whose server was killed is down", SETTLE_LIMIT, || {
                        is_down(service, here, is_here)
                    })?;
                    return match is_here {
                        true => switchover::to_the_other(service).map(drop),
                        false => switchover::to_this(service, here),
                    };
                }
                client.wait_for_answer(SETTLE_LIMIT)
            })
        })?;
        self.rows.push(row);
        match switchover::leads_away(service, here)? == is_here {
            false => Ok(()),
            true => Err(Trouble::new("server killed: the same node serves again, not the other")),
        }
    }

    /// Cuts the link for as long as it takes to see that the service goes on without it.
    fn cut(&mut self) -> Result<(), Trouble> {
        let (service, here, client) = (self.service, self.here, &self.client);
        await_whole(service, here, SETTLE_LIMIT)?;
        let status = tandem::status(here, &service.resource)?;
        let mut cut = None;
        let row = client.watch("link cut", || {
            timed(|| {
                cut = Some(Cut::make(&service.name, &status.spec)?);
                until("the nodes have lost each other", SETTLE_LIMIT, || is_alone(service, here))
            })
        })?;
        self.rows.push(row);
        let row = client.watch("link back", || {
            timed(|| {
                cut.take().map_or(Ok(()), Cut::undo)?;
                await_whole(service, here, SETTLE_LIMIT)
            })
        })?;
        self.rows.push(row);
        Ok(())
    }

    /// The operator cuts the power of the other node while it serves.
    fn power_cut(&mut self, ask: &mut dyn FnMut(&str) -> bool) -> Result<(), Trouble> {
        let (service, here) = (self.service, self.here);
        if switchover::leads_away(service, here)? {
            self.switch("planned move there")?;
        }
        await_fit(service, here, true)?;
        let name = &service.name;
        let please = format!(
            "The other node serves {name} now. A machine cannot cut another's power from here: after you agree, cut it \
             within {} minutes. Your decider, or 'nfs-failover promote {name}' here, moves it here. Then switch it on again.",
            BY_HAND_LIMIT.as_secs() / 60
        );
        let client = &self.client;
        let cut = client.watch("power cut", || {
            // Whoever has a hand on the plug does not wait for anything else.
            if !ask(&please) {
                return Err(Trouble::new("not rehearsed; the other node serves"));
            }
            client.wait_for_outage(BY_HAND_LIMIT)?;
            client.wait_for_answer(BY_HAND_LIMIT).map(|()| None)
        })?;
        let back = client.watch("power back", || await_whole(service, here, BY_HAND_LIMIT).map(|()| None));
        self.rows.push(cut);
        self.rows.push(back?);
        Ok(())
    }
}

fn timed(what: impl FnOnce() -> Result<(), Trouble>) -> Result<Option<Duration>, Trouble> {
    let began = Instant::now();
    what().map(|()| Some(began.elapsed()))
}

fn await_whole(service: &Service, here: &Here, limit: Duration) -> Result<(), Trouble> {
    until("both disks are UpToDate", limit, || is_whole(service, here))
}

/// Waits until this node, or the other, may serve: who has just given way steps back if it is elected.
fn await_fit(service: &Service, here: &Here, is_here: bool) -> Result<(), Trouble> {
    let node = if is_here { "this" } else { "the other" };
    until(&format!("{node} node may serve again"), SETTLE_LIMIT, || {
        view(service, here, is_here).is_some_and(|view| !view.held)
    })
}

/// Whether this node's tandemd sees no peer.
fn is_alone(service: &Service, here: &Here) -> bool {
    tandem::status(here, &service.resource)
        .is_ok_and(|status| status.engine.peers.iter().all(|p| p.connection != ConnectionState::Connected))
}

fn is_down(service: &Service, here: &Here, is_here: bool) -> bool {
    view(service, here, is_here).is_some_and(|view| view.phase == Phase::Down)
}

/// The service as it is on this node, or on the other.
fn view(service: &Service, here: &Here, is_here: bool) -> Option<ServiceView> {
    if !is_here {
        return ask_other(service, Ask::State).ok().map(|state| state.view);
    }
    let views = service::views(&here.folder().ok()?).ok()??;
    views.into_iter().find(|view| view.name == service.name)
}

fn ask_other(service: &Service, ask: Ask) -> Result<crate::peer::PeerState, Trouble> {
    let answer = Peer::connect(service, PEER_LIMIT).and_then(|mut peer| peer.ask(ask));
    answer.map_err(trouble("the other node's 'nfs-failover serve' cannot be asked"))
}

/// Where things stand after a surprise.
fn left(service: &Service, here: &Here) -> Vec<String> {
    let mut left = Vec::new();
    match tandem::find_status(here, &service.resource) {
        Ok(Some(ResourceStatus { engine, .. })) => {
            left.push(format!("{} here: {} {}", engine.resource, engine.role, engine.disk));
            let peers = engine.peers.iter();
            left.extend(
                peers.map(|p| format!("{} there: {} {} {}", engine.resource, p.connection, p.role, p.disk)),
            );
        }
        Ok(None) => left.push(format!("{} is not up here", service.resource)),
        Err(trouble) => left.push(trouble.message),
    }
    let phase = |is_here| match view(service, here, is_here) {
        Some(view) => format!("{:?}", view.phase).to_lowercase(),
        None => "unknown".into(),
    };
    left.push(format!("the service here: {}, there: {}", phase(true), phase(false)));
    left.push(match cut::is_made(&service.name) {
        true => format!(
            "the link is still cut, for {} s at most: nft delete table inet {}",
            cut::LIFETIME.as_secs(),
            cut::table(&service.name)
        ),
        false => "the link is not cut; nothing else was changed that does not mend itself".into(),
    });
    left.push(format!("have it serve here: nfs-failover promote {}", service.name));
    left
}

/// Asks on the terminal; whoever does not say yes says no.
pub(crate) fn ask(question: &str) -> bool {
    // Who cannot be asked has not agreed.
    if write!(io::stderr(), "{question}\nGo on? [yes/no] ").is_err() {
        return false;
    }
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::health::samples::primary;

    #[test]
    fn what_is_going_to_happen_is_said_in_full() {
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server ganesha; \
                    export \"/srv/nfs/data *(rw)\"; vip 10.0.0.100/24 dev eth0; }";
        let config = Config::parse("nfs-failover.conf".as_ref(), text).unwrap();
        let service = &config.services[0];
        let said = intention(service, &primary(), &[Part::Move, Part::Kill, Part::Cut]);
        for part in
            ["moved to the other node", "server is killed", "nft table inet nfs-failover-drill-nfs", "150 s"]
        {
            assert!(said.contains(part), "{said}");
        }
        assert!(said.contains("Nothing fences here"));
        let mut status = primary();
        status.spec.handlers.commands.insert(Handler::FencePeer, "shoot-it".into());
        assert!(
            intention(service, &status, &[Part::Cut]).contains("may switch the other node off: shoot-it")
        );
    }
}
