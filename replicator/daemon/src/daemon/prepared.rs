//! Resources that are made piece by piece. What is not whole yet is kept here; it is made as soon as it is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tandem_control::{Action, Reply, ResourceSpec, ResourceStatus};
use tandem_core::refusal::{CommandError, INVALID_REQUEST, MINOR_CONFIGURED, NO_DISK, StateChangeRefusal};
use tracing::info;

use super::{Daemon, Entry, told};
use crate::failure::Failure;
use crate::resource;

/// Those that are not whole.
#[derive(Default)]
pub(super) struct Prepared(RefCell<BTreeMap<String, ResourceSpec>>);

impl Prepared {
    /// Secondary, Diskless and StandAlone.
    pub(super) fn status(&self, name: &str) -> Option<ResourceStatus> {
        self.0.borrow().get(name).map(status)
    }

    pub(super) fn statuses(&self) -> Vec<ResourceStatus> {
        self.0.borrow().values().map(status).collect()
    }

    pub(super) fn forget(&self, name: &str) {
        self.0.borrow_mut().remove(name);
    }

    /// What can be done to something that has neither disk nor peers yet; nothing is said of other resources.
    pub(super) fn act(&self, name: &str, action: Action) -> Option<Result<(), Failure>> {
        if !self.0.borrow().contains_key(name) {
            return None;
        }
        let refused = |refusal| Err(CommandError::from(refusal).into());
        Some(match action {
            Action::Down => {
                info!(resource = name, "removed before it was whole");
                self.forget(name);
                Ok(())
            }
            Action::Secondary { .. } | Action::Disconnect | Action::ForceDisconnect => Ok(()),
            Action::Primary { .. } => refused(StateChangeRefusal::NoUpToDateDisk),
            Action::Connect { .. } => {
                let (number, text) = INVALID_REQUEST;
                Err(Failure::numbered(number, text)
                    .because("it has no disk yet: attach comes before connect"))
            }
            _ => Err(Failure::numbered(NO_DISK.0, NO_DISK.1)),
        })
    }
}

fn status(spec: &ResourceSpec) -> ResourceStatus {
    let engine = resource::initial_status(spec);
    ResourceStatus { spec: spec.clone(), engine, used_paths: Vec::new(), disk_failure: None }
}

impl Daemon {
    pub(super) async fn prepare(
        self: &Rc<Self>,
        was: Option<Box<ResourceSpec>>,
        becomes: Option<Box<ResourceSpec>>,
    ) -> Reply {
        let Some(name) = was.as_ref().or(becomes.as_ref()).map(|spec| spec.name.clone()) else {
            return Reply::default();
        };
        let done = match self.entry(&name) {
            Ok(entry) => self.prepare_again(&entry, was.as_deref(), becomes).await,
            Err(_) if self.prepared.0.borrow().get(&name) != was.as_deref() => Err(changed_meanwhile()),
            Err(_) => self.keep(&name, becomes).await,
        };
        self.changed.notify_one();
        told(&name, done)
    }

    /// One that is up. What it cannot become while it is, it becomes if nothing is lost by making it anew.
    async fn prepare_again(
        self: &Rc<Self>,
        entry: &Rc<Entry>,
        was: Option<&ResourceSpec>,
        becomes: Option<Box<ResourceSpec>>,
    ) -> Result<(), Failure> {
        let _admin = entry.admin.lock().await;
        let running = entry.spec();
        if !self.is_current(entry) || was != Some(running.as_ref()) {
            return Err(changed_meanwhile());
        }
        let refused = match &becomes {
            Some(becomes) => match self.become_like(entry, ResourceSpec::clone(becomes)).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
            None => Failure::numbered(MINOR_CONFIGURED.0, MINOR_CONFIGURED.1),
        };
        if !entry.is_unconfigured().await {
            return Err(refused);
        }
        self.remove(entry).await;
        self.keep(&running.name, becomes).await
    }

    /// From here it is either kept, or made.
    async fn keep(self: &Rc<Self>, name: &str, becomes: Option<Box<ResourceSpec>>) -> Result<(), Failure> {
        match becomes {
            Some(spec) if spec.is_whole() => self.create(&spec).await.map(drop),
            Some(spec) => {
                self.prepared.0.borrow_mut().insert(name.to_owned(), *spec);
                Ok(())
            }
            None => {
                self.prepared.forget(name);
                Ok(())
            }
        }
    }
}

fn changed_meanwhile() -> Failure {
    Failure::unnumbered("somebody else has changed it meanwhile: try again")
}
