//! From tokens to statements: `words ;` and `words { statements }`, whatever the words mean.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::lexer::{Token, TokenKind, tokens};
use crate::source::{SourceFile, Span};

/// The language needs four levels; the limit keeps a file of braces from using up the stack.
const MAX_DEPTH: usize = 8;

/// A word or a quoted string.
#[derive(Clone, Debug)]
pub struct Word {
    /// Without quotes.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// Words that end in `;` or in a body of statements.
#[derive(Debug)]
pub struct Statement {
    /// The first word.
    pub keyword: Word,
    /// The words behind it.
    pub arguments: Vec<Word>,
    /// What stands between the braces, if it has any.
    pub body: Option<Vec<Statement>>,
    /// The `;` or `{` behind the words.
    pub end: Span,
}

impl Statement {
    /// The keyword.
    pub fn name(&self) -> &str {
        &self.keyword.text
    }

    /// The place behind the first line of a statement without a body, if it goes on in another one.
    fn line_break(&self) -> Option<Span> {
        let words: Vec<&Word> = std::iter::once(&self.keyword).chain(&self.arguments).collect();
        let broken = words.windows(2).find(|two| two[0].span.line() != two[1].span.line())?;
        self.body.is_none().then(|| broken[0].span.after())
    }

    /// Where the keyword stands.
    pub fn span(&self) -> &Span {
        &self.keyword.span
    }
}

/// Parses one file. Syntax errors go to `diagnostics`; what could be read around them is returned.
pub(crate) fn parse(file: &Arc<SourceFile>, diagnostics: &mut Diagnostics) -> Vec<Statement> {
    let errors_before = diagnostics.errors.len();
    let tokens = tokens(file, diagnostics);
    if diagnostics.errors.len() > errors_before {
        // The tokens behind a broken string would only give follow-up errors.
        return Vec::new();
    }
    let end = tokens.last().map_or_else(|| Span::new(file, 0..0), |token| token.span.after());
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), end, ended: false, diagnostics };
    parser.statements(None, 0)
}

/// The first section with a statement that is indented like the section itself: where a `}` is missing, by the looks of it.
fn unclosed(file: &Arc<SourceFile>) -> Option<Span> {
    /// Where a line begins, and how deep.
    #[derive(Clone, Copy)]
    struct Start {
        line: usize,
        indent: usize,
    }
    let mut sections: Vec<(Start, Span)> = Vec::new();
    let (mut statement, mut last_line) = (None, 0);
    for Token { kind, span } in tokens(file, &mut Diagnostics::default()) {
        let line = span.line();
        let here = Start { line, indent: if line == last_line { usize::MAX } else { span.indent() } };
        last_line = line;
        match kind {
            TokenKind::Open => sections.push((statement.take().unwrap_or(here), span)),
            TokenKind::Close => drop(sections.pop()),
            TokenKind::Semicolon => statement = None,
            TokenKind::Word(_) | TokenKind::Quoted(_) if statement.is_some() => {}
            TokenKind::Word(_) | TokenKind::Quoted(_) => {
                statement = Some(here);
                if let Some((section, open)) = sections.last()
                    && section.indent != usize::MAX
                    && here.line > section.line
                    && here.indent <= section.indent
                {
                    return Some(open.clone());
                }
            }
        }
    }
    None
}

struct Parser<'d> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    /// The place behind the last token.
    end: Span,
    /// The unexpected end of the file was reported.
    ended: bool,
    diagnostics: &'d mut Diagnostics,
}

impl Parser<'_> {
    /// Statements up to the `}` that belongs to `opened`, or to the end of the file.
    fn statements(&mut self, opened: Option<&Span>, depth: usize) -> Vec<Statement> {
        let mut statements = Vec::new();
        while let Some(Token { kind, span }) = self.tokens.next() {
            match kind {
                TokenKind::Word(text) if text == "skip" => self.skip(&span),
                TokenKind::Word(text) => statements.extend(self.statement(Word { text, span }, depth)),
                TokenKind::Close if opened.is_some() => return statements,
                TokenKind::Close => {
                    let error =
                        Diagnostic::error(&span, "expected a section or the end of the file, found `}`");
                    // Only the first one is worth a search.
                    let is_first = self.diagnostics.errors.is_empty();
                    let torn = statements.iter().filter(|_| is_first).find_map(Statement::line_break);
                    self.diagnostics.push(match torn {
                        Some(place) => error.related(&place, "`{` may be missing here"),
                        None => error,
                    });
                }
                TokenKind::Semicolon => self.error(&span, "expected a statement, found `;`"),
                TokenKind::Quoted(text) => {
                    self.error(
                        &span,
                        format!("expected an option or a section, found the string {}", quote(&text)),
                    );
                    self.pass();
                }
                TokenKind::Open => {
                    self.error(&span, "expected the name of a section before `{`");
                    self.skip_body(&span);
                }
            }
        }
        if let Some(opened) = opened {
            self.end_of_file("`}`", Some(opened));
        }
        statements
    }

    fn statement(&mut self, keyword: Word, depth: usize) -> Option<Statement> {
        let mut arguments = Vec::new();
        loop {
            if matches!(self.tokens.peek(), Some(Token { kind: TokenKind::Close, .. })) {
                let place = arguments.last().unwrap_or(&keyword).span.after();
                self.error(&place, "expected `;`, found `}`");
                return None;
            }
            let Some(Token { kind, span }) = self.tokens.next() else {
                self.end_of_file("`;` or `{`", None);
                return None;
            };
            match kind {
                TokenKind::Word(text) | TokenKind::Quoted(text) => arguments.push(Word { text, span }),
                TokenKind::Open if depth >= MAX_DEPTH => {
                    self.error(&span, format!("sections are nested deeper than {MAX_DEPTH} levels"));
                    self.skip_body(&span);
                    return None;
                }
                TokenKind::Open => {
                    let body = Some(self.statements(Some(&span), depth + 1));
                    return Some(Statement { keyword, arguments, body, end: span });
                }
                TokenKind::Semicolon | TokenKind::Close => {
                    return Some(Statement { keyword, arguments, body: None, end: span });
                }
            }
        }
    }

    /// Passes over a section. What ends in `;` is none: drbdadm would go on to the end of the next section.
    fn skip(&mut self, start: &Span) {
        while !matches!(self.tokens.peek(), Some(Token { kind: TokenKind::Close, .. }) | None) {
            match self.tokens.next() {
                Some(Token { kind: TokenKind::Open, span }) => return self.skip_body(&span),
                Some(Token { kind: TokenKind::Semicolon, .. }) => break,
                _ => {}
            }
        }
        let error = Diagnostic::error(start, "expected a section behind `skip`");
        self.diagnostics.push(error.help("write `#` before what ends in `;`"));
    }

    /// Passes over a statement that cannot be one.
    fn pass(&mut self) {
        while let Some(next) = self.tokens.peek() {
            match next.kind {
                TokenKind::Close => return,
                TokenKind::Semicolon => return drop(self.tokens.next()),
                TokenKind::Open => {
                    if let Some(Token { span, .. }) = self.tokens.next() {
                        self.skip_body(&span);
                    }
                    return;
                }
                TokenKind::Word(_) | TokenKind::Quoted(_) => drop(self.tokens.next()),
            }
        }
    }

    /// Passes over everything up to the `}` that belongs to `opened`.
    fn skip_body(&mut self, opened: &Span) {
        let mut depth = 1_usize;
        for token in self.tokens.by_ref() {
            match token.kind {
                TokenKind::Open => depth += 1,
                TokenKind::Close => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
        self.end_of_file("`}`", Some(opened));
    }

    fn end_of_file(&mut self, expected: &str, opened: Option<&Span>) {
        if self.ended {
            return;
        }
        self.ended = true;
        let error = Diagnostic::error(&self.end, format!("expected {expected}, found the end of the file"));
        let looks_open = unclosed(self.end.file());
        self.diagnostics.push(match looks_open.as_ref().or(opened) {
            Some(opened) => error.related(opened, "this section is not closed"),
            None => error,
        });
    }

    fn error(&mut self, span: &Span, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message));
    }
}
