//! One node: its engine, its disk, its clock, its client, and what the administrator wants of it.

use tandem_core::Engine;
use tandem_core::metadata::LastPlace;
use tandem_core::status::Status;
use tandem_core::units::{CommandId, HandlerId};

use super::checks::Mask;
use super::client::Client;
use super::disk::{Layout, SimDisk};
use super::errand::Errand;
use super::fencing::Outdating;
use super::link::Micros;
use super::no_data::NoData;
use super::trouble::{Clock, Trouble};

/// One node.
pub(super) struct Node {
    /// The engine, while the process lives.
    pub(super) engine: Option<Engine>,
    /// Counts the lives, so that events of former ones are told apart.
    pub(super) incarnation: u32,
    /// The disk.
    pub(super) disk: SimDisk,
    /// An engine has the disk.
    pub(super) disk_in_use: bool,
    /// Where its metadata may be if it is not at the end.
    pub(super) last_place: Option<LastPlace>,
    /// How many times slower the disk is than usual.
    pub(super) disk_slowness: u64,
    /// What is wrong with the disk.
    pub(super) trouble: Trouble,
    /// Nothing was in its cache when the operation began to fail of which the engine is being told.
    pub(super) cache_was_empty: Option<bool>,
    /// The disks of the volumes behind the first are marked at this size.
    pub(super) stamped_rooms: Vec<u64>,
    /// It grows when the next connection has been made and no handshake sent.
    pub(super) grows_when_met: bool,
    /// Errors of it that clients may see.
    pub(super) errors_to_pass_on: u32,
    /// The clock.
    pub(super) clock: Clock,
    /// Whose copies were UpToDate in its eyes before what happened last.
    pub(super) holders_before: [bool; 2],
    /// What the engine said last.
    pub(super) status: Option<Status>,
    /// Since then, its connection has changed.
    pub(super) connection_changed: bool,
    /// When the tick that is in the queue is due.
    pub(super) tick_at: Option<Micros>,
    /// The administrator's command under way.
    pub(super) errand: Option<(CommandId, Errand, Micros)>,
    /// The client.
    pub(super) client: Option<Client>,
    /// The administrator wants the disk attached.
    pub(super) want_disk: bool,
    /// The administrator wants the node connected.
    pub(super) want_net: bool,
    /// A resync has begun to overwrite the data and has not ended: a mixture of two points in time.
    pub(super) mixed: bool,
    /// What its disk held when the undo log of this number began.
    pub(super) image: Option<(u64, Vec<u64>)>,
    /// The file for undo logs could not be written to.
    pub(super) undo_failed: bool,
    /// Its disk is on its way, or half full.
    pub(super) on_truck: bool,
    /// What its disk held when the handler before a resync was run.
    pub(super) snapshot: Option<(HandlerId, Vec<u64>)>,
    /// It was told to outdate itself, on behalf of fence-peer.
    pub(super) outdating: Option<Outdating>,
    /// The administrator has suspended requests.
    pub(super) suspended: bool,
    /// What becomes of requests where no copy can be reached.
    pub(super) no_data: NoData,
    /// A handler has refused a resync, or a stranger was turned away: the node stands alone until the administrator connects it.
    pub(super) awaits_connect: bool,
    /// The version of the data that was last found to be a causal cut.
    pub(super) cut_checked: u64,
    /// What the metadata of a disk that no engine uses says may differ, and the metadata's version.
    pub(super) bits: Option<(u64, Mask)>,
}

impl Node {
    pub(super) fn new(layout: Layout) -> Self {
        Node {
            engine: None,
            incarnation: 0,
            disk: SimDisk::new(layout),
            disk_in_use: false,
            last_place: None,
            disk_slowness: 1,
            holders_before: [false; 2],
            trouble: Trouble::default(),
            cache_was_empty: None,
            stamped_rooms: Vec::new(),
            grows_when_met: false,
            errors_to_pass_on: 0,
            clock: Clock::default(),
            status: None,
            connection_changed: false,
            tick_at: None,
            errand: None,
            client: None,
            want_disk: true,
            want_net: true,
            mixed: false,
            image: None,
            undo_failed: false,
            on_truck: false,
            snapshot: None,
            outdating: None,
            suspended: false,
            no_data: NoData::default(),
            awaits_connect: false,
            cut_checked: 0,
            bits: None,
        }
    }
}
