//! Manual pages from definitions: of a command line as clap has it, of anything else entry by entry.
//!
//! Help texts need nothing special: what stands between backticks is set in bold, an empty line ends a paragraph.

mod command;

use std::fmt::Write;
use std::io;
use std::path::Path;

/// A page that is being written.
#[derive(Debug)]
pub struct Page {
    name: String,
    section: u8,
    text: String,
}

impl Page {
    /// Begins the page `name(section)` of this release; the summary is what `apropos` finds.
    pub fn new(name: &str, section: u8, version: &str, summary: &str) -> Page {
        let mut page = Page { name: name.to_owned(), section, text: String::new() };
        page.request(&format!(
            ".TH \"{}\" {section} \"\" \"Tandem {}\" \"Tandem\"",
            name.to_uppercase(),
            escape(version)
        ));
        // Left-justified, not hyphenated: what is to be typed stays as it is.
        page.request(".nh\n.ad l");
        page.section("name");
        page.line(&format!("{} \\- {}", escape(name), inline(summary)));
        page
    }

    /// A heading.
    pub fn section(&mut self, title: &str) {
        self.request(&format!(".SH \"{}\"", escape(&title.to_uppercase())));
    }

    /// Text between the margins.
    pub fn paragraphs(&mut self, text: &str) {
        for paragraph in paragraphs(text) {
            self.request(".PP");
            self.line(&inline(&paragraph));
        }
    }

    /// What is explained, and the indented explanation.
    pub fn entry(&mut self, term: &Term, text: &str) {
        self.request(".TP");
        self.line(&term.0);
        let mut paragraphs = paragraphs(text).into_iter();
        self.line(&inline(&paragraphs.next().unwrap_or_default()));
        for paragraph in paragraphs {
            self.request(".IP");
            self.line(&inline(&paragraph));
        }
    }

    /// Lines that stay as they are.
    pub fn verbatim(&mut self, text: &str) {
        self.request(".PP\n.nf");
        text.lines().for_each(|line| self.line(&escape(line)));
        self.request(".fi");
    }

    /// Where to read on.
    pub fn see_also(&mut self, pages: &[(&str, u8)]) {
        self.section("see also");
        let shown = pages.iter().map(|(name, section)| format!("\\fB{}\\fR({section})", escape(name)));
        self.line(&shown.collect::<Vec<_>>().join(", "));
    }

    /// The page in roff.
    pub fn roff(&self) -> &str {
        &self.text
    }

    /// Writes the page where `man` looks for it below `folder`.
    pub fn write_below(&self, folder: &Path) -> io::Result<()> {
        let folder = folder.join(format!("man{}", self.section));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{}.{}", self.name, self.section)), &self.text)
    }

    /// A line that begins with a control character on purpose.
    fn request(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A line of text, which must not be taken for a request.
    fn line(&mut self, line: &str) {
        let shield = if line.starts_with(['.', '\'']) || line.is_empty() { "\\&" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{shield}{line}");
    }
}

/// What an entry is about.
#[derive(Clone, Debug, Default)]
pub struct Term(String);

impl Term {
    /// Adds what is typed as it stands.
    pub fn literal(mut self, text: &str) -> Term {
        let _ = write!(self.0, "\\fB{}\\fR", escape(text));
        self
    }

    /// Adds what stands for something else.
    pub fn placeholder(mut self, text: &str) -> Term {
        let _ = write!(self.0, "\\fI{}\\fR", escape(text));
        self
    }

    /// Adds what is neither.
    pub fn plain(mut self, text: &str) -> Term {
        self.0.push_str(&escape(text));
        self
    }
}

/// Lines are joined: they end where the source did.
fn paragraphs(text: &str) -> Vec<String> {
    let joined = |part: &str| part.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(joined).filter(|part| !part.is_empty()).collect()
}

/// With what stands between backticks in bold.
fn inline(text: &str) -> String {
    let mut set = String::new();
    for (place, part) in text.split('`').enumerate() {
        let _ = match place % 2 {
            0 => write!(set, "{}", escape(part)),
            _ => write!(set, "\\fB{}\\fR", escape(part)),
        };
    }
    set
}

/// What roff would take for something else.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '"' => escaped.push_str("\\(dq"),
            '\'' => escaped.push_str("\\(aq"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_taken_for_requests() {
        let mut page = Page::new("x.conf", 5, "1.0", "what `x` reads");
        page.entry(
            &Term::default().literal("--a").plain(" ").placeholder("FILE"),
            "One\ntwo.\n\n.three 'a\\b'",
        );
        page.verbatim("a {\n\n}");
        page.see_also(&[("y", 8), ("z", 1)]);
        let golden = ".TH \"X.CONF\" 5 \"\" \"Tandem 1.0\" \"Tandem\"\n.nh\n.ad l\n.SH \"NAME\"\nx.conf \\- what \\fBx\\fR reads\n\
                      .TP\n\\fB\\-\\-a\\fR \\fIFILE\\fR\nOne two.\n.IP\n\\&.three \\(aqa\\eb\\(aq\n.PP\n.nf\na {\n\\&\n}\n.fi\n\
                      .SH \"SEE ALSO\"\n\\fBy\\fR(8), \\fBz\\fR(1)\n";
        assert_eq!(page.roff(), golden);
    }
}
