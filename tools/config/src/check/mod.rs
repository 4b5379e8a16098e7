//! From statements to the model, reporting everything that is wrong.

mod address;
mod alike;
mod claims;
mod connection;
mod host;
mod obstacles;
mod places;
mod resource;
mod rules;
mod settings;
mod slot;
mod verbatim;
mod volume;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{only_one, section_body};
use crate::model::{Config, Global, Verbatim};
use crate::options::Section;
use crate::source::Span;
use crate::tree::Statement;
use claims::Claims;
use places::unknown;
pub use places::{WORDS, WordDef};
use rules::ResyncOrder;
use settings::Assigned;

/// Checks all statements. The result is complete only if no error was reported.
pub(crate) fn check(statements: &[Statement], diagnostics: &mut Diagnostics) -> Config {
    let common = common(statements.iter().filter(|statement| statement.name() == "common"), diagnostics);
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
            _ if settings::option(Section::Top, statement, &mut global, diagnostics) => {}
            _ => unknown(statement, "here", &["global", "common", "resource", "include"], None, diagnostics),
        }
    }
    order.check(&names, diagnostics);
    Config {
        resources,
        global: Global::new(settings::values(&global)),
        common: settings::values(&common.assigned),
        warnings: Vec::new(),
    }
}

/// What holds for all resources, or for those that have it for a template.
#[derive(Default)]
struct Common {
    assigned: Assigned,
    proxy: Vec<Verbatim>,
    /// The first `proxy` section that says something.
    proxy_span: Option<Span>,
}

/// `common` counts for all resources, wherever it stands, so it is read first.
fn common<'a>(statements: impl Iterator<Item = &'a Statement>, diagnostics: &mut Diagnostics) -> Common {
    let mut common = Common::default();
    let mut first = None;
    for statement in statements {
        only_one(statement, &mut first, diagnostics);
        for inner in section_body(statement, diagnostics).into_iter().flatten() {
            if inner.name() == "proxy" {
                verbatim::proxy(inner, &mut common.proxy, &mut common.proxy_span);
            } else if !settings::resource_level(inner, &mut common.assigned, diagnostics) {
                unknown(inner, "in `common`", resource::SECTIONS, Some(Section::Resource), diagnostics);
            }
        }
    }
    common
}
