//! The pages of `explain`, and docs/troubles.md, which is made of them.

use std::fmt::Write;

use super::{Trouble, all};

const WIDTH: usize = 96;

impl Trouble {
    fn sections(&self) -> [(&'static str, &'static str); 5] {
        let page = &self.page;
        [
            ("What happened", page.happened),
            ("What it means for your data", page.data),
            ("How to look", page.look),
            ("What to do", page.act),
            ("What not to do", page.avoid),
        ]
    }
}

/// What a terminal shows of one trouble.
pub fn text(trouble: &Trouble) -> String {
    let mut text = format!("{} {} ({})\n", trouble.code, trouble.name, trouble.severity.words());
    for (title, body) in trouble.sections() {
        let _ = writeln!(text, "\n{title}");
        for line in body.lines() {
            match is_command(line) {
                true => {
                    let _ = writeln!(text, "  {line}");
                }
                false => wrap(&mut text, line),
            }
        }
    }
    text
}

/// All of them, a line each.
pub fn list() -> String {
    let mut text = String::new();
    for trouble in all() {
        let _ = writeln!(text, "{}  {:<13} {}", trouble.code, trouble.severity.words(), trouble.name);
    }
    text.push_str("\n'tandemadm explain CODE' says what happened, what it means and what to do.\n");
    text
}

/// docs/troubles.md.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Troubles\n\n\
         What `tandemadm status` may remark, by its code; `tandemadm explain CODE` prints the same. `tandemadm status -x` ends with 1 if \
         something is degraded (the data is safe and served, but there is no second copy that is as good, or not yet) and with 2 if \
         something needs a hand (clients wait or fail, no good data is known, or the nodes refuse each other).\n\n\
         Made by `tandemadm explain --markdown`; a test compares.\n\n\
         | code | | |\n|---|---|---|\n",
    );
    for trouble in all() {
        let (code, name) = (trouble.code, trouble.name);
        let _ = writeln!(text, "| [{code}](#{}) | {name} | {} |", anchor(trouble), trouble.severity.words());
    }
    for trouble in all() {
        let _ = write!(text, "\n## {} {}\n", trouble.code, trouble.name);
        for (title, body) in trouble.sections() {
            let _ = write!(text, "\n**{title}.**\n");
            let mut in_code = false;
            for line in body.lines() {
                if std::mem::replace(&mut in_code, is_command(line)) != is_command(line) {
                    text.push('\n');
                }
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

/// Commands stand in lines of their own.
fn is_command(line: &str) -> bool {
    line.starts_with("    ")
}

/// As the readers of Markdown make them of a heading.
fn anchor(trouble: &Trouble) -> String {
    let heading = format!("{} {}", trouble.code, trouble.name).to_lowercase();
    let kept = heading.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn wrap(text: &mut String, paragraph: &str) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            text.push('\n');
            column = 0;
        }
        text.push_str(if column == 0 { "  " } else { " " });
        column += if column == 0 { 2 } else { 1 } + length;
        text.push_str(word);
    }
    text.push('\n');
}
