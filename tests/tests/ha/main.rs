//! High availability, end to end: hosts made of namespaces, real daemons, a real NFS server, a real client.
//!
//! They need root, Debian's packages and the release binaries (`TANDEM_BIN_DIR`, else `target/release`), so plain
//! `cargo test` passes them by; `cargo xtask test` runs them with `--ignored`.

#![allow(clippy::unwrap_used)]

mod agent;
mod balancer;
mod by_hand;
mod client;
mod connections;
mod database;
mod deciders;
mod drill;
mod exports;
mod host;
mod ipv6;
mod killed;
mod lab;
mod listener;
mod locks;
mod locks3;
mod nfs4;
#[path = "../e2e/outcome.rs"]
#[allow(dead_code, reason = "shared with the other end-to-end tests")]
mod outcome;
mod pacemaker;
mod partition;
mod power_strip;
mod quorum;
mod scripts;
mod servers;
mod site;
mod stuck;
mod switch;
mod upkeep;
#[path = "../e2e/wait.rs"]
mod wait;
mod watch;
mod xdr;
