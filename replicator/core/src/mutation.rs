//! Seeded bugs: each breaks one rule, and the simulator, or the enumeration of short histories, must find it.

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// A seeded bug.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Mutation { $($(#[doc = $doc])+ $name),+ }

        impl Mutation {
            /// Every seeded bug.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$name),+];

            /// The bug's name.
            pub const fn name(self) -> &'static str {
                match self { $(Mutation::$name => stringify!($name)),+ }
            }

            /// What the bug breaks.
            pub const fn breaks(self) -> &'static str {
                match self { $(Mutation::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

mutations! {
    /// C completes a write when the peer has received it.
    CompletesOnReceive,
    /// A write completes before the local disk has it.
    CompletesBeforeLocal,
    /// The receiver applies writes across a barrier.
    IgnoresBarrier,
    /// The receiver acknowledges a barrier without flushing.
    AcksBarrierWithoutFlush,
    /// A client's flush does not wait for the peer's barrier ack.
    FlushIgnoresPeer,
    /// Writes in flight when a connection is lost are not marked out of sync.
    ForgetsInFlight,
    /// Writes acknowledged, but not yet behind a barrier, are forgotten when a connection is lost.
    ForgetsAtWriteAck,
    /// A superblock is written without a flush.
    SuperblockWithoutFlush,
    /// A flush of the metadata's device counts for the disks of all volumes.
    FlushesOneVolumeForAll,
    /// Only one of the two superblock copies is ever written.
    OneSuperblockCopy,
    /// A write completes before the new generation is on disk.
    CompletesBeforeGeneration,
    /// No new generation is created when a primary loses a peer.
    KeepsGeneration,
    /// A generation begins while the peer weighs the one that the handshake named.
    BeginsGenerationInHandshake,
    /// A crashed primary does not mark its disk out of sync.
    ForgetsCrash,
    /// The target drops its bits before the resynced data is durable.
    ClearsBeforeFlush,
    /// The source reads a block for the target while a client's write to it is in flight.
    ResyncIgnoresWrites,
    /// The source takes blocks for equal whose digests are of the same length.
    ComparesDigestLengths,
    /// A target whose resync is paused takes it for complete.
    PauseEndsResync,
    /// A target overwrites what the undo log has not yet made durable.
    OverwritesBeforeUndo,
    /// The source forgets a block when it has sent it, not when the target wrote it.
    ClearsOnSend,
    /// A sync target stays UpToDate on disk while blocks are missing.
    TargetStaysUpToDate,
    /// Overlapping writes are applied in any order.
    IgnoresOverlap,
    /// A Primary that is Ahead does not mark what it writes.
    AheadForgetsBits,
    /// A Secondary that is told that it falls behind stays UpToDate.
    AheadStaysUpToDate,
    /// A Primary that is Ahead still sends some of its writes.
    AheadSkipsSome,
    /// A demoted node forgets the bits of its last writes.
    DemotesWithoutBitmap,
    /// What a step makes possible for an earlier one waits for the next input.
    SleepsTooEarly,
    /// A Primary completes requests while they are frozen.
    WritesWhileFrozen,
    /// A fence-peer handler that fails lets a frozen Primary go on.
    ThawsOnFailedFencing,
    /// A fence-peer handler that fails lets a node be promoted.
    PromotesOnFailedFencing,
    /// A Primary that has lost quorum goes on.
    ServesWithoutQuorum,
    /// A Primary that reaches no copy of its data, and is to wait for one, fails requests.
    FailsWithoutData,
    /// A Primary that reaches no copy of its data completes what was under way when it lost the last one.
    CompletesWithoutData,
    /// A Primary that reaches no copy gets a disk back that may have lost completed writes.
    AttachesWhatLacksWrites,
    /// A disk that may have lost completed writes with its cache comes back as the one that has them.
    TrustsLostCache,
    /// A disk that has lost nothing comes back as another one.
    ForgetsWhatWasKept,
    /// A Primary whose disk is lost before it was brought up to date takes that one's generation for what clients have seen.
    ExposesWhatItLacks,
    /// A node is promoted without quorum.
    PromotesWithoutQuorum,
    /// Quorum that is required from now on counts when the process starts the next time.
    KeepsOldQuorum,
    /// So does fencing.
    KeepsOldFencing,
    /// A node that may have old data is promoted without the peer being fenced.
    PromotesConsistentWithoutFencing,
    /// A peer that was outdated counts as such after it was met again.
    RemembersOutdatedPeer,
    /// A peer that was outdated counts as such again when it is lost, whatever has become of it meanwhile.
    BelievesThatPeerStaysOutdated,
    /// A target does not wait for its handler before it changes its data.
    ResyncIgnoresHandler,
    /// Writes begin without a word in the activity log.
    NoActivityLog,
    /// Writes begin before the transaction that names their extents is on disk.
    WritesBeforeTransaction,
    /// An extent is forgotten before the data in it is durable.
    EvictsWithoutFlush,
    /// An extent is forgotten before its bits are on disk.
    EvictsWithoutBitmap,
    /// An extent is let go when the peer has received what was written there.
    DropsReferenceAtReceiveAck,
    /// An extent is let go when the peer has written it, not when its barrier is acknowledged.
    DropsReferenceAtWriteAck,
    /// Nothing closes an epoch that holds every extent of the activity log.
    StarvesOnOpenEpoch,
    /// A transaction of the activity log is believed although its checksum is wrong.
    TrustsTornTransaction,
    /// The activity log is read in the order of its blocks, not of its transactions.
    IgnoresTransactionNumbers,
    /// Both nodes of a crashed pair keep their data without comparing.
    IgnoresCrashFlag,
    /// Data that was given up is not called Inconsistent on disk.
    InvalidateWithoutPersist,
    /// A verify reads a piece for the peer while it is being written.
    VerifyIgnoresWrites,
    /// A verify leaves the last block out.
    VerifyMissesTail,
    /// What a verify has found is not brought to disk.
    VerifyForgetsFound,
    /// A repair takes the copy that was to be replaced.
    RepairFromWrongSide,
    /// A flush that failed is tried again, and the second answer believed.
    RetriesFailedFlush,
    /// A disk that could not write stays UpToDate and in use.
    KeepsFailedDiskUpToDate,
    /// A failed write of metadata counts as done.
    IgnoresMetadataError,
    /// A disk stays, and marks nothing, although a write failed that others rely on.
    HidesWriteError,
    /// A Primary whose disk is being attached goes on writing while it meets its peer.
    WritesWhileAttaching,
    /// A Primary that is the target of a resync reads what has not come yet.
    ReadsWhatIsNotSynced,
    /// A resync writes an older block over what a client of the target has written meanwhile.
    ResyncIgnoresClients,
    /// What a peer may lack when its disk fails is not marked.
    DiskFailureForgetsBits,
    /// What a disk says after it has failed is believed: the writes it finishes late, the flush that succeeds.
    BelievesLateCompletion,
    /// The node with the older data is the source.
    PrefersOldData,
    /// The identifier at which both parted is not looked at.
    IgnoresBitmapId,
    /// The generation that a peer has which saw the end of a resync alone is not looked at.
    IgnoresMissedFinish,
    /// A second missed end of a resync makes the source forget what its bitmap counts from.
    ForgetsMissedFinish,
    /// Two copies of the same generation are in sync, whatever the bitmaps say.
    MissedFinishIsInSync,
    /// Where both went on, the lower node id wins.
    MissesSplitBrain,
    /// An inconsistent copy may be the source.
    SyncsFromInconsistent,
    /// A Primary may be the target.
    OverwritesPrimary,
    /// After protocol A, the survivor's copy wins over that of the crashed Primary.
    CrashedPrimaryLosesInA,
    /// Where both went on, the policies make the wrong side give up.
    DiscardsWrongSide,
    /// `--discard-my-data` is not looked at.
    IgnoresDiscardMyData,
    /// What a connection that only asks would do is done.
    TentativeIsNot,
    /// After a crash, what the activity log's extents add to the count of changes counts as changed.
    TrustsCountAfterCrash,
    /// A Primary that loses a split brain steps down although clients are at work.
    StepsDownUnderClients,
    /// What the other side of a split brain says that it has written is not kept.
    ForgetsWhatPeerMarked,
    /// Metadata that moves is cleared at its old place before it is at the new one.
    WipesBeforeMoving,
    /// Of metadata that moves, one superblock copy is still written at its old place.
    MovesOneCopy,
    /// Metadata moves whenever the disk has grown, although nobody said `resize`.
    MovesUnasked,
    /// Metadata that moves leaves the activity log behind.
    MovesWithoutLog,
    /// What is new of a volume that has grown is not marked.
    GrowsWithoutBits,
    /// What a volume has grown by on the peer is put at the end of another one here.
    GrowsAnotherVolume,
    /// A disk that was too small when the connection was made is too small in the handshake.
    BelievesOldSize,
    /// What the disk of a volume behind the first has grown by is used where its mark still lies.
    GrowsOverStamp,
    /// A client's request that lies in two pieces of the space is let in.
    LetsRequestsSpanPieces,
    /// Clients see a new size before it is on disk.
    ShowsSizeEarly,
    /// Whatever a peer sends to prove who it is proves it.
    BelievesAnyProof,
    /// A peer that sends back what it was sent has proved who it is.
    AcceptsReflection,
    /// Whoever connects from a peer's address ends the connection that stands, before it has proved anything.
    YieldsToStrangers,
    /// Two disks that never held data count as copies of each other.
    FreshDisksAreRelated,
}

impl Mutation {
    /// True for those that the enumeration of short histories must catch; the simulator must catch the others.
    pub const fn breaks_a_decision(self) -> bool {
        use Mutation::*;
        matches!(
            self,
            PrefersOldData
                | IgnoresBitmapId
                | IgnoresMissedFinish
                | ForgetsMissedFinish
                | MissedFinishIsInSync
                | MissesSplitBrain
                | SyncsFromInconsistent
                | OverwritesPrimary
                | CrashedPrimaryLosesInA
                | IgnoresDiscardMyData
                | TentativeIsNot
                | FreshDisksAreRelated
        )
    }
}
