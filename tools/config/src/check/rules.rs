//! Rules that concern several statements at once.

use std::collections::BTreeMap;

use super::host::HostParts;
use super::resource::ResourceParts;
use super::settings::{Assigned, Assignment, inherit, values};
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::effective::{Fencing, MAX_HOT_EXTENTS, MIN_HOT_EXTENTS, NetOptions, OnCongestion, Protocol};
use crate::options::{self, Section, Value};
use crate::settings::Settings;
use crate::source::Span;
use crate::value;

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
    weak_digest(&net, assigned, diagnostics);
    without_effect(&net, &settings, assigned, diagnostics);
}

/// Policies that another one keeps from ever deciding anything: somebody counts on them.
fn without_effect(net: &NetOptions, settings: &Settings, assigned: &Assigned, diagnostics: &mut Diagnostics) {
    let [no_primary, one_primary, two_primaries] = net.after_split_brain.each_ref().map(String::as_str);
    let asks = |policy| !matches!(policy, "disconnect" | "discard-secondary");
    let mut warn = |section, name: &str, because: &str, help: &str| {
        if let Some(assignment) = find_in(section, assigned, name) {
            let text = format!("`{name}` has no effect: {because}");
            diagnostics.push(Diagnostic::warning(&assignment.span, text).help(help));
        }
    };
    if no_primary == "disconnect" {
        for (name, policy) in [("after-sb-1pri", one_primary), ("after-sb-2pri", two_primaries)] {
            if asks(policy) {
                let because = format!("`{policy}` asks `after-sb-0pri`, which is `disconnect`");
                warn(Section::Net, name, &because, "set `after-sb-0pri`, too");
            }
        }
        if one_primary == "disconnect" && two_primaries == "disconnect" && net.always_after_split_brain {
            warn(Section::Net, "always-asbp", "every `after-sb` policy is `disconnect`", "set one of them");
        }
    }
    if net.on_congestion == OnCongestion::Block {
        for name in ["congestion-fill", "congestion-extents"] {
            warn(Section::Net, name, "`on-congestion` is `block`", "set `on-congestion`, too");
        }
    }
    if net.shared_secret.is_some() && net.hmac_algorithm.is_none() {
        let help = "set `cram-hmac-alg sha256`, too";
        warn(Section::Net, "shared-secret", "without `cram-hmac-alg` nobody asks for it", help);
    }
    if net.csums_after_crash_only && net.csums_algorithm.is_none() {
        warn(Section::Net, "csums-after-crash-only", "there is no `csums-alg`", "set `csums-alg sha256`");
    }
    if net.fencing == Fencing::DontCare && settings.chosen(Section::Handlers, "fence-peer").is_some() {
        let help = "set `fencing resource-and-stonith` or `resource-only` in `net {}`";
        warn(Section::Handlers, "fence-peer", "`fencing` is `dont-care`, so that it is never run", help);
    }
}

/// Two blocks of one digest may differ, and stay so. DRBD takes any.
fn weak_digest(net: &NetOptions, assigned: &Assigned, diagnostics: &mut Diagnostics) {
    let weakness = match net.csums_algorithm.as_deref().map(value::digest) {
        Some("crc32" | "crc32c") => "one of four billion blocks that differ passes for equal",
        Some("xxhash64" | "md5") => "a block that somebody has made for it passes for equal to another",
        _ => return,
    };
    if let Some(assignment) = find(assigned, "csums-alg") {
        let text = format!("`csums-alg` is weak: {weakness}, and is never sent");
        diagnostics.push(Diagnostic::warning(&assignment.span, text).help("`sha256` and `sha1` are not"));
    }
}

/// DRBD takes any number of the range, and counts what is too many for its log as less.
fn activity_log(assigned: &Assigned, diagnostics: &mut Diagnostics) {
    let found = find_in(Section::Disk, assigned, "al-extents");
    let Some(Assignment { value: Value::Number(asked), span, .. }) = found else { return };
    let (counts_as, because) = match *asked {
        0..MIN_HOT_EXTENTS => (MIN_HOT_EXTENTS, "it is the least"),
        MIN_HOT_EXTENTS..=MAX_HOT_EXTENTS => return,
        _ => (MAX_HOT_EXTENTS, "the log on the disk has room for no more"),
    };
    let text = format!("`al-extents` counts as {counts_as}: {because}");
    diagnostics.push(Diagnostic::warning(span, text));
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
        let found = find_in(Section::Disk, assigned, "resync-after");
        if let Some(Assignment { value: Value::Text(name), span, .. }) = found
            && !name.is_empty()
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
    if net.fencing != Fencing::DontCare && settings.chosen(Section::Handlers, "fence-peer").is_none() {
        let text = "`fencing` without a `fence-peer` handler: a lost peer is never fenced, and a node that is alone is \
                    promoted with --force only";
        diagnostics.push(Diagnostic::warning(span, text));
    }
}

fn find<'a>(assigned: &'a Assigned, name: &str) -> Option<&'a Assignment> {
    find_in(Section::Net, assigned, name)
}

fn find_in<'a>(section: Section, assigned: &'a Assigned, name: &str) -> Option<&'a Assignment> {
    options::find(section, name).and_then(|(index, _)| assigned.get(&index))
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
        if let Some(earlier) = hosts.iter().take(index).find(|other| host.is_same(other)) {
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
