//! Reads the main file and what it includes.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::glob::expand;
use crate::language::missing_semicolon;
use crate::source::{SourceFile, Span};
use crate::tree::{Statement, Word, parse};

/// The statement of a resource that names what holds for it in place of `common`.
pub(crate) const TEMPLATE: &str = "template-file";

/// Ten thousand resources are a few MiB; a larger file is a mistake (a disk image, a log).
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 20;
/// Files read in one run: bounds what includes that fan out can cost.
const MAX_FILES: usize = 16_384;
/// All of their text.
const MAX_TOTAL_BYTES: usize = 64 << 20;
/// Includes inside includes.
const MAX_INCLUDE_DEPTH: usize = 16;

/// What is read together.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The main file.
    pub path: &'a Path,
    /// Its text, if that is there already.
    pub text: Option<&'a str>,
    /// A file that is read behind it, as if it were included there.
    pub more: Option<&'a Path>,
    /// A file that is not read where it is included.
    pub excluded: Option<&'a Path>,
}

impl<'a> Sources<'a> {
    /// One file, with its includes.
    pub fn file(path: &'a Path) -> Self {
        Self { path, text: None, more: None, excluded: None }
    }
}

/// All top-level statements of the file and of its includes, in order.
pub fn load(path: &Path, diagnostics: &mut Diagnostics) -> Vec<Statement> {
    load_all(Sources::file(path), diagnostics)
}

/// As [`load`], of a text that stands for the file `path`.
pub fn load_text(path: &Path, text: &str, diagnostics: &mut Diagnostics) -> Vec<Statement> {
    load_all(Sources { text: Some(text), ..Sources::file(path) }, diagnostics)
}

pub(crate) fn load_all(sources: Sources<'_>, diagnostics: &mut Diagnostics) -> Vec<Statement> {
    let mut loader = Loader {
        diagnostics,
        main: sources.path,
        excluded: sources.excluded.and_then(|path| fs::canonicalize(path).ok()),
        read: HashSet::new(),
        templates: HashMap::new(),
        depth: 0,
        bytes: 0,
    };
    let mut all = match sources.text {
        None => loader.file(sources.path, None),
        Some(text) if text.len() as u64 > MAX_FILE_BYTES => {
            loader.unreadable(sources.path, None, &too_large());
            Vec::new()
        }
        Some(text) => loader.text(&SourceFile::new(sources.path.to_owned(), text.to_owned())),
    };
    all.extend(sources.more.into_iter().flat_map(|path| loader.file(path, None)));
    all
}

struct Loader<'d> {
    diagnostics: &'d mut Diagnostics,
    /// What is read first.
    main: &'d Path,
    /// The canonical path of what is not included.
    excluded: Option<PathBuf>,
    /// The canonical paths of the files that were read: each is read once, as by drbdadm.
    read: HashSet<PathBuf>,
    /// The template files that were read, by their canonical paths.
    templates: HashMap<PathBuf, Arc<SourceFile>>,
    /// Includes that are open.
    depth: usize,
    /// What was read so far.
    bytes: usize,
}

impl Loader<'_> {
    fn file(&mut self, path: &Path, from: Option<&Span>) -> Vec<Statement> {
        let source = match self.enter(path) {
            Ok(true) => self.source(path),
            Ok(false) => return Vec::new(),
            Err(reason) => Err(reason),
        };
        match source {
            Ok(file) => {
                self.depth += 1;
                let statements = self.text(&file);
                self.depth -= 1;
                statements
            }
            Err(reason) => {
                self.unreadable(path, from, &reason);
                Vec::new()
            }
        }
    }

    /// Notes that `path` is being read, unless a limit forbids it; false if it was before.
    fn enter(&mut self, path: &Path) -> Result<bool, String> {
        let canonical = fs::canonicalize(path).map_err(|error| error.to_string())?;
        if self.read.contains(&canonical) || self.excluded.as_ref() == Some(&canonical) {
            return Ok(false);
        }
        if self.depth > MAX_INCLUDE_DEPTH {
            return Err(format!("includes are nested deeper than {MAX_INCLUDE_DEPTH} levels"));
        }
        if self.read.len() >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files are included"));
        }
        self.read.insert(canonical);
        Ok(true)
    }

    fn source(&mut self, path: &Path) -> Result<Arc<SourceFile>, String> {
        if self.bytes > MAX_TOTAL_BYTES {
            return Err(format!("more than {} MiB are included", MAX_TOTAL_BYTES >> 20));
        }
        let text = read(path)?;
        self.bytes += text.len();
        Ok(SourceFile::new(path.to_owned(), text))
    }

    fn text(&mut self, file: &Arc<SourceFile>) -> Vec<Statement> {
        let mut all = Vec::new();
        for mut statement in parse(file, self.diagnostics) {
            if statement.name() == "include" {
                all.extend(self.include(&statement));
                continue;
            }
            if statement.name() == "resource" {
                let inside = statement.body.iter_mut().flatten();
                inside.filter(|inner| inner.name() == TEMPLATE).for_each(|inner| self.template(inner));
            }
            all.push(statement);
        }
        all
    }

    fn include(&mut self, statement: &Statement) -> Vec<Statement> {
        let Some(pattern) = self.file_name(statement) else { return Vec::new() };
        let pattern_path = beside(pattern);
        match expand(&pattern_path) {
            Ok(paths) => {
                if let Some(folder) = pattern_path.parent().filter(|_| paths.is_empty())
                    && !folder.exists()
                {
                    let text = format!("there is no folder {}", quote(&folder.to_string_lossy()));
                    self.diagnostics.push(Diagnostic::warning(&pattern.span, text));
                }
                paths.iter().flat_map(|path| self.file(path, Some(&pattern.span))).collect()
            }
            Err((path, reason)) => {
                self.unreadable(&path, Some(&pattern.span), &reason.to_string());
                Vec::new()
            }
        }
    }

    /// Gives `template-file` the statements of its file for a body. Many resources may have one template.
    fn template(&mut self, statement: &mut Statement) {
        let Some(name) = self.file_name(statement) else { return };
        let path = beside(name);
        let canonical = fs::canonicalize(&path).ok();
        let known = canonical.as_ref().and_then(|path| self.templates.get(path)).map(Arc::clone);
        let source = known.map_or_else(|| self.source(&path), Ok);
        match source {
            Ok(file) => {
                statement.body = Some(parse(&file, self.diagnostics));
                self.templates.extend(canonical.map(|path| (path, file)));
            }
            Err(reason) => self.unreadable(&path, Some(&name.span), &reason),
        }
    }

    /// The one word of a statement that names files.
    fn file_name<'a>(&mut self, statement: &'a Statement) -> Option<&'a Word> {
        let error = match (statement.arguments.as_slice(), &statement.body) {
            ([name], None) => return Some(name),
            ([_], Some(_)) => Diagnostic::error(&statement.end, "expected `;`, found `{`"),
            (others, _) => missing_semicolon(statement, 1).unwrap_or_else(|| {
                let found = others.len();
                let message = format!("expected one file name behind `{}`, found {found}", statement.name());
                Diagnostic::error(others.get(1).map_or(&statement.end, |word| &word.span), message)
            }),
        };
        self.diagnostics.push(error);
        None
    }

    fn unreadable(&mut self, path: &Path, from: Option<&Span>, reason: &str) {
        let is_main = from.is_none() && path == self.main;
        let message = format!("cannot read {}: {reason}", quote(&path.to_string_lossy()));
        let error = Diagnostic::error_at(from, message);
        self.diagnostics.push(if is_main { error.help("`-c FILE` names another") } else { error });
    }
}

/// Names are relative to the file that they stand in.
pub(crate) fn beside(name: &Word) -> PathBuf {
    name.span.path().parent().unwrap_or(Path::new("")).join(&name.text)
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}; run it as root"),
        _ => error.to_string(),
    })?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large());
    }
    // Old files have comments in other encodings. What matters must be UTF-8: the lexer sees to it.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn too_large() -> String {
    format!("it is larger than {} KiB, the limit for a configuration file", MAX_FILE_BYTES >> 10)
}
