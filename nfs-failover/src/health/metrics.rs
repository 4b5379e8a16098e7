//! Metrics in Prometheus's text form. Names and labels of `drbd_*` are those of drbd-reactor, for which dashboards and
//! alerts exist; those that Tandem has no value for are left out.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use tandem_control::{ResourceStatus, VolumeSpec};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::status::VolumeStatus;

use super::{Phase, ServiceView, Snapshot};

/// Everything that is known.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut families = Families::default();
    families.gauge("drbdreactor_up", "Always 1, as long as this is answered", &[], 1);
    families.gauge("tandem_daemon_up", "Whether tandemd answers", &[], u64::from(snapshot.resources.is_ok()));
    let resources = snapshot.resources.as_deref().unwrap_or_default();
    families.gauge("drbd_resource_resources", "Number of resources", &[], resources.len() as u64);
    for status in resources {
        resource(&mut families, status);
        connections(&mut families, status);
        devices(&mut families, status);
    }
    for view in &snapshot.services {
        service(&mut families, view);
    }
    families.into_text()
}

fn resource(families: &mut Families, status: &ResourceStatus) {
    let engine = &status.engine;
    let name = [("name", engine.resource.clone())];
    families.states("drbd_resource_role", "Role of the resource", &name, Role::ALL, engine.role);
    let promotion = status.promotion();
    for (metric, help, value) in [
        ("drbd_resource_suspended", "Whether requests of clients wait", engine.suspended.any().into()),
        ("drbd_resource_maypromote", "Whether the resource may become Primary", promotion.may_promote.into()),
        (
            "drbd_resource_promotionscore",
            "How good a candidate for Primary it is, as DRBD scores it",
            promotion.score.into(),
        ),
    ] {
        families.gauge(metric, help, &name, value);
    }
}

fn connections(families: &mut Families, status: &ResourceStatus) {
    for peer in &status.engine.peers {
        let labels = [
            ("name", status.engine.resource.clone()),
            ("conn_name", peer.name.clone()),
            ("peer_node_id", peer.id.to_string()),
        ];
        let help = "State of the connection";
        families.states("drbd_connection_state", help, &labels, ConnectionState::ALL, peer.connection);
        for (metric, help, value) in [
            ("drbd_connection_congested", "Whether it cannot take what is to be sent", peer.congested.into()),
            (
                "drbd_connection_apinflight_bytes",
                "Clients' data on its way to this peer",
                peer.in_flight_bytes,
            ),
            ("drbd_connection_rsinflight_bytes", "Resync data on its way", peer.resync_in_flight_bytes),
        ] {
            families.gauge(metric, help, &labels, value);
        }
        for (volume, of_peer) in status.peer_volumes(peer) {
            let labels = [&labels[..], &[("volume", volume.number.to_string())]].concat();
            families.gauge(
                "drbd_peerdevice_outofsync_bytes",
                "Bytes that differ from this peer's, or may",
                &labels,
                of_peer.out_of_sync_bytes,
            );
            families.counter(
                "drbd_peerdevice_sent_bytes",
                "Bytes sent to this peer",
                &labels,
                of_peer.sent_bytes,
            );
            families.counter(
                "drbd_peerdevice_received_bytes",
                "Bytes received from this peer",
                &labels,
                of_peer.received_bytes,
            );
        }
    }
}

fn devices(families: &mut Families, status: &ResourceStatus) {
    for (index, (spec, volume)) in status.volumes().into_iter().enumerate() {
        device(families, status, spec, &volume, index == 0);
    }
}

/// The first volume's disk also holds the metadata of all.
fn device(
    families: &mut Families,
    status: &ResourceStatus,
    spec: &VolumeSpec,
    volume: &VolumeStatus,
    has_metadata: bool,
) {
    let engine = &status.engine;
    let labels = [
        ("name", engine.resource.clone()),
        ("volume", spec.number.to_string()),
        ("minor", spec.minor.to_string()),
    ];
    let of_metadata = |writes| if has_metadata { writes } else { 0 };
    families.states("drbd_device_state", "State of the disk", &labels, DiskState::ALL, engine.disk);
    let diskless = engine.disk == DiskState::Diskless;
    for (metric, help, value) in [
        ("drbd_device_client", "Whether it is meant to have no disk", 0),
        ("drbd_device_unintentionaldiskless", "Whether it has lost its disk", diskless.into()),
        ("drbd_device_quorum", "Whether the node may write", engine.quorum.into()),
        (
            "drbd_device_alsuspended",
            "Whether no extent of the activity log can be had at present",
            engine.activity_log_suspended.into(),
        ),
        ("drbd_device_open", "Whether a client holds it open", u64::from(!volume.openers.is_empty())),
        ("drbd_device_size_bytes", "Size of the device", volume.size_bytes),
        ("drbd_device_upperpending", "Requests of clients not yet answered", volume.client_pending),
        ("drbd_device_lowerpending", "Requests to the local disk under way", volume.local_pending),
    ] {
        families.gauge(metric, help, &labels, value);
    }
    for (metric, help, value) in [
        ("drbd_device_read_bytes_total", "Bytes read from the local disk", volume.disk_read_bytes),
        ("drbd_device_written_bytes_total", "Bytes written to the local disk", volume.disk_written_bytes),
        ("drbd_device_alwrites_total", "Writes of the activity log", of_metadata(engine.activity_log_writes)),
        ("drbd_device_bmwrites_total", "Writes of the bitmap", of_metadata(engine.bitmap_writes)),
    ] {
        families.counter(metric, help, &labels, value);
    }
}

fn service(families: &mut Families, view: &ServiceView) {
    let labels = [("service", view.name.clone()), ("resource", view.resource.clone())];
    for (metric, help, yes) in [
        ("nfs_failover_up", "Whether the service is whole on this node", view.phase == Phase::Up),
        ("nfs_failover_server_answers", "Whether the server answers", view.server_answers),
        (
            "nfs_failover_must_fence",
            "Whether this node must be fenced: it could not be demoted",
            view.must_fence.is_some(),
        ),
        ("nfs_failover_trouble", "Whether something keeps it from being promoted", view.trouble.is_some()),
    ] {
        families.gauge(metric, help, &labels, yes.into());
    }
}

/// Metrics by name: all samples of one must stand together.
#[derive(Default)]
struct Families(BTreeMap<&'static str, String>);

type Labels<'a> = &'a [(&'static str, String)];

impl Families {
    fn gauge(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: u64) {
        self.sample(name, help, "gauge", labels, value);
    }

    fn counter(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: u64) {
        self.sample(name, help, "counter", labels, value);
    }

    /// One sample per possible state, 1 for the one that is.
    fn states<T: Display + PartialEq>(
        &mut self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
        all: &[T],
        is: T,
    ) {
        for state in all {
            let mut labels = labels.to_vec();
            labels.push((name, state.to_string()));
            self.gauge(name, help, &labels, u64::from(*state == is));
        }
    }

    fn sample(&mut self, name: &'static str, help: &str, kind: &str, labels: Labels<'_>, value: u64) {
        let head = || format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        let family = self.0.entry(name).or_insert_with(head);
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string cannot fail.
        let _ = writeln!(family, "{name}{labels} {value}");
    }

    fn into_text(self) -> String {
        self.0.into_values().collect()
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    #[test]
    fn names_are_those_that_dashboards_know() {
        let text = text(&snapshot(Phase::Up, primary()));
        for line in [
            "drbdreactor_up 1",
            "tandem_daemon_up 1",
            "drbd_resource_resources 1",
            "drbd_resource_role{name=\"r0\",drbd_resource_role=\"Primary\"} 1",
            "drbd_resource_role{name=\"r0\",drbd_resource_role=\"Secondary\"} 0",
            "drbd_resource_suspended{name=\"r0\"} 0",
            "drbd_resource_maypromote{name=\"r0\"} 0",
            "drbd_resource_promotionscore{name=\"r0\"} 10102",
            "drbd_connection_state{name=\"r0\",conn_name=\"bravo\",peer_node_id=\"1\",drbd_connection_state=\"Connected\"} 1",
            "drbd_peerdevice_outofsync_bytes{name=\"r0\",conn_name=\"bravo\",peer_node_id=\"1\",volume=\"0\"} 0",
            "drbd_peerdevice_sent_bytes{name=\"r0\",conn_name=\"bravo\",peer_node_id=\"1\",volume=\"0\"} 7",
            "drbd_device_state{name=\"r0\",volume=\"0\",minor=\"0\",drbd_device_state=\"UpToDate\"} 1",
            "drbd_connection_congested{name=\"r0\",conn_name=\"bravo\",peer_node_id=\"1\"} 0",
            "drbd_device_quorum{name=\"r0\",volume=\"0\",minor=\"0\"} 1",
            "drbd_device_alsuspended{name=\"r0\",volume=\"0\",minor=\"0\"} 0",
            "drbd_device_size_bytes{name=\"r0\",volume=\"0\",minor=\"0\"} 1048576",
            "drbd_device_written_bytes_total{name=\"r0\",volume=\"0\",minor=\"0\"} 2",
            "drbd_device_alwrites_total{name=\"r0\",volume=\"0\",minor=\"0\"} 4",
            "nfs_failover_up{service=\"nfs\",resource=\"r0\"} 1",
            "nfs_failover_must_fence{service=\"nfs\",resource=\"r0\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn every_volume_has_its_samples() {
        let mut status = primary();
        let second = VolumeSpec { number: 1, minor: 7, ..status.spec.volume.clone() };
        status.spec.more_volumes.push(second);
        let volume = |size_bytes| VolumeStatus { size_bytes, ..VolumeStatus::default() };
        status.engine.volumes = vec![volume(4096), volume(8192)];
        let text = text(&snapshot(Phase::Up, status));
        for line in [
            "drbd_device_size_bytes{name=\"r0\",volume=\"0\",minor=\"0\"} 4096",
            "drbd_device_size_bytes{name=\"r0\",volume=\"1\",minor=\"7\"} 8192",
            "drbd_device_alwrites_total{name=\"r0\",volume=\"0\",minor=\"0\"} 4",
            "drbd_device_alwrites_total{name=\"r0\",volume=\"1\",minor=\"7\"} 0",
            "drbd_peerdevice_sent_bytes{name=\"r0\",conn_name=\"bravo\",peer_node_id=\"1\",volume=\"1\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn every_metric_is_announced_once_and_stands_together() {
        let mut two = snapshot(Phase::Down, secondary());
        let mut other = secondary();
        other.engine.resource = "r\"1\\".into();
        two.resources = Ok(vec![secondary(), other]);
        let text = text(&two);
        assert!(text.contains("drbd_resource_suspended{name=\"r\\\"1\\\\\"} 0"), "{text}");
        let mut announced = std::collections::BTreeSet::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(announced.insert(name.to_owned()), "{name} is announced twice");
                current = name;
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next(), Some(current), "{line}");
            }
        }
    }
}
