//! NFS failover: turns the surviving node into the NFS server behind the virtual IP, and the leaving node into a clean
//! secondary.
//!
//! Detection and the virtual IP's election belong to UCARP, keepalived, Pacemaker or the operator, and are a wish, never
//! a permission: that comes from `tandemd`, which makes this node Primary or refuses. Rooms: [`config`] (what is to be
//! served), [`plan`] (steps, run in order, taken back in reverse).

pub mod cli;
pub mod config;
pub mod plan;
