//! NFS failover: turns the surviving node into the NFS server behind the virtual IP, and the leaving node into a clean
//! secondary.
//!
//! Detection and the virtual IP's election belong to UCARP, keepalived, Pacemaker or the operator, and are a wish, never
//! a permission: that comes from `tandemd`, which makes this node Primary or refuses. Rooms: [`config`] (what is to be
//! served), [`plan`] (steps, run in order, taken back in reverse), [`service`] (wishes become plans), [`health`] (what others
//! may ask), [`peer`] (what the two nodes' services say to each other), [`fence`] (whether this node may go on alone).

mod channel;
pub mod cli;
pub mod config;
pub mod fence;
pub mod health;
pub mod peer;
pub mod plan;
pub mod service;
mod sockets;
