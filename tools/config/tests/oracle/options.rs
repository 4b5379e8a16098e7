//! The table of options: what drbdsetup says of each is what the table says.

use std::process::Command;

use tandem_config::{Kind, OPTIONS, OptionDef, Section, Takes, Unit, Value};

/// drbdsetup's commands that set options, where these stand in the file, and whether a resource that is up takes them.
const COMMANDS: &[(&str, Section, bool)] = &[
    ("new-peer", Section::Net, false),
    ("attach", Section::Disk, false),
    ("new-resource", Section::Options, false),
    ("new-minor", Section::Disk, false),
    ("net-options", Section::Net, true),
    ("disk-options", Section::Disk, true),
    ("resource-options", Section::Options, true),
    ("peer-device-options", Section::PeerDevice, true),
];
/// Not of the file.
const OF_THE_COMMAND: &[&str] = &["set-defaults", "_name", "diskless"];
/// Where Tandem's defaults or limits are others, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("al-extents", "drbd.conf(5) allows less and more, which counts as the limit"),
    ("auto-promote", "opening a device does not promote"),
    ("c-delay-target", "the controller is another one"),
    ("c-fill-target", "the controller is another one"),
    ("c-max-rate", "it has no limit that nobody asked for"),
    ("c-min-rate", "a resync that crawls leaves the data on one disk for longer"),
    ("sndbuf-size", "9.3 has a higher limit"),
    ("rcvbuf-size", "9.3 has a higher limit"),
    ("read-balancing", "the default is the first word of the list"),
    ("resync-after", "drbdsetup takes a minor number, the file a name"),
];

/// One option as drbdsetup describes it.
#[derive(Debug)]
struct Theirs {
    name: String,
    kind: String,
    min: Option<u64>,
    max: Option<u64>,
    default: Option<String>,
    unit: Option<char>,
    words: Vec<String>,
}

fn described(command: &str) -> Vec<Theirs> {
    let output = Command::new("drbdsetup").args(["xml-help", command]).output().unwrap();
    assert!(output.status.success(), "drbdsetup xml-help {command}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split("<option ").skip(1).map(option).collect()
}

fn option(xml: &str) -> Theirs {
    let attribute = |name: &str| between(xml, &format!("{name}=\""), "\"").unwrap_or_default().to_owned();
    let element = |name: &str| between(xml, &format!("<{name}>"), "<").map(str::to_owned);
    let words = ["<handler>", "<symbol>"].into_iter().flat_map(|start| xml.split(start).skip(1));
    Theirs {
        name: attribute("name"),
        kind: attribute("type"),
        min: element("min").and_then(|text| text.parse().ok()),
        max: element("max").and_then(|text| text.parse().ok()),
        default: element("default"),
        unit: element("unit_prefix").and_then(|text| text.chars().next()),
        words: words.filter_map(|rest| rest.split('<').next()).map(str::to_owned).collect(),
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(inside, _)| inside)
}

/// What is wrong with our definition.
fn differs(ours: &OptionDef, theirs: &Theirs) -> Option<String> {
    let default = ours.kind.default_value();
    let wrong = match (&ours.kind, theirs.kind.as_str()) {
        (Kind::Flag { .. }, "boolean") => default.map(|value| value.to_string()) != theirs.default,
        (Kind::Number { unit, min, max, .. }, "numeric") => {
            let prefix = match unit {
                Unit::Sectors => 's',
                Unit::KibPerSecond => 'k',
                _ => '1',
            };
            let same_default =
                default == theirs.default.as_ref().and_then(|d| d.parse().ok()).map(Value::Number);
            (Some(*min), Some(*max), Some(prefix)) != (theirs.min, theirs.max, theirs.unit) || !same_default
        }
        (Kind::Choice(words), "handler") => theirs.words.iter().any(|word| !words.contains(&word.as_str())),
        (Kind::ChoiceOrCount { words, min, max }, "numeric-or-symbol") => {
            let known = theirs.words.iter().all(|word| words.contains(&word.as_str()));
            !known || (Some(*min), Some(*max)) != (theirs.min, theirs.max)
        }
        (Kind::Digest | Kind::Text { .. }, "string") => false,
        _ => true,
    };
    wrong.then(|| format!("{}: {:?}\n  {theirs:?}", ours.name, ours.kind))
}

#[test]
#[ignore = "needs drbd-utils"]
fn every_option_of_drbdsetup_is_in_the_table_with_its_range_and_default() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for &(command, section, live) in COMMANDS {
        for theirs in described(command).iter().filter(|o| !OF_THE_COMMAND.contains(&o.name.as_str())) {
            compared += 1;
            let found = OPTIONS.iter().find(|o| o.name == theirs.name && o.sections.contains(&section));
            let Some(ours) = found else {
                wrong.push(format!("{} is missing in {}", theirs.name, section.keyword()));
                continue;
            };
            if live && ours.takes == Takes::WithNextUp && ours.name != "bitmap" {
                wrong.push(format!("{} can be changed live", ours.name));
            }
            if !DIFFERENT.iter().any(|(name, _)| *name == ours.name) {
                wrong.extend(differs(ours, theirs));
            }
        }
    }
    println!("{compared} descriptions compared");
    assert!(compared > 100 && wrong.is_empty(), "{}", wrong.join("\n"));
}
