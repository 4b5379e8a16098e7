//! What a node has chosen, in the words of the configuration: two that meet tell each other, and name what differs.

use std::fmt::Debug;

use crate::config::{Options, Votes};
use crate::split_brain::NoPrimary;

/// Most options that are named.
pub const MAX_SETTINGS: usize = 32;

/// Options by name, with their values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Of these options; what there is no room for is left out.
    pub fn new(options: Vec<(String, String)>) -> Settings {
        Settings(options.into_iter().take(MAX_SETTINGS).collect())
    }

    /// Every option with its value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What the peer has chosen otherwise, as a sentence each, under the option's name. What only one of them knows cannot be
    /// compared.
    pub fn differences<'a>(&'a self, theirs: &Settings, peer_name: &str) -> Vec<(&'a str, String)> {
        let differing = |(name, here): (&'a str, &'a str)| {
            let there = theirs.iter().find(|(n, _)| *n == name)?.1;
            (here != there).then(|| (name, format!("{name} is {here} here and {there} on {peer_name}")))
        };
        self.iter().filter_map(differing).collect()
    }
}

impl Options {
    /// What both nodes should have chosen alike; some of it they must, see [`Options::terms`].
    pub fn settings(&self) -> Settings {
        let (after, quorum) = (&self.after_split_brain, &self.quorum);
        let no_primary = match after.no_primary {
            NoPrimary::DiscardNode(node) => format!("discard-node {node}"),
            other => word(other),
        };
        let votes = |votes: Votes| match votes {
            Votes::Count(count) => count.to_string(),
            other => word(other),
        };
        let algorithm =
            |a: Option<crate::digest::DigestAlgorithm>| a.map_or("not set", |a| a.name()).to_owned();
        let always = if after.always { "yes" } else { "no" };
        let options = [
            ("protocol", self.protocol.letter().to_string()),
            ("after-sb-0pri", no_primary),
            ("after-sb-1pri", word(after.one_primary)),
            ("after-sb-2pri", word(after.two_primaries)),
            ("always-asbp", always.to_owned()),
            ("rr-conflict", word(self.rr_conflict)),
            ("fencing", word(self.fencing)),
            ("quorum", votes(quorum.votes)),
            ("quorum-minimum-redundancy", votes(quorum.minimum_redundancy)),
            ("on-no-quorum", word(quorum.on_loss)),
            ("on-congestion", word(self.congestion.policy)),
            ("verify-alg", algorithm(self.verify_algorithm)),
            ("csums-alg", algorithm(self.resync.csums_algorithm)),
        ];
        Settings::new(options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// The configuration's word for a choice: its name with hyphens.
fn word(choice: impl Debug) -> String {
    let mut word = String::new();
    for letter in format!("{choice:?}").chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Fencing, OnNoQuorum, RrConflict};
    use crate::split_brain::{OnePrimary, TwoPrimaries};

    #[test]
    fn choices_are_named_as_in_the_configuration() {
        assert_eq!(word(OnePrimary::ViolentlyAs0p), "violently-as0p");
        assert_eq!(word(TwoPrimaries::CallPriLostAfterSb), "call-pri-lost-after-sb");
        assert_eq!(word(Fencing::ResourceAndStonith), "resource-and-stonith");
        assert_eq!(word(RrConflict::RetryConnect), "retry-connect");
        assert_eq!(word(OnNoQuorum::IoError), "io-error");
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let mut ours = Options::default();
        ours.quorum.votes = Votes::Count(2);
        let differences = |theirs: &Settings| -> Vec<String> {
            let settings = ours.settings();
            settings.differences(theirs, "bravo").into_iter().map(|(_, sentence)| sentence).collect()
        };
        assert_eq!(differences(&Options::default().settings()), ["quorum is 2 here and off on bravo"]);
        assert_eq!(differences(&ours.settings()), [""; 0]);
        let newer = Settings::new(vec![("quorum".into(), "all".into()), ("colour".into(), "red".into())]);
        assert_eq!(differences(&newer), ["quorum is 2 here and all on bravo"]);
    }
}
