//! The command line.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use clap::{Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::alarm;

use tandem_control::RuntimeDir;
use tandem_control::output::{errln, outln};

use crate::by_hand::{self, Leave, Move, Which};
use crate::carry_out::Way;
use crate::config::{Config, DEFAULT_PATH, Service};
use crate::drill::Drill;
use crate::fence::{self, FenceArgs, UnfenceArgs, WitnessArgs};
use crate::man;
use crate::service::{self, Fifo, Ring, Wish};

/// Exit code of a configuration that cannot be used, as `tandemadm`'s.
const CONFIG_CODE: u8 = 10;
/// Exit code of a wish that was left for a service that does not run.
const AWAY_CODE: u8 = 3;
/// Leaving a wish takes no longer.
const WISH_LIMIT_S: u32 = 5;

/// Makes this node the NFS server behind the virtual IP, or a clean secondary.
#[derive(Clone, Debug, Parser)]
#[command(name = "nfs-failover", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed and taken back unless it says that something is left, 2 usage, \
    3 the service does not run, 10 invalid configuration, 20 this node cannot give the service up and must be fenced."
)]
pub struct Cli {
    /// Configuration file.
    #[arg(short, long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config_file: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve from this node.
    Promote(Move),
    /// Do not serve from this node.
    Demote(Leave),
    /// Serve from the other node, or from this one if the other does now.
    Switchover(Move),
    /// Show what the services are on this node.
    Status(Which),
    /// Check the configuration against the other node's, and whether everything is there that a move needs.
    Check,
    /// Export what the configuration says now, without a move: what clients have open stays open. On both nodes.
    Reload(Which),
    /// Show the steps of a promotion and of a demotion, in order.
    Plan(Which),
    /// Rehearse a planned move, a killed server, a cut link and the return under a client that measures them. Asks first.
    Drill(Drill),
    /// What goes on while a service is up; started by `promote`.
    #[command(hide = true)]
    Keep(Which),
    /// Keep the services of this node: promote and demote them as it is wished, watch them, answer health checks.
    Serve,
    /// Say what is wanted of this node, and return at once: for the scripts of whoever elects.
    Wish {
        /// Serve, or do not.
        #[arg(value_enum)]
        wish: Wish,
        /// Service, or one of its addresses.
        target: String,
    },
    /// Read the states of keepalived's instances from its notify FIFO; each is named after its service.
    KeepalivedFifo {
        /// The FIFO, as keepalived says.
        path: PathBuf,
    },
    /// Say that nothing is left of a service that could not be demoted: it may be promoted again.
    Clear {
        /// Service.
        service: String,
    },
    /// tandemd's handler fence-peer: whether this node may go on without its peer.
    FencePeer(FenceArgs),
    /// tandemd's handler unfence-peer: gives back what fence-peer has claimed.
    UnfencePeer(UnfenceArgs),
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder; pages go into `man5` and `man8` in it.
        folder: PathBuf,
    },
    /// Be the third party that lets one of two nodes go on when they lose each other.
    Witness(WitnessArgs),
}

/// What the scripts of electors say, `wish WISH TARGET`, is done without building up all else that could be said: an outage
/// waits for it. `None` if it is something else.
pub fn wish_quickly(arguments: &[OsString]) -> Option<u8> {
    let words: Option<Vec<&str>> = arguments.iter().map(|word| word.to_str()).collect();
    let (wish, target) = match words?[..] {
        ["wish", "up", target] => (Wish::Up, target),
        ["wish", "down", target] => (Wish::Down, target),
        _ => return None,
    };
    (!target.starts_with('-')).then(|| wish_by(Path::new(DEFAULT_PATH), wish, target))
}

fn wish_by(config_file: &Path, wish: Wish, target: &str) -> u8 {
    // UCARP does nothing while its script runs: if anything hangs, the kernel ends this process.
    alarm::set(WISH_LIMIT_S);
    load(config_file).map_or_else(|code| code, |config| leave_wish(&config, wish, target))
}

fn load(config_file: &Path) -> Result<Config, u8> {
    Config::load(config_file).map_err(|error| {
        errln!("{error}");
        CONFIG_CODE
    })
}

/// Does what was asked; the exit code.
pub fn run(cli: Cli) -> u8 {
    // Handlers and witnesses need no configuration: a broken one must not keep the peer from being fenced.
    match &cli.command {
        Command::FencePeer(args) => return fence::fence_peer(args, run_folder()),
        Command::UnfencePeer(args) => return fence::unfence_peer(args, run_folder()),
        Command::Witness(args) => return witness(args),
        Command::Man { folder } => return reported(write_pages(folder)),
        Command::Wish { wish, target } => return wish_by(&cli.config_file, *wish, target),
        _ => {}
    }
    let config = match load(&cli.config_file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match &cli.command {
        Command::Promote(how) => reported_code(by_hand::go(&cli, &config, how, Way::Promote)),
        Command::Demote(how) => by_hand::leave(&cli, &config, how),
        Command::Switchover(how) => reported_code(by_hand::switchover(&cli, &config, how)),
        Command::Status(which) => reported_code(by_hand::status(&cli, &config, which)),
        Command::Check => reported_code(by_hand::check(&cli, &config)),
        Command::Reload(which) => reported_code(by_hand::reload(&cli, &config, which)),
        Command::Plan(which) => reported_code(by_hand::plan(&cli, &config, which)),
        Command::Drill(how) => reported_code(by_hand::drill(&cli, &config, how)),
        Command::Keep(which) => reported_code(by_hand::keep(&cli, &config, which)),
        Command::Serve => reported_code(by_hand::serve(&cli, &config)),
        Command::KeepalivedFifo { path } => reported(read_fifo(path, config)),
        Command::Clear { service } => reported(by_hand::clear_named(&cli, &config, service)),
        Command::FencePeer(_) | Command::UnfencePeer(_) | Command::Witness(_) => 0,
        Command::Man { .. } | Command::Wish { .. } => 0,
    }
}

fn write_pages(folder: &Path) -> Result<(), String> {
    let failed = |error| format!("writing below {}: {error}", folder.display());
    man::pages().iter().try_for_each(|page| page.write_below(folder)).map_err(failed)
}

/// keepalived's end is the end of its election, whether it closes the FIFO or is killed and takes this along.
fn read_fifo(path: &Path, config: Config) -> Result<(), String> {
    let leave = move |instance: &str, wish| {
        leave_wish(&config, wish, instance);
    };
    let fifo = Arc::new(Fifo::new(leave));
    let terminated = SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT]);
    terminated.thread_block().map_err(|error| format!("blocking signals: {error}"))?;
    let own = Arc::clone(&fifo);
    thread::spawn(move || {
        if terminated.wait().is_ok() {
            own.end();
            std::process::exit(0);
        }
    });
    fifo.read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// UCARP and keepalived ignore the exit code; their scripts do not.
fn leave_wish(config: &Config, wish: Wish, target: &str) -> u8 {
    let named = |service: &&Service| {
        service.name == target || service.vips.iter().any(|vip| vip.address.to_string() == target)
    };
    let Some(service) = config.services.iter().find(named) else {
        return reported(Err(format!("no service is called {target} or has that address")));
    };
    match service::leave_wish(&run_folder(), &service.name, wish) {
        Ok(Ring::Heard) => 0,
        Ok(Ring::Away) => {
            errln!(
                "nfs-failover does not run: {} goes {wish} once 'nfs-failover serve' is started",
                service.name
            );
            AWAY_CODE
        }
        Err(error) => reported(Err(error)),
    }
}

fn reported(result: Result<(), impl Display>) -> u8 {
    reported_code(result.map(|()| 0))
}

pub(crate) fn reported_code(result: Result<u8, impl Display>) -> u8 {
    result.unwrap_or_else(|error| {
        errln!("nfs-failover: {error}");
        1
    })
}

fn witness(args: &WitnessArgs) -> u8 {
    match fence::serve_witness(args) {
        Ok(address) => {
            outln!("witness on {address}");
            loop {
                thread::park();
            }
        }
        Err(error) => {
            errln!("{error}");
            1
        }
    }
}

/// Where the service keeps its files; gone after a boot.
fn run_folder() -> PathBuf {
    RuntimeDir::from_env().path().join("nfs-failover")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_say_what_is_understood() {
        let units = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");
        let mut seen = 0;
        for unit in std::fs::read_dir(units).unwrap().flatten() {
            let text = std::fs::read_to_string(unit.path()).unwrap();
            let lines = text.lines().filter_map(|line| line.split_once("=/usr/sbin/nfs-failover "));
            for (_, arguments) in lines {
                Cli::try_parse_from(["nfs-failover"].into_iter().chain(arguments.split(' '))).unwrap();
                seen += 1;
            }
        }
        assert_eq!(seen, 4);
    }

    #[test]
    fn only_a_plain_wish_is_quick() {
        let quick = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            wish_quickly(&words)
        };
        for words in
            [&["wish", "up"][..], &["wish", "sideways", "nfs"], &["wish", "up", "--help"], &["status"]]
        {
            assert_eq!(quick(words), None, "{words:?}");
        }
    }

    #[test]
    fn a_node_with_several_services_is_left_by_one_command() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
        let path = folder.join("nfs-failover.conf");
        let service = |name: &str, number: u8| {
            format!(
                "service {name} {{ resource {name}; mount /srv/{name} {{ fstype ext4; }} server none; \
                 vip 10.0.0.{number}/24 dev eth0; }}\n"
            )
        };
        std::fs::write(&path, service("a", 1) + &service("b", 2)).unwrap();
        let demote = |arguments: &[&str]| {
            let words = ["nfs-failover", "-c", path.to_str().unwrap(), "demote", "--dry-run"];
            run(Cli::try_parse_from(words.iter().chain(arguments)).unwrap())
        };
        assert_eq!(demote(&["--all"]), 0);
        assert_eq!(demote(&["a"]), 0);
        assert_eq!(demote(&[]), 1, "which of them?");
        assert!(Cli::try_parse_from(["nfs-failover", "demote", "--all", "a"]).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
