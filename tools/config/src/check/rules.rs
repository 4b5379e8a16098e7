//! Rules that concern several statements at once.

use std::collections::BTreeMap;

use super::host::HostParts;
use super::resource::ResourceParts;
use super::settings::{Assigned, Assignment, inherit, values};
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::effective::{Fencing, MAX_HOT_EXTENTS, NetOptions, OnCongestion, Protocol};
use crate::options::{self, Section, Value};
use crate::settings::Settings;
use crate::source::Span;

/// What must hold within one resource.
pub(super) fn of_resource(parts: &ResourceParts<'_>, numbers: &[u32], diagnostics: &mut Diagnostics) {
    distinct_hosts(&parts.hosts, diagnostics);
    explicit_connections(parts, diagnostics);
    if parts.connections.is_empty() {
        of_connection(&parts.options, parts.span, diagnostics);
    }
    for connection in &parts.connections {
        of_connection(&inherit(&parts.options, &connection.options), parts.span, diagnostics);
    }
    activity_log(&parts.options, diagnostics);
    for host in &parts.hosts {
        let of_host = |number: &u32| parts.volumes.merged(&host.volumes, *number);
        numbers.iter().for_each(|number| activity_log(&of_host(number).options, diagnostics));
    }
}

/// What must hold of the options of one connection.
fn of_connection(assigned: &Assigned, resource: &Span, diagnostics: &mut Diagnostics) {
    let settings = values(assigned);
    let net = NetOptions::from(&settings);
    timeouts(&net, assigned, resource, diagnostics);
    pull_ahead(&net, assigned, diagnostics);
    fencing(&net, &settings, assigned, resource, diagnostics);
}

/// DRBD takes any number up to 65534, and counts what is too many for its log as less.
fn activity_log(assigned: &Assigned, diagnostics: &mut Diagnostics) {
    let (index, _) = options::find(Section::Disk, "al-extents").unzip();
    if let Some(Assignment { value: Value::Number(asked), span, .. }) = index.and_then(|i| assigned.get(&i))
        && *asked > MAX_HOT_EXTENTS
    {
        let text =
            format!("`al-extents` counts as {MAX_HOT_EXTENTS}: the log on the disk has room for no more");
        diagnostics.push(Diagnostic::warning(span, text));
    }
}

/// DRBD's rule: `timeout` must be less than `connect-int` and `ping-int`, in the same unit.
fn timeouts(net: &NetOptions, assigned: &Assigned, resource: &Span, diagnostics: &mut Diagnostics) {
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
fn pull_ahead(net: &NetOptions, assigned: &Assigned, diagnostics: &mut Diagnostics) {
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
fn fencing(
    net: &NetOptions,
    settings: &Settings,
    assigned: &Assigned,
    resource: &Span,
    diagnostics: &mut Diagnostics,
) {
    let span = find(assigned, "fencing").map_or(resource, |assignment| &assignment.span);
    if net.fencing == Fencing::ResourceAndStonith && net.protocol == Protocol::A {
        let text = "Fencing policy resource-and-stonith only with prot B or C allowed";
        let error = Diagnostic::error(span, text)
            .help("with protocol A, writes have completed that the peer lacks, whatever becomes of it");
        diagnostics.push(error);
    }
    if net.fencing != Fencing::DontCare && settings.get(Section::Handlers, "fence-peer").is_none() {
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

/// No two sections for one host.
fn distinct_hosts(hosts: &[HostParts], diagnostics: &mut Diagnostics) {
    for (index, host) in hosts.iter().enumerate() {
        let same = |other: &&HostParts| other.names().iter().any(|name| host.names().contains(name));
        if let Some(earlier) = hosts.iter().take(index).find(same) {
            let error = Diagnostic::error(&host.span, format!("duplicate `{}`", host.title));
            diagnostics.push(error.related(&earlier.span, "the host has a section already"));
        }
    }
}

/// More than two hosts say who is connected with whom.
fn explicit_connections(parts: &ResourceParts<'_>, diagnostics: &mut Diagnostics) {
    if let (Some(third), []) = (parts.hosts.get(2), parts.connections.as_slice()) {
        let text = format!("no two of the {} hosts are connected", parts.hosts.len());
        let help = "with more than two hosts, add `connection` sections or a `connection-mesh`";
        diagnostics.push(Diagnostic::warning(&third.span, text).help(help));
    }
}
