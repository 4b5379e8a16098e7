//! Options: read against the table, kept with their places until they are checked against each other.

use std::collections::BTreeMap;

use super::unknown;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{missing_semicolon, section_body, words};
use crate::options::{self, Kind, OPTIONS, OptionDef, Section, Support, Value};
use crate::settings::Settings;
use crate::source::Span;
use crate::spelling;
use crate::tree::Statement;
use crate::value;

/// Hosts of a resource.
const MAX_WORDS: usize = 32;

/// One option that was set.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) value: Value,
    pub(crate) span: Span,
    section: Section,
}

/// The options set at one level, by their places in the table.
pub(crate) type Assigned = BTreeMap<usize, Assignment>;

/// What holds at the inner level: its own options, and the outer level's where it has none.
pub(crate) fn inherit(outer: &Assigned, own: &Assigned) -> Assigned {
    let mut merged = outer.clone();
    merged.extend(own.iter().map(|(&option, assignment)| (option, assignment.clone())));
    merged
}

pub(crate) fn values(assigned: &Assigned) -> Settings {
    assigned.iter().map(|(&option, assignment)| (option, assignment.value.clone())).collect()
}

/// Reads what `common` and `resource` share: option sections and options that stand directly in them. False if the
/// statement is neither.
pub(crate) fn resource_level(
    statement: &Statement,
    assigned: &mut Assigned,
    diagnostics: &mut Diagnostics,
) -> bool {
    let name = statement.name();
    let sections = [
        Section::Net,
        Section::Disk,
        Section::PeerDevice,
        Section::Options,
        Section::Startup,
        Section::Handlers,
        Section::Syncer,
    ];
    if let Some(inner) = sections.into_iter().find(|section| section.keyword() == name) {
        // `disk` without a body is the backing device.
        if inner == Section::Disk && statement.body.is_none() {
            return false;
        }
        if let Some(body) = section_body(statement, diagnostics) {
            section(inner, body, assigned, diagnostics);
        }
        return true;
    }
    option(Section::Resource, statement, assigned, diagnostics)
}

/// Reads the options of one section.
pub(crate) fn section(
    section: Section,
    body: &[Statement],
    assigned: &mut Assigned,
    diagnostics: &mut Diagnostics,
) {
    for statement in body {
        if !option(section, statement, assigned, diagnostics) {
            let place = match section {
                Section::PeerDevice => "in a connection's `disk`".to_owned(),
                _ => format!("in `{}`", section.keyword()),
            };
            unknown(statement, &place, &[], Some(section), diagnostics);
        }
    }
}

/// Reads one option; false if the section has none of that name.
pub(crate) fn option(
    section: Section,
    statement: &Statement,
    assigned: &mut Assigned,
    diagnostics: &mut Diagnostics,
) -> bool {
    let Some((index, definition, negated)) = find(section, statement) else { return false };
    let Some(value) = value(definition, negated, statement, diagnostics) else { return true };
    if let Support::Ignored { note, anyway } = definition.support
        && !anyway.contains(&value.to_string().as_str())
    {
        let text = format!("`{}` has no effect in this version: {note}", definition.name);
        diagnostics.push(Diagnostic::warning(statement.span(), text));
    }
    let new = Assignment { value, span: statement.span().clone(), section };
    match assigned.get(&index) {
        Some(earlier) => report_repetition(definition, earlier, &new, diagnostics),
        None => drop(assigned.insert(index, new)),
    }
    true
}

/// The option a statement names; true if by DRBD 8's `no-` form.
fn find(section: Section, statement: &Statement) -> Option<(usize, &'static OptionDef, bool)> {
    let name = statement.name();
    if let Some((index, definition)) = options::find(section, name) {
        return Some((index, definition, false));
    }
    let (index, definition) = options::find(section, name.strip_prefix("no-")?)?;
    matches!(definition.kind, Kind::Flag { .. }).then_some((index, definition, true))
}

fn value(
    definition: &OptionDef,
    negated: bool,
    statement: &Statement,
    diagnostics: &mut Diagnostics,
) -> Option<Value> {
    let count = match definition.kind {
        Kind::Flag { .. } if negated => 0..=0,
        Kind::Flag { .. } => 0..=1,
        Kind::Words => 1..=MAX_WORDS,
        _ => 1..=1,
    };
    let is_text = matches!(definition.kind, Kind::Text { .. });
    if let ([_, excess, ..], true, None) =
        (statement.arguments.as_slice(), is_text, missing_semicolon(statement, 1))
    {
        let message = format!("expected `;`, found {}", quote(excess.span.shown_text()));
        diagnostics.push(Diagnostic::error(&excess.span, message).help("write a text with blanks in quotes"));
        return None;
    }
    let found = words(statement, &definition.kind.expected(), count, diagnostics)?;
    let Some(word) = found.first() else { return Some(Value::Flag(!negated)) };
    if definition.kind == Kind::Words {
        let names: Vec<&str> = found.iter().map(|word| word.text.as_str()).collect();
        return Some(Value::Text(names.join(" ")));
    }
    match value::parse(&definition.kind, &word.text) {
        Ok(value) => Some(value),
        Err(reason) => {
            let separator = if reason.starts_with("is ") { " " } else { ": " };
            let error = Diagnostic::error(&word.span, format!("`{}`{separator}{reason}", definition.name));
            let near = spelling::nearest(&word.text, definition.kind.words().iter().copied());
            diagnostics.push(match (near, value::about_units(&definition.kind, &word.text)) {
                (Some(near), _) => error.help(format!("did you mean `{near}`?")),
                (None, Some(units)) => error.help(units),
                (None, None) => error,
            });
            None
        }
    }
}

/// Reports the options that ask for what this version does not do.
pub(crate) fn refused(assigned: &Assigned, diagnostics: &mut Diagnostics) {
    for (&index, Assignment { value, span, .. }) in assigned {
        let Some(&OptionDef { name, kind, support: Support::Refused { accepted, reason, instead }, .. }) =
            OPTIONS.get(index)
        else {
            continue;
        };
        let word = value.to_string();
        let asked = if kind == Kind::Digest { value::digest(&word) } else { &word };
        // An empty text asks for nothing.
        if accepted.contains(&asked) || *value == Value::Text(String::new()) {
            continue;
        }
        // The value matters only if another one would be accepted.
        let what = if accepted.is_empty() { format!("`{name}`") } else { quote(&format!("{name} {value}")) };
        let message = format!("{what} is not supported by this version: {reason}");
        diagnostics.push(Diagnostic::error(span, message).help(instead));
    }
}

/// The same value from two sections is fine (`protocol` has two places, `fencing` too); all else is a mistake.
fn report_repetition(
    definition: &OptionDef,
    earlier: &Assignment,
    new: &Assignment,
    diagnostics: &mut Diagnostics,
) {
    let name = definition.name;
    let message = match (earlier.section == new.section, earlier.value == new.value) {
        (true, _) => format!("duplicate option `{name}`"),
        (false, true) => return,
        (false, false) => format!("contradictory `{name}`: {} here, {} before", new.value, earlier.value),
    };
    diagnostics.push(Diagnostic::error(&new.span, message).related(&earlier.span, "it is first set here"));
}
