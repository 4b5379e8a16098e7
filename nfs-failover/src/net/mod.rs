//! What goes over the network besides NFS itself.

pub mod addresses;
pub mod closed;
pub mod connections;
pub mod destroy;
pub mod link;
pub mod netlink;
pub mod nfs3;
pub mod packet;
pub mod rpc;
