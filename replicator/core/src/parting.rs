//! Why two nodes do not talk to each other: the words by which the log, the peer and `tandemadm explain` know the reasons.
//!
//! A reason is one of these, often with figures behind it; that of a split brain is
//! [`SPLIT_BRAIN`](crate::split_brain::SPLIT_BRAIN).

/// What stands before a reason that the peer has given.
pub const PEER_REFUSES: &str = "the peer refuses: ";

/// The copies have no generation in common.
pub const UNRELATED: &str = "Unrelated data, aborting!";
/// Both copies need the other's.
pub const NO_SOURCE: &str = "I shall become SyncSource, but I am inconsistent!";
/// A Primary without a disk met a copy that its clients have not seen.
pub const DATA_NOT_THERE: &str = "the peer does not have the data that this diskless Primary has exposed";

/// This node's data would be overwritten under its clients.
pub const I_AM_PRIMARY: &str = "I shall become SyncTarget, but I am primary!";
/// The peer's data would.
pub const PEER_IS_PRIMARY: &str = "The peer shall become SyncTarget, but it is primary!";
/// Both nodes have clients.
pub const BOTH_PRIMARY: &str = "Multiple primaries not allowed by config";
/// A client came while this node was about to step down.
pub const JUST_OPENED: &str = "This node should give up its data, and its device has just been opened";

/// The copies have been used with different sizes.
pub const SIZES_DIFFER: &str = "the sizes differ";
/// The metadata is for other volumes.
pub const VOLUMES_DIFFER: &str = "the volumes differ";
/// The peer's disk has no room for the data.
pub const PEER_TOO_SMALL: &str = "The peer's disk size is too small!";
/// This node's disk has none.
pub const LOCAL_TOO_SMALL: &str = "The local disk size is too small!";

/// An option that must be equal is not.
pub const TERMS_DIFFER: &str = "make the configuration files equal on both nodes";
/// The peer's address belongs to another resource.
pub const OTHER_RESOURCE: &str = "the peer speaks of resource";
/// The nodes are numbered differently.
pub const NODE_IDS_DIFFER: &str = "node ids disagree";
/// Both nodes would give up their data.
pub const BOTH_DISCARD: &str = "incompatible discard-my-data settings: only one node can give up its data";
/// The peer has not proved who it is.
pub const NOT_AUTHENTICATED: &str = "Authentication of peer failed";
/// The releases do not understand each other.
pub const RELEASES_DIFFER: &str = "incompatible wire protocol versions";
