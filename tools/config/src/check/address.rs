//! `address`, `floating`, and `host` in a connection.

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{end_mark, missing_semicolon, words};
use crate::model::{Address, Family};
use crate::tree::{Statement, Word};
use crate::value;

/// A family before `[ IP ] : PORT`.
const MAX_WORDS: usize = 6;

/// `address IP:PORT;` or with a family before it.
pub(super) fn statement(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<Address> {
    let found = words(statement, "IP:PORT", 1..=MAX_WORDS, diagnostics)?;
    of_words(found, statement, diagnostics)
}

/// DRBD has a second name for one of them.
fn family_of(word: &str) -> Option<Family> {
    let word = if word == "sci" { Family::Ssocks.word() } else { word };
    Family::ALL.into_iter().find(|family| family.word() == word)
}

/// Words that are an address, behind `statement`'s keyword.
pub(super) fn of_words(
    found: &[Word],
    statement: &Statement,
    diagnostics: &mut Diagnostics,
) -> Option<Address> {
    let family = found.first().and_then(|word| family_of(&word.text));
    let rest = if family.is_some() { found.get(1..)? } else { found };
    let Some(first) = rest.first() else {
        let message = format!("expected IP:PORT behind the family, found {}", end_mark(statement));
        diagnostics.push(Diagnostic::error(&statement.end, message));
        return None;
    };
    // A word that is no address, and another behind it: the first should have been a family.
    if rest.len() > 1 && !first.text.starts_with(|c: char| c.is_ascii_digit() || c == '[') {
        let message = format!(
            "expected `ipv4`, `ipv6` or IP:PORT behind `{}`, found {}",
            statement.name(),
            quote(&first.text)
        );
        diagnostics.push(Diagnostic::error(&first.span, message));
        return None;
    }
    // Blanks may stand around the colon.
    let text: String = rest.iter().map(|word| word.text.as_str()).collect();
    let spaced = rest.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let report = |reason: String| {
        let reason = reason.replace(&quote(&text), &quote(&spaced));
        diagnostics.push(missing_semicolon(statement, 1).unwrap_or(Diagnostic::error(&first.span, reason)));
    };
    let socket = value::address(&text).map_err(report).ok()?;
    let implied = if socket.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    if matches!(family, Some(Family::Ipv4 | Family::Ipv6)) && family != Some(implied) {
        let message = format!("the address {} is not of the family before it", quote(&text));
        diagnostics.push(Diagnostic::error(&first.span, message));
        return None;
    }
    if socket.ip().is_unspecified() || socket.ip().is_multicast() {
        let message = format!("expected the host's own address, found {}", quote(&text));
        diagnostics.push(Diagnostic::error(&first.span, message).help("the peer connects to this address"));
        return None;
    }
    Some(Address { family: family.unwrap_or(implied), socket })
}
