//! One `resource` section.

use super::host::{self, HostParts, Volumes};
use super::rules::{self, Claims, ResyncOrder};
use super::settings::{self, Assigned};
use super::unknown;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::body;
use crate::model::{NetOptions, Resource};
use crate::tree::{Statement, Word};

/// The option sections of `common` and `resource`.
pub(super) const SECTIONS: &[&str] = &["net", "disk", "options", "startup", "handlers"];
const STATEMENTS: &[&str] =
    &["on", "volume", "device", "disk", "meta-disk", "net", "options", "startup", "handlers", "protocol"];
/// The highest node-id that DRBD's formats have room for.
const MAX_NODE_ID: u32 = 31;
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

/// Reads one resource; `None` if it is not complete, which is then reported.
pub(super) fn resource(
    name: &Word,
    statement: &Statement,
    common: &Assigned,
    claims: &mut Claims,
    order: &mut ResyncOrder,
    diagnostics: &mut Diagnostics,
) -> Option<Resource> {
    let mut own = Assigned::new();
    let mut volumes = Volumes::default();
    let mut hosts = Vec::new();
    for inner in body(statement, diagnostics)? {
        if inner.name() == "on" {
            hosts.extend(host::host(inner, diagnostics));
        } else if !settings::resource_level(inner, &mut own, diagnostics) && !volumes.read(inner, diagnostics)
        {
            unknown(inner, "in `resource`", STATEMENTS, None, diagnostics);
        }
    }
    let assigned = settings::inherit(common, &own);
    rules::timeouts(&assigned, statement.span(), diagnostics);
    rules::pull_ahead(&assigned, diagnostics);
    order.note(&name.text, &assigned);
    rules::fencing(&assigned, statement.span(), diagnostics);
    rules::two_hosts(name, &hosts, diagnostics);
    rules::pair_of_hosts(&hosts, diagnostics);
    let ids = node_ids(&hosts, diagnostics);
    let mut complete = Vec::new();
    for (host, id) in hosts.into_iter().zip(ids) {
        let volume = host.volume(&volumes);
        claims.host(&host, &volume, &name.text, diagnostics);
        complete.push(host.complete(id, volume, &assigned, diagnostics));
    }
    let settings = settings::values(&assigned);
    Some(Resource {
        name: name.text.clone(),
        source: (statement.span().path().to_owned(), statement.span().line()),
        hosts: complete.into_iter().collect::<Option<_>>()?,
        net: NetOptions::from(&settings),
        settings,
    })
}

/// Explicit node-ids, or the order of appearance.
fn node_ids(hosts: &[HostParts], diagnostics: &mut Diagnostics) -> Vec<u32> {
    let mut ids: Vec<u32> = Vec::new();
    for (host, position) in hosts.iter().zip(0..) {
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
        } else if id > MAX_NODE_ID {
            diagnostics
                .push(Diagnostic::error(&host.span, format!("no node-id up to {MAX_NODE_ID} is left")));
        }
        ids.push(id);
    }
    ids
}
