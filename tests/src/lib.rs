//! Tests of the whole: the simulator of the replication engine, and what end-to-end tests share.

pub mod sim;
