//! The colours of drbdsetup on a terminal: what is good green, what is not red, a Primary cyan; this node's brighter
//! than its peers'.

use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};

const STOP: &str = "\x1b[0m";

/// Whether there are colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Colours(pub bool);

#[derive(Clone, Copy)]
enum Shade {
    /// On the way to another state.
    Transitional,
    Normal,
    Primary,
    Good,
    Bad,
}

/// Whose state it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    Ours,
    Theirs,
}

impl Colours {
    pub(crate) fn role(self, role: Role, whose: Whose) -> String {
        let shade = match role {
            Role::Primary => Shade::Primary,
            Role::Secondary => Shade::Normal,
            Role::Unknown => Shade::Transitional,
        };
        self.paint(role.as_str(), shade, whose)
    }

    pub(crate) fn connection(self, state: ConnectionState) -> String {
        let shade = match state {
            ConnectionState::StandAlone | ConnectionState::Connecting => Shade::Bad,
            ConnectionState::Connected => Shade::Normal,
            _ => Shade::Transitional,
        };
        self.paint(state.as_str(), shade, Whose::Ours)
    }

    pub(crate) fn replication(self, state: ReplicationState) -> String {
        use ReplicationState as R;
        let shade = match state {
            R::SyncSource | R::SyncTarget | R::PausedSyncT => Shade::Bad,
            R::Established | R::VerifyS | R::VerifyT | R::PausedSyncS | R::Ahead => Shade::Normal,
            R::Off | R::Behind | R::WFBitMapS | R::WFBitMapT => Shade::Transitional,
        };
        let is_ours = state.is_target() || state == R::Behind;
        self.paint(state.as_str(), shade, if is_ours { Whose::Ours } else { Whose::Theirs })
    }

    pub(crate) fn disk(self, state: DiskState, whose: Whose) -> String {
        let shade = match state {
            DiskState::Diskless | DiskState::Inconsistent | DiskState::Outdated => Shade::Bad,
            DiskState::UpToDate => Shade::Good,
            _ => Shade::Transitional,
        };
        self.paint(state.as_str(), shade, whose)
    }

    /// `yes` or `no`, of which the one is good.
    pub(crate) fn yes_no(self, yes: bool, good: bool) -> String {
        let shade = if yes == good { Shade::Good } else { Shade::Bad };
        self.paint(if yes { "yes" } else { "no" }, shade, Whose::Ours)
    }

    fn paint(self, word: &str, shade: Shade, whose: Whose) -> String {
        let start = match (shade, whose) {
            (Shade::Normal, _) | (Shade::Transitional, Whose::Theirs) => "",
            (Shade::Transitional, Whose::Ours) => "\x1b[1m",
            (Shade::Primary, Whose::Ours) => "\x1b[1;36m",
            (Shade::Primary, Whose::Theirs) => "\x1b[36m",
            (Shade::Good, Whose::Ours) => "\x1b[1;32m",
            (Shade::Good, Whose::Theirs) => "\x1b[32m",
            (Shade::Bad, Whose::Ours) => "\x1b[1;31m",
            (Shade::Bad, Whose::Theirs) => "\x1b[31m",
        };
        match self.0 && !start.is_empty() {
            true => format!("{start}{word}{STOP}"),
            false => word.to_owned(),
        }
    }
}

/// How many columns a text takes: colours take none.
pub(crate) fn columns(text: &str) -> usize {
    let mut in_colour = false;
    let visible = text.chars().filter(|c| {
        let was_in_colour = in_colour;
        in_colour = *c == '\x1b' || in_colour && *c != 'm';
        !was_in_colour && !in_colour
    });
    visible.count()
}
