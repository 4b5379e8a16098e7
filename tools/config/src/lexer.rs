//! From text to tokens: words, quoted strings, braces and semicolons, each with its span.

use std::ops::Range;
use std::sync::Arc;

use winnow::combinator::{alt, delimited, preceded, repeat};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{one_of, take_till, take_while};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::source::{SourceFile, Span};

/// What stands for bytes that are not UTF-8.
const NOT_UTF8: char = char::REPLACEMENT_CHARACTER;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Word(String),
    /// The text between the quotes; a backslash was before a character that stands for itself.
    Quoted(String),
    Open,
    Close,
    Semicolon,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

/// Splits a file into tokens. Reports every character that starts no token and goes on in the next line.
pub(crate) fn tokens(file: &Arc<SourceFile>, diagnostics: &mut Diagnostics) -> Vec<Token> {
    let text = file.text();
    // A byte order mark is no part of the text.
    let skipped = text.len() - text.trim_start_matches('\u{feff}').len();
    let mut input = LocatingSlice::new(text);
    let _ = input.next_slice(skipped);
    let mut tokens = Vec::new();
    while let Some(next) = next_character(&mut input) {
        let start = input.current_token_start();
        match token.with_span().parse_next(&mut input) {
            Ok((kind, range)) => {
                warn_of_escapes(&kind, file, &range, diagnostics);
                tokens.push(Token { kind, span: Span::new(file, range) });
            }
            Err(_) => {
                diagnostics.push(refuse(next, file, start));
                skip_line(&mut input);
            }
        }
    }
    tokens
}

fn refuse(next: char, file: &Arc<SourceFile>, start: usize) -> Diagnostic {
    let line = file.text().get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let inside = line.get(1..).and_then(|behind| behind.split('"').next()).unwrap_or_default();
    if let Some(at) =
        inside.find(NOT_UTF8).map(|at| at + 1).filter(|_| next == '"').or((next == NOT_UTF8).then_some(0))
    {
        let span = Span::new(file, start + at..start + at + NOT_UTF8.len_utf8());
        let message = "expected UTF-8 text, found other bytes";
        return Diagnostic::error(&span, message).help("only comments may be in another encoding");
    }
    let span = Span::new(file, start..start + next.len_utf8());
    if next == '"' {
        return Diagnostic::error(
            &span,
            "expected a closing `\"` on this line, found the end of the string's line",
        )
        .label("the string starts here")
        .help("write `\\\"` for a quote inside a string");
    }
    Diagnostic::error(&span, format!("expected text, found the character U+{:04X}", u32::from(next)))
        .help("the file may be binary, or damaged")
}

/// As for drbdadm, `\n` is an `n`: who wrote it meant something else.
fn warn_of_escapes(
    kind: &TokenKind,
    file: &Arc<SourceFile>,
    range: &Range<usize>,
    diagnostics: &mut Diagnostics,
) {
    if !matches!(kind, TokenKind::Quoted(_)) {
        return;
    }
    let mut characters = file.text().get(range.clone()).unwrap_or_default().char_indices();
    while let Some((at, c)) = characters.next() {
        let Some((_, escaped)) = (c == '\\').then(|| characters.next()).flatten() else { continue };
        if !matches!(escaped, '"' | '\\') {
            let at = range.start + at;
            let text = format!("a backslash before `{escaped}` has no effect");
            let warning = Diagnostic::warning(&Span::new(file, at..at + 1 + escaped.len_utf8()), text);
            diagnostics.push(warning.help("write `\\\\` for a backslash"));
        }
    }
}

type Input<'a> = LocatingSlice<&'a str>;

fn token(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    alt((
        '{'.value(TokenKind::Open),
        '}'.value(TokenKind::Close),
        ';'.value(TokenKind::Semicolon),
        quoted,
        word,
    ))
    .parse_next(input)
}

fn quoted(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    let stands_in = |c: char| c == '\t' || !(c.is_control() || c == NOT_UTF8);
    let escape = preceded('\\', one_of(stands_in));
    let plain = one_of(move |c: char| c != '"' && c != '\\' && stands_in(c));
    let inside = repeat(0.., alt((escape, plain))).fold(String::new, |mut text: String, c| {
        text.push(c);
        text
    });
    delimited('"', inside, '"').map(TokenKind::Quoted).parse_next(input)
}

fn word(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    take_while(1.., is_word_character).map(|text: &str| TokenKind::Word(text.to_owned())).parse_next(input)
}

/// Whether a character may stand in a word without quotes.
pub(crate) fn is_word_character(c: char) -> bool {
    !(c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | ';' | '#' | '"' | NOT_UTF8))
}

/// Skips blanks and comments; the next character, or `None` at the end.
fn next_character(input: &mut Input<'_>) -> Option<char> {
    loop {
        let rest: &str = input.as_ref();
        let blank = rest.len() - rest.trim_start().len();
        let _ = input.next_slice(blank);
        match input.as_ref().chars().next() {
            Some('#') => skip_line(input),
            next => return next,
        }
    }
}

fn skip_line(input: &mut Input<'_>) {
    let _: winnow::Result<&str> = take_till(0.., '\n').parse_next(input);
}
