//! What is true of both copies, whatever the engines think: a version vector per copy, which grows where data goes
//! on, and is taken over where a resync ends. Nothing here looks at an identifier.

/// What a copy has been through: the beginning it goes back to, and the last thing that each node has added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Version {
    root: u32,
    own: [u32; 2],
}

/// How the two copies are related.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Relation {
    /// Neither has ever held data.
    BothFresh,
    /// They have been through the same.
    Equal,
    /// This node's copy has been through all that the other's has, and more.
    Newer(usize),
    /// Each has been through something that the other has not.
    Diverged,
    /// They have nothing in common.
    Unrelated,
}

/// Both copies.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    clock: u32,
    version: [Option<Version>; 2],
    /// A resync has changed the copy, or was about to, and has not ended.
    pub(super) mixed: [bool; 2],
    /// The node crashed as a Primary that had served a request, and the copies have not been in sync since.
    pub(super) crashed: [bool; 2],
    /// The node is a Primary that has served a request.
    pub(super) reigned: [bool; 2],
    /// This node has a completed write that the other may lack (protocol A).
    pub(super) owed: Option<usize>,
}

impl Truth {
    pub(super) fn new() -> Truth {
        Truth {
            clock: 0,
            version: [None; 2],
            mixed: [false; 2],
            crashed: [false; 2],
            reigned: [false; 2],
            owed: None,
        }
    }

    pub(super) fn relation(&self) -> Relation {
        match self.version {
            [None, None] => Relation::BothFresh,
            [Some(_), None] => Relation::Newer(0),
            [None, Some(_)] => Relation::Newer(1),
            [Some(a), Some(b)] if a.root != b.root => Relation::Unrelated,
            [Some(Version { own: a, .. }), Some(Version { own: b, .. })] => {
                match (a[0] > b[0] || a[1] > b[1], b[0] > a[0] || b[1] > a[1]) {
                    (false, false) => Relation::Equal,
                    (true, false) => Relation::Newer(0),
                    (false, true) => Relation::Newer(1),
                    (true, true) => Relation::Diverged,
                }
            }
        }
    }

    /// True if the copy has never held data.
    pub(super) fn is_fresh(&self, n: usize) -> bool {
        self.version[n].is_none()
    }

    /// Data goes on in these copies, on `by`'s account.
    pub(super) fn goes_on(&mut self, by: usize, copies: [bool; 2]) {
        self.clock += 1;
        let clock = self.clock;
        let holder = if copies[by] { by } else { 1 - by };
        let mut version = self.version[holder].unwrap_or(Version { root: clock, own: [0; 2] });
        version.own[holder] = clock;
        for n in (0..2).filter(|n| copies[*n]) {
            self.version[n] = Some(version);
        }
    }

    /// The administrator has declared this copy to be good.
    pub(super) fn forced(&mut self, n: usize) {
        self.goes_on(n, [n == 0, n == 1]);
        self.mixed[n] = false;
        self.crashed[n] = false;
        self.owed = None;
    }

    /// This copy has become the other's.
    pub(super) fn taken_over(&mut self, target: usize) {
        self.version[target] = self.version[1 - target];
        self.mixed[target] = false;
        self.crashed[target] = false;
        self.owed = None;
    }

    /// Both copies are the same, and both nodes know.
    pub(super) fn in_sync(&mut self) {
        self.crashed = [false; 2];
        self.mixed = [false; 2];
        self.owed = None;
    }
}
