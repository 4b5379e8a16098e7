//! How a command fails: the text on stderr and the exit code.

use tandem_control::{ClientError, Reply};
use tandem_core::io::DiskError;
use tandem_core::metadata::LoadError;
use tandem_core::refusal::StateChangeRefusal;
use thiserror::Error;

use crate::create_md::CreateMdError;
use crate::daemon_start::StartError;
use crate::device::OpenError;
use crate::saved_blocks::SavedError;

/// The exit code from which on no further resource is tried: nothing would come of it.
pub const GIVE_UP_CODE: u8 = 20;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// The resource is not in the configuration; what is, on a line of its own.
    #[error("'{0}' not defined in your config (for this host).{1}")]
    NotDefined(String, String),
    /// The configuration has nothing for this node.
    #[error("no resources defined for this host ({0}): no `on` section has its name")]
    NoResources(String),
    /// The resource has no volume of this number.
    #[error("Resource '{0}' has no volume {1}")]
    NoVolume(String, String),
    /// The resource has no peer of this name; those that it has.
    #[error("Not a valid connection ({0}) for this host{1}")]
    NoConnection(String, String),
    /// Only a whole resource can be named.
    #[error(
        "the volumes of {0} share one state, one order of writes and their meta-data: this command acts on all of them; name \
         '{0}'"
    )]
    AllVolumes(String),
    /// The configuration is not valid.
    #[error("{0}")]
    Config(String, u8),
    /// The resource is not up.
    #[error("{0}: No such resource")]
    NotUp(String),
    /// The resource is up, and was made without this volume.
    #[error(
        "{0}/{1}: Failure: (127) Device minor not allocated\nadditional info:\n{0} was brought up without this volume: 'tandemadm \
         down {0}', then 'tandemadm up {0}'"
    )]
    VolumeNotUp(String, u16),
    /// tandemd cannot be asked.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// tandemd cannot be started.
    #[error("{0}")]
    Start(#[from] StartError),
    /// tandemd refused.
    #[error("{}", refusal_text(.0))]
    Refused(Box<Reply>),
    /// The command line asks for what cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The operator did not confirm.
    #[error("Operation cancelled.\nIt takes 'yes' on the standard input, or --force.")]
    Cancelled,
    /// A disk cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// `create-md` cannot do it.
    #[error("{0}")]
    CreateMd(#[from] CreateMdError),
    /// There is no readable metadata.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The data cannot be outdated.
    #[error("Device is inconsistent.")]
    Inconsistent,
    /// What a split brain gives up cannot be saved, or restored.
    #[error("{0}")]
    Saved(#[from] SavedError),
    /// A split brain cannot be resolved in this way, and nothing was changed.
    #[error("{0}")]
    NotResolved(String),
    /// A disk failed.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// The time to wait is over.
    #[error("{0}: timeout: {1}")]
    WaitTimeout(String, String),
    /// Waiting is in vain.
    #[error("{0}: StandAlone, not waiting any longer{1}")]
    WaitStandAlone(String, String),
    /// What was watched does not come to its end.
    #[error("{0}: {1}")]
    FollowEnded(String, String),
    /// The operator does not want to wait any longer.
    #[error("{0}: not waiting any longer, as you wish")]
    WaitAborted(String),
    /// Something else in the system.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

impl Failure {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::NotDefined(..) | Failure::NoResources(_) | Failure::NoVolume(..) => 1,
            Failure::AllVolumes(_) | Failure::NoConnection(..) | Failure::Usage(_) | Failure::Cancelled => 1,
            Failure::Load(LoadError::NotFound) => 1,
            Failure::WaitTimeout(..) | Failure::WaitStandAlone(..) => 5,
            Failure::WaitAborted(_) | Failure::FollowEnded(..) => 5,
            Failure::Inconsistent => 5,
            Failure::NotUp(_) | Failure::VolumeNotUp(..) | Failure::Load(_) => 10,
            Failure::Config(_, code) => *code,
            Failure::Refused(reply) => reply.exit_code,
            Failure::NotResolved(_) => 11,
            Failure::CreateMd(CreateMdError::WouldTruncate(_)) => 40,
            Failure::CreateMd(_) | Failure::Open(_) | Failure::Disk(_) | Failure::Saved(_) => 20,
            Failure::Client(_) | Failure::Start(_) | Failure::System(..) => 20,
        }
    }
}

impl Failure {
    /// What the operator is told of it, by the resource's name where that is to be typed.
    pub fn said_of(&self, resource: &str) -> String {
        match self {
            Failure::Load(_) => {
                let named = format!("create-md {resource}'");
                let text = self.to_string().replace("create-md res'", &named);
                text.replace("create-md --force'", &format!("create-md --force {resource}'"))
            }
            other => other.to_string(),
        }
    }

    /// The code of the trouble that explains it, if one does.
    pub fn trouble(&self) -> Option<&'static str> {
        let refused = |reply: &Reply, refusal: StateChangeRefusal| {
            reply.error.as_ref().is_some_and(|text| text.contains(&refusal.to_string()))
        };
        match self {
            Failure::Client(ClientError::NotRunning(_)) => Some("T001"),
            Failure::Client(_) => Some("T002"),
            Failure::NotUp(_) => Some("T004"),
            Failure::Load(LoadError::NotFound) => Some("T006"),
            Failure::Refused(reply) if refused(reply, StateChangeRefusal::HeldOpen) => Some("T307"),
            Failure::Refused(reply) if refused(reply, StateChangeRefusal::NoQuorum) => Some("T305"),
            _ => None,
        }
    }
}

fn refusal_text(reply: &Reply) -> String {
    let mut text = reply.error.clone().unwrap_or_else(|| "refused by tandemd without a reason".into());
    text.push_str(&additional_info(&reply.detail));
    text
}

/// The lines besides, behind a line of text that does not end in a newline.
pub fn additional_info(detail: &[String]) -> String {
    let mut text = String::new();
    if !detail.is_empty() {
        text.push_str("\nadditional info:");
    }
    for line in detail {
        text.push('\n');
        text.push_str(line);
    }
    text
}
