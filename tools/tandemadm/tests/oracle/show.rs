//! `show` has options in drbdsetup's order, with its suffixes and units, which its help tells without the kernel module.

use std::process::Command;

use crate::support::{Node, connected, snapshot};

/// An option that only Tandem has.
const OURS_ALONE: &str = "handler-timeout";

/// The names of a command's options, each with the suffix and the unit of its numbers.
fn theirs(command: &str) -> Vec<(String, String)> {
    let output = Command::new("drbdsetup").args(["xml-help", command]).output().unwrap();
    let xml = String::from_utf8(output.stdout).unwrap();
    let options = xml.split("<option name=\"").skip(1).map(|option| {
        let element = |name: &str| {
            let (_, rest) = option.split_once(&format!("<{name}>"))?;
            Some(rest.split_once('<')?.0)
        };
        let name = option.split('"').next().unwrap();
        let suffix = element("unit_prefix").filter(|prefix| *prefix != "1").unwrap_or_default();
        (name.to_owned(), format!("{suffix};{}", element("unit").unwrap_or_default()))
    });
    options.collect()
}

/// The same of a section of `show --show-defaults`.
fn ours<'a>(lines: &mut impl Iterator<Item = &'a str>, section: &str) -> Vec<(String, String)> {
    let inside = lines.skip_while(|line| line.trim() != format!("{section} {{")).skip(1);
    let options = inside.take_while(|line| line.trim() != "}").map(|line| {
        let (name, value) = line.trim().split_once('\t').unwrap();
        let (value, remark) = value.split_once(';').unwrap();
        let suffix = value.trim_start_matches(|c: char| c.is_ascii_digit());
        let suffix = if suffix.len() == 1 && value.len() > 1 { suffix } else { "" };
        let unit = remark.trim_start_matches(" # ").trim_end_matches("default").trim_end_matches(", ");
        (name.trim().to_owned(), format!("{suffix};{unit}"))
    });
    options.filter(|(name, _)| name != OURS_ALONE).collect()
}

#[test]
#[ignore = "needs drbd-utils"]
fn options_stand_in_drbdsetups_order_with_its_units() {
    let node = Node::new(1 << 20);
    node.daemon(|_| snapshot(connected()));
    let text = node.adm("show --show-defaults r0").expect(0, &[]).stdout.clone();
    let mut lines = text.lines();
    for (section, command) in [
        ("options", "resource-options"),
        ("disk", "attach"),
        ("net", "new-peer"),
        ("disk", "peer-device-options"),
    ] {
        let (ours, mut theirs) = (ours(&mut lines, section), theirs(command));
        assert!(!ours.is_empty(), "{section} in\n{text}");
        theirs.retain(|(name, _)| ours.iter().any(|(own, _)| own == name));
        assert_eq!(ours, theirs, "{section}");
    }
}
