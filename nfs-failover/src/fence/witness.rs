//! A third party that lets one of two nodes go on when they lose each other: `nfs-failover witness` on any machine, or
//! a folder that both nodes see. It holds no data and decides nothing else.
//!
//! Right only with `fencing resource-and-stonith`: a Primary must not write until it has been granted the claim.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::claims::{Answer, Claims};
use super::{Broken, Context, Verdict, read_secret};
use crate::channel::Channel;
use crate::config::Secret;
use crate::sockets;
use tandem_control::output::{errln, outln};

/// What the channel is for.
const PURPOSE: &str = "witness";
const MAX_CONNECTIONS: usize = 64;
/// The administrator has made it in the shared folder: so it is known from one that is only called the same.
const SHARED_MARK: &str = "tandem-witness";
/// One conversation; both nodes' handlers wait for it.
const LIMIT: Duration = Duration::from_secs(5);

/// How a node finds its witness.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ClientArgs {
    /// The TCP witness.
    #[arg(long, value_name = "HOST:PORT", requires = "secret_file")]
    witness: Option<String>,
    /// A file with the secret that the witness knows.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A folder that both nodes see, instead of a TCP witness; it must hold a file called tandem-witness.
    #[arg(long, value_name = "FOLDER", conflicts_with = "witness")]
    witness_folder: Option<PathBuf>,
}

/// How a witness is run.
#[derive(Clone, Debug, Args)]
pub struct WitnessArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where claims are kept: a folder on a disk.
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    /// A file with the secret that the nodes know.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Request {
    action: Action,
    what: String,
    who: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Claim,
    Release,
}

/// Runs a witness until the process ends; returns its address once it listens.
pub fn serve_witness(args: &WitnessArgs) -> Result<SocketAddr, String> {
    let secret = read_secret(&args.secret_file).map_err(|e| e.0)?;
    let claims = Claims::open(&args.state).map_err(|e| format!("{}: {e}", args.state.display()))?;
    let listen = || {
        let listener = TcpListener::bind(args.listen)?;
        let address = listener.local_addr()?;
        sockets::serve(listener, "witness", MAX_CONNECTIONS, move |stream| {
            let peer = stream.peer_addr().map_or_else(|_| "somebody".into(), |a| a.to_string());
            let served = Channel::accept(stream, &secret, PURPOSE, LIMIT).and_then(|c| serve_one(c, &claims));
            match served {
                Ok((request, answer)) => outln!("{peer}: {request:?}: {answer:?}"),
                Err(error) => errln!("{peer}: {error}"),
            }
        })?;
        Ok(address)
    };
    listen().map_err(|e: io::Error| format!("{}: {e}", args.listen))
}

fn serve_one(mut channel: Channel, claims: &Claims) -> io::Result<(Request, Answer)> {
    let request: Request = channel.receive()?;
    let answer = match request.action {
        Action::Claim => claims.claim(&request.what, &request.who)?,
        Action::Release => claims.release(&request.what, &request.who).map(|()| Answer::Granted)?,
    };
    channel.send(&answer)?;
    Ok((request, answer))
}

impl ClientArgs {
    /// Claims the right to go on alone. Whatever keeps it from knowing is not a yes.
    pub(super) fn claim(&self, context: &Context) -> Result<Verdict, Broken> {
        match self.ask(Action::Claim, context)? {
            Answer::Granted => Ok(Verdict::Fenced),
            Answer::Held(holder) => {
                outln!("{holder} has claimed {} and goes on alone", context.resource);
                Ok(Verdict::PeerServes)
            }
        }
    }

    /// The peer is whole again: either may claim from now on.
    pub(super) fn release(&self, context: &Context) -> Result<(), Broken> {
        self.ask(Action::Release, context).map(drop)
    }

    fn ask(&self, action: Action, context: &Context) -> Result<Answer, Broken> {
        // A release that takes long must not take a later claim along.
        let _lock = context.lock()?;
        let request = Request { action, what: context.claimed(), who: context.me()?.to_owned() };
        match (&self.witness, &self.secret_file, &self.witness_folder) {
            (Some(address), Some(file), _) => {
                let broken = |error| Broken(format!("witness {address}: {error}"));
                ask_over_tcp(address, &read_secret(file)?, &request).map_err(broken)
            }
            (_, _, Some(folder)) => {
                let broken = |error| Broken(format!("{}: {error}", folder.display()));
                expect_shared(folder)?;
                let claims = Claims::open(folder).map_err(broken)?;
                let answer = match action {
                    Action::Claim => claims.claim(&request.what, &request.who),
                    Action::Release => claims.release(&request.what, &request.who).map(|()| Answer::Granted),
                };
                answer.map_err(broken)
            }
            _ => Err(Broken(
                "a witness needs --witness HOST:PORT with --secret-file FILE, or --witness-folder FOLDER"
                    .into(),
            )),
        }
    }
}

/// Where the shared file system is not mounted, there may be a folder of the same name: a claim made there binds nobody, and
/// both nodes would be granted it.
fn expect_shared(folder: &Path) -> Result<(), Broken> {
    let mark = folder.join(SHARED_MARK);
    match mark.is_file() {
        true => Ok(()),
        false => Err(Broken(format!(
            "{} is missing: the shared folder is not mounted, or was never marked as such; 'touch' it there once",
            mark.display()
        ))),
    }
}

fn ask_over_tcp(address: &str, secret: &Secret, request: &Request) -> io::Result<Answer> {
    let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut channel = Channel::connect(address, secret, PURPOSE, LIMIT)?;
    channel.send(request)?;
    channel.receive()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use nix::fcntl::{Flock, FlockArg};

    use super::super::tests::context;
    use super::*;

    #[test]
    fn a_witness_lets_one_go_on() {
        let folder = std::env::temp_dir().join(format!("tandem-witness-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let secret_file = folder.join("secret");
        fs::write(&secret_file, "quiet\n").unwrap();
        let args = WitnessArgs {
            listen: "127.0.0.1:0".parse().unwrap(),
            state: folder.join("state"),
            secret_file: secret_file.clone(),
        };
        let address = serve_witness(&args).unwrap();
        let client = |file: &str| ClientArgs {
            witness: Some(address.to_string()),
            secret_file: Some(folder.join(file)),
            witness_folder: None,
        };
        let (alpha, bravo) = (context(&[]).unwrap(), context(&[("DRBD_MY_NODE_ID", "1")]).unwrap());
        let known = client("secret");
        assert_eq!(known.claim(&bravo), Ok(Verdict::Fenced));
        assert_eq!(known.claim(&alpha), Ok(Verdict::PeerServes));
        known.release(&alpha).unwrap();
        assert_eq!(known.claim(&alpha), Ok(Verdict::PeerServes));
        // A witness that was started anew remembers.
        let restarted =
            ClientArgs { witness: Some(serve_witness(&args).unwrap().to_string()), ..known.clone() };
        assert_eq!(restarted.claim(&alpha), Ok(Verdict::PeerServes));
        known.release(&bravo).unwrap();
        assert_eq!(known.claim(&alpha), Ok(Verdict::Fenced));

        fs::write(folder.join("wrong"), "loud").unwrap();
        assert!(client("wrong").claim(&alpha).is_err());
        assert!(client("missing").claim(&alpha).is_err());
        let nobody = ClientArgs { witness: Some("127.0.0.1:1".into()), ..known };
        assert!(nobody.claim(&alpha).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_release_that_takes_long_is_over_before_the_next_claim() {
        let context = context(&[("DRBD_RESOURCE", "slow")]).unwrap();
        let secret_file = std::env::temp_dir().join(format!("tandem-witness-secret-{}", std::process::id()));
        fs::write(&secret_file, "quiet\n").unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = ClientArgs {
            witness: Some(silent.local_addr().unwrap().to_string()),
            secret_file: Some(secret_file.clone()),
            witness_folder: None,
        };
        let is_locked = || {
            let file = File::open(context.lock_file()).unwrap();
            Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
        };
        std::thread::scope(|scope| {
            let releasing = scope.spawn(|| client.release(&context));
            let asked = silent.accept().unwrap();
            assert!(is_locked());
            drop(asked);
            assert!(releasing.join().unwrap().is_err());
        });
        assert!(!is_locked());
        fs::remove_file(secret_file).unwrap();
    }

    #[test]
    fn a_shared_folder_is_a_witness_only_while_it_is_there() {
        let folder = std::env::temp_dir().join(format!("tandem-shared-{}", std::process::id()));
        let shared = ClientArgs { witness_folder: Some(folder.clone()), ..ClientArgs::default() };
        let (alpha, bravo) = (context(&[]).unwrap(), context(&[("DRBD_MY_NODE_ID", "1")]).unwrap());
        assert!(shared.claim(&alpha).is_err());
        fs::create_dir(&folder).unwrap();
        assert!(shared.claim(&alpha).unwrap_err().0.contains("is not mounted"));
        fs::write(folder.join(SHARED_MARK), "").unwrap();
        assert_eq!(shared.claim(&alpha), Ok(Verdict::Fenced));
        assert_eq!(shared.claim(&bravo), Ok(Verdict::PeerServes));
        fs::remove_dir_all(&folder).unwrap();
        assert!(ClientArgs::default().claim(&alpha).is_err());
    }
}
