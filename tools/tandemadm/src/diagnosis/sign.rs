//! What shows that a trouble is there, and what to do about it.

use std::fmt;

/// Why it is said, and the commands that help, in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sign {
    /// One sentence, with the names and figures.
    pub why: String,
    /// What to do.
    pub next: Vec<Step>,
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// `next`, `then`, or in which case.
    pub when: String,
    /// On which node.
    pub place: Place,
    /// As it is typed.
    pub command: String,
}

/// Where a command is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Where the status was asked for.
    Here,
    /// On this other node.
    On(String),
}

impl Sign {
    /// With nothing to do about it yet.
    pub(super) fn new(why: impl Into<String>) -> Sign {
        Sign { why: why.into(), next: Vec::new() }
    }

    /// With one more command, to be run here after those before.
    pub(super) fn here(self, command: impl Into<String>) -> Sign {
        self.then(Place::Here, command)
    }

    /// The same on another node.
    pub(super) fn on(self, node: &str, command: impl Into<String>) -> Sign {
        self.then(Place::On(node.to_owned()), command)
    }

    /// A command for one of several cases.
    pub(super) fn case(mut self, when: impl Into<String>, place: Place, command: impl Into<String>) -> Sign {
        self.next.push(Step { when: when.into(), place, command: command.into() });
        self
    }

    fn then(self, place: Place, command: impl Into<String>) -> Sign {
        let when = if self.next.is_empty() { "next" } else { "then" };
        self.case(when, place, command)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Here => write!(f, "{}: {}", self.when, self.command),
            Place::On(node) => write!(f, "{}, on {node}: {}", self.when, self.command),
        }
    }
}
