//! What is asked of `tandemd`: it alone says who may write.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use tandem_control::{Action, ClientError, Request, ResourceStatus, ask};
use tandem_device::control as device;

use crate::here::Here;
use crate::plan::{Trouble, trouble};

/// How long a snapshot may take.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// Who keeps a device has nothing to wait for.
const KEEPER_LIMIT: Duration = Duration::from_secs(2);

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

/// Has every request to the resource's device fail. tandemd does so in good order; where it is dead or hangs, the processes
/// that keep the devices do it by themselves.
pub fn fail_device(here: &Here, resource: &str, limit: Duration) -> Result<(), Trouble> {
    let Err(refusal) = act(here, resource, Action::Secondary { force: true }, limit) else { return Ok(()) };
    let failed: Vec<_> = keepers(here, resource)
        .map(|socket| match device::ask(&socket, device::Request::Fail, KEEPER_LIMIT) {
            Ok(device::Reply { error: None, .. }) => Ok(()),
            Ok(device::Reply { error: Some(why), .. }) => Err(why),
            Err(error) => Err(error.to_string()),
        })
        .collect();
    let why = match failed.iter().find_map(|one| one.as_ref().err()) {
        None if !failed.is_empty() => return Ok(()),
        why => why.map(|why| format!("; the process that keeps its device: {why}")),
    };
    Err(Trouble::new(refusal.message + &why.unwrap_or_default()))
}

/// It does not run, or was killed while it was asked.
fn is_away(error: &ClientError) -> bool {
    match error {
        ClientError::NotRunning(_) | ClientError::NoReply(_) => true,
        ClientError::Mute(..) | ClientError::Io { .. } | ClientError::Reply(..) => false,
    }
}

/// Whether a process keeps a device of the resource. Whichever `tandemd` comes next takes it over, and this node is Primary
/// again.
pub fn has_device(here: &Here, resource: &str) -> bool {
    keepers(here, resource).any(|socket| UnixStream::connect(socket).is_ok())
}

/// Where the processes that keep devices of the resource are asked.
fn keepers(here: &Here, resource: &str) -> impl Iterator<Item = PathBuf> {
    let is_ours = move |name: &str| {
        let volume =
            name.strip_prefix(resource).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".sock"));
        volume.is_some_and(|volume| volume.parse::<u16>().is_ok())
    };
    let files = std::fs::read_dir(here.tandem.devices()).into_iter().flatten().flatten();
    files.filter(move |file| file.file_name().to_str().is_some_and(is_ours)).map(|file| file.path())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn who_keeps_a_device_fails_its_requests_although_tandemd_is_dead() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
        let tandem = tandem_control::RuntimeDir::new(&folder);
        std::fs::create_dir_all(tandem.devices()).unwrap();
        let here = Here { tandem, config_file: "nfs.conf".into() };
        let fail = || fail_device(&here, "r0", Duration::from_secs(30));
        assert!(fail().is_err(), "nobody is there");
        let keeper = UnixListener::bind(here.tandem.devices().join("r0-0.sock")).unwrap();
        let answers = [None, Some("it is going".to_owned())];
        let asked = thread::spawn(move || {
            answers.map(|error| {
                let mut stream = BufReader::new(keeper.accept().unwrap().0);
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let reply = device::Reply { error, ..device::Reply::default() };
                writeln!(stream.get_mut(), "{}", serde_json::to_string(&reply).unwrap()).unwrap();
                line
            })
        });
        assert_eq!(fail(), Ok(()));
        let refused = fail().unwrap_err().message;
        assert!(refused.ends_with("; the process that keeps its device: it is going"), "{refused}");
        assert!(asked.join().unwrap().iter().all(|line| line.trim_end() == r#"{"request":"fail"}"#));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
