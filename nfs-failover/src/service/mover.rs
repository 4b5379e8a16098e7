//! How a service is moved in earnest: the plans of [`crate::steps`], carried out on this node.

use std::sync::Arc;
use std::time::Duration;

use super::{Found, Mover, Outcome, monitor};
use crate::carry_out::{Way, carry_out, refused};
use crate::check::complaints_here;
use crate::config::Service;
use crate::here::{Here, Standing, State};
use crate::peer::{Ask, Checked, Peer, settings};
use crate::plan::{Cancel, Ending, FileJournal};
use crate::steps::{self, Scene};
use crate::tandem;

/// The peer is asked, and may think about it.
const PEER_LIMIT: Duration = Duration::from_secs(5);

/// The plans of one service.
pub struct Plans(Arc<Scene>);

impl Plans {
    /// Of this service on this node.
    pub fn new(service: Service, here: Here) -> Plans {
        Plans(scene(service, here))
    }
}

/// A scene whose peer can be asked, if one is configured.
pub(crate) fn scene(service: Service, here: Here) -> Arc<Scene> {
    let has_peer = service.shared_secret.is_some() && !service.peers.is_empty();
    let peer = has_peer.then(|| Arc::new(OtherNode(service.clone())) as Arc<dyn steps::Peer>);
    Scene::new(service, here, peer)
}

/// What is wrong with a service that was promoted here and has not stepped down, as far as one look tells.
pub(crate) fn broken(service: &Service, here: &Here) -> Option<String> {
    let plans = Plans::new(service.clone(), here.clone());
    let status = tandem::find_status(here, &service.resource).ok().flatten();
    monitor::look_once(status.as_ref(), || plans.server_answers()).or_else(|| plans.volume_trouble())
}

impl Found {
    /// By what was noted last, and whether a plan's journal is open.
    pub(super) fn of(standing: Standing, is_unfinished: bool) -> Found {
        match standing.state {
            State::MustFence => Found::MustFence(standing.why.unwrap_or_default()),
            State::Demoting | State::Failed => Found::Leaving,
            State::Promoting => Found::Halfway,
            _ if is_unfinished => Found::Halfway,
            State::Primary => Found::Up,
            State::Secondary => Found::Down,
        }
    }
}

impl Mover for Plans {
    fn run(&self, which: Way, cancel: &Cancel) -> Outcome {
        let report = match carry_out(&self.0, which, cancel, &mut |line| println!("{line}")) {
            Ok(report) => report,
            Err(trouble) => {
                refused(&self.0, which, &trouble);
                return Outcome::Refused(trouble.message);
            }
        };
        let why = || report.why.clone().unwrap_or_default();
        match report.ending {
            Ending::Done => Outcome::Done,
            Ending::Failed => Outcome::Failed(why()),
            Ending::Halfway => Outcome::Halfway(why()),
            Ending::Cancelled => Outcome::Cancelled,
            Ending::MustFence => Outcome::Stuck(why()),
        }
    }

    fn found(&self) -> Found {
        let Scene { here, service, .. } = self.0.as_ref();
        let journal = FileJournal::unfinished(&here.file(&service.name, "journal"));
        Found::of(here.standing(&service.name), !matches!(journal, Ok(None)))
    }

    fn prepare(&self) {
        let Scene { here, service, .. } = self.0.as_ref();
        // Whoever moves the service at this moment has it ready anyway.
        let Ok(_lock) = here.lock(&service.name, Duration::ZERO) else { return };
        if let Err(trouble) = steps::prepare(&self.0) {
            eprintln!("{}: a promotion will try again: {trouble}", service.name);
        }
    }

    fn server_answers(&self) -> bool {
        let service = &self.0.service;
        let server = !service.is_nfs() || steps::answers(service).is_ok();
        server && steps::is_content(service)
    }

    fn volume_trouble(&self) -> Option<String> {
        steps::takes_no_writes(&self.0).then(|| {
            "the filesystem takes no writes any more: the kernel's log says why; see that it is checked (fsck)".into()
        })
    }

    fn check(&self) -> Option<Checked> {
        let Scene { here, service, .. } = self.0.as_ref();
        Some(Checked { settings: settings(service), complaints: complaints_here(service, here) })
    }

    fn yield_role(&self) {
        let Scene { here, service, .. } = self.0.as_ref();
        // Whoever has the lock gives the role up, or needs it.
        let Ok(_lock) = here.lock(&service.name, Duration::ZERO) else { return };
        match steps::yield_role(&self.0) {
            None => {}
            Some(Ok(said)) => println!("{}: the other node was elected; {said}", service.name),
            Some(Err(trouble)) => eprintln!("{}: {trouble}", service.name),
        }
    }

    fn kill_server(&self) {
        if let Err(trouble) = steps::kill_server(&self.0.service, &self.0.here) {
            eprintln!("{}: the server cannot be killed: {trouble}", self.0.service.name);
        }
    }
}

/// The other node's service.
struct OtherNode(Service);

impl steps::Peer for OtherNode {
    fn please_demote(&self) -> Result<(), String> {
        let ask = || Peer::connect(&self.0, PEER_LIMIT)?.ask(Ask::DemotePlease);
        ask().map(drop).map_err(|error| error.to_string())
    }
}
