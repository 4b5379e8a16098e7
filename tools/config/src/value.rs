//! From a word to the value of an option.

use std::net::{Ipv4Addr, SocketAddr};

use winnow::ascii::digit1;
use winnow::combinator::opt;
use winnow::prelude::*;
use winnow::token::one_of;

use crate::diagnostic::quote;
use crate::options::{Kind, Unit, Value};

/// Parses a value of a kind. The error is a clause for behind the option's name.
pub(crate) fn parse(kind: &Kind, word: &str) -> Result<Value, String> {
    match kind {
        Kind::Flag { .. } => match word {
            "yes" => Ok(Value::Flag(true)),
            "no" => Ok(Value::Flag(false)),
            _ => Err(expected(kind, word)),
        },
        Kind::Number { unit, min, max, .. } => number(kind, *unit, *min..=*max, word),
        Kind::Choice(words) => match words.iter().find(|choice| is_choice(choice, word)) {
            Some(letter) if letter.len() == 1 => Ok(Value::Text((*letter).to_owned())),
            Some(_) => Ok(Value::Text(word.to_owned())),
            None => Err(expected(kind, word)),
        },
        Kind::ChoiceOrCount { words, .. } if words.contains(&word) => Ok(Value::Text(word.to_owned())),
        Kind::ChoiceOrCount { min, max, .. } => {
            number(kind, Unit::Count, *min..=*max, word).map(|count| Value::Text(count.to_string()))
        }
        Kind::Text { max_bytes } if word.len() > *max_bytes => {
            Err(format!("is too long: expected at most {max_bytes} bytes, found {}", word.len()))
        }
        Kind::Digest | Kind::Text { .. } | Kind::Words => Ok(Value::Text(word.to_owned())),
        Kind::Address => address(word).map(Value::Address),
    }
}

/// A choice that ends with `NAME` leaves the rest of the word open, and one that is a letter may be a small one.
fn is_choice(choice: &str, word: &str) -> bool {
    match choice.strip_suffix("NAME") {
        Some(beginning) => word.strip_prefix(beginning).is_some_and(|name| !name.is_empty()),
        None if choice.len() == 1 => choice.eq_ignore_ascii_case(word),
        None => choice == word,
    }
}

/// The digest of which a word names one of the kernel's implementations, or the digest itself.
pub(crate) fn digest(word: &str) -> &str {
    word.split_once('-').map_or(word, |(digest, _)| digest)
}

/// Parses `IP:PORT`, with IPv6 in brackets.
pub fn address(word: &str) -> Result<SocketAddr, String> {
    let found = quote(word);
    if word.contains('%') {
        return Err(format!(
            "expected an address without an interface, such as a unique local one (fd00::/8), found {found}"
        ));
    }
    if let Ok(ip) = word.parse::<Ipv4Addr>() {
        return Err(format!("expected IP:PORT, as in `{ip}:7788`, found {found}"));
    }
    let parsed = word.parse::<SocketAddr>().map_err(|_| {
        format!("expected IP:PORT (IPv6 in brackets; host names are not looked up), found {found}")
    })?;
    match parsed.port() {
        0 => Err(format!("expected a port from 1 to 65535, found {found}")),
        _ => Ok(parsed),
    }
}

/// Parses a plain decimal number up to `max`.
pub fn plain_number(word: &str, max: u32) -> Result<u32, String> {
    digits(word)
        .ok()
        .and_then(|(number, suffix)| if suffix.is_none() { u32::try_from(number).ok() } else { None })
        .filter(|&number| number <= max)
        .ok_or_else(|| format!("expected a number from 0 to {max}, found {}", quote(word)))
}

fn number(
    kind: &Kind,
    unit: Unit,
    range: std::ops::RangeInclusive<u64>,
    word: &str,
) -> Result<Value, String> {
    let (number, suffix) = digits(word).map_err(|()| expected(kind, word))?;
    let scaled = match suffix {
        None => Some(number),
        Some(suffix) => {
            let factor = factor(unit, suffix).ok_or_else(|| expected(kind, word))?;
            let product = number.checked_mul(factor);
            match (product, unit.bytes()) {
                (Some(bytes), Some(unit_bytes)) if bytes % unit_bytes != 0 => {
                    return Err(format!("expected a multiple of {unit_bytes} bytes, found {}", quote(word)));
                }
                (Some(bytes), Some(unit_bytes)) => Some(bytes / unit_bytes),
                (product, _) => product,
            }
        }
    };
    match scaled.filter(|scaled| range.contains(scaled)) {
        Some(scaled) => Ok(Value::Number(scaled)),
        None => Err(format!("is out of range: expected {}, found {}", kind.expected(), quote(word))),
    }
}

/// What to do about a number with a unit that is none.
pub(crate) fn about_units(kind: &Kind, word: &str) -> Option<&'static str> {
    let Kind::Number { unit, .. } = kind else { return None };
    let behind = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let has_unit = behind.len() < word.len() && behind.starts_with(|c: char| c.is_ascii_alphabetic());
    has_unit.then_some(match unit {
        _ if behind.starts_with(['x', 'X']) => "numbers are decimal",
        Unit::Seconds | Unit::Tenths | Unit::Milliseconds => "times have no suffix",
        Unit::Count => "the suffixes are K, M, G and T: powers of 1024",
        _ => "the suffixes are K, M, G and T: powers of 1024; and s: sectors of 512 bytes",
    })
}

/// What a suffix multiplies a number by: bytes for sizes, 1 for counts; `None` if the unit takes no such suffix.
fn factor(unit: Unit, suffix: char) -> Option<u64> {
    match (unit, suffix) {
        (Unit::Seconds | Unit::Tenths | Unit::Milliseconds, _) | (Unit::Count, 's') => None,
        (_, 's') => Some(512),
        (_, 'K' | 'k') => Some(1 << 10),
        (_, 'M' | 'm') => Some(1 << 20),
        (_, 'G' | 'g') => Some(1 << 30),
        (_, 'T' | 't') => Some(1 << 40),
        _ => None,
    }
}

fn digits(word: &str) -> Result<(u64, Option<char>), ()> {
    let digits = digit1::<&str, winnow::error::EmptyError>.map(saturating);
    let suffix = opt(one_of(['s', 'K', 'k', 'M', 'm', 'G', 'g', 'T', 't']));
    (digits, suffix).parse(word).map_err(|_| ())
}

/// A number with too many digits is as good as the largest: both are out of every range.
fn saturating(digits: &str) -> u64 {
    digits.parse().unwrap_or(u64::MAX)
}

fn expected(kind: &Kind, word: &str) -> String {
    format!("expected {}, found {}", kind.expected(), quote(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unit: Unit, word: &str) -> Result<Value, String> {
        parse(&Kind::Number { unit, default: 0, min: 0, max: 1 << 40 }, word)
    }

    #[test]
    fn suffixes_count_in_bytes_and_plain_numbers_in_the_options_unit() {
        assert_eq!(of(Unit::KibPerSecond, "250"), Ok(Value::Number(250)));
        assert_eq!(of(Unit::KibPerSecond, "100M"), Ok(Value::Number(102_400)));
        assert_eq!(of(Unit::Bytes, "2s"), Ok(Value::Number(1024)));
        assert_eq!(of(Unit::Bytes, "1T"), Ok(Value::Number(1 << 40)));
        assert_eq!(of(Unit::Sectors, "50K"), Ok(Value::Number(100)));
        assert_eq!(of(Unit::Count, "2K"), Ok(Value::Number(2048)));
    }

    #[test]
    fn odd_suffixes_and_overflow_are_refused() {
        assert!(of(Unit::Seconds, "5s").is_err());
        assert!(of(Unit::Count, "5s").is_err());
        assert!(of(Unit::KibPerSecond, "3s").unwrap_err().contains("multiple of 1024 bytes"));
        assert!(of(Unit::Bytes, "99999999999999999999T").unwrap_err().contains("out of range"));
        assert!(of(Unit::Bytes, "-1").is_err());
        assert!(of(Unit::Bytes, "").is_err());
        assert!(of(Unit::Bytes, "1KK").is_err());
    }
}
