//! Roles and states, in DRBD's words.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in ascending order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word shown to the operator.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant)),+ }
            }

            /// The value with this number on the wire or on disk.
            pub fn from_u8(n: u8) -> Option<Self> {
                Self::ALL.get(usize::from(n)).copied()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

named!(
    /// Who may write.
    Role {
        /// Not known: no connection to that node.
        Unknown,
        /// May not be opened.
        Secondary,
        /// May be written.
        Primary,
    }
);

named!(
    /// What a replica's data is worth; the order is DRBD's.
    DiskState {
        /// No disk.
        Diskless,
        /// The metadata is being read.
        Attaching,
        /// An I/O error was seen; on the way to Diskless.
        Failed,
        /// Attached while connected; the handshake decides.
        Negotiating,
        /// A mixture of old and new blocks.
        Inconsistent,
        /// A consistent point in time, known to be old.
        Outdated,
        /// A peer's disk that cannot be seen.
        DUnknown,
        /// Usable, not known whether it is the newest.
        Consistent,
        /// The newest data known.
        UpToDate,
    }
);

named!(
    /// The state of the connection to one peer.
    ConnectionState {
        /// No attempt is made to connect.
        StandAlone,
        /// Being taken down on request.
        Disconnecting,
        /// About to connect again.
        Unconnected,
        /// The peer did not answer in time.
        Timeout,
        /// The peer closed the connection.
        BrokenPipe,
        /// The heartbeat was not answered.
        NetworkFailure,
        /// The peer said something that the protocol forbids.
        ProtocolError,
        /// The peer closes the connection.
        TearDown,
        /// Waiting for the peer to appear.
        Connecting,
        /// The handshake is complete.
        Connected,
    }
);

named!(
    /// What flows between this node and one peer while they are connected.
    ReplicationState {
        /// Nothing: not connected, or one side has no disk.
        Off,
        /// Writes are replicated, both copies agree.
        Established,
        /// As the source, waiting for the peer's bitmap.
        WFBitMapS,
        /// As the target, waiting for the peer's bitmap.
        WFBitMapT,
        /// Sending the blocks that the peer lacks.
        SyncSource,
        /// Receiving the blocks that this node lacks.
        SyncTarget,
        /// As the source of a resync that is paused.
        PausedSyncS,
        /// As the target of a resync that is paused.
        PausedSyncT,
        /// The peer cannot keep up: writes are marked for it and not sent.
        Ahead,
        /// The Primary does not send its writes for now.
        Behind,
        /// Comparing the copies: this node was told to.
        VerifyS,
        /// Comparing the copies: the peer was told to.
        VerifyT,
    }
);

impl ReplicationState {
    /// The copies are being compared.
    pub const fn is_verify(self) -> bool {
        matches!(self, ReplicationState::VerifyS | ReplicationState::VerifyT)
    }

    /// The peer gets from us what it lacks, now or after a pause.
    pub const fn is_source(self) -> bool {
        matches!(self, ReplicationState::SyncSource | ReplicationState::PausedSyncS)
    }

    /// We get from the peer what we lack, now or after a pause.
    pub const fn is_target(self) -> bool {
        matches!(self, ReplicationState::SyncTarget | ReplicationState::PausedSyncT)
    }
}
