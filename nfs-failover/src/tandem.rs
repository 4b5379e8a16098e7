//! What is asked of `tandemd`: it alone says who may write.

use std::os::unix::net::UnixStream;
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
    /// Nobody has answered.
    pub away: bool,
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
    let request = Request::BriefStatus { resource: Some(resource.to_owned()) };
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
        .map_err(|error| Refusal { message: error.to_string(), away: is_away(&error) })?;
    match (reply.exit_code, reply.error) {
        (0, None) => Ok(()),
        (_, error) => {
            let lines = error.into_iter().chain(reply.detail);
            Err(Refusal { message: lines.collect::<Vec<_>>().join("; "), away: false })
        }
    }
}

/// It does not run, or was killed while it was asked.
fn is_away(error: &ClientError) -> bool {
    match error {
        ClientError::NotRunning(_) | ClientError::NoReply(_) => true,
        ClientError::Io { .. } | ClientError::Reply(..) => false,
    }
}

/// Whether a process keeps a device of the resource. Whichever `tandemd` comes next takes it over, and this node is Primary
/// again.
pub fn has_device(here: &Here, resource: &str) -> bool {
    let is_ours = |name: &str| {
        let volume =
            name.strip_prefix(resource).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".sock"));
        volume.is_some_and(|volume| volume.parse::<u16>().is_ok())
    };
    let files = std::fs::read_dir(here.tandem.devices()).into_iter().flatten().flatten();
    files
        .filter(|file| file.file_name().to_str().is_some_and(is_ours))
        .any(|file| UnixStream::connect(file.path()).is_ok())
}
