//! What a resource's volumes must have alike: they have one connection, one write order and one resync, and so one answer to
//! what these options ask.

use super::host::HostParts;
use super::resource::ResourceParts;
use super::settings::{Assigned, Assignment, inherit};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::options::{AmongVolumes, OPTIONS, OptionDef, Section, Support};

/// Refuses what one volume has otherwise than the first, with both places.
pub(super) fn volumes(parts: &ResourceParts<'_>, numbers: &[u32], found: &mut Diagnostics) {
    let Some((&first, others)) = numbers.split_first() else { return };
    for host in &parts.hosts {
        let of_first = options_of(parts, host, first);
        for &number in others {
            let of_other = options_of(parts, host, number);
            let differing = OPTIONS.iter().enumerate().filter(|(_, option)| must_be_alike(option));
            for (place, option) in differing {
                let [a, b] = [of_first.get(&place), of_other.get(&place)];
                if meaning(option, a, parts) != meaning(option, b, parts) {
                    report(option, (first, a), (number, b), found);
                }
            }
        }
    }
}

fn must_be_alike(option: &OptionDef) -> bool {
    let of_disk = matches!(option.home(), Section::Disk | Section::PeerDevice);
    of_disk && option.support == Support::Supported && option.among_volumes == AmongVolumes::Alike
}

/// All that holds for one volume on one host; the more special place wins, that of the connection last.
fn options_of(parts: &ResourceParts<'_>, host: &HostParts, number: u32) -> Assigned {
    let mut all = inherit(&parts.options, &parts.volumes.merged(&host.volumes, number).options);
    for connection in &parts.connections {
        all = inherit(&all, &connection.options);
        if let Some((_, own)) = connection.volumes.get(&number) {
            all = inherit(&all, own);
        }
    }
    all
}

/// The value, or the default. A volume that waits for another one of its own resource waits for nothing: they are resynced
/// together.
fn meaning(option: &OptionDef, assignment: Option<&Assignment>, parts: &ResourceParts<'_>) -> Option<String> {
    let value = assignment.map(|a| a.value.clone()).or_else(|| option.kind.default_value())?.to_string();
    if option.name != "resync-after" {
        return Some(value);
    }
    let resource = value.trim_matches('"').split('/').next().unwrap_or_default();
    (!resource.is_empty() && resource != parts.name.text).then(|| resource.to_owned())
}

fn report(
    option: &OptionDef,
    (first, a): (u32, Option<&Assignment>),
    (number, b): (u32, Option<&Assignment>),
    found: &mut Diagnostics,
) {
    // What both inherit is no difference: one of them at least says something of its own.
    let Some(place) = b.or(a) else { return };
    if found.errors.iter().any(|error| error.span.as_ref() == Some(&place.span)) {
        return;
    }
    let said = |assignment: Option<&Assignment>| match assignment {
        Some(assignment) => assignment.value.to_string(),
        None => option.kind.default_value().map_or("none".into(), |value| format!("{value}, the default")),
    };
    let name = option.name;
    let message =
        format!("volume {number} has another `{name}` than volume {first}: {} and {}", said(b), said(a));
    let error = Diagnostic::error(&place.span, message).help(format!(
        "`{name}` holds for all volumes of a resource: write it once, into the resource's `disk {{}}`"
    ));
    found.push(match (a, b) {
        (Some(a), Some(_)) => error.related(&a.span, format!("what volume {first} has")),
        _ => error,
    });
}
