//! The service that runs on each machine all the time: it alone promotes and demotes, one thing after the other.
//!
//! Whoever elects (UCARP, keepalived, Pacemaker, an operator) leaves a wish and is answered at once: those programs
//! freeze while a script runs, overlap and reorder calls, and ignore what a script returns. What is done about wishes
//! is decided by [`machine`], a value; the rest of this room puts the world around it.

mod control;
mod decider;
mod keepalived;
mod keeper;
mod machine;
#[cfg(test)]
mod machine_tests;
mod mailbox;
mod monitor;
mod mover;
mod serve;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use control::note_by_hand;
pub use control::{Ring, WishError, change, clear, leave_wish, lost, reload, views};
pub(crate) use decider::missing as missing_decider;
pub use keepalived::Fifo;
pub use keeper::Mover;
pub use machine::Found;
pub use mover::Plans;
pub(crate) use mover::{broken, scene};
pub(crate) use serve::is_own;
pub use serve::{ServeError, Served, serve};

/// What is wanted of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Serve.
    Up,
    /// Do not.
    Down,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wish::Up => "up",
            Wish::Down => "down",
        })
    }
}

/// How a plan has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All of it was done.
    Done,
    /// It did not begin: what there is of the service is what it was.
    Refused(String),
    /// A step failed, and what came before it was undone.
    Failed(String),
    /// A step failed, and something is left that was to be gone.
    Halfway(String),
    /// It was cancelled, and what had been done was undone.
    Cancelled,
    /// Something is left that could not be taken down.
    Stuck(String),
}

/// What whoever elects is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// Elect somebody else, and why.
    Unfit(String),
    /// This node is a candidate again.
    Fit,
}
