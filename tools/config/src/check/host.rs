//! `on`, `floating` and `stacked-on-top-of` sections.

use super::address;
use super::slot::Slot;
use super::unknown;
use super::verbatim;
use super::volume::{Volumes, number};
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{body, words};
use crate::model::{Address, Host, HostKind, Verbatim};
use crate::source::Span;
use crate::tree::Statement;

const MAX_NODE_ID: u32 = 31;
/// A host has a short name and a full one, perhaps an old one.
const MAX_HOST_NAMES: usize = 16;
const STATEMENTS: &[&str] =
    &["device", "disk", "address", "meta-disk", "flexible-meta-disk", "node-id", "volume", "proxy"];

/// What a host's section says.
#[derive(Debug)]
pub(super) struct HostParts {
    pub(super) kind: HostKind,
    /// As it stands in the file.
    pub(super) title: String,
    /// Where the name stands.
    pub(super) span: Span,
    pub(super) node_id: Slot<u32>,
    pub(super) address: Slot<Address>,
    pub(super) volumes: Volumes,
    /// The first `proxy` section.
    pub(super) proxy_span: Option<Span>,
    proxy: Vec<Verbatim>,
}

/// Reads a host's section; `None` if it does not say which machine it means.
pub(super) fn host(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<HostParts> {
    let floating = statement.name() == "floating";
    let mut address = Slot::default();
    let kind = match statement.name() {
        "floating" => {
            let found = address::of_words(&statement.arguments, statement, diagnostics);
            address = Slot { span: Some(statement.span().clone()), value: found };
            Some(HostKind::Floating)
        }
        "stacked-on-top-of" => lower_resource(statement, diagnostics).map(HostKind::Stacked),
        _ => Some(host_names(statement, diagnostics)).filter(|names| !names.is_empty()).map(HostKind::Named),
    };
    let arguments: Vec<&str> = statement.arguments.iter().map(|word| word.text.as_str()).collect();
    let mut parts = HostParts {
        kind: kind.clone().unwrap_or(HostKind::Floating),
        title: format!("{} {}", statement.name(), arguments.join(" ")),
        span: statement.arguments.first().map_or(statement.span(), |word| &word.span).clone(),
        node_id: Slot::default(),
        address,
        volumes: Volumes::default(),
        proxy_span: None,
        proxy: Vec::new(),
    };
    // A floating host may say nothing more.
    let inside = match floating && statement.body.is_none() {
        true => &[],
        false => body(statement, diagnostics)?,
    };
    inside.iter().for_each(|inner| parts.read(inner, floating, diagnostics));
    kind.is_some().then_some(parts)
}

impl HostParts {
    fn read(&mut self, inner: &Statement, floating: bool, diagnostics: &mut Diagnostics) {
        match inner.name() {
            "node-id" => self.node_id.fill(inner, node_id_value(inner, diagnostics), diagnostics),
            "address" if !floating => {
                self.address.fill(inner, address::statement(inner, diagnostics), diagnostics);
            }
            "proxy" => {
                self.proxy.push(verbatim::keep(inner));
                self.proxy_span.get_or_insert_with(|| inner.span().clone());
            }
            _ if self.volumes.read(inner, diagnostics) => {}
            _ => unknown(inner, "in `on`", STATEMENTS, None, diagnostics),
        }
    }

    /// Whether another section speaks of the host. A floating one is its address, which drbdadm writes without `ipv4`.
    pub(super) fn is_called(&self, name: &str) -> bool {
        match (&self.kind, &self.address.value) {
            (HostKind::Floating, Some(address)) => {
                name == address.to_string() || name == address.socket.to_string()
            }
            _ => self.names().iter().any(|one| one == name),
        }
    }

    /// Whether the two can only be one machine.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let ip = |host: &Self| {
            let floating = host.kind == HostKind::Floating;
            host.address.value.filter(|_| floating).map(|address| address.socket.ip())
        };
        let named = other.names().iter().any(|name| self.names().contains(name));
        named || ip(self).is_some_and(|own| ip(other) == Some(own))
    }

    /// The names under which other sections speak of the host.
    pub(super) fn names(&self) -> &[String] {
        match &self.kind {
            HostKind::Named(names) => names,
            _ => &[],
        }
    }

    /// The finished host; `None` if anything is missing, which is then reported unless it was `swallowed`.
    pub(super) fn complete(
        self,
        node_id: u32,
        numbers: &[u32],
        resource: &Volumes,
        swallowed: bool,
        diagnostics: &mut Diagnostics,
    ) -> Option<Host> {
        let stacked = matches!(self.kind, HostKind::Stacked(_));
        let mut volumes = Some(Vec::new());
        for &number in numbers {
            let mut missing = Vec::new();
            let volume = resource.merged(&self.volumes, number).complete(number, stacked, &mut missing);
            let of = if numbers == [0] { String::new() } else { format!(" for volume {number}") };
            missing.retain(|_| !swallowed);
            for name in missing {
                let example = if name == "device" { "device /dev/drbdN;" } else { "disk PATH;" };
                let error = Diagnostic::error(&self.span, format!("`{}` has no `{name}`{of}", self.title));
                diagnostics.push(error.help(format!("add `{example}`, here or in the resource")));
            }
            match (volume, &mut volumes) {
                (Some(volume), Some(volumes)) => volumes.push(volume),
                _ => volumes = None,
            }
        }
        if self.address.stands() && self.address.value.is_none() {
            return None;
        }
        Some(Host {
            kind: self.kind,
            node_id,
            address: self.address.value,
            volumes: volumes?,
            proxy: self.proxy,
        })
    }
}

fn lower_resource(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<String> {
    let [name] = statement.arguments.as_slice() else {
        let message = "expected the name of one resource behind `stacked-on-top-of`";
        diagnostics.push(Diagnostic::error(statement.span(), message));
        return None;
    };
    Some(name.text.clone())
}

fn host_names(statement: &Statement, diagnostics: &mut Diagnostics) -> Vec<String> {
    if statement.arguments.is_empty() {
        diagnostics.push(Diagnostic::error(&statement.end, "expected the name of a host behind `on`"));
    }
    if let Some(excess) = statement.arguments.get(MAX_HOST_NAMES) {
        let message = format!("expected at most {MAX_HOST_NAMES} names of one host");
        diagnostics.push(Diagnostic::error(&excess.span, message));
    }
    let mut names: Vec<String> = Vec::new();
    for word in statement.arguments.iter().take(MAX_HOST_NAMES) {
        if ["_this_host", "_remote_host"].contains(&word.text.as_str()) {
            let message = format!("expected the name of a host, found {}", quote(&word.text));
            let error = Diagnostic::error(&word.span, message);
            diagnostics.push(
                error.help(
                    "it stands for one where drbdsetup prints what is up: write what `uname -n` prints",
                ),
            );
            continue;
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if word.text.is_empty() || word.text.starts_with('-') || !word.text.chars().all(good) {
            let message =
                format!("expected the name of a host (as `uname -n` prints it), found {}", quote(&word.text));
            diagnostics.push(Diagnostic::error(&word.span, message));
        } else if names.contains(&word.text) {
            diagnostics
                .push(Diagnostic::error(&word.span, format!("duplicate host name {}", quote(&word.text))));
        } else {
            names.push(word.text.clone());
        }
    }
    names
}

fn node_id_value(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<u32> {
    let word = words(statement, "a number", 1..=1, diagnostics)?.first()?;
    number(word, MAX_NODE_ID, diagnostics)
}
