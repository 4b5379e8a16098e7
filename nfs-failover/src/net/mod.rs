//! What goes over the network besides NFS itself.

pub mod connections;
pub mod link;
pub mod packet;
pub mod rpc;
