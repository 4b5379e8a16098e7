//! Which word belongs where, and what is said of one that stands elsewhere.

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::options::{OPTIONS, Section};
use crate::spelling;
use crate::tree::Statement;

/// Reports a statement that has no place where it stands. `keywords` and the options of `section` would have one.
pub(super) fn unknown(
    statement: &Statement,
    place: &str,
    keywords: &[&str],
    section: Option<Section>,
    diagnostics: &mut Diagnostics,
) {
    let name = statement.name();
    if name == "template-file" {
        let error = Diagnostic::error(statement.span(), "`template-file` is not supported by this version");
        diagnostics.push(error.help("use `include` or `common {}`"));
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
        OPTIONS.iter().map(|option| option.name).chain(WORDS.iter().map(|&(keyword, _)| keyword));
    let error = match spelling::nearest(name, allowed).or_else(|| spelling::nearest(name, everywhere)) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None if keywords.is_empty() => error,
        None => error.help(format!("expected one of: {}", keywords.join(", "))),
    };
    diagnostics.push(error);
}

/// Where a word that is known elsewhere belongs. The old section is no place to move to.
fn homes(name: &str) -> String {
    let options = OPTIONS.iter().filter(|option| option.name == name || option.formerly == Some(name));
    let sections = options.flat_map(|option| option.sections).filter(|&&one| one != Section::Syncer);
    let mut places: Vec<String> = sections.map(|section| section.place()).collect();
    places.extend(WORDS.iter().filter(|(keyword, _)| *keyword == name).map(|(_, place)| (*place).to_owned()));
    places.join(" or ")
}

/// The words of the grammar that are no options, and their places.
pub const WORDS: &[(&str, &str)] = &[
    ("global", "the top level"),
    ("common", "the top level"),
    ("resource", "the top level"),
    ("include", "the top level"),
    ("net", "`common {}`, `resource {}` or `connection {}`"),
    ("disk", "`common {}`, `resource {}`, `on {}`, `volume {}` or `connection {}`"),
    ("options", "`common {}` or `resource {}`"),
    ("startup", "`common {}` or `resource {}`"),
    ("handlers", "`common {}` or `resource {}`"),
    ("syncer", "`common {}` or `resource {}`"),
    ("proxy", "`common {}`, `resource {}`, `on {}` or `connection {}`"),
    ("peer-device-options", "`common {}`, `resource {}` or `connection {}`"),
    ("on", "`resource {}`"),
    ("floating", "`resource {}`"),
    ("stacked-on-top-of", "`resource {}`"),
    ("connection", "`resource {}`"),
    ("connection-mesh", "`resource {}`"),
    ("path", "`connection {}`"),
    ("host", "`connection {}` or `path {}`"),
    ("hosts", "`connection-mesh {}`"),
    ("volume", "`resource {}`, `on {}` or `connection {}`"),
    ("device", "`resource {}`, `on {}` or `volume {}`"),
    ("meta-disk", "`resource {}`, `on {}` or `volume {}`"),
    ("flexible-meta-disk", "`resource {}`, `on {}` or `volume {}`"),
    ("address", "`on {}`"),
    ("node-id", "`on {}`"),
];
