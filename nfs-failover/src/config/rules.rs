//! What must hold between the statements, and what is probably not meant.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tandem_config::language::{Diagnostics, Statement, quote};
use tandem_config::{Diagnostic, Span};

use super::{Export, OnStuck, Server, Service};

/// Within one service. `said` finds the first statement of a keyword.
pub(super) fn within<'a>(
    service: &Service,
    name: &Span,
    said: impl Fn(&str) -> Option<&'a Statement>,
    found: &mut Diagnostics,
) {
    let place = |keyword: &str| said(keyword).map_or(name, |statement| statement.span());
    let point = &service.mount.point;
    if service.vips.is_empty() && said("vip").is_none() {
        let message = format!("service {} has no `vip`: no client would find it", quote(&service.name));
        found.push(Diagnostic::error(name, message).help("add `vip ADDRESS/BITS dev INTERFACE;`"));
    }
    for (index, vip) in service.vips.iter().enumerate() {
        if service.vips.iter().take(index).any(|earlier| earlier.address == vip.address) {
            found.push(Diagnostic::error(place("vip"), format!("the vip {} stands twice", vip.address)));
        }
    }
    for export in service.exports.iter().filter(|export| !export.path.starts_with(point)) {
        let message = format!(
            "{} lies outside of the mount {}: it would not move with the service",
            quote(&export.path.to_string_lossy()),
            point.display()
        );
        found.push(Diagnostic::error(place("export"), message));
    }
    for (index, export) in service.exports.iter().enumerate() {
        if service.exports.iter().take(index).any(|one| one.path == export.path || one.fsid == export.fsid) {
            let message =
                format!("the export {} or its fsid stands twice", quote(&export.path.to_string_lossy()));
            found.push(Diagnostic::error(place("export"), message));
        }
    }
    for (index, export) in service.exports.iter().enumerate().filter(|_| service.server == Server::Ganesha) {
        let is_like = |one: &&Export| one.number() == export.number() && one.fsid != export.fsid;
        if let Some(earlier) = service.exports.iter().take(index).find(is_like) {
            let message =
                format!("{} and {} get the same number", earlier.path.display(), export.path.display());
            let help = "write `fsid=NUMBER`, from 1 to 65535, into the options of one of them";
            found.push(Diagnostic::error(place("export"), message).help(help));
        }
    }
    if !service.state.starts_with(point) || service.state == *point {
        let message = format!(
            "the state folder must lie inside of the mount {}: locks and opens are lost if it does not move",
            point.display()
        );
        found.push(Diagnostic::error(place("state"), message));
    }
    if service.is_nfs() && service.exports.is_empty() && said("export").is_none() {
        found.push(
            Diagnostic::error(place("server"), "there is nothing to serve").help("add `export \"...\";`"),
        );
    }
    if !service.is_nfs() && !service.exports.is_empty() {
        found.push(Diagnostic::error(place("export"), "`server none` exports nothing"));
    }
    for (word, _) in
        [("grace", service.grace_s), ("lease", service.lease_s)].into_iter().filter(|(_, s)| *s == 0)
    {
        let message = format!("`{word}`: expected at least 1: nobody could take again what he had locked");
        found.push(Diagnostic::error(place(word), message));
    }
    if service.server == Server::Kernel && (service.lease_s < 10 || service.grace_s < 10) {
        let message = "the kernel's server takes no grace and no lease below 10 s";
        found.push(Diagnostic::error(place(if service.lease_s < 10 { "lease" } else { "grace" }), message));
    }
    if service.server != Server::Ganesha && said("nfs3-locks").is_some() {
        let message = match service.server {
            Server::Kernel => "the kernel's server always has the locks of NFSv3",
            _ => "`nfs3-locks` has no effect without NFS",
        };
        found.push(Diagnostic::warning(place("nfs3-locks"), message));
    }
    if service.is_nfs() && service.grace_s < service.lease_s {
        let message = "a grace shorter than the lease ends before every client has noticed the move";
        found.push(Diagnostic::warning(place("grace"), message).help("write a grace of at least the lease"));
    }
    if service.mount.options.split(',').any(|option| option == "ro") {
        found.push(Diagnostic::error(place("mount"), "the volume must be mounted writable"));
    }
    if service.mount.fstype == "auto" {
        let warning = Diagnostic::warning(place("mount"), "the filesystem is found out at each move");
        found.push(warning.help("add `{ fstype ext4; }`"));
    }
    if !service.peers.is_empty() && service.shared_secret.is_none() {
        let error =
            Diagnostic::error(place("peer"), "without `shared-secret` anybody could move the service");
        found.push(error.help("add `shared-secret \"...\";`, the same on both nodes"));
    }
    if service.shared_secret.is_some() && service.peers.is_empty() {
        found.push(Diagnostic::warning(
            place("shared-secret"),
            "`shared-secret` has no effect without `peer`",
        ));
    }
    if service.shared_secret.is_some() && is_open_to_others(place("shared-secret").path()) {
        let warning =
            Diagnostic::warning(place("shared-secret"), "everybody on this machine can read the secret");
        found.push(warning.help("chmod 600 the file"));
    }
    if service.on_stuck == OnStuck::Reboot {
        let warning = "this machine reboots at once if it cannot give the volume up";
        found.push(Diagnostic::warning(place("on-stuck"), warning));
    }
    if service.hooks.start.is_some() && service.hooks.stop.is_none() {
        let message =
            "a hook that starts something needs one that stops it: else the volume cannot be given up";
        found.push(Diagnostic::error(place("hooks"), message).help("add `stop PROGRAM;`"));
    }
}

fn is_open_to_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.mode() & 0o007 != 0)
}

/// Between services.
pub(super) fn between(services: &[(Service, Span)], found: &mut Diagnostics) {
    for (index, (service, span)) in services.iter().enumerate() {
        for (earlier, earlier_span) in services.iter().take(index) {
            for what in clashes(earlier, service) {
                let message =
                    format!("services {} and {} share {what}", quote(&earlier.name), quote(&service.name));
                found.push(Diagnostic::error(span, message).related(earlier_span, "the other one"));
            }
        }
    }
}

fn clashes(a: &Service, b: &Service) -> Vec<String> {
    let mut clashes = Vec::new();
    if a.resource == b.resource {
        clashes.push(format!("the resource {}", quote(&a.resource)));
    }
    if a.mount.point == b.mount.point {
        clashes.push(format!("the mount {}", a.mount.point.display()));
    }
    if a.is_nfs() && b.is_nfs() {
        clashes.push(
            "this machine's NFS server, which can have only one grace period; use one volume".to_owned(),
        );
    }
    let shared = a.vips.iter().find(|vip| b.vips.iter().any(|other| other.address == vip.address));
    clashes.extend(shared.map(|vip| format!("the vip {}", vip.address)));
    let shared = a.peers.iter().find(|peer| b.peers.contains(peer));
    clashes.extend(shared.map(|peer| format!("the peer's address {peer}; each needs a port of its own")));
    if a.health.is_some() && a.health == b.health {
        clashes.push("the address of the health endpoint".to_owned());
    }
    clashes
}
