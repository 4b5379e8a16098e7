//! The drbdadm-like command line of Tandem, as a library: the program, the generators of its man page and completion,
//! and the tests share [`cli::Cli`].

mod address;
pub mod bar;
pub mod cli;
pub mod colours;
pub mod commands;
pub mod completion;
pub mod config;
pub mod create_md;
pub mod daemon_start;
pub mod device;
pub mod diagnosis;
pub mod divergence_json;
pub mod divergence_text;
pub mod doctor;
pub mod drbdsetup;
pub mod events;
pub mod failure;
#[cfg(test)]
mod fixture;
pub mod gi_set;
pub mod gi_text;
mod interruptions;
pub mod legacy;
mod local_time;
pub mod man;
pub mod md_text;
pub mod nbd;
pub mod plan;
pub mod progress;
mod quorum;
pub mod running_json;
pub mod running_text;
pub mod saved_blocks;
pub mod session;
pub mod settings;
pub mod signatures;
mod statistics;
pub mod status_json;
pub mod status_text;
mod terminal;
pub mod top;
mod view;
mod watch;
mod wrapped;

use tandem_control::output;
