//! `status`, byte for byte as DRBD 9 prints it.

use tandem_control::ResourceStatus;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};
use tandem_core::status::PeerStatus;

use crate::colours::{Colours, Whose};
use crate::statistics;
use crate::view::{ConnectionView, DeviceView, PeerDeviceView, ResourceView};
use crate::wrapped::Wrapped;

/// What `status` says if there is no resource.
pub const NONE_CONFIGURED: &str = "# No currently configured DRBD found.\n";

/// How `status` is to be printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// What goes without saying, too; 2: and how a resync's times came about.
    pub verbose: u8,
    /// Counters.
    pub statistics: bool,
    /// As on a terminal.
    pub colours: Colours,
    /// The reader is a terminal.
    pub is_terminal: bool,
    /// Lines are broken at this width.
    pub columns: usize,
}

impl Default for Look {
    /// As a script sees it.
    fn default() -> Self {
        Look { verbose: 0, statistics: false, colours: Colours(false), is_terminal: false, columns: 80 }
    }
}

/// One resource, its empty line at the end included.
pub fn resource(status: &ResourceStatus, look: &Look) -> String {
    let view = ResourceView::new(status);
    let mut page = Page { look, text: Wrapped::new(look.columns), names_volumes: names_volumes(&view, look) };
    page.resource(&view);
    view.devices.iter().for_each(|device| page.device(device));
    view.connections.iter().for_each(|connection| page.connection(connection));
    page.text.end_line();
    page.text.into_text()
}

/// Why the peer is StandAlone, if it is and there is something to say, in one line.
pub fn standalone_reason(peer: &PeerStatus) -> Option<String> {
    let reason = peer.standalone_reason.as_ref()?;
    (peer.connection == ConnectionState::StandAlone).then(|| reason.replace('\n', " "))
}

/// They are left out for a resource's only volume if it is number 0.
fn names_volumes(view: &ResourceView, look: &Look) -> bool {
    look.verbose > 0 || !matches!(view.devices.as_slice(), [DeviceView { volume: 0, .. }])
}

struct Page<'a> {
    look: &'a Look,
    text: Wrapped,
    names_volumes: bool,
}

impl Page<'_> {
    fn resource(&mut self, view: &ResourceView) {
        let (verbose, colours) = (self.look.verbose > 0, self.look.colours);
        self.text.put(0, &view.name);
        if verbose {
            self.text.put(4, &format!("node-id:{}", view.node_id));
        }
        self.text.put(4, &format!("role:{}", colours.role(view.role, Whose::Ours)));
        if verbose || view.suspended {
            self.text.put(4, &format!("suspended:{}", view.why_suspended));
        }
        if verbose || view.force_io_failures {
            let failures = colours.yes_no(view.force_io_failures, false);
            self.text.put(4, &format!("force-io-failures:{failures}"));
        }
        if verbose && self.look.statistics {
            self.text.end_line();
            self.text.put_all(4, statistics::resource(view));
        }
        self.text.end_line();
    }

    fn device(&mut self, view: &DeviceView) {
        let (verbose, colours) = (self.look.verbose > 0, self.look.colours);
        let mut indent = 2;
        if self.names_volumes {
            self.text.put(indent, &format!("volume:{}", view.volume));
            indent = 6;
        }
        if verbose {
            self.text.put(indent, &format!("minor:{}", view.minor));
        }
        self.text.put(indent, &format!("disk:{}", colours.disk(view.disk_state, Whose::Ours)));
        self.client("client", view.disk_state, indent);
        if verbose {
            let disk = view.backing_dev.as_deref().unwrap_or("none");
            self.text.put(indent, &format!("backing_dev:{disk}"));
        }
        if verbose || !view.quorum {
            self.text.put(indent, &format!("quorum:{}", colours.yes_no(view.quorum, true)));
        }
        self.text.put(indent, &format!("open:{}", statistics::yes_no(view.open)));
        if self.look.statistics {
            self.text.end_line();
            self.text.put_all(6, statistics::device(view, self.look.verbose));
        }
        self.text.put_all(6, statistics::blocked(view, self.look.verbose));
        self.text.end_line();
    }

    fn connection(&mut self, view: &ConnectionView) {
        let (verbose, colours) = (self.look.verbose > 0, self.look.colours);
        let connected = view.connection_state == ConnectionState::Connected;
        self.text.put(2, &view.name);
        if verbose {
            self.text.put(6, &format!("node-id:{}", view.peer_node_id));
        }
        if verbose || !connected {
            self.text.put(6, &format!("connection:{}", colours.connection(view.connection_state)));
        }
        if verbose || connected {
            self.text.put(6, &format!("role:{}", colours.role(view.peer_role, Whose::Theirs)));
        }
        if verbose {
            self.text.put(6, &format!("tls:{}", statistics::yes_no(view.tls)));
        }
        if verbose || view.congested {
            self.text.put_all(6, statistics::connection(view));
        }
        self.text.end_line();
        if verbose || self.look.statistics || connected {
            view.peer_devices.iter().for_each(|of_peer| self.peer_device(of_peer));
        }
    }

    fn peer_device(&mut self, view: &PeerDeviceView) {
        let (verbose, colours) = (self.look.verbose > 0, self.look.colours);
        let replicating =
            !matches!(view.replication_state, ReplicationState::Off | ReplicationState::Established);
        let nothing_known =
            view.replication_state == ReplicationState::Off && view.peer_disk_state == DiskState::DUnknown;
        let says_disk = verbose || self.look.statistics || !nothing_known;
        // DRBD prints an empty line here.
        if !says_disk && !self.names_volumes {
            return;
        }
        let mut indent = 4;
        if self.names_volumes {
            self.text.put(indent, &format!("volume:{}", view.volume));
            indent = 8;
        }
        if verbose || replicating {
            let state = colours.replication(view.replication_state);
            self.text.put(indent, &format!("replication:{state}"));
            indent = 8;
        }
        if says_disk {
            self.peer_disk(view, indent);
        }
        self.text.end_line();
    }

    fn peer_disk(&mut self, view: &PeerDeviceView, indent: usize) {
        let disk = self.look.colours.disk(view.peer_disk_state, Whose::Theirs);
        self.text.put(indent, &format!("peer-disk:{disk}"));
        self.client("peer-client", view.peer_disk_state, indent);
        if let Some(details) = &view.details {
            self.text.put(8, &format!("done:{:.2}", details.percent_resync_done));
        }
        if self.look.verbose > 0 || view.resync_suspended != "no" {
            self.text.put(8, &format!("resync-suspended:{}", view.resync_suspended));
        }
        if self.look.statistics {
            self.text.end_line();
            self.text.put_all(8, statistics::peer_device(view, self.look.verbose));
        }
    }

    /// Whether a node without a disk is meant to be: a person sees that it has none.
    fn client(&mut self, key: &str, disk: DiskState, indent: usize) {
        if disk == DiskState::Diskless && (self.look.verbose > 0 || !self.look.is_terminal) {
            self.text.put(indent, &format!("{key}:no"));
        }
    }
}

#[cfg(test)]
mod tests;
