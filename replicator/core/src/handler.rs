//! The administrator's programs that the engine wants run, in DRBD's words.
//!
//! docs/handlers.md is checked against the list.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! handlers {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// A program that is run at an event.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Handler { $($(#[doc = $doc])+ #[serde(rename = $name)] $variant),+ }

        impl Handler {
            /// Every handler.
            pub const ALL: &'static [Handler] = &[$(Handler::$variant),+];

            /// Its name in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Handler::$variant => $name),+ }
            }
        }
    };
}

handlers! {
    /// Makes sure that a lost peer does not go on; its exit code says how.
    FencePeer = "fence-peer",
    /// A peer that was fenced is UpToDate again.
    UnfencePeer = "unfence-peer",
    /// A split brain was detected; recovery is tried next.
    InitialSplitBrain = "initial-split-brain",
    /// A split brain was detected and stays.
    SplitBrain = "split-brain",
    /// A resync to this node begins; an exit code other than 0 refuses it.
    BeforeResyncTarget = "before-resync-target",
    /// A resync from this node begins; an exit code other than 0 and 3 refuses it.
    BeforeResyncSource = "before-resync-source",
    /// A resync to this node is complete.
    AfterResyncTarget = "after-resync-target",
    /// Online verify has found differences.
    OutOfSync = "out-of-sync",
    /// The local disk has failed, and on-io-error asks for it.
    LocalIoError = "local-io-error",
    /// This node is Primary and no UpToDate data can be reached.
    PriOnInconDegr = "pri-on-incon-degr",
    /// This node is Primary and would have to become the target of a resync.
    PriLost = "pri-lost",
    /// This node is Primary and has lost a split brain.
    PriLostAfterSb = "pri-lost-after-sb",
    /// This node is Primary and has lost quorum.
    QuorumLost = "quorum-lost",
}

impl Handler {
    /// The handler of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|handler| handler.name() == name)
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a handler ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HandlerOutcome {
    /// With this exit code; 128 and the number of the signal if one ended it.
    Exited(u8),
    /// It could not be started.
    NotStarted,
    /// It did not end within its time limit.
    TimedOut,
}

impl fmt::Display for HandlerOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandlerOutcome::Exited(code) => write!(f, "exit code {code} ({:#x})", u32::from(*code) << 8),
            HandlerOutcome::NotStarted => f.write_str("could not be started"),
            HandlerOutcome::TimedOut => f.write_str("did not end in time and was killed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_handler() {
        let document = include_str!("../../../docs/handlers.md");
        for handler in Handler::ALL {
            assert!(
                document.contains(&format!("\n| {handler} | ")),
                "docs/handlers.md lacks the row of {handler}"
            );
            assert_eq!(Handler::from_name(handler.name()), Some(*handler));
        }
    }

    #[test]
    fn outcomes_read_as_drbd_logs_them() {
        assert_eq!(HandlerOutcome::Exited(5).to_string(), "exit code 5 (0x500)");
        assert_eq!(HandlerOutcome::Exited(0).to_string(), "exit code 0 (0x0)");
    }
}
