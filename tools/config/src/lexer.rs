//! From text to tokens: words, quoted strings, braces and semicolons, each with its span.

use std::sync::Arc;

use winnow::combinator::{alt, delimited, preceded, repeat};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{none_of, one_of, take_till, take_while};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::source::{SourceFile, Span};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Word(String),
    /// The text between the quotes; `\"` and `\\` are resolved, other backslashes stand for themselves.
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
            Ok((kind, range)) => tokens.push(Token { kind, span: Span::new(file, range) }),
            Err(_) => {
                let span = Span::new(file, start..start + next.len_utf8());
                diagnostics.push(refuse(next, &span));
                skip_line(&mut input);
            }
        }
    }
    tokens
}

fn refuse(next: char, span: &Span) -> Diagnostic {
    if next == '"' {
        return Diagnostic::error(
            span,
            "expected a closing `\"` on this line, found the end of the string's line",
        )
        .label("the string starts here")
        .help("write `\\\"` for a quote inside a string");
    }
    Diagnostic::error(span, format!("expected text, found the character U+{:04X}", u32::from(next)))
        .help("the file may be binary, or damaged")
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
    let escape = preceded('\\', one_of(['"', '\\']));
    let plain = none_of(|c: char| c == '"' || (c.is_control() && c != '\t'));
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
    !(c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | ';' | '#' | '"'))
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
