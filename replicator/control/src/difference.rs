//! In what two descriptions of a resource differ, and when each difference can be overcome while it is up.

use std::collections::BTreeMap;

use tandem_core::config::Takes;

use crate::{NodeSpec, ResourceSpec, VolumeSpec};

/// One thing that is one way, and shall be another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// What it is, in the configuration's words.
    pub what: String,
    /// How it is; `None` if it is not.
    pub old: Option<String>,
    /// How it shall be; `None` if it shall not be.
    pub new: Option<String>,
    /// When the new one counts.
    pub takes: Takes,
}

impl ResourceSpec {
    /// In what `new` differs, the engine's options aside: [`tandem_core::config::Options::changes`] knows these.
    pub fn differences(&self, new: &ResourceSpec) -> Vec<Difference> {
        let (old, new) = (self.parts(new), new.parts(self));
        let mut wanted: BTreeMap<&str, &str> =
            new.iter().map(|part| (part.what.as_str(), part.value.as_str())).collect();
        let mut found = Vec::new();
        for Part { what, value, takes } in &old {
            let new = wanted.remove(what.as_str());
            if new != Some(value) {
                let (old, new) = (Some(value.clone()), new.map(str::to_owned));
                found.push(Difference { what: what.clone(), old, new, takes: *takes });
            }
        }
        for Part { what, value, takes } in new.iter().filter(|part| wanted.contains_key(part.what.as_str())) {
            found.push(Difference { what: what.clone(), old: None, new: Some(value.clone()), takes: *takes });
        }
        found
    }

    /// All of it; what the other has not at all comes and goes with the resource.
    fn parts(&self, other: &ResourceSpec) -> Vec<Part> {
        use Takes::{AtOnce, WithNextAttach, WithNextConnection, WithNextUp};
        // Nothing may be forgotten here.
        let ResourceSpec {
            name: _,
            node,
            peers,
            paths: _,
            volume: _,
            more_volumes: _,
            undo_log,
            options: _,
            handlers,
            resync_after,
            connect_interval_ms,
            nbd_listen,
            block_device,
        } = self;
        let seconds = |ms: u64| (ms / 1000).to_string();
        let mut parts = vec![
            part("this node is", node_is(node), WithNextUp),
            part("net connect-int", seconds(*connect_interval_ms), AtOnce),
            part("options handler-timeout", seconds(handlers.limit_ms), AtOnce),
            part("configuration", handlers.config_file.display(), AtOnce),
            part("global device-driver", block_device.driver.word(), WithNextUp),
            part("global device-timeout", seconds(block_device.away_limit_ms), WithNextUp),
        ];
        for peer in peers {
            // Who takes another one's place comes with the resource.
            let known = other.peers.iter().any(|one| (one.id, &one.name) == (peer.id, &peer.name));
            let takes = if known || other.peers.is_empty() { WithNextConnection } else { WithNextUp };
            parts.push(part(format!("peer {}", peer.name), node_is(peer), takes));
            // One of several comes and goes beside the one that is used.
            let takes = if takes == WithNextConnection { AtOnce } else { takes };
            let to = format!("to {}", peer.name);
            parts.extend(self.paths_to(peer.id).map(|path| part(path.what(), &to, takes)));
        }
        let command = |(handler, command): (_, &String)| part(format!("handler {handler}"), command, AtOnce);
        parts.extend(handlers.commands.iter().map(command));
        parts.extend(resync_after.iter().map(|other| part("disk resync-after", other, AtOnce)));
        parts.extend(nbd_listen.iter().map(|address| part("global nbd-listen", address, AtOnce)));
        parts.extend(undo_log.iter().map(|path| part("disk resync-undo", path.display(), WithNextAttach)));
        for VolumeSpec { number, minor, device, disk, meta_disk, size_bytes } in self.volumes() {
            let known = other.volumes().any(|one| one.number == *number);
            let disk_takes = if known { WithNextAttach } else { WithNextUp };
            let of_volume =
                |what: &str, value: String, takes| part(format!("volume {number} {what}"), value, takes);
            let meta_disk = meta_disk.as_ref().map_or("internal".into(), |path| path.display().to_string());
            parts.extend([
                of_volume("device", format!("{} minor {minor}", device.display()), WithNextUp),
                of_volume("disk", disk.display().to_string(), disk_takes),
                of_volume("meta-disk", meta_disk, disk_takes),
            ]);
            let sectors = size_bytes.map(|bytes| format!("{}s", bytes / 512));
            parts.extend(sectors.map(|sectors| of_volume("size", sectors, WithNextUp)));
        }
        parts
    }
}

/// One of the things that a resource is described by.
struct Part {
    what: String,
    value: String,
    takes: Takes,
}

fn part(what: impl Into<String>, value: impl ToString, takes: Takes) -> Part {
    Part { what: what.into(), value: value.to_string(), takes }
}

fn node_is(node: &NodeSpec) -> String {
    format!("{} node-id {}", node.name, node.id)
}
