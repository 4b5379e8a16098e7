//! What changes a resource that is up, and what shows it as it is.

use std::net::SocketAddr;

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::Names;
use crate::{address, completion};

/// Which options, and of which resources.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Changes {
    /// The resources, and the options, each as `--NAME=VALUE`; `tandemadm options` explains them. With --set-defaults, those
    /// not named get their defaults.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "RES|all|--OPTION=VALUE|--set-defaults",
        add = ArgValueCompleter::new(completion::changes)
    )]
    pub words: Vec<String>,
}

/// How a generation begins.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct NewGeneration {
    /// The resources.
    #[command(flatten)]
    pub names: Names,
    /// Nothing counts as different. Two fresh disks that are connected become UpToDate as they are.
    #[arg(long)]
    pub clear_bitmap: bool,
    /// Of two fresh disks that are connected this node's becomes UpToDate, and all of it is sent to the other: as `primary --force`
    /// and `secondary` do, for it is Primary for a moment.
    #[arg(long, conflicts_with = "clear_bitmap")]
    pub force_resync: bool,
}

/// Which resources, and which of their peers.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct PeerNames {
    /// The resources, or all; of each one peer, by its name or node id, or every peer.
    #[arg(required = true, value_name = "RES[:PEER]|all", add = ArgValueCompleter::new(completion::names))]
    pub names: Vec<String>,
}

/// Which resources, which of their peers, and by which paths these are reached.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct PathNames {
    /// The resources, or all; of each one peer, by its name or node id, or every peer.
    #[arg(required = true, value_name = "RES[:PEER]|all", add = ArgValueCompleter::new(completion::names))]
    pub names: Vec<String>,
    /// This node's end of the one path that is meant; without it, those of the configuration are.
    #[arg(long, value_name = "IP:PORT", value_parser = address::socket, requires = "remote")]
    pub local: Option<SocketAddr>,
    /// The peer's end.
    #[arg(long, value_name = "IP:PORT", value_parser = address::socket, requires = "local")]
    pub remote: Option<SocketAddr>,
}

/// What to show of what runs.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Show {
    /// Resources; all that are up if none is named.
    #[arg(value_name = "RES|all", add = ArgValueCompleter::new(completion::names))]
    pub names: Vec<String>,
    /// As JSON, with drbdsetup's keys.
    #[arg(short, long)]
    pub json: bool,
    /// Options that have their defaults, too.
    #[arg(short = 'D', long)]
    pub show_defaults: bool,
}
