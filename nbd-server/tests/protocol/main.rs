//! The protocol as a client sees it: bytes in, bytes and decisions out. Numbers like h08 and t17 name the abuse
//! cases that were tried on other servers too.
#![allow(clippy::unwrap_used)]

mod client;
mod handshake;
mod sessions;
mod transmission;
