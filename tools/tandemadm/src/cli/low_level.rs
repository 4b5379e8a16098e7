//! What other verbs are made of, and what only scripts use.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::Names;
use crate::completion;

/// Parts of other verbs, in drbdadm's words.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum LowLevel {
    /// The same as `adjust`, and print what is being done, for those who watch a machine boot.
    AdjustWithProgress(Names),
    /// Make a resource without disks and without peers: `attach`, `new-peer`, `new-path` and `connect` follow. `up` does all of it.
    #[command(hide = true)]
    NewResource(Names),
    /// Check that a resource that is up has its volumes: they are made with it.
    #[command(hide = true)]
    NewMinor(Names),
    /// Check that a volume has no disk: it goes with its resource, by `down`.
    #[command(hide = true)]
    DelMinor(Names),
    /// Nothing: how large a disk was is remembered by itself.
    #[command(hide = true)]
    CheckResize(Names),
    /// Write other generation identifiers to the meta-data of a resource that is down. They decide which node's data replaces the
    /// other's: wrong ones lose data.
    #[command(hide = true)]
    SetGi(SetGi),
}

/// Which identifiers, and where.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct SetGi {
    /// The resource, and the peer whose bitmap is meant.
    #[arg(value_name = "RES[:PEER]", add = ArgValueCompleter::new(completion::names))]
    pub name: String,
    /// As `get-gi` prints them; what is left away stays as it is.
    #[arg(value_name = "C:B:H0:H1:FLAGS")]
    pub identifiers: String,
    /// Do not ask.
    #[arg(long)]
    pub force: bool,
}
