//! Just enough of Rust's grammar to tell code from comments and strings.

/// The text with every comment and every string's content replaced by blanks, line by line.
pub(super) fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + hidden_length(&text[at..], at.checked_sub(1).map(|i| bytes[i]));
        if end > at {
            out.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at = end;
        } else {
            let length = text[at..].chars().next().map_or(1, char::len_utf8);
            out.extend_from_slice(&bytes[at..at + length]);
            at += length;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// True if the line holds the word, not as a part of a longer one. The word's own ends decide: `!` needs no border.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !(before.is_some_and(is_part) || word.ends_with(is_part) && after.is_some_and(is_part))
    })
}

/// Bytes of the comment, string or character literal that begins the text; 0 if none does.
fn hidden_length(text: &str, before: Option<u8>) -> usize {
    let in_word = before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        block_comment_length(text)
    } else if text.starts_with('"') {
        quoted_length(text)
    } else if text.starts_with('r') && !in_word {
        raw_string_length(text)
    } else if text.starts_with('\'') {
        char_literal_length(text)
    } else {
        0
    }
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    if text.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    text[start..].find(&close).map_or(text.len(), |at| start + at + close.len())
}

/// A character literal, as opposed to a lifetime.
fn char_literal_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let start = at + escaped.len_utf8();
            text[start..].find('\'').map_or(0, |at| start + at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_disappear() {
        let code =
            |text: &str| without_comments_and_strings(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(code(r#"a("b \" c", 'd', '\'', '"', 'e') f"#), "a( , , , , ) f");
        assert_eq!(code("a(r#\"b \" c\"#) d r\"e\" for_r"), "a( ) d for_r");
        assert_eq!(code("fn a<'b>(c: &'b str) -> 'b"), "fn a<'b>(c: &'b str) -> 'b");
        assert_eq!(without_comments_and_strings("/* a\nb */c\n").lines().count(), 2);
        assert_eq!(code("'ä' 'x' é"), "é");
    }

    #[test]
    fn words_have_borders() {
        assert!(has_word("use std::fs::File;", "std::fs"));
        assert!(has_word("x!(1)", "x!"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("operand", "rand"));
    }
}
