//! Rules that concern several statements at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::host::{HostParts, VolumeParts};
use super::settings::{Assigned, Assignment};
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::model::{Fencing, MetaDisk, NetOptions, OnCongestion, Protocol};
use crate::options::{self, Section, Value};
use crate::source::Span;
use crate::tree::Word;

/// DRBD's rule: `timeout` must be less than `connect-int` and `ping-int`, in the same unit.
pub(super) fn timeouts(assigned: &Assigned, resource: &Span, diagnostics: &mut Diagnostics) {
    let net = NetOptions::from(&super::settings::values(assigned));
    for (name, interval_ms) in [("connect-int", net.connect_interval_ms), ("ping-int", net.ping_interval_ms)]
    {
        if net.timeout_ms < interval_ms {
            continue;
        }
        let (timeout, interval) = (find(assigned, "timeout"), find(assigned, name));
        let span = timeout.or(interval).map_or(resource, |assignment| &assignment.span);
        let message = format!(
            "`timeout` ({} s) must be less than `{name}` ({} s)",
            seconds(net.timeout_ms),
            seconds(interval_ms)
        );
        let error = Diagnostic::error(span, message)
            .help(format!("`timeout` counts tenths of a second, `{name}` counts seconds"));
        diagnostics.push(match (timeout, interval) {
            (Some(_), Some(interval)) => error.related(&interval.span, "the interval is set here"),
            _ => error,
        });
    }
}

/// DRBD's rule, and its words (155).
pub(super) fn pull_ahead(assigned: &Assigned, diagnostics: &mut Diagnostics) {
    let net = NetOptions::from(&super::settings::values(assigned));
    if net.on_congestion == OnCongestion::PullAhead
        && net.protocol != Protocol::A
        && let Some(assignment) = find(assigned, "on-congestion")
    {
        let text = "on-congestion policy pull-ahead only with prot A allowed".to_owned();
        let help = "use `protocol A`, or `on-congestion block`".to_owned();
        diagnostics.push(Diagnostic::error(&assignment.span, text).help(help));
    }
}

/// What each resource's resync waits for: it must be there, and not wait for this one.
#[derive(Default)]
pub(super) struct ResyncOrder {
    after: BTreeMap<String, (String, Span)>,
}

impl ResyncOrder {
    /// Notes what the resource says.
    pub(super) fn note(&mut self, resource: &str, assigned: &Assigned) {
        let (index, _) = options::find(Section::Disk, "resync-after").unzip();
        if let Some(Assignment { value: Value::Text(name), span, .. }) = index.and_then(|i| assigned.get(&i))
        {
            let name = name.split('/').next().unwrap_or(name).to_owned();
            self.after.insert(resource.to_owned(), (name, span.clone()));
        }
    }

    /// Reports what cannot be.
    pub(super) fn check(&self, resources: &BTreeMap<&str, &Span>, diagnostics: &mut Diagnostics) {
        for (resource, (after, span)) in &self.after {
            if !resources.contains_key(after.as_str()) {
                let text = format!("`resync-after` names {}, which is not defined", quote(after));
                diagnostics.push(Diagnostic::error(span, text));
            } else if self.leads_back_to(resource, after) {
                let text = format!("`resync-after` of {} leads in a circle", quote(resource));
                let help = "every resync of the circle would wait for ever: leave one of them out";
                diagnostics.push(Diagnostic::error(span, text).help(help));
            }
        }
    }

    fn leads_back_to(&self, resource: &str, after: &str) -> bool {
        let mut name = after;
        for _ in 0..=self.after.len() {
            if name == resource {
                return true;
            }
            let Some((next, _)) = self.after.get(name) else { return false };
            name = next;
        }
        false
    }
}

/// DRBD's rule (its failure 154), and one of sense: who is to be fenced must be so by somebody.
pub(super) fn fencing(assigned: &Assigned, resource: &Span, diagnostics: &mut Diagnostics) {
    let values = super::settings::values(assigned);
    let net = NetOptions::from(&values);
    let span = find(assigned, "fencing").map_or(resource, |assignment| &assignment.span);
    if net.fencing == Fencing::ResourceAndStonith && net.protocol == Protocol::A {
        let text = "Fencing policy resource-and-stonith only with prot B or C allowed";
        let error = Diagnostic::error(span, text)
            .help("with protocol A, writes have completed that the peer lacks, whatever becomes of it");
        diagnostics.push(error);
    }
    if net.fencing != Fencing::DontCare && values.get(Section::Handlers, "fence-peer").is_none() {
        let text = "`fencing` without a `fence-peer` handler: a lost peer is never fenced, and a node that is alone is \
                    promoted with --force only";
        diagnostics.push(Diagnostic::warning(span, text));
    }
}

fn find<'a>(assigned: &'a Assigned, name: &str) -> Option<&'a Assignment> {
    options::find(Section::Net, name).and_then(|(index, _)| assigned.get(&index))
}

fn seconds(ms: u64) -> String {
    let tenths = ms / 100;
    if tenths.is_multiple_of(10) {
        format!("{}", tenths / 10)
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

/// Exactly two hosts, of different names.
pub(super) fn two_hosts(name: &Word, hosts: &[HostParts], diagnostics: &mut Diagnostics) {
    for (index, host) in hosts.iter().enumerate() {
        let earlier =
            hosts.iter().take(index).find(|other| other.names.iter().any(|one| host.names.contains(one)));
        if let Some(earlier) = earlier {
            let error = Diagnostic::error(&host.span, format!("duplicate `on {}`", host.names.join(" ")));
            diagnostics.push(error.related(&earlier.span, "the host has a section already"));
        }
    }
    let found = hosts.len();
    if let Some(third) = hosts.get(2) {
        let message =
            format!("resource {} has {found} hosts; this version supports two nodes", quote(&name.text));
        diagnostics.push(Diagnostic::error(&third.span, message));
    } else if found < 2 {
        let message = format!("expected two `on HOST {{}}` sections in {}, found {found}", quote(&name.text));
        diagnostics.push(Diagnostic::error(&name.span, message));
    }
}

/// The addresses of the two hosts differ and are of one family.
pub(super) fn pair_of_hosts(hosts: &[HostParts], diagnostics: &mut Diagnostics) {
    let [first, second] = hosts else { return };
    let (Some(a), Some(b)) = (first.address.value, second.address.value) else { return };
    let (Some(a_span), Some(b_span)) = (&first.address.span, &second.address.span) else { return };
    if a == b {
        let error = Diagnostic::error(b_span, format!("both hosts have the address {b}"));
        diagnostics.push(error.related(a_span, "it is first used here"));
    } else if a.is_ipv4() != b.is_ipv4() {
        let error = Diagnostic::error(b_span, "one host has an IPv4 address and the other an IPv6 address");
        diagnostics.push(error.related(a_span, "the other address"));
    }
}

/// What a host can give to one resource only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Minor(u32),
    Address(SocketAddr),
    /// A backing device, or a device with metadata. Components, so that `/dev//sdb` is `/dev/sdb`.
    Disk(PathBuf),
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "minor {minor}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Disk(path) => write!(f, "disk {}", quote(&path.to_string_lossy())),
        }
    }
}

/// What the resources so far use on each host.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: BTreeMap<(String, Claim), (Span, String)>,
}

impl Claims {
    /// Notes what a resource uses on a host, and reports what is in use there already.
    pub(super) fn host(
        &mut self,
        host: &HostParts,
        volume: &VolumeParts,
        resource: &str,
        diagnostics: &mut Diagnostics,
    ) {
        for (claim, span) in claims(host, volume) {
            for name in &host.names {
                let new = (span.clone(), resource.to_owned());
                let Some((earlier, user)) = self.taken.insert((name.clone(), claim.clone()), new) else {
                    continue;
                };
                let message = format!("duplicate use of {claim} on host {}", quote(name));
                let error = Diagnostic::error(span, message);
                diagnostics.push(error.related(&earlier, format!("resource {} uses it here", quote(&user))));
                break;
            }
        }
    }
}

fn claims<'a>(host: &'a HostParts, volume: &'a VolumeParts) -> Vec<(Claim, &'a Span)> {
    let clean = |path: &PathBuf| Claim::Disk(path.components().collect());
    let device = volume.device.value.as_ref().map(|device| Claim::Minor(device.minor));
    let address = host.address.value.map(Claim::Address);
    let disk = volume.disk.value.as_ref().map(clean);
    let meta_disk = match &volume.meta_disk.value {
        Some(MetaDisk::External(path)) => Some(clean(path)),
        _ => None,
    };
    let spans = [&volume.device.span, &host.address.span, &volume.disk.span, &volume.meta_disk.span]
        .map(Option::as_ref);
    [device, address, disk, meta_disk]
        .into_iter()
        .zip(spans)
        .filter_map(|(claim, span)| claim.zip(span))
        .collect()
}
