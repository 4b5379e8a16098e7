//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{Config, DEFAULT_PATH};

/// Exit code of a configuration that cannot be used, as `tandemadm`'s.
const CONFIG_CODE: u8 = 10;

/// Makes this node the NFS server behind the virtual IP, or a clean secondary.
#[derive(Clone, Debug, Parser)]
#[command(name = "nfs-failover", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Configuration file.
    #[arg(short, long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config_file: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check the configuration.
    Check,
}

/// Does what was asked; the exit code.
pub fn run(cli: Cli) -> u8 {
    let config = match Config::load(&cli.config_file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return CONFIG_CODE;
        }
    };
    config.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    match cli.command {
        Command::Check => {
            for service in &config.services {
                println!("{}: ok", service.name);
            }
            0
        }
    }
}
