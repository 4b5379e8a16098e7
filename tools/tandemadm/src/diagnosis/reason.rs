//! Which kind of reason a connection was given up for, by its words.

use tandem_core::parting;
use tandem_core::split_brain::SPLIT_BRAIN;
use tandem_core::state::ConnectionState;
use tandem_core::status::PeerStatus;

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    SplitBrain,
    Unrelated,
    Sizes,
    Configuration,
    Releases,
    Authentication,
    /// Data would be overwritten under clients.
    PrimaryInTheWay,
    BothPrimary,
    NoSource,
    DataNotThere,
    /// Nothing is wrong: somebody asked with `connect --tentative`.
    Answer,
    Other,
}

const WORDS: &[(&str, Kind)] = &[
    (DRY_RUN, Kind::Answer),
    (SPLIT_BRAIN, Kind::SplitBrain),
    (parting::UNRELATED, Kind::Unrelated),
    (parting::SIZES_DIFFER, Kind::Sizes),
    (parting::VOLUMES_DIFFER, Kind::Sizes),
    (parting::PEER_TOO_SMALL, Kind::Sizes),
    (parting::LOCAL_TOO_SMALL, Kind::Sizes),
    (parting::TERMS_DIFFER, Kind::Configuration),
    (parting::OTHER_RESOURCE, Kind::Configuration),
    (parting::NODE_IDS_DIFFER, Kind::Configuration),
    (parting::RELEASES_DIFFER, Kind::Releases),
    (parting::NOT_AUTHENTICATED, Kind::Authentication),
    (parting::I_AM_PRIMARY, Kind::PrimaryInTheWay),
    (parting::PEER_IS_PRIMARY, Kind::PrimaryInTheWay),
    (parting::BOTH_PRIMARY, Kind::BothPrimary),
    (parting::NO_SOURCE, Kind::NoSource),
    (parting::DATA_NOT_THERE, Kind::DataNotThere),
];
/// What stands before the answer to `connect --tentative`.
const DRY_RUN: &str = "dry-run connect: ";

/// A reason, as one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reason {
    pub(super) kind: Kind,
    pub(super) text: String,
    /// In the peer's words: what is "here" for it is there for us.
    pub(super) by_peer: bool,
}

impl Reason {
    /// Why this peer is not connected, if that was said.
    pub(super) fn of(peer: &PeerStatus) -> Option<Reason> {
        let text = peer.standalone_reason.as_ref()?;
        if peer.connection == ConnectionState::Connected {
            return None;
        }
        let text = text.replace('\n', " ");
        let kind =
            WORDS.iter().find(|(words, _)| text.contains(words)).map_or(Kind::Other, |(_, kind)| *kind);
        let (by_peer, text) = match text.strip_prefix(parting::PEER_REFUSES) {
            Some(theirs) => (true, theirs.to_owned()),
            None => (false, text),
        };
        Some(Reason { kind, text, by_peer })
    }

    /// The text, with the peer's name if the words are its.
    pub(super) fn told(&self, peer: &PeerStatus) -> String {
        match self.by_peer {
            true => format!("{} says: {}", peer.name, self.text),
            false => self.text.clone(),
        }
    }

    /// Of these words, which of the two nodes is meant: this one?
    pub(super) fn means_here(&self, of_the_speaker: &str, of_the_other: &str) -> Option<bool> {
        match (self.text.contains(of_the_speaker), self.text.contains(of_the_other)) {
            (true, _) => Some(!self.by_peer),
            (_, true) => Some(self.by_peer),
            _ => None,
        }
    }
}
