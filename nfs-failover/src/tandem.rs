//! What is asked of `tandemd`: it alone says who may write.

use std::time::Duration;

use tandem_control::{Action, ClientError, Request, ResourceStatus, ask};

use crate::here::Here;
use crate::plan::{Trouble, trouble};

/// How long a snapshot may take.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// Why `tandemd` did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// In DRBD's words.
    pub message: String,
}

impl Refusal {
    /// Whether another node is Primary.
    pub fn is_second_primary(&self) -> bool {
        self.message.contains("(-1)")
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Trouble::new(refusal.message)
    }
}

/// The resource's snapshot; `None` if it is not up.
pub fn find_status(here: &Here, resource: &str) -> Result<Option<ResourceStatus>, Trouble> {
    let request = Request::Status { resource: Some(resource.to_owned()) };
    match ask(&here.tandem.control_socket(), &request, STATUS_LIMIT) {
        Ok(reply) => Ok(reply.status.into_iter().find(|status| status.engine.resource == resource)),
        Err(ClientError::NotRunning(_)) => Ok(None),
        Err(error) => Err(trouble("asking tandemd")(error)),
    }
}

/// The resource's snapshot.
pub fn status(here: &Here, resource: &str) -> Result<ResourceStatus, Trouble> {
    let not_up =
        || Trouble::new(format!("resource {resource} is not up on this node: tandemadm up {resource}"));
    find_status(here, resource)?.ok_or_else(not_up)
}

/// Has something done to the resource.
pub fn act(here: &Here, resource: &str, action: Action, limit: Duration) -> Result<(), Refusal> {
    let request = Request::Act { resource: resource.to_owned(), action };
    let reply = ask(&here.tandem.control_socket(), &request, limit)
        .map_err(|error| Refusal { message: error.to_string() })?;
    match (reply.exit_code, reply.error) {
        (0, None) => Ok(()),
        (_, error) => {
            let lines = error.into_iter().chain(reply.detail);
            Err(Refusal { message: lines.collect::<Vec<_>>().join("; ") })
        }
    }
}
