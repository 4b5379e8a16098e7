//! One `resource` section.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Common;
use super::claims::Claims;
use super::connection::{self, ConnectionParts};
use super::host::{self, HostParts};
use super::obstacles;
use super::rules::{self, ResyncOrder};
use super::settings::{self, Assigned};
use super::unknown;
use super::verbatim;
use super::volume::Volumes;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::body;
use crate::load::{TEMPLATE, beside};
use crate::model::{Resource, Verbatim};
use crate::source::Span;
use crate::tree::{Statement, Word};

/// The option sections of `common` and `resource`.
pub(super) const SECTIONS: &[&str] = &["net", "disk", "options", "startup", "handlers", "proxy"];
const STATEMENTS: &[&str] = &[
    "on",
    "floating",
    "connection",
    "connection-mesh",
    "volume",
    "device",
    "disk",
    "meta-disk",
    "net",
    "options",
    "startup",
    "handlers",
    "protocol",
];
/// DRBD's formats have room for so many.
const MAX_HOSTS: usize = 32;
/// Paths and host names are built from resource names.
const MAX_NAME_BYTES: usize = 128;

/// The name of a resource, if it is a good one.
pub(super) fn name<'a>(statement: &'a Statement, diagnostics: &mut Diagnostics) -> Option<&'a Word> {
    let error = match statement.arguments.as_slice() {
        [name] => match bad_name(&name.text) {
            None => return Some(name),
            Some(reason) => {
                let message = format!("{} cannot be the name of a resource: {reason}", quote(&name.text));
                Diagnostic::error(&name.span, message)
            }
        },
        [] => Diagnostic::error(&statement.end, "expected the name of the resource behind `resource`"),
        [name, excess, ..] => {
            let message =
                format!("expected `{{` behind {}, found {}", quote(&name.text), quote(&excess.text));
            Diagnostic::error(&excess.span, message)
        }
    };
    diagnostics.push(error);
    None
}

fn bad_name(name: &str) -> Option<String> {
    if name == "all" {
        return Some("commands use it for all resources".to_owned());
    }
    if name.is_empty() || name.starts_with(['-', '.']) {
        return Some("it must start with a letter, a digit, `+` or `_`".to_owned());
    }
    if let Some(bad) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"+_-.".contains(*c)) {
        return Some(format!("{} is not one of letters, digits and `+_-.`", quote(&bad.to_string())));
    }
    (name.len() > MAX_NAME_BYTES).then(|| format!("it is longer than {MAX_NAME_BYTES} bytes"))
}

/// What a resource says, with the places that messages need.
pub(super) struct ResourceParts<'a> {
    pub(super) name: &'a Word,
    /// Where the resource begins.
    pub(super) span: &'a Span,
    /// Its own options and those of `common`.
    pub(super) options: Assigned,
    pub(super) volumes: Volumes,
    pub(super) hosts: Vec<HostParts>,
    pub(super) connections: Vec<ConnectionParts>,
    pub(super) proxy: Vec<Verbatim>,
    /// Where it is told so.
    pub(super) proxy_span: Option<Span>,
}

impl ResourceParts<'_> {
    /// Whether two of its sections are about one host, or one statement is about several volumes.
    pub(super) fn is_ambiguous(&self, numbers: &[u32]) -> bool {
        let twice =
            |(place, host): (usize, &HostParts)| self.hosts.iter().take(place).any(|one| host.is_same(one));
        let mut levels = std::iter::once(&self.volumes).chain(self.hosts.iter().map(|host| &host.volumes));
        let mixed = numbers.iter().any(|number| *number != 0) && levels.any(Volumes::names_one);
        mixed || self.hosts.iter().enumerate().any(twice)
    }
}

/// Reads one resource; `None` if it is not complete, which is then reported.
pub(super) fn resource(
    name: &Word,
    statement: &Statement,
    common: &Common,
    claims: &mut Claims,
    order: &mut ResyncOrder,
    diagnostics: &mut Diagnostics,
) -> Option<Resource> {
    let errors_before = diagnostics.errors.len();
    let template = template(statement, diagnostics);
    let parts =
        read(name, statement, template.as_ref().map_or(common, |(_, template)| template), diagnostics)?;
    let ids = node_ids(&parts.hosts, diagnostics);
    let numbers = volume_numbers(&parts, diagnostics);
    rules::of_resource(&parts, &numbers, diagnostics);
    order.note(&name.text, &parts.options);
    claims.resource(&parts, &numbers, diagnostics);
    let obstacles = obstacles::of_resource(&parts, &numbers);

    let swallowed = diagnostics.errors.iter().skip(errors_before).any(|error| error.swallows);
    let mut hosts = Some(Vec::new());
    for (host, id) in parts.hosts.into_iter().zip(ids) {
        match (host.complete(id, &numbers, &parts.volumes, swallowed, diagnostics), &mut hosts) {
            (Some(host), Some(hosts)) => hosts.push(host),
            _ => hosts = None,
        }
    }
    Some(Resource {
        name: name.text.clone(),
        source: (statement.span().path().to_owned(), statement.span().line()),
        hosts: hosts?,
        connections: parts.connections.into_iter().map(ConnectionParts::complete).collect(),
        settings: settings::values(&parts.options),
        proxy: parts.proxy,
        template: template.map(|(path, template)| (path, settings::values(&template.assigned))),
        obstacles,
    })
}

/// What holds for the resource in place of `common`, and the file that says so.
fn template(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<(PathBuf, Common)> {
    let mut first: Option<&Statement> = None;
    let inside = statement.body.iter().flatten();
    for inner in inside.filter(|inner| inner.name() == TEMPLATE) {
        if let Some(first) = first {
            let error = Diagnostic::error(inner.span(), format!("duplicate `{TEMPLATE}`"));
            diagnostics.push(error.related(first.span(), "it first stands here"));
            continue;
        }
        first = Some(inner);
    }
    let (name, body) = (first?.arguments.first()?, first?.body.as_deref()?);
    let (commons, others): (Vec<_>, Vec<_>) = body.iter().partition(|inner| inner.name() == "common");
    others.iter().for_each(|inner| unknown(inner, "in a template", &["common"], None, diagnostics));
    if commons.is_empty() && others.is_empty() {
        let message = format!("expected `common {{ ... }}` in {}", quote(&name.text));
        diagnostics.push(Diagnostic::error(&name.span, message));
    }
    let path = beside(name);
    Some((std::path::absolute(&path).unwrap_or(path), super::common(commons.into_iter(), diagnostics)))
}

fn read<'a>(
    name: &'a Word,
    statement: &'a Statement,
    common: &Common,
    diagnostics: &mut Diagnostics,
) -> Option<ResourceParts<'a>> {
    let mut own = Assigned::new();
    let mut volumes = Volumes::default();
    let (mut hosts, mut connections) = (Vec::new(), Vec::new());
    let (mut proxy, mut proxy_span) = (Vec::new(), None);
    for inner in body(statement, diagnostics)? {
        match inner.name() {
            "on" | "floating" | "stacked-on-top-of" => hosts.extend(host::host(inner, diagnostics)),
            "connection" | "connection-mesh" => connections.push(inner),
            "proxy" => verbatim::proxy(inner, &mut proxy, &mut proxy_span),
            TEMPLATE => {}
            _ if settings::resource_level(inner, &mut own, diagnostics) => {}
            _ if volumes.read(inner, diagnostics) => {}
            _ => unknown(inner, "in `resource`", STATEMENTS, None, diagnostics),
        }
    }
    if let Some(excess) = hosts.get(MAX_HOSTS) {
        diagnostics
            .push(Diagnostic::error(&excess.span, format!("a resource has at most {MAX_HOSTS} hosts")));
        return None;
    }
    if hosts.is_empty() {
        let message = format!("expected two `on HOST {{}}` sections in {}, found 0", quote(&name.text));
        diagnostics.push(Diagnostic::error(&name.span, message));
        return None;
    }
    Some(ResourceParts {
        name,
        span: statement.span(),
        options: settings::inherit(&common.assigned, &own),
        connections: connection::connections(&connections, &hosts, diagnostics),
        volumes,
        hosts,
        proxy_span: proxy_span.or_else(|| common.proxy_span.clone()),
        proxy: if proxy.is_empty() { common.proxy.clone() } else { proxy },
    })
}

/// The volumes that every host must have: those that are named anywhere, or the one that follows from a `device`.
fn volume_numbers(parts: &ResourceParts<'_>, diagnostics: &mut Diagnostics) -> Vec<u32> {
    let levels = || std::iter::once(&parts.volumes).chain(parts.hosts.iter().map(|host| &host.volumes));
    let named =
        || levels().flat_map(|level| level.numbered.iter().map(|(number, (span, _))| (*number, span)));
    let numbers: BTreeSet<u32> = named().map(|(number, _)| number).collect();
    let other = named().find(|(number, _)| *number != 0);
    levels().for_each(|level| level.not_mixed(other, diagnostics));
    for (number, (span, _)) in parts.connections.iter().flat_map(|connection| &connection.volumes) {
        let implied = *number == 0 && numbers.is_empty();
        if !numbers.contains(number) && !implied {
            let text = format!("`volume {number}` of the connection is no volume of the resource");
            diagnostics.push(Diagnostic::error(span, text));
        }
    }
    if numbers.is_empty() && levels().any(Volumes::implies_one) {
        return vec![0];
    }
    numbers.into_iter().collect()
}

/// Explicit node-ids, or the order of appearance, which two hosts may leave it to.
fn node_ids(hosts: &[HostParts], diagnostics: &mut Diagnostics) -> Vec<u32> {
    let mut ids: Vec<u32> = Vec::new();
    for (host, position) in hosts.iter().zip(0..) {
        if hosts.len() > 2 && !host.node_id.stands() {
            let error = Diagnostic::error(&host.span, format!("`{}` has no `node-id`", host.title));
            diagnostics
                .push(error.help("with more than two hosts, every one needs a `node-id` from 0 to 31"));
        }
        let id = host.node_id.value.unwrap_or(position);
        if let Some(earlier) = ids.iter().position(|&other| other == id).and_then(|index| hosts.get(index)) {
            let span = host.node_id.span.as_ref().unwrap_or(&host.span);
            let other = earlier.node_id.span.as_ref().unwrap_or(&earlier.span);
            let error = Diagnostic::error(span, format!("conflicting use of node-id {id}"));
            diagnostics.push(
                error
                    .related(other, "this host has it already")
                    .help("give every host a `node-id`, or none: then they count from 0 in order"),
            );
        }
        ids.push(id);
    }
    ids
}
