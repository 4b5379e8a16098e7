//! What the grammar knows and this version cannot do: why, and what to write instead.

use super::alike;
use super::host::HostParts;
use super::resource::ResourceParts;
use super::settings::{self, Assigned};
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::effective::NetOptions;
use crate::model::{Family, HostKind, MetaDisk};
use crate::options::{self, Section};
use crate::source::Span;

/// As many as the metadata has room for.
const MAX_VOLUMES: usize = 64;

/// Everything that keeps this version from running the resource.
pub(super) fn of_resource(parts: &ResourceParts<'_>, numbers: &[u32]) -> Vec<Diagnostic> {
    let mut found = Diagnostics::default();
    settings::refused(&parts.options, &mut found);
    hosts(parts, &mut found);
    volumes(parts, numbers, &mut found);
    connections(parts, &mut found);
    found.errors.extend(parts.proxy_span.as_ref().map(proxy));
    found.errors
}

fn hosts(parts: &ResourceParts<'_>, found: &mut Diagnostics) {
    let name = quote(&parts.name.text);
    let count = parts.hosts.len();
    if let Some(third) = parts.hosts.get(2) {
        let message = format!("resource {name} has {count} hosts; this version supports two nodes");
        found.push(
            Diagnostic::error(&third.span, message)
                .help("make a resource of the two nodes that keep the data"),
        );
    } else if count < 2 {
        let message = format!("expected two `on HOST {{}}` sections in {name}, found {count}");
        found.push(Diagnostic::error(&parts.name.span, message));
    }
    for host in &parts.hosts {
        if let HostKind::Stacked(_) = host.kind {
            let message = "`stacked-on-top-of` is not supported by this version: a copy at a third site needs a third node";
            found.push(
                Diagnostic::error(&host.span, message).help("replicate between two nodes, without stacking"),
            );
        }
        let family = host.address.value.map(|address| address.family);
        if let (Some(family @ (Family::Ssocks | Family::Sdp)), Some(span)) = (family, &host.address.span) {
            let message =
                format!("`{}` is not supported by this version: peers use TCP over IP", family.word());
            found.push(Diagnostic::error(span, message).help("write `address IP:PORT;`"));
        }
        found.errors.extend(host.proxy_span.as_ref().map(proxy));
    }
}

fn proxy(span: &Span) -> Diagnostic {
    let message = "`proxy` is not supported by this version: there is no proxy for long distances";
    Diagnostic::error(span, message)
        .help("remove it; `protocol A` with `on-congestion pull-ahead` tolerates a slow link")
}

fn volumes(parts: &ResourceParts<'_>, numbers: &[u32], found: &mut Diagnostics) {
    match numbers {
        [] => {
            let message = format!("resource {} has no volume", quote(&parts.name.text));
            let error = Diagnostic::error(&parts.name.span, message);
            found.push(error.help("add `device`, `disk` and `meta-disk`"));
        }
        many if many.len() > MAX_VOLUMES => {
            let message = format!(
                "resource {} has {} volumes; this version supports {MAX_VOLUMES}",
                quote(&parts.name.text),
                many.len()
            );
            found.push(Diagnostic::error(&parts.name.span, message).help("divide them between resources"));
        }
        few => alike::volumes(parts, few, found),
    }
    for host in &parts.hosts {
        numbers.iter().for_each(|&number| volume(parts, host, number, found));
    }
}

fn volume(parts: &ResourceParts<'_>, host: &HostParts, number: u32, found: &mut Diagnostics) {
    let volume = parts.volumes.merged(&host.volumes, number);
    // What the resource says is refused with the resource.
    settings::refused(&volume.options, found);
    if let (Some(None), Some(span)) = (&volume.disk.value, &volume.disk.span) {
        let message = "`disk none` is not supported by this version: both nodes need a backing device";
        found.push(Diagnostic::error(span, message).help("write `disk PATH;`"));
    }
    if let (Some(MetaDisk::Indexed(path, _)), Some(span)) = (&volume.meta_disk.value, &volume.meta_disk.span)
    {
        let message = format!(
            "indexed external metadata is not supported by this version: {} would be shared",
            path.display()
        );
        let help = "write `meta-disk internal;` or `meta-disk PATH;` with a device that no other volume uses";
        found.push(Diagnostic::error(span, message).help(help));
    }
}

fn connections(parts: &ResourceParts<'_>, found: &mut Diagnostics) {
    if parts.connections.is_empty() {
        authentication(&parts.options, found);
    }
    if parts.hosts.len() == 2 && parts.connections.is_empty() {
        let message = format!("the hosts of {} are not connected", quote(&parts.name.text));
        found.push(Diagnostic::error(&parts.name.span, message));
    }
    for connection in &parts.connections {
        settings::refused(&connection.options, found);
        authentication(&settings::inherit(&parts.options, &connection.options), found);
        connection.volumes.values().for_each(|(_, options)| settings::refused(options, found));
        found.errors.extend(connection.proxy_span.as_ref().map(proxy));
    }
}

/// A proof that one knows nothing is none.
fn authentication(assigned: &Assigned, found: &mut Diagnostics) {
    let net = NetOptions::from(&settings::values(assigned));
    let place = options::find(Section::Net, "cram-hmac-alg").and_then(|(place, _)| assigned.get(&place));
    if let Some(assignment) = place
        && net.hmac_algorithm.is_some()
        && net.shared_secret.is_none()
    {
        let message = "`cram-hmac-alg` without `shared-secret`: there is nothing to prove";
        let help = "set `shared-secret`, the same on both nodes";
        found.push(Diagnostic::error(&assignment.span, message).help(help));
    }
}
