//! What a host can give to one resource only.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use super::connection::End;
use super::host::HostParts;
use super::resource::ResourceParts;
use super::volume::VolumeParts;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::model::{HostKind, MetaDisk};
use crate::source::Span;

/// Something that can be used once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Claim {
    Minor(u32),
    Address(std::net::SocketAddr),
    /// A backing device, or a device with metadata: its path without what makes no difference.
    Disk(OsString),
    /// A slot of a device with metadata.
    Slot(OsString, u32),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "minor {minor}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Disk(path) => write!(f, "disk {}", quote(&path.to_string_lossy())),
            Self::Slot(path, slot) => write!(f, "slot {slot} of disk {}", quote(&path.to_string_lossy())),
        }
    }
}

/// What the resources so far use on each host.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: HashMap<String, HashMap<Claim, (Span, String)>>,
}

impl Claims {
    /// Notes what a resource uses on its hosts, and reports what is in use there already.
    pub(super) fn resource(
        &mut self,
        parts: &ResourceParts<'_>,
        numbers: &[u32],
        diagnostics: &mut Diagnostics,
    ) {
        // What is said twice of one host, or of one volume, is reported as such.
        if parts.is_ambiguous(numbers) {
            return;
        }
        for (place, host) in parts.hosts.iter().enumerate() {
            for &number in numbers {
                let volume = parts.volumes.merged(&host.volumes, number);
                for (claim, span) in of_volume(&volume) {
                    self.claim(host, claim, span, &parts.name.text, diagnostics);
                }
            }
            let ends = parts.connections.iter().flat_map(|connection| connection.paths.iter().flatten());
            for End { address, span, .. } in ends.filter(|end| end.host == place) {
                self.claim(host, Claim::Address(address.socket), span, &parts.name.text, diagnostics);
            }
        }
    }

    fn claim(
        &mut self,
        host: &HostParts,
        claim: Claim,
        span: &Span,
        resource: &str,
        diagnostics: &mut Diagnostics,
    ) {
        for name in machines(host) {
            let of_machine = self.taken.entry(name.clone()).or_default();
            let Some((earlier, user)) = of_machine.get(&claim) else {
                of_machine.insert(claim.clone(), (span.clone(), resource.to_owned()));
                continue;
            };
            // The connections of one resource may all come in at one address.
            if matches!(claim, Claim::Address(_)) && user == resource {
                continue;
            }
            // What the resource says for all its hosts is reported for the first.
            let is_reported = |error: &Diagnostic| {
                error.span.as_ref() == Some(span)
                    && error.related.as_ref().is_some_and(|(place, _)| place == earlier)
            };
            if diagnostics.errors.iter().any(is_reported) {
                break;
            }
            let error = Diagnostic::error(span, format!("duplicate use of {claim} on host {}", quote(&name)));
            diagnostics.push(error.related(earlier, format!("resource {} uses it here", quote(user))));
            break;
        }
    }
}

/// The machines that a host section may mean. What is stacked is on those of the lower resource.
fn machines(host: &HostParts) -> Vec<String> {
    match &host.kind {
        HostKind::Named(names) => names.clone(),
        HostKind::Floating => {
            host.address.value.map(|address| address.socket.ip().to_string()).into_iter().collect()
        }
        HostKind::Stacked(_) => Vec::new(),
    }
}

fn of_volume(volume: &VolumeParts) -> Vec<(Claim, &Span)> {
    // `/dev//sdb` is `/dev/sdb`.
    let clean = |path: &Path| path.components().collect::<std::path::PathBuf>().into_os_string();
    let device = volume.device.value.as_ref().map(|device| Claim::Minor(device.minor));
    let disk = volume.disk.value.as_ref().and_then(|disk| disk.as_ref()).map(|path| Claim::Disk(clean(path)));
    let meta_disk = match &volume.meta_disk.value {
        Some(MetaDisk::External(path)) => Some(Claim::Disk(clean(path))),
        Some(MetaDisk::Indexed(path, slot)) => Some(Claim::Slot(clean(path), *slot)),
        _ => None,
    };
    let spans = [&volume.device.span, &volume.disk.span, &volume.meta_disk.span].map(Option::as_ref);
    [device, disk, meta_disk].into_iter().zip(spans).filter_map(|(claim, span)| claim.zip(span)).collect()
}
