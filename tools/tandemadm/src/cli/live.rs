//! What changes a resource that is up, and what shows it as it is.

use clap::Args;

/// Which options, and of which resources.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Changes {
    /// The resources, and the options: `--ping-int=5`; with --set-defaults, those not named get their defaults.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "RES|all|--OPTION=VALUE|--set-defaults"
    )]
    pub words: Vec<String>,
}

/// Which resources, and which of their peers.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct PeerNames {
    /// The resources, or all; of each one peer, by its name or node id, or every peer.
    #[arg(required = true, value_name = "RES[:PEER]|all")]
    pub names: Vec<String>,
}

/// What to show of what runs.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Show {
    /// Resources; all that are up if none is named.
    #[arg(value_name = "RES|all")]
    pub names: Vec<String>,
    /// As JSON, with drbdsetup's keys.
    #[arg(short, long)]
    pub json: bool,
    /// Options that have their defaults, too.
    #[arg(short = 'D', long)]
    pub show_defaults: bool,
}
