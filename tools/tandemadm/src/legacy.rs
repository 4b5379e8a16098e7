//! Spellings of drbdadm's that are not options of a verb.

use std::ffi::OsString;

/// What stands behind `--` is meant for the verb: `-- --overwrite-data-of-peer primary r0` of 8.4 and `primary r0 --
/// --force` are `primary --force r0`. No name begins with a dash.
pub fn without_separator(mut line: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = line.iter().position(|word| word == "--") else { return line };
    let behind = line.split_off(at);
    let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let (options, mut names): (Vec<_>, Vec<_>) = behind.into_iter().skip(1).partition(is_option);
    // Without a verb before, the first of the names is it.
    line.extend(names.drain(..names.len().min(1)));
    line.extend(options);
    line.extend(names);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_behind_two_dashes_are_the_verbs() {
        let modern = |line: &str| {
            let words = without_separator(line.split(' ').map(OsString::from).collect());
            words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        for (line, same) in [
            ("adm primary r0", "adm primary r0"),
            ("adm -- --overwrite-data-of-peer primary r0", "adm primary --overwrite-data-of-peer r0"),
            ("adm -c x -- --clear-bitmap new-current-uuid r0", "adm -c x new-current-uuid --clear-bitmap r0"),
            ("adm primary r0 -- --force", "adm primary r0 --force"),
            ("adm connect -- --discard-my-data r0 r1", "adm connect r0 --discard-my-data r1"),
            ("adm up --", "adm up"),
        ] {
            assert_eq!(modern(line), same, "{line}");
        }
    }
}
