//! How long a resource's peers are waited for, which its metadata decides (drbd.conf(5), startup).

use tandem_config::StartupOptions;
use tandem_control::ResourceSpec;
use tandem_core::metadata::{self, PeerSlot, Superblock};

use super::known::Known;
use crate::cli::{WaitLimits, YesNo};
use crate::device::{Access, Target};
use crate::failure::Failure;
use crate::output::errln;

/// A resource whose peers are waited for.
pub(crate) struct Waiting {
    pub(crate) spec: ResourceSpec,
    pub(crate) past: Past,
    /// 0: for ever.
    pub(crate) limit_s: u64,
    /// Also for a peer that is StandAlone.
    pub(crate) after_split_brain: bool,
}

impl Waiting {
    /// How long, and why.
    pub(crate) fn limit(&self) -> String {
        match self.limit_s {
            0 => format!("for ever: {} is 0", self.past.option()),
            seconds => format!("{seconds} s: {}", self.past.option()),
        }
    }
}

/// What this node knew of its peers when it last saw them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Past {
    /// That they were there, or nothing.
    Together,
    /// It went on without them.
    Alone,
    /// They were outdated, and none can have been promoted since.
    PeersOutdated,
}

impl Past {
    /// The option whose time limit holds.
    fn option(self) -> &'static str {
        match self {
            Past::Together => "wfc-timeout",
            Past::Alone => "degr-wfc-timeout",
            Past::PeersOutdated => "outdated-wfc-timeout",
        }
    }
}

/// The resources named, each with the time limit that its past asks for.
pub(crate) fn all(known: &Known, names: &[String], wished: &WaitLimits) -> Result<Vec<Waiting>, Failure> {
    let waiting = |spec: ResourceSpec| {
        let configured =
            known.startup(&spec.name).ok_or_else(|| Failure::NotDefined(spec.name.clone(), String::new()))?;
        let limits = limits(configured, wished);
        let past = superblock(&spec).map_or(Past::Together, |superblock| past(&superblock, &spec));
        let limit_s = match past {
            Past::Together => limits.wfc_timeout_s,
            Past::Alone => limits.degr_wfc_timeout_s,
            Past::PeersOutdated => limits.outdated_wfc_timeout_s,
        };
        Ok(Waiting { spec, past, limit_s, after_split_brain: limits.wait_after_split_brain })
    };
    known.specs_of_any_part(names)?.into_iter().map(waiting).collect()
}

/// As drbdsetup: nobody waits longer for a peer that is less likely to come. Who says how long to wait means it, whatever
/// stands in the configuration.
fn limits(configured: StartupOptions, wished: &WaitLimits) -> StartupOptions {
    let from_config = |seconds: u64| if wished.wfc_timeout.is_some() { 0 } else { seconds };
    let wfc_timeout_s = wished.wfc_timeout.unwrap_or(configured.wfc_timeout_s);
    let degraded = wished.degr_wfc_timeout.unwrap_or(from_config(configured.degr_wfc_timeout_s));
    let degr_wfc_timeout_s = at_most(degraded, "degr-wfc-timeout", wfc_timeout_s, "wfc-timeout");
    let outdated = wished.outdated_wfc_timeout.unwrap_or(from_config(configured.outdated_wfc_timeout_s));
    StartupOptions {
        wfc_timeout_s,
        degr_wfc_timeout_s,
        outdated_wfc_timeout_s: at_most(
            outdated,
            "outdated-wfc-timeout",
            degr_wfc_timeout_s,
            "degr-wfc-timeout",
        ),
        wait_after_split_brain: wished
            .wait_after_sb
            .map_or(configured.wait_after_split_brain, |wait| wait == YesNo::Yes),
    }
}

/// 0 is for ever, and what is not set.
fn at_most(seconds: u64, name: &str, longest_s: u64, of: &str) -> u64 {
    match (seconds, longest_s) {
        (_, 0) => seconds,
        (0, _) => longest_s,
        _ if seconds > longest_s => {
            errln!("{name} has to be shorter than {of}\n{name} implicitly set to {of} ({longest_s}s)");
            longest_s
        }
        _ => seconds,
    }
}

/// Also while the daemon runs: it keeps the superblock up to date. Without one nothing is known.
fn superblock(spec: &ResourceSpec) -> Option<Superblock> {
    let mut target = Target::open(spec, Access::Look).ok()?;
    let placement = target.placement();
    metadata::probe(target.metadata_device(), placement).ok()
}

fn past(superblock: &Superblock, spec: &ResourceSpec) -> Past {
    let slot_of = |id| superblock.peers.iter().find(|slot| slot.node == Some(id));
    let slots: Vec<Option<&PeerSlot>> = spec.peers.iter().map(|peer| slot_of(peer.id)).collect();
    // The bitmap counts what the peer does not have.
    let without = |slot: &Option<&PeerSlot>| slot.is_some_and(|slot| slot.bitmap_id != 0);
    match slots.as_slice() {
        slots if slots.iter().all(|slot| slot.is_some_and(|slot| slot.outdated)) => Past::PeersOutdated,
        slots if slots.iter().all(without) => Past::Alone,
        _ => Past::Together,
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::metadata::Placement;
    use tandem_core::units::NodeId;

    use super::*;
    use crate::fixture;

    #[test]
    fn the_past_is_what_the_peers_slot_says() {
        let mut superblock = Superblock::fresh(0xD, 1 << 20, Placement::Internal, 1);
        let spec = fixture::spec();
        assert_eq!(past(&superblock, &spec), Past::Together);
        superblock.peers[0].node = Some(NodeId(1));
        assert_eq!(past(&superblock, &spec), Past::Together);
        superblock.peers[0].bitmap_id = 0x22;
        assert_eq!(past(&superblock, &spec), Past::Alone);
        superblock.peers[0].outdated = true;
        assert_eq!(past(&superblock, &spec), Past::PeersOutdated);
        superblock.peers[0].node = Some(NodeId(2));
        assert_eq!(past(&superblock, &spec), Past::Together, "of a node that is no peer any more");
    }

    #[test]
    fn less_hope_never_waits_longer() {
        let configured = |wfc_timeout_s, degr_wfc_timeout_s, outdated_wfc_timeout_s| StartupOptions {
            wfc_timeout_s,
            degr_wfc_timeout_s,
            outdated_wfc_timeout_s,
            wait_after_split_brain: false,
        };
        let seconds = |configured, wished| {
            let limits = limits(configured, &wished);
            (limits.wfc_timeout_s, limits.degr_wfc_timeout_s, limits.outdated_wfc_timeout_s)
        };
        let nothing = WaitLimits::default();
        assert_eq!(seconds(configured(0, 0, 0), nothing), (0, 0, 0));
        assert_eq!(seconds(configured(30, 0, 0), nothing), (30, 30, 30));
        assert_eq!(seconds(configured(30, 60, 90), nothing), (30, 30, 30));
        assert_eq!(seconds(configured(30, 20, 10), nothing), (30, 20, 10));
        assert_eq!(seconds(configured(0, 20, 0), nothing), (0, 20, 20));
        let wished = WaitLimits { wfc_timeout: Some(7), ..nothing };
        assert_eq!(seconds(configured(30, 20, 5), wished), (7, 7, 7), "who says 7 means 7");
        let wished = WaitLimits { outdated_wfc_timeout: Some(1), ..nothing };
        assert_eq!(seconds(configured(30, 20, 5), wished), (30, 20, 1));
    }
}
