//! fence-peer handlers: tandemd asks them, when the peer is lost, whether this node may go on alone.
//!
//! Several ways may be tried in turn. The first that knows the answer gives it; if none does, the last one's ignorance
//! is the answer, because the last resort is what both nodes must agree on: behind `ssh` a `witness` that cannot be
//! reached means that nobody goes on, not that the peer is dead.

mod agent;
mod claims;
mod met;
mod pacemaker;
mod ssh;
mod witness;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nix::fcntl::{Flock, FlockArg};

use crate::config::Secret;
use crate::here::make_folder;
use crate::service;
use tandem_control::output::{errln, outln};

pub(crate) use met::mark_met;
pub use witness::{WitnessArgs, serve_witness};

/// Exit code of a handler that could not find out: what is frozen stays frozen.
const BROKEN_CODE: u8 = 1;

/// What tandemd is told by the handler's exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verdict {
    /// The peer's disk is Inconsistent.
    Inconsistent = 3,
    /// The peer is outdated now.
    Outdated = 4,
    /// The peer cannot be reached: a node whose disk is UpToDate goes on, another does not.
    Unreachable = 5,
    /// The peer may serve, or does: this node must not.
    PeerServes = 6,
    /// The peer was killed, or cannot go on any more.
    Fenced = 7,
}

/// Why a way of fencing led nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A way to keep the peer from going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Via {
    /// Have the peer outdate its disk, over a path other than the replication link.
    Ssh,
    /// Have a fence agent kill it.
    Agent,
    /// Claim the right to go on at a third party: a TCP witness or a shared file.
    Witness,
    /// Claim it in Pacemaker's configuration, and wait until the cluster has fenced a peer that it has lost.
    Pacemaker,
}

/// How the peer is fenced.
#[derive(Clone, Debug, Args)]
pub struct FenceArgs {
    /// How: tried in this order until one of them knows the answer.
    #[arg(long, required = true, value_name = "WAY")]
    via: Vec<Via>,
    /// What to put before `tandemadm outdate RES`; %a stands for the peer's address, %n for its name.
    #[arg(long, value_name = "COMMAND", default_value = ssh::DEFAULT_COMMAND)]
    ssh_command: String,
    /// The fence agent with its arguments, such as 'fence_ipmilan --ip=... --action=reboot'.
    #[arg(long, value_name = "COMMAND", required_if_eq("via", "agent"))]
    agent: Option<String>,
    /// Let a node whose data may be old wait so many seconds first: a Primary that is alive shoots earlier.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    delay: u64,
    #[command(flatten)]
    witness: witness::ClientArgs,
}

/// How the peer is released again.
#[derive(Clone, Debug, Args)]
pub struct UnfenceArgs {
    /// What holds the claim.
    #[arg(long, value_name = "WAY", default_value = "witness")]
    via: Vec<Via>,
    #[command(flatten)]
    witness: witness::ClientArgs,
}

/// What tandemd says in the environment (docs/handlers.md).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Context {
    resource: String,
    peer: String,
    peer_address: String,
    my_node_id: u32,
    nodes: BTreeMap<u32, String>,
    up_to_date_nodes: u64,
    /// Where the service keeps its files.
    run: PathBuf,
}

impl Context {
    fn from_env(run: PathBuf) -> Result<Context, Broken> {
        Context::read(std::env::vars(), run)
    }

    fn read(variables: impl Iterator<Item = (String, String)>, run: PathBuf) -> Result<Context, Broken> {
        let variables: BTreeMap<String, String> = variables.collect();
        let get = |name: &str| {
            let missing = || Broken(format!("{name} is not set: this is to be run by tandemd as fence-peer"));
            variables.get(name).filter(|v| !v.is_empty()).cloned().ok_or_else(missing)
        };
        let number = |name: &str| {
            let text = get(name)?;
            text.parse().map_err(|_| Broken(format!("{name}={text} is not a number")))
        };
        let named = |(name, value): (&String, &String)| {
            Some((name.strip_prefix("DRBD_NODE_ID_")?.parse().ok()?, value.clone()))
        };
        let mask = get("UP_TO_DATE_NODES").unwrap_or_default();
        Ok(Context {
            resource: get("DRBD_RESOURCE")?,
            peer: get("DRBD_PEER")?,
            peer_address: get("DRBD_PEER_ADDRESS")?,
            my_node_id: number("DRBD_MY_NODE_ID")?,
            nodes: variables.iter().filter_map(named).collect(),
            // Whoever does not know is not UpToDate.
            up_to_date_nodes: u64::from_str_radix(mask.trim_start_matches("0x"), 16).unwrap_or(0),
            run,
        })
    }

    fn is_up_to_date(&self) -> bool {
        self.up_to_date_nodes.checked_shr(self.my_node_id).is_some_and(|bits| bits & 1 == 1)
    }

    /// This node's name.
    fn me(&self) -> Result<&str, Broken> {
        let name = self.nodes.get(&self.my_node_id);
        name.map(String::as_str).ok_or_else(|| Broken(format!("DRBD_NODE_ID_{} is not set", self.my_node_id)))
    }

    /// Keeps this node's other handlers from the same claim, as long as it lives.
    fn lock(&self) -> Result<Flock<File>, Broken> {
        let path = self.lock_file();
        let broken = |error: io::Error| Broken(format!("{}: {error}", path.display()));
        make_folder(&self.run).map_err(broken)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(broken)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| broken(error.into()))
    }

    fn lock_file(&self) -> PathBuf {
        self.run.join(format!("{}.claim.lock", self.resource))
    }

    /// What is claimed at a witness, which may serve several clusters: the resource of these nodes.
    fn claimed(&self) -> String {
        let mut nodes: Vec<&str> = self.nodes.values().map(String::as_str).collect();
        nodes.sort_unstable();
        format!("{}@{}", self.resource, nodes.join(","))
    }
}

/// Runs the handler; its exit code. What it says goes to tandemd's log.
pub fn fence_peer(args: &FenceArgs, run: PathBuf) -> u8 {
    let context = match Context::from_env(run) {
        Ok(context) => context,
        Err(error) => {
            errln!("{error}");
            return BROKEN_CODE;
        }
    };
    if !context.is_up_to_date() && args.delay > 0 {
        outln!("this node's data may be old: waiting {} s for the peer to act first", args.delay);
        thread::sleep(Duration::from_secs(args.delay));
    }
    let ways = args.via.iter().map(|via| (*via, try_one(*via, args, &context)));
    match decide(ways) {
        Ok(verdict) => {
            if verdict == Verdict::PeerServes {
                withdraw(&context);
            }
            verdict as u8
        }
        Err(Broken(_)) => BROKEN_CODE,
    }
}

/// A Primary that lost stays frozen: its service must go, and its address first.
fn withdraw(context: &Context) {
    let reason = format!("{} was lost and {} goes on without this node", context.resource, context.peer);
    if let Err(error) = service::lost(&context.run, &context.resource, &reason) {
        errln!("{error}");
    }
}

/// Releases what fencing has claimed, once the peer is whole again; the exit code of unfence-peer.
pub fn unfence_peer(args: &UnfenceArgs, run: PathBuf) -> u8 {
    let released = |context: Context| {
        args.via.iter().try_for_each(|via| match via {
            Via::Witness => args.witness.release(&context),
            Via::Pacemaker => pacemaker::release(&context),
            Via::Ssh | Via::Agent => Ok(()),
        })
    };
    match Context::from_env(run).and_then(released) {
        Ok(()) => 0,
        Err(error) => {
            errln!("{error}");
            BROKEN_CODE
        }
    }
}

fn try_one(via: Via, args: &FenceArgs, context: &Context) -> Result<Verdict, Broken> {
    match via {
        Via::Ssh => ssh::outdate(&args.ssh_command, context),
        Via::Agent => match &args.agent {
            Some(command) => agent::kill(command, context),
            None => Err(Broken("--via agent needs --agent COMMAND".into())),
        },
        Via::Witness => args.witness.claim(context),
        Via::Pacemaker => pacemaker::claim(context),
    }
}

/// The first answer, or the last one's ignorance. Ways are tried one after the other.
fn decide(ways: impl Iterator<Item = (Via, Result<Verdict, Broken>)>) -> Result<Verdict, Broken> {
    let mut last = Err(Broken("no way of fencing is configured".into()));
    for (via, result) in ways {
        match &result {
            Ok(Verdict::Unreachable) => outln!("{via:?}: the peer cannot be reached"),
            Ok(verdict) => {
                outln!("{via:?}: {verdict:?}");
                return result;
            }
            Err(error) => errln!("{via:?}: {error}"),
        }
        last = result;
    }
    last
}

/// Tries again until it is conclusive or the time is up; at least once.
fn retry<T>(limit: Duration, pause: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let result = attempt();
        if result.is_some() || Instant::now() + pause >= end {
            return result;
        }
        thread::sleep(pause);
    }
}

/// The secret in a file, which only its owner should be able to read.
fn read_secret(path: &std::path::Path) -> Result<Secret, Broken> {
    let text = std::fs::read_to_string(path).map_err(|e| Broken(format!("{}: {e}", path.display())))?;
    match text.trim() {
        "" => Err(Broken(format!("{}: the file is empty; it must hold the shared secret", path.display()))),
        secret => Ok(Secret(secret.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn context(variables: &[(&str, &str)]) -> Result<Context, Broken> {
        let given = [
            ("DRBD_RESOURCE", "r0"),
            ("DRBD_PEER", "bravo"),
            ("DRBD_PEER_ADDRESS", "10.0.0.2"),
            ("DRBD_MY_NODE_ID", "0"),
            ("DRBD_NODE_ID_0", "alpha"),
            ("DRBD_NODE_ID_1", "bravo"),
            ("UP_TO_DATE_NODES", "0x00000001"),
        ];
        let all =
            given.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Context::read(all, std::env::temp_dir().join(format!("tandem-fence-{}", std::process::id())))
    }

    #[test]
    fn the_environment_says_who_and_what() {
        let known = context(&[]).unwrap();
        assert!(known.is_up_to_date());
        assert_eq!((known.me().unwrap(), known.claimed().as_str()), ("alpha", "r0@alpha,bravo"));
        for mask in ["0x00000002", "", "zero"] {
            assert!(!context(&[("UP_TO_DATE_NODES", mask)]).unwrap().is_up_to_date(), "{mask}");
        }
        assert!(!context(&[("DRBD_MY_NODE_ID", "99")]).unwrap().is_up_to_date());
        for missing in ["DRBD_RESOURCE", "DRBD_PEER", "DRBD_PEER_ADDRESS", "DRBD_MY_NODE_ID"] {
            assert!(context(&[(missing, "")]).unwrap_err().0.contains(missing));
        }
    }

    #[test]
    fn the_first_answer_counts_and_else_the_last_ignorance() {
        use Verdict::{Fenced, Outdated, PeerServes, Unreachable};
        let decide = |results: &[Result<Verdict, &str>]| {
            let ways = results.iter().map(|r| (Via::Ssh, r.map_err(|e| Broken(e.into()))));
            decide(ways).map_err(|e| e.0)
        };
        assert_eq!(decide(&[Ok(Outdated), Ok(PeerServes)]), Ok(Outdated));
        assert_eq!(decide(&[Ok(Unreachable), Ok(Fenced)]), Ok(Fenced));
        assert_eq!(decide(&[Err("broken"), Ok(PeerServes), Ok(Fenced)]), Ok(PeerServes));
        assert_eq!(decide(&[Err("broken"), Ok(Unreachable)]), Ok(Unreachable));
        // A witness that cannot be asked: nobody goes on.
        assert_eq!(decide(&[Ok(Unreachable), Err("broken")]), Err("broken".into()));
        assert!(decide(&[]).is_err());
    }
}
