//! What `adjust` does to a resource that is up: in what it differs from the configuration, and the steps that overcome that.

use std::fmt::{self, Display};

use tandem_config::Section;
use tandem_control::{Difference, PathSpec, ResourceSpec, ResourceStatus, VolumeSpec};
use tandem_core::config::{Options, Takes, WriteOrdering};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};

use crate::settings::{self, Setting};

/// One step; they are taken in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// The disk is given up, to be opened as it is now.
    Detach,
    /// The peers are left, to be met as it is now.
    Disconnect,
    /// The daemon is told.
    Change,
    /// It is brought up like one that was down.
    Up,
    /// The disk is taken into use.
    Attach,
    /// The peers are met.
    Connect,
}

/// All that is done to a resource, and what cannot be done to it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What the resource becomes.
    pub becomes: ResourceSpec,
    /// In order.
    pub steps: Vec<Step>,
    running: ResourceSpec,
    differences: Vec<Difference>,
    /// The same, of what stays as it is.
    later: Vec<Difference>,
    /// The options of those that change, which have commands of their own.
    settings: Vec<Setting>,
}

impl Plan {
    /// What takes a resource as it is to what the configuration says.
    pub fn new(status: &ResourceStatus, wanted: &ResourceSpec) -> Plan {
        let running = &status.spec;
        let is_attached = status.engine.disk != DiskState::Diskless;
        let is_alone = status.engine.peers.iter().all(|peer| peer.connection == ConnectionState::StandAlone);
        let is_primary = status.engine.role == Role::Primary;
        let used = &status.used_paths;
        let differences = differences(running, wanted, used);
        if !is_attached && is_alone && !is_primary && !differences.is_empty() {
            return Plan::anew(running, wanted, differences);
        }
        let keeps_disk = is_attached && is_primary;
        let keeps_link = status.engine.peers.iter().any(|peer| {
            peer.connection == ConnectionState::Connected && peer.replication != ReplicationState::Established
        });
        let kept_paths = if keeps_link { used.as_slice() } else { &[] };
        let mut becomes = reachable(running, wanted, keeps_disk, keeps_link);
        becomes.paths.extend(kept_paths.iter().filter(|path| !wanted.paths.contains(path)));
        let later = self::differences(&becomes, wanted, used);
        let needs = |takes| {
            differences.iter().any(|difference| difference.takes == takes && !later.contains(difference))
        };
        let leaves = needs(Takes::WithNextConnection) && !is_alone;
        let detaches = needs(Takes::WithNextAttach) && is_attached;
        let steps = [
            (Step::Detach, detaches),
            (Step::Disconnect, leaves),
            (Step::Change, becomes != *running),
            (Step::Attach, detaches || !is_attached),
            (Step::Connect, leaves || is_alone && !becomes.peers.is_empty()),
        ];
        Plan {
            steps: steps.into_iter().filter(|(_, needed)| *needed).map(|(step, _)| step).collect(),
            settings: changed_settings(running, &becomes),
            running: running.clone(),
            becomes,
            differences,
            later,
        }
    }

    /// It has neither disk nor peers nor clients: nothing is lost by making it anew.
    fn anew(running: &ResourceSpec, wanted: &ResourceSpec, differences: Vec<Difference>) -> Plan {
        Plan {
            becomes: wanted.clone(),
            steps: vec![Step::Up],
            running: running.clone(),
            differences,
            later: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// What cannot change now, why not, and what to do.
    pub fn left_to_do(&self) -> Vec<String> {
        let name = &self.becomes.name;
        let reasons = [
            (
                Takes::WithNextUp,
                "changes when the resource is brought up only",
                format!("'tandemadm down {name}', then 'tandemadm up {name}'"),
            ),
            (
                Takes::WithNextConnection,
                "changes with the next connection only, and a resync is under way, or the copies are compared",
                format!("'tandemadm wait-sync {name}', then 'tandemadm adjust {name}'"),
            ),
            (
                Takes::WithNextAttach,
                "changes with the next attach only, and this node is Primary",
                format!(
                    "'tandemadm secondary {name}', or 'tandemadm detach {name}' while the peer is UpToDate, then 'tandemadm \
                     adjust {name}'"
                ),
            ),
        ];
        let mut lines = Vec::new();
        for (takes, why, how) in reasons {
            let names = self.later.iter().filter(|difference| difference.takes == takes);
            let names: Vec<&str> = names.map(|difference| difference.what.as_str()).collect();
            if !names.is_empty() {
                lines.push(format!("{name}: {}: {why}: {how}", names.join(", ")));
            }
        }
        lines
    }

    /// What to do on the other node, where both must have chosen alike.
    pub fn note(&self) -> Option<String> {
        let alike = self.running.options.terms().differences(&self.becomes.options.terms());
        if alike.is_empty() || !self.steps.contains(&Step::Connect) {
            return None;
        }
        let peers: Vec<&str> = self.becomes.peers.iter().map(|peer| peer.name.as_str()).collect();
        let (name, options, peers) = (&self.becomes.name, alike.join(", "), peers.join(", "));
        Some(format!(
            "{name}: {options} must be the same on both nodes: run 'tandemadm adjust {name}' on {peers}, then here again"
        ))
    }
}

/// Options and all else.
fn differences(running: &ResourceSpec, wanted: &ResourceSpec, used: &[PathSpec]) -> Vec<Difference> {
    let changes = Options::changes(&running.options, &wanted.options);
    let named = settings::with_peers(running, wanted);
    let pairs = settings::of(&named).into_iter().zip(settings::of(wanted));
    let options = pairs.filter_map(|(old, new)| {
        let (_, takes) = changes.iter().find(|(name, _)| *name == old.name)?;
        let what = format!("{} {}", old.place(), old.name);
        let (old, new) = (old.shown().to_owned(), new.shown().to_owned());
        Some(Difference { what, old: Some(old), new: Some(new), takes: *takes })
    });
    let mut all: Vec<Difference> = options.chain(running.differences(wanted)).collect();
    // Paths come and go at any time, but for the one that is used.
    let is_used = |what: &str| used.iter().any(|path| path.what() == what);
    for path in all.iter_mut().filter(|one| one.takes == Takes::AtOnce && is_used(&one.what)) {
        path.takes = Takes::WithNextConnection;
    }
    all
}

/// As much of what is wanted as can be had while the resource is up, with `keeps_disk` while it is attached, and with
/// `keeps_link` while it is connected.
fn reachable(
    running: &ResourceSpec,
    wanted: &ResourceSpec,
    keeps_disk: bool,
    keeps_link: bool,
) -> ResourceSpec {
    let peers = if running.peers.is_empty() { &wanted.peers } else { &running.peers };
    let paths = peers.iter().flat_map(|peer| {
        let is_known = wanted.peers.contains(peer);
        if is_known { wanted } else { running }.paths_to(peer.id).copied()
    });
    let volume = |volume: &VolumeSpec| match wanted.volumes().find(|one| one.number == volume.number) {
        Some(one) if !keeps_disk => {
            VolumeSpec { disk: one.disk.clone(), meta_disk: one.meta_disk.clone(), ..volume.clone() }
        }
        _ => volume.clone(),
    };
    let mut becomes = ResourceSpec {
        node: running.node.clone(),
        peers: peers.clone(),
        paths: paths.collect(),
        volume: volume(&running.volume),
        more_volumes: running.more_volumes.iter().map(volume).collect(),
        block_device: running.block_device,
        ..wanted.clone()
    };
    if keeps_disk {
        becomes.undo_log.clone_from(&running.undo_log);
        becomes.options.al_extents = running.options.al_extents;
        becomes.options.al_updates = running.options.al_updates;
    }
    if keeps_link {
        becomes.options.protocol = running.options.protocol;
        becomes.options.after_split_brain = running.options.after_split_brain;
        let drains = |options: &Options| options.write_ordering != WriteOrdering::None;
        if drains(&running.options) != drains(&wanted.options) {
            becomes.options.write_ordering = running.options.write_ordering;
        }
    }
    becomes
}

fn changed_settings(old: &ResourceSpec, new: &ResourceSpec) -> Vec<Setting> {
    let old = settings::with_peers(old, new);
    let pairs = settings::of(&old).into_iter().zip(settings::of(new));
    pairs.filter(|(old, new)| old != new).map(|(_, new)| new).collect()
}

impl Display for Plan {
    /// A diff, then the commands that would do the same, then what is left to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.becomes.name;
        if !self.differences.is_empty() {
            writeln!(f, "--- {name} as it is\n+++ {name} as it is configured")?;
        }
        for Difference { what, old, new, takes: _ } in &self.differences {
            if let Some(old) = old {
                writeln!(f, "-{what} {old}")?;
            }
            if let Some(new) = new {
                writeln!(f, "+{what} {new}")?;
            }
        }
        for step in &self.steps {
            match step {
                Step::Detach => writeln!(f, "tandemadm detach {name}")?,
                Step::Disconnect => writeln!(f, "tandemadm disconnect {name}")?,
                Step::Change => self.show_change(f)?,
                Step::Up => writeln!(f, "tandemadm up {name}")?,
                Step::Attach => writeln!(f, "tandemadm attach {name}")?,
                Step::Connect => writeln!(f, "tandemadm connect {name}")?,
            }
        }
        self.left_to_do().iter().try_for_each(|line| writeln!(f, "# {line}"))
    }
}

impl Plan {
    fn show_change(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, command) in COMMANDS {
            let of_section =
                self.settings.iter().filter(|setting| setting.section == section && !setting.is_secret());
            let words: Vec<String> = of_section.map(|s| format!(" --{}={}", s.name, s.value)).collect();
            if !words.is_empty() {
                writeln!(f, "tandemadm {command} {}{}", self.becomes.name, words.concat())?;
            }
        }
        let told = self.running.differences(&self.becomes);
        let is_setting =
            |what: &str| self.settings.iter().any(|s| what == format!("{} {}", s.place(), s.name));
        let told = told.iter().map(|d| d.what.as_str()).filter(|what| !is_setting(what));
        // Nobody writes one on a command line.
        let secrets = self.settings.iter().filter(|setting| setting.is_secret()).map(|setting| setting.name);
        let told: Vec<&str> = told.chain(secrets).collect();
        match told.as_slice() {
            [] => Ok(()),
            told => writeln!(f, "# tandemd is told: {}", told.join(", ")),
        }
    }
}

/// The commands that change single options.
pub const COMMANDS: [(Section, &str); 4] = [
    (Section::Options, "resource-options"),
    (Section::Net, "net-options"),
    (Section::Disk, "disk-options"),
    (Section::PeerDevice, "peer-device-options"),
];

#[cfg(test)]
mod tests;
