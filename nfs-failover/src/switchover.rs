//! Moves a service to the other node, wherever it is: the one that is to serve asks the one that does to step back. If it
//! then cannot serve, whoever did does again.

use std::thread;
use std::time::{Duration, Instant};

use tandem_core::state::Role;

use crate::config::Service;
use crate::health::{Phase, ServiceView};
use crate::here::Here;
use crate::peer::{Ask, Peer, PeerState};
use crate::plan::{Trouble, trouble};
use crate::service::{self, Wish};
use crate::tandem;

/// The other node has to hear us.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For both moves.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two questions how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Whether this node serves, and the other one would have to.
pub(crate) fn leads_away(service: &Service, here: &Here) -> Result<bool, Trouble> {
    Ok(tandem::status(here, &service.resource)?.engine.role == Role::Primary)
}

/// Has this node's service promote.
pub(crate) fn to_this(service: &Service, here: &Here) -> Result<(), Trouble> {
    let run = here.folder().map_err(trouble("the runtime folder"))?;
    let view = service::change(&run, &service.name, Wish::Up, LIMIT).map_err(trouble("nfs-failover"))?;
    match view {
        Some(ServiceView { phase: Phase::Up, .. }) => Ok(()),
        Some(view) => {
            let why = view.must_fence.or(view.trouble).unwrap_or_else(|| "see its log".into());
            Err(Trouble::new(format!("this node cannot serve: {why}")))
        }
        None => Err(Trouble::new("'nfs-failover serve' does not run here")),
    }
}

/// Moves it away from this node, or back to it if the other cannot serve.
pub(crate) fn away(service: &Service, here: &Here) -> Result<PeerState, Trouble> {
    to_the_other(service).map_err(|trouble| {
        let then = match leads_away(service, here) {
            // It was not even asked to step back.
            Ok(true) => "this node goes on serving".into(),
            _ => match to_this(service, here) {
                Ok(()) => "this node serves again".into(),
                Err(again) => format!("and no more is it served here: {again}"),
            },
        };
        Trouble { message: format!("{trouble}; {then}"), ..trouble }
    })
}

/// Has the other node's service promote, which asks this one's to demote; what it says when it is done.
pub(crate) fn to_the_other(service: &Service) -> Result<PeerState, Trouble> {
    let unheard = || trouble("the other node's 'nfs-failover serve' cannot be asked");
    let mut peer = Peer::connect(service, CONNECT_LIMIT).map_err(unheard())?;
    peer.ask(Ask::PromotePlease).map_err(unheard())?;
    let began = Instant::now();
    loop {
        let state = peer.ask(Ask::State).map_err(unheard())?;
        match (state.view.phase, &state.view.must_fence, &state.view.trouble) {
            (Phase::Up, None, _) => return Ok(state),
            (_, Some(why), _) | (Phase::Down | Phase::Unknown, None, Some(why)) => {
                return Err(Trouble::new(format!("the other node cannot serve: {why}")));
            }
            _ if began.elapsed() > LIMIT => {
                let limit_s = LIMIT.as_secs();
                return Err(Trouble::new(format!(
                    "the other node does not serve within {limit_s} s; see its log"
                )));
            }
            _ => thread::sleep(LOOK_INTERVAL),
        }
    }
}
