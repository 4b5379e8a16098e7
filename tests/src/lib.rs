//! Tests of the whole: the simulator of the replication engine, the enumeration of its short histories, and what
//! end-to-end tests share.

pub mod histories;
pub mod sim;
