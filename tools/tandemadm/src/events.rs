//! The lines of `events2`, as drbdsetup prints them: what must be said so that who knows one
//! state of the resources knows another.

use tandem_control::HelperEvent;
use tandem_core::handler::Handler;

use crate::colours::{Colours, Whose};
use crate::statistics::{self, Level, yes_no};
use crate::view::{ConnectionView, DeviceView, PathView, PeerDeviceView, ResourceView};

/// What stands for a state of something that was not there.
const UNKNOWN: &str = "UNKNOWN";
/// Counters that are listed only if they have changed.
const SELDOM: [&str; 3] = ["write-ordering:", "al-suspended:", "congested:"];
/// The same, even where all is to be listed.
const BLOCKED: &str = "blocked:";

/// What a line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Detail {
    /// Counters, too.
    pub statistics: bool,
    /// What has not changed, too.
    pub full: bool,
    /// The state before as well.
    pub diff: bool,
    /// In colour.
    pub colours: Colours,
}

/// From `old` to `new`, both in the order of their names. `appear` is said of what was not there: `exists` or `create`.
pub(crate) fn changes(
    old: &[ResourceView],
    new: &[ResourceView],
    appear: &str,
    detail: Detail,
) -> Vec<String> {
    let mut lines = Lines { lines: Vec::new(), appear, detail };
    for resource in new {
        lines.resource(find(old, |o| o.name == resource.name), resource);
    }
    for gone in old.iter().filter(|o| !new.iter().any(|n| n.name == o.name)) {
        gone.connections.iter().for_each(|connection| lines.without_connection(gone, connection));
        gone.devices.iter().for_each(|device| lines.without_device(gone, device));
        lines.lines.push(format!("destroy resource name:{}", gone.name));
    }
    lines.lines
}

/// A handler was started, or has ended. A resource that is not known leaves the names out.
pub(crate) fn helper(event: &HelperEvent, known: &[ResourceView]) -> String {
    let resource = find(known, |resource| resource.name == event.resource);
    let action = if event.wait_status.is_some() { "response" } else { "call" };
    let mut line = format!("{action} helper name:{}", event.resource);
    if let Some(peer) = event.peer {
        line += &format!(" peer-node-id:{peer}");
        let connection = resource.and_then(|r| find(&r.connections, |c| c.peer_node_id == peer));
        line += &connection.map_or(String::new(), |connection| format!(" conn-name:{}", connection.name));
    }
    // Fencing is about a node. What else befalls a resource does so on all of its volumes.
    let is_about_node = matches!(event.handler, Handler::FencePeer | Handler::UnfencePeer);
    if let Some([DeviceView { volume, minor, .. }]) = resource.filter(|_| !is_about_node).map(|r| &*r.devices)
    {
        line += &format!(" volume:{volume} minor:{minor}");
    }
    line += &format!(" helper:{}", event.handler);
    line + &event.wait_status.map_or(String::new(), |status| format!(" status:{status}"))
}

fn find<T>(all: &[T], is_it: impl Fn(&T) -> bool) -> Option<&T> {
    all.iter().find(|one| is_it(one))
}

struct Lines<'a> {
    lines: Vec<String>,
    appear: &'a str,
    detail: Detail,
}

impl Lines<'_> {
    fn resource(&mut self, old: Option<&ResourceView>, new: &ResourceView) {
        self.push(self.resource_line(old, new));
        let old_connection =
            |c: &ConnectionView| find(old.map_or(&[], |o| &*o.connections), |o| o.name == c.name);
        for connection in &new.connections {
            self.push(self.connection_line(new, old_connection(connection), connection));
        }
        let old_devices = old.map_or(&[][..], |old| &old.devices);
        for device in &new.devices {
            let before = find(old_devices, |o| o.volume == device.volume);
            self.push(self.device_line(new, before, device));
        }
        for connection in &new.connections {
            self.connection_parts(new, old_connection(connection), connection);
        }
        let stays = |old: &ConnectionView| new.connections.iter().any(|c| c.name == old.name);
        for gone in old.iter().flat_map(|old| &old.connections).filter(|old| !stays(old)) {
            self.without_connection(new, gone);
        }
        let stays = |old: &DeviceView| new.devices.iter().any(|d| d.volume == old.volume);
        old_devices.iter().filter(|old| !stays(old)).for_each(|gone| self.without_device(new, gone));
    }

    fn connection_parts(
        &mut self,
        resource: &ResourceView,
        old: Option<&ConnectionView>,
        new: &ConnectionView,
    ) {
        let old_devices = old.map_or(&[][..], |old| &old.peer_devices);
        for of_peer in &new.peer_devices {
            let before = find(old_devices, |o| o.volume == of_peer.volume);
            self.push(self.peer_device_line(resource, new, before, of_peer));
        }
        let old_paths = old.map_or(&[][..], |old| &old.paths);
        for path in &new.paths {
            let before = find(old_paths, |o| path_key(o) == path_key(path));
            self.push(self.path_line(resource, new, before, path));
        }
        let stays = |old: &PathView| new.paths.iter().any(|p| path_key(p) == path_key(old));
        for gone in old_paths.iter().filter(|old| !stays(old)) {
            self.lines.push(format!("destroy path {} {}", peer_key(resource, new), path_key(gone)));
        }
        let stays = |old: &PeerDeviceView| new.peer_devices.iter().any(|p| p.volume == old.volume);
        for gone in old_devices.iter().filter(|old| !stays(old)) {
            self.lines.push(format!(
                "destroy peer-device {} volume:{}",
                peer_key(resource, new),
                gone.volume
            ));
        }
    }

    fn without_connection(&mut self, resource: &ResourceView, gone: &ConnectionView) {
        let key = peer_key(resource, gone);
        self.lines.extend(gone.paths.iter().map(|path| format!("destroy path {key} {}", path_key(path))));
        let peer_devices = gone.peer_devices.iter();
        self.lines.extend(peer_devices.map(|of| format!("destroy peer-device {key} volume:{}", of.volume)));
        self.lines.push(format!("destroy connection {key}"));
    }

    fn without_device(&mut self, resource: &ResourceView, gone: &DeviceView) {
        self.lines.push(format!("destroy device name:{} volume:{}", resource.name, gone.volume));
    }

    fn resource_line(&self, old: Option<&ResourceView>, new: &ResourceView) -> Line {
        let mut line = self.line(old.is_some(), "resource", &format!("name:{}", new.name));
        let colours = self.detail.colours;
        line.group(|group| {
            group.always("role", old.map(|o| o.role), new.role, |role| colours.role(*role, Whose::Ours));
        });
        line.group(|group| {
            group.always("suspended", old.map(|o| o.why_suspended), new.why_suspended, |why| why.to_string());
        });
        line.group(|group| {
            let failures = |view: &ResourceView| view.force_io_failures;
            group.always("force-io-failures", old.map(failures), failures(new), |on| yes_no(*on).to_owned());
        });
        line.counters(old.map(statistics::resource), statistics::resource(new));
        line.group(|group| {
            let (old, new) = (old.map(|o| o.promotion), new.promotion);
            group.always("may_promote", old.map(|o| o.may_promote), new.may_promote, |may| {
                yes_no(*may).to_owned()
            });
            // What was not there had none.
            let before = old.map_or(0, |old| old.score);
            group.changed |= old.is_none_or(|old| old.score != new.score);
            group.always("promotion_score", Some(before), new.score, |score| score.to_string());
        });
        line
    }

    fn device_line(&self, resource: &ResourceView, old: Option<&DeviceView>, new: &DeviceView) -> Line {
        let key = format!("name:{} volume:{} minor:{}", resource.name, new.volume, new.minor);
        let mut line = self.line(old.is_some(), "device", &key);
        let colours = self.detail.colours;
        let yes = |is: &bool| yes_no(*is).to_owned();
        line.group(|group| {
            let backing = |view: &DeviceView| view.backing_dev.clone().unwrap_or_else(|| "none".into());
            group.if_changed("backing_dev", old.map(backing), backing(new), String::clone);
            group.always("disk", old.map(|o| o.disk_state), new.disk_state, |disk| {
                colours.disk(*disk, Whose::Ours)
            });
            group.if_changed("client", old.map(|o| o.client), new.client, yes);
            group.if_changed("open", old.map(|o| o.open), new.open, yes);
            group.if_changed("quorum", old.map(|o| o.quorum), new.quorum, yes);
        });
        let level = self.level();
        let counters = |device| {
            let mut counters = statistics::device(device, level);
            counters.extend(statistics::blocked(device, level));
            counters
        };
        line.counters(old.map(counters), counters(new));
        line
    }

    fn connection_line(
        &self,
        resource: &ResourceView,
        old: Option<&ConnectionView>,
        new: &ConnectionView,
    ) -> Line {
        let mut line = self.line(old.is_some(), "connection", &peer_key(resource, new));
        let colours = self.detail.colours;
        line.group(|group| {
            group.always("connection", old.map(|o| o.connection_state), new.connection_state, |state| {
                colours.connection(*state)
            });
        });
        line.group(|group| {
            group.always("role", old.map(|o| o.peer_role), new.peer_role, |role| {
                colours.role(*role, Whose::Theirs)
            });
        });
        line.counters(old.map(statistics::connection), statistics::connection(new));
        line
    }

    fn peer_device_line(
        &self,
        resource: &ResourceView,
        connection: &ConnectionView,
        old: Option<&PeerDeviceView>,
        new: &PeerDeviceView,
    ) -> Line {
        let key = format!("{} volume:{}", peer_key(resource, connection), new.volume);
        let mut line = self.line(old.is_some(), "peer-device", &key);
        let colours = self.detail.colours;
        line.group(|group| {
            group.always("replication", old.map(|o| o.replication_state), new.replication_state, |state| {
                colours.replication(*state)
            });
        });
        line.group(|group| {
            group.always("peer-disk", old.map(|o| o.peer_disk_state), new.peer_disk_state, |disk| {
                colours.disk(*disk, Whose::Theirs)
            });
            let yes = |is: &bool| yes_no(*is).to_owned();
            group.if_changed("peer-client", old.map(|o| o.peer_client), new.peer_client, yes);
        });
        line.group(|group| {
            let suspended = |view: &PeerDeviceView| view.resync_suspended.clone();
            group.always("resync-suspended", old.map(suspended), suspended(new), String::clone);
        });
        let done = |view: &PeerDeviceView| {
            view.details.as_ref().map(|d| format!("done:{:.2}", d.percent_resync_done))
        };
        line.items(old.map(|old| Vec::from_iter(done(old))), Vec::from_iter(done(new)));
        let level = self.level();
        line.counters(
            old.map(|old| statistics::peer_device(old, level)),
            statistics::peer_device(new, level),
        );
        line
    }

    fn path_line(
        &self,
        resource: &ResourceView,
        connection: &ConnectionView,
        old: Option<&PathView>,
        new: &PathView,
    ) -> Line {
        let key = format!("{} {}", peer_key(resource, connection), path_key(new));
        let mut line = self.line(old.is_some(), "path", &key);
        line.group(|group| {
            let yes = |is: &bool| yes_no(*is).to_owned();
            group.always("established", old.map(|o| o.established), new.established, yes);
        });
        line
    }

    fn level(&self) -> Level {
        u8::from(self.detail.statistics) + u8::from(self.detail.full)
    }

    fn line(&self, was_there: bool, object: &str, key: &str) -> Line {
        let action = if was_there { "change" } else { self.appear };
        Line { text: format!("{action} {object} {key}"), changed: !was_there, detail: self.detail }
    }

    fn push(&mut self, line: Line) {
        if line.changed {
            self.lines.push(line.text);
        }
    }
}

fn peer_key(resource: &ResourceView, connection: &ConnectionView) -> String {
    let ConnectionView { peer_node_id, name, .. } = connection;
    format!("name:{} peer-node-id:{peer_node_id} conn-name:{name}", resource.name)
}

fn path_key(path: &PathView) -> String {
    format!("local:{} peer:{}", path.this_host, path.remote_host)
}

/// A line under way. It is said if something in it has changed.
struct Line {
    text: String,
    changed: bool,
    detail: Detail,
}

/// Fields that are said together if one of them has changed.
struct Group {
    text: String,
    changed: bool,
    diff: bool,
}

impl Line {
    fn group(&mut self, fill: impl FnOnce(&mut Group)) {
        let mut group = Group { text: String::new(), changed: false, diff: self.detail.diff };
        fill(&mut group);
        if group.changed || self.detail.full {
            self.text.push_str(&group.text);
        }
        self.changed |= group.changed;
    }

    /// Counters, if they are wanted.
    fn counters(&mut self, old: Option<Vec<String>>, new: Vec<String>) {
        if self.detail.statistics || self.detail.full {
            self.items(old, new);
        }
    }

    /// All of them if one has changed; of those that seldom change, those that have.
    fn items(&mut self, old: Option<Vec<String>>, new: Vec<String>) {
        // What has ended is no change of its own.
        let changed = old.as_ref() != Some(&new) && !new.is_empty();
        if changed || self.detail.full {
            let old = old.unwrap_or_default();
            let is_seldom = |item: &String| SELDOM.iter().any(|key| item.starts_with(key));
            let may_be_left_out =
                |item: &String| item.starts_with(BLOCKED) || is_seldom(item) && !self.detail.full;
            let goes_without_saying = |item: &String| old.contains(item) && may_be_left_out(item);
            for item in new.iter().filter(|item| !goes_without_saying(item)) {
                self.text.push(' ');
                self.text.push_str(item);
            }
        }
        self.changed |= changed;
    }
}

impl Group {
    /// A field that shows both states, where that is asked for.
    fn always<T: PartialEq>(&mut self, key: &str, old: Option<T>, new: T, word: impl Fn(&T) -> String) {
        self.field(key, old, new, word, true);
    }

    /// A field that shows both states only if they differ.
    fn if_changed<T: PartialEq>(&mut self, key: &str, old: Option<T>, new: T, word: impl Fn(&T) -> String) {
        self.field(key, old, new, word, false);
    }

    fn field<T: PartialEq>(
        &mut self,
        key: &str,
        old: Option<T>,
        new: T,
        word: impl Fn(&T) -> String,
        both: bool,
    ) {
        let changed = old.as_ref() != Some(&new);
        self.changed |= changed;
        let before = old.as_ref().map_or_else(|| UNKNOWN.to_owned(), &word);
        self.text += &match self.diff && (both || changed) {
            true => format!(" {key}:{before}->{}", word(&new)),
            false => format!(" {key}:{}", word(&new)),
        };
    }
}

#[cfg(test)]
mod tests;
