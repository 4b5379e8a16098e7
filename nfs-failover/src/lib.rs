//! NFS failover: turns the surviving node into the NFS server behind the virtual IP, and the leaving node into a clean
//! secondary.
//!
//! Detection and the virtual IP's election belong to UCARP, keepalived, Pacemaker or the operator, and are a wish, never
//! a permission: that comes from `tandemd`, which makes this node Primary or refuses. Rooms: [`config`] (what is to be
//! served), [`plan`] (steps, run in order, taken back in reverse), [`steps`] (what promotion and demotion consist of),
//! [`carry_out`] (one plan at a time on this node), `last_resort` (who must be fenced may reboot), [`by_hand`] (the
//! operator's commands, with `check`, `switchover` and [`drill`]), [`tandem`] (what is asked of `tandemd`), [`net`]
//! (packets, calls), [`system`] (programs, processes, mounts), [`here`] (this node's files), [`service`] (wishes become
//! plans), [`health`] (what others may ask), [`peer`] (what the two nodes' services say to each other), [`fence`] (whether
//! this node may go on alone).

// A log or a terminal that is gone must not end a plan in its middle, as `println!` does.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod by_hand;
pub mod carry_out;
mod channel;
mod check;
pub mod cli;
pub mod config;
pub mod drill;
pub mod fence;
pub mod health;
pub mod here;
mod last_resort;
pub mod man;
pub mod net;
pub mod peer;
pub mod plan;
pub mod service;
mod sockets;
pub mod steps;
mod switchover;
pub mod system;
pub mod tandem;
