//! What both sides must or should have chosen alike, in bytes.

use bytes::{BufMut, BytesMut};

use super::body::Body;
use super::put_text;
use crate::config::{Protocol, Terms};
use crate::settings::{MAX_SETTINGS, Settings};
use crate::split_brain::{AfterSplitBrain, NoPrimary, OnePrimary, TwoPrimaries};
use crate::units::NodeId;

/// Each policy is a byte; the node that one of them may name follows, 0 for the others.
pub(super) fn put_terms(terms: &Terms, out: &mut BytesMut) {
    let policies = &terms.after_split_brain;
    let (no_primary, node) = match policies.no_primary {
        NoPrimary::Disconnect => (0, 0),
        NoPrimary::DiscardYoungerPrimary => (1, 0),
        NoPrimary::DiscardOlderPrimary => (2, 0),
        NoPrimary::DiscardZeroChanges => (3, 0),
        NoPrimary::DiscardLeastChanges => (4, 0),
        NoPrimary::DiscardNode(node) => (5, node.0),
    };
    let one_primary = match policies.one_primary {
        OnePrimary::Disconnect => 0,
        OnePrimary::Consensus => 1,
        OnePrimary::DiscardSecondary => 2,
        OnePrimary::CallPriLostAfterSb => 3,
        OnePrimary::ViolentlyAs0p => 4,
    };
    let two_primaries = match policies.two_primaries {
        TwoPrimaries::Disconnect => 0,
        TwoPrimaries::CallPriLostAfterSb => 1,
        TwoPrimaries::ViolentlyAs0p => 2,
    };
    let bytes =
        [terms.protocol.letter() as u8, no_primary, node, one_primary, two_primaries, policies.always.into()];
    out.put_slice(&bytes);
}

pub(super) fn take_terms(b: &mut Body<'_>) -> Option<Terms> {
    let protocol = Protocol::from_letter(b.u8()?)?;
    let no_primary = match (b.u8()?, b.u8()?) {
        (0, 0) => NoPrimary::Disconnect,
        (1, 0) => NoPrimary::DiscardYoungerPrimary,
        (2, 0) => NoPrimary::DiscardOlderPrimary,
        (3, 0) => NoPrimary::DiscardZeroChanges,
        (4, 0) => NoPrimary::DiscardLeastChanges,
        (5, node) => NoPrimary::DiscardNode(NodeId(node)),
        _ => return None,
    };
    let one_primary = match b.u8()? {
        0 => OnePrimary::Disconnect,
        1 => OnePrimary::Consensus,
        2 => OnePrimary::DiscardSecondary,
        3 => OnePrimary::CallPriLostAfterSb,
        4 => OnePrimary::ViolentlyAs0p,
        _ => return None,
    };
    let two_primaries = match b.u8()? {
        0 => TwoPrimaries::Disconnect,
        1 => TwoPrimaries::CallPriLostAfterSb,
        2 => TwoPrimaries::ViolentlyAs0p,
        _ => return None,
    };
    let after_split_brain = AfterSplitBrain { no_primary, one_primary, two_primaries, always: b.flag()? };
    Some(Terms { protocol, after_split_brain })
}

/// How many, then the name and the value of each.
pub(super) fn put_settings(settings: &Settings, out: &mut BytesMut) {
    out.put_u8(settings.iter().len() as u8);
    for (name, value) in settings.iter() {
        put_text(name, out);
        put_text(value, out);
    }
}

pub(super) fn take_settings(b: &mut Body<'_>) -> Option<Settings> {
    let count = Some(usize::from(b.u8()?)).filter(|count| *count <= MAX_SETTINGS)?;
    let options = (0..count).map(|_| Some((b.text()?, b.text()?)));
    Some(Settings::new(options.collect::<Option<_>>()?))
}
