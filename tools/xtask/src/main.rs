//! The project's own commands: `cargo xtask demo | test | sim | torture | postgres | fuzz-config | vm | bench | man |
//! deb | tidy`.

mod deb;
mod demo;
mod packages;
mod process;
mod repo;
mod sandbox;
mod steps;
mod suite;
mod tidy;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::{Result, run};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, shows, tests and measures Tandem")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Starts a pair on this machine and takes it through its life: write, kill, promote, return
    Demo {
        /// Leave the pair running at the end
        #[arg(long)]
        keep: bool,
    },
    /// Installs what the tests need and runs every test
    Test,
    /// Runs the simulator: --seeds N, --from S, --soak MINUTES, --replay SEED, --mutations
    Sim {
        /// Handed to the simulator
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Maltreats real daemons: kill -9, SIGSTOP and cut cables under load, every protocol
    Torture {
        /// Rounds per protocol
        #[arg(long, default_value_t = 200)]
        rounds: u64,
        /// A, B or C only
        #[arg(long, value_parser = ["A", "B", "C"], ignore_case = true)]
        protocol: Option<String>,
    },
    /// Kills the primary under a PostgreSQL database and looks for every acknowledged commit
    Postgres {
        /// How often
        #[arg(long, default_value_t = 20)]
        kills: u64,
    },
    /// Mutates configurations for so long: none may panic or hang, and what is accepted survives a dump
    FuzzConfig {
        /// How long
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Boots virtual machines with Debian's own kernel and plays a scenario on them; slow, not part of `test`
    Vm {
        /// What is played
        #[command(subcommand)]
        scenario: vm::Scenario,
    },
    /// Measures against other NBD servers, side by side; never a gate
    Bench {
        /// Run the criterion benches of the hot functions instead
        #[arg(long)]
        functions: bool,
        /// Handed to the harness
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Writes the manual pages of what is shipped
    Man,
    /// Builds Debian packages of what is shipped
    Deb,
    /// Checks the rules of the house that no compiler checks
    Tidy,
    /// Runs inside a virtual machine
    #[command(hide = true)]
    Load {
        /// What it does
        #[command(subcommand)]
        job: vm::Job,
    },
    /// Cleans the folder up when standard input ends
    #[command(hide = true)]
    Guard {
        /// A sandbox
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Demo { keep } => demo::run(keep),
        Task::Test => suite::run(),
        Task::Sim { args } => run(&mut suite::simulator(&args)),
        Task::Torture { rounds, protocol } => {
            let letter = protocol.map_or(String::new(), |letter| letter.to_lowercase());
            suite::run_end_to_end(&format!("torture::protocol_{letter}"), "TANDEM_TORTURE_ROUNDS", rounds)
        }
        Task::Postgres { kills } => suite::run_end_to_end("postgres::", "TANDEM_POSTGRES_KILLS", kills),
        Task::FuzzConfig { minutes } => run(&mut suite::config_fuzzer(minutes)),
        Task::Vm { scenario } => vm::run(scenario),
        Task::Load { job } => vm::run_job(&job),
        Task::Bench { functions, args } => bench(functions, &args),
        Task::Man => deb::run_man(),
        Task::Deb => deb::run_build(),
        Task::Tidy => tidy::report(),
        Task::Guard { folder } => sandbox::guard(std::io::stdin(), &folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(functions: bool, args: &[String]) -> Result<()> {
    if functions {
        return run(repo::cargo().args(["bench", "-p", "tandem-benches", "--benches", "--"]).args(args));
    }
    packages::ensure(packages::BENCH)?;
    repo::build_release()?;
    run(repo::cargo()
        .args(["run", "--quiet", "--release", "-p", "tandem-benches", "--"])
        .args(args)
        .env("TANDEM_BIN_DIR", repo::release_dir()?))
}
