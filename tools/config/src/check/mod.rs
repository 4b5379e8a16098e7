//! From statements to the model, reporting everything that is wrong.

mod host;
mod resource;
mod rules;
mod settings;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{only_one, section_body};
use crate::model::{Global, Resource};
use crate::options::{self, OPTIONS, Section};
use crate::source::Span;
use crate::tree::Statement;
use rules::{Claims, ResyncOrder};
use settings::Assigned;

/// Checks all statements. The result is complete only if no error was reported.
pub(crate) fn check(statements: &[Statement], diagnostics: &mut Diagnostics) -> (Global, Vec<Resource>) {
    let common = common(statements, diagnostics);
    let mut global = Assigned::new();
    let mut resources = Vec::new();
    let (mut claims, mut order) = (Claims::default(), ResyncOrder::default());
    let mut names: BTreeMap<&str, &Span> = BTreeMap::new();
    let mut first_global = None;
    for statement in statements {
        match statement.name() {
            "global" => {
                only_one(statement, &mut first_global, diagnostics);
                if let Some(body) = section_body(statement, diagnostics) {
                    settings::section(Section::Global, body, &mut global, diagnostics);
                }
            }
            "common" => {}
            "resource" => {
                if let Some(name) = resource::name(statement, diagnostics) {
                    if let Some(earlier) = names.insert(&name.text, &name.span) {
                        let error = Diagnostic::error(
                            &name.span,
                            format!("duplicate resource {}", quote(&name.text)),
                        );
                        diagnostics.push(error.related(earlier, "it is first defined here"));
                    }
                    let read =
                        resource::resource(name, statement, &common, &mut claims, &mut order, diagnostics);
                    resources.extend(read);
                }
            }
            _ => unknown(statement, "here", &["global", "common", "resource", "include"], None, diagnostics),
        }
    }
    order.check(&names, diagnostics);
    (Global::new(settings::values(&global)), resources)
}

/// `common` counts for all resources, wherever it stands, so it is read first.
fn common(statements: &[Statement], diagnostics: &mut Diagnostics) -> Assigned {
    let mut assigned = Assigned::new();
    let mut first = None;
    for statement in statements.iter().filter(|statement| statement.name() == "common") {
        only_one(statement, &mut first, diagnostics);
        for inner in section_body(statement, diagnostics).into_iter().flatten() {
            if !settings::resource_level(inner, &mut assigned, diagnostics) {
                unknown(inner, "in `common`", resource::SECTIONS, Some(Section::Resource), diagnostics);
            }
        }
    }
    assigned
}

/// Reports a statement that has no place where it stands. `keywords` and the options of `section` would have one.
fn unknown(
    statement: &Statement,
    place: &str,
    keywords: &[&str],
    section: Option<Section>,
    diagnostics: &mut Diagnostics,
) {
    let name = statement.name();
    if let Some((reason, instead)) = unsupported(name) {
        let message = format!("`{name}` is not supported by this version: {reason}");
        diagnostics.push(Diagnostic::error(statement.span(), message).help(instead));
        return;
    }
    let belongs = homes(name);
    let error = Diagnostic::error(
        statement.span(),
        match belongs.is_empty() {
            true => format!("{} is not known {place}", quote(name)),
            false => format!("`{name}` is not allowed {place}"),
        },
    );
    if !belongs.is_empty() {
        diagnostics.push(error.help(format!("it belongs in {belongs}")));
        return;
    }
    let options = OPTIONS.iter().filter(|option| section.is_some_and(|here| option.sections.contains(&here)));
    let allowed = keywords.iter().copied().chain(options.map(|option| option.name));
    let everywhere =
        OPTIONS.iter().map(|option| option.name).chain(KEYWORDS.iter().map(|&(keyword, _)| keyword));
    let error = match options::nearest(name, allowed).or_else(|| options::nearest(name, everywhere)) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None if keywords.is_empty() => error,
        None => error.help(format!("expected one of: {}", keywords.join(", "))),
    };
    diagnostics.push(error);
}

/// Where a word that is known elsewhere belongs.
fn homes(name: &str) -> String {
    let sections = OPTIONS.iter().filter(|option| option.name == name).flat_map(|option| option.sections);
    let mut places: Vec<String> = sections.map(|section| format!("`{} {{}}`", section.keyword())).collect();
    places.extend(
        KEYWORDS.iter().filter(|(keyword, _)| *keyword == name).map(|(_, place)| (*place).to_owned()),
    );
    places.join(" or ")
}

/// The words that are not options, and their places.
const KEYWORDS: &[(&str, &str)] = &[
    ("global", "the top level"),
    ("common", "the top level"),
    ("resource", "the top level"),
    ("include", "the top level"),
    ("net", "`common {}` or `resource {}`"),
    ("disk", "`common {}`, `resource {}`, `on {}` or `volume {}`"),
    ("options", "`common {}` or `resource {}`"),
    ("startup", "`common {}` or `resource {}`"),
    ("handlers", "`common {}` or `resource {}`"),
    ("on", "`resource {}`"),
    ("volume", "`resource {}` or `on {}`"),
    ("device", "`resource {}`, `on {}` or `volume {}`"),
    ("meta-disk", "`resource {}`, `on {}` or `volume {}`"),
    ("address", "`on {}`"),
    ("node-id", "`on {}`"),
];

/// Statements of DRBD that this version refuses: the reason, and what to write instead.
fn unsupported(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "connection" | "connection-mesh" | "path" => (
            "a resource has one connection, between its two hosts",
            "write `address` into the `on` sections and `net {}` into the resource",
        ),
        "floating" => ("hosts are chosen by name", "write `on HOST { address ...; }`"),
        "stacked-on-top-of" => ("stacked resources are not supported", "remove it"),
        "proxy" => ("there is no proxy for long distances", "remove it; `protocol A` tolerates more latency"),
        "syncer" => (
            "it is the section of DRBD 8.3",
            "move its options: `rate` is `resync-rate` in `disk {}`, `verify-alg` belongs in `net {}`",
        ),
        "flexible-meta-disk" => ("external metadata is always of flexible size", "write `meta-disk PATH;`"),
        "peer-device-options" => ("a resource has one peer", "write the options into `disk {}`"),
        "template-file" => ("templates are not supported", "use `include` or `common {}`"),
        _ => return None,
    })
}
