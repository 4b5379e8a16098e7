//! End-to-end tests: real daemons, the real command line, real NBD clients, kill -9, bad input, bad disks.
//!
//! They need root, Debian's packages and the release binaries (`TANDEM_BIN_DIR`, else `target/release`), so plain
//! `cargo test` passes them by; `cargo xtask test` runs them with `--ignored`.

#![allow(clippy::unwrap_used)]

mod activity_log;
mod adjust;
mod attention;
mod authentication;
mod bad_config;
mod bad_input;
mod bad_peer;
mod cable;
mod clients;
mod congestion;
mod daemon_faults;
mod deciders;
mod device;
mod device_spare;
mod disk_faults;
mod doctor;
mod drbdadm;
mod events;
mod external;
mod fencing;
mod handlers;
mod history;
mod invalidate;
mod kill_rounds;
mod lifecycle;
mod machine;
mod monitoring;
mod nbd_client;
mod node;
mod ocf;
mod outcome;
mod pair;
mod paths;
mod postgres;
mod random;
mod resize;
mod resync;
mod split_brain;
mod split_brain_undo;
mod tcp;
mod torture;
mod trial;
mod truck;
mod undo;
mod verbs;
mod verify;
mod volumes;
mod wait;
mod workload;
