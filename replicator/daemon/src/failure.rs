//! Why a request of the administrator failed, on its way to the command line.

use std::fmt::Display;

use tandem_control::Reply;
use tandem_core::refusal::{CommandError, StateChangeRefusal};

/// A failure with DRBD's exit code and wording, the resource's name not yet in front.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Lines that explain it.
    pub(crate) detail: Vec<String>,
}

/// What kind of failure it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The state machine refused.
    Refused(StateChangeRefusal),
    /// DRBD's number of a failure.
    Numbered(u16),
    /// DRBD knows no such failure.
    Other,
}

impl Failure {
    /// A failure that is no state change: DRBD's number from 101 up, and its text.
    pub(crate) fn numbered(number: u16, text: impl Display) -> Failure {
        let text = format!("Failure: ({number}) {text}");
        Failure { kind: Kind::Numbered(number), text, detail: Vec::new() }
    }

    /// A failure that DRBD has no number for.
    pub(crate) fn unnumbered(text: impl Display) -> Failure {
        Failure { kind: Kind::Other, text: text.to_string(), detail: Vec::new() }
    }

    /// With a line of explanation.
    pub(crate) fn because(mut self, detail: impl Display) -> Failure {
        self.detail.push(detail.to_string());
        self
    }

    /// What is the matter, without DRBD's number.
    pub(crate) fn in_one_line(&self) -> String {
        let first = self.text.lines().next().unwrap_or_default();
        let first = first
            .split_once(") ")
            .filter(|_| matches!(self.kind, Kind::Numbered(_)))
            .map_or(first, |(_, text)| text);
        [first.trim_end_matches('.')]
            .into_iter()
            .chain(self.detail.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(": ")
    }

    /// As the reply to a request about `resource`.
    pub(crate) fn reply(self, resource: &str) -> Reply {
        let error = format!("{resource}: {}", self.text);
        let exit_code = match self.kind {
            Kind::Refused(refusal) => refusal.exit_code(),
            Kind::Numbered(_) | Kind::Other => 10,
        };
        Reply { exit_code, error: Some(error), detail: self.detail, ..Reply::default() }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Failure {
        let kind = match &error {
            CommandError::Refused { refusal, .. } => Kind::Refused(*refusal),
            CommandError::Failure { number, .. } => Kind::Numbered(*number),
        };
        Failure { kind, text: error.to_string(), detail: error.detail().to_vec() }
    }
}
