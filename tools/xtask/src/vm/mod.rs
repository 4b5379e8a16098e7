//! `cargo xtask vm`: what needs a real kernel, that is its nbd driver, its NFS server and client and its DRBD, on
//! virtual machines that QEMU emulates, so that no hardware support is needed.
//!
//! The `image` is made of Debian's packages; `machine`s boot it on one `network` and are told what to do over a
//! `channel` of their own; `load` runs inside them. A `stack` is what makes two of them one server; the scenarios play
//! one story on one or two of them.

mod channel;
mod drbd;
mod image;
mod lab;
mod load;
mod locks;
mod machine;
mod nbd;
mod network;
mod power_cut;
mod server;
mod shell;
mod split;
mod stack;
mod tandem;
mod writer;

use clap::Subcommand;

pub(crate) use self::load::{Job, run as run_job};
use crate::process::Result;

/// What can be played.
#[derive(Subcommand, Clone, Copy)]
pub(crate) enum Scenario {
    /// Builds the machines' image, if it is not there, and boots one machine
    Image,
    /// The kernel's nbd driver under ext4 while tandemd is restarted and killed: nothing but waiting is seen
    Nbd {
        /// How often it is restarted
        #[arg(long, default_value_t = 10)]
        restarts: u32,
    },
    /// DRBD 8.4, ext4, the kernel's NFS server and UCARP: power cut of the primary, as a client sees it
    DrbdBaseline,
    /// DRBD 8.4 as above, then Tandem with nfs-failover: power cut, return, resync; opens and locks held
    HaNfs {
        /// Leave DRBD out
        #[arg(long)]
        alone: bool,
    },
    /// An NFSv3 client's lock through a planned move and a power cut: taken again, and refused to another
    Locks,
    /// The kernel's NFS server: killed promotions, exports taken back or configured otherwise, and a restart by somebody else
    Server,
    /// Both sides go on without each other and meet again; one command decides, and is taken back
    Split,
    /// Boots two machines with a replicated device and takes commands for them from standard input
    Shell,
}

/// Plays a scenario.
pub(crate) fn run(scenario: Scenario) -> Result<()> {
    match scenario {
        Scenario::Image => boot_one(),
        Scenario::Nbd { restarts } => nbd::run(restarts),
        Scenario::DrbdBaseline => power_cut::run_baseline(),
        Scenario::HaNfs { alone } => power_cut::run_tandem(alone),
        Scenario::Locks => locks::run(),
        Scenario::Server => server::run(),
        Scenario::Split => split::run(),
        Scenario::Shell => shell::run(),
    }
}

fn boot_one() -> Result<()> {
    let lab = lab::Lab::prepare("image")?;
    let mut machine = lab.machine(1, 64 << 20)?;
    lab.boot(&mut [&mut machine])?;
    print!(
        "{}",
        machine.sh("uname -a; modprobe -a nbd drbd nfsd; head -1 /proc/drbd; /host/bin/tandemd --version")?
    );
    Ok(())
}
