//! What goes over the network besides NFS itself.

pub mod connections;
pub mod link;
pub mod nfs3;
pub mod packet;
pub mod rpc;
