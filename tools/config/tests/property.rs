//! Configurations made at random, of everything that the grammar has: each one is accepted, and its dump means the same.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use support::Random;
use tandem_config::{Config, Kind, OPTIONS, OptionDef, Section, Value};

const CASES: usize = 120;
const HOSTS: [&str; 4] = ["alpha", "bravo.example.org", "charlie-3", "delta_4"];
/// It names another resource.
const NOT_AT_RANDOM: &[&str] = &["resync-after"];
const TEXTS: [&str; 6] = ["plain", "/usr/bin/x --y", "a \"quoted\" word", "back\\slash", "ü;{#}", "1"];

fn value(option: &OptionDef, random: &mut Random) -> String {
    match option.kind {
        // What fits to every value of the others.
        _ if option.name == "timeout" => (1 + random.below(9)).to_string(),
        _ if ["ping-int", "connect-int"].contains(&option.name) => (7 + random.below(114)).to_string(),
        _ if option.name == "on-congestion" => ["block", "disconnect"][random.below(2)].to_owned(),
        _ if option.name == "fencing" => "resource-only".to_owned(),
        Kind::Flag { .. } => ["", "yes", "no"][random.below(3)].to_owned(),
        Kind::Number { min, max, .. } => (min + random.below((max - min + 1) as usize) as u64).to_string(),
        Kind::Choice(words) => words[random.below(words.len())].replace("NAME", HOSTS[0]),
        Kind::ChoiceOrCount { words, min, max } => match random.below(2) {
            0 => words[random.below(words.len())].to_owned(),
            _ => (min + random.below((max - min + 1) as usize) as u64).to_string(),
        },
        Kind::Digest | Kind::Words | Kind::Text { .. } => {
            Value::Text(TEXTS[random.below(TEXTS.len())].to_owned()).to_string()
        }
        Kind::Address => "127.0.0.1:10809".to_owned(),
    }
}

/// Some options of a section, in braces.
fn section(keyword: &str, section: Section, random: &mut Random) -> String {
    format!("{keyword} {{\n{}}}\n", options(section, random))
}

fn options(section: Section, random: &mut Random) -> String {
    let mut text = String::new();
    let good = |o: &&OptionDef| o.sections.contains(&section) && !NOT_AT_RANDOM.contains(&o.name);
    for option in OPTIONS.iter().filter(good) {
        if random.below(4) == 0 {
            let _ = writeln!(text, "{} {};", option.name, value(option, random));
        }
    }
    text
}

fn some_sections(random: &mut Random) -> String {
    let all = [Section::Net, Section::Disk, Section::Options, Section::Startup, Section::Handlers];
    let mut text = String::new();
    for one in all {
        if random.below(3) == 0 {
            text += &section(one.keyword(), one, random);
        }
    }
    text
}

fn volume(number: usize, minor: usize, random: &mut Random) -> String {
    let disk = match random.below(6) {
        0 => "none".to_owned(),
        1 => format!("\"/dev/a b/{minor}\""),
        _ => format!("/dev/vg/lv{minor}"),
    };
    let meta = ["", "meta-disk internal;", "meta-disk /dev/mdM;", "meta-disk /dev/md [M];"][random.below(4)];
    let options = if random.below(3) == 0 { section("disk", Section::Disk, random) } else { String::new() };
    // That is the connection's, although 8.4 had it there.
    let options = options.replace("fencing resource-only;", "");
    format!(
        "volume {number} {{ device /dev/drbd{minor} minor {minor}; disk {disk}; {} {options} }}\n",
        meta.replace('M', &minor.to_string())
    )
}

fn connections(number: usize, hosts: usize, volumes: usize, random: &mut Random) -> String {
    if random.below(2) == 0 {
        let net = section("net", Section::Net, random);
        return format!("connection-mesh {{ hosts {}; {net} }}\n", HOSTS[..hosts].join(" "));
    }
    let mut text = String::new();
    for (one, other) in (0..hosts).flat_map(|one| (one + 1..hosts).map(move |other| (one, other))) {
        text += "connection {\n";
        let paths = random.below(3);
        for path in 0..paths {
            let _ = writeln!(
                text,
                "path {{ host {} address 172.{path}.{number}.1:7000; host {} address 172.{path}.{number}.2:7000; }}",
                HOSTS[one], HOSTS[other]
            );
        }
        if paths == 0 {
            let _ = writeln!(text, "host {}; host {} port 7777;", HOSTS[one], HOSTS[other]);
        }
        text += &section("net", Section::Net, random);
        text += &section("disk", Section::PeerDevice, random);
        if random.below(2) == 0 {
            let inner = section("peer-device-options", Section::PeerDevice, random);
            let _ = writeln!(text, "volume {} {{ {inner} }}", random.below(volumes));
        }
        text += "}\n";
    }
    text
}

fn resource(number: usize, random: &mut Random) -> String {
    let (hosts, volumes) = (2 + random.below(3), 1 + random.below(3));
    let mut text = format!("resource r{number} {{\n{}", some_sections(random));
    for volume_number in 0..volumes {
        text += &volume(volume_number, 10 * number + volume_number, random);
    }
    if hosts == 2 && random.below(4) == 0 {
        for id in 0..2 {
            let _ = writeln!(text, "floating ipv4 10.0.{number}.{id}:7000 {{ node-id {id}; }}");
        }
        return text + "}\n";
    }
    for (id, name) in HOSTS.iter().enumerate().take(hosts) {
        let _ = writeln!(text, "on {name} {{ node-id {id}; address 10.0.{number}.{id}:7000; }}");
    }
    if hosts > 2 || random.below(2) == 0 {
        text += &connections(number, hosts, volumes, random);
    }
    text + "}\n"
}

fn config(random: &mut Random) -> String {
    let mut text = options(Section::Top, random) + &section("global", Section::Global, random);
    text += &format!("common {{ {} }}\n", some_sections(random));
    (0..1 + random.below(3)).for_each(|number| text += &resource(number, random));
    text
}

#[test]
fn what_is_made_at_random_is_accepted_and_survives_a_dump() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut drawn = BTreeSet::new();
    for case in 0..CASES {
        let text = config(&mut random);
        let parse = |text: &str| {
            Config::parse(Path::new("random.conf"), text)
                .unwrap_or_else(|e| panic!("case {case}:\n{text}\n{e}"))
        };
        let first = parse(&text);
        let dumped = first.dump("alpha");
        drawn.extend(
            OPTIONS.iter().map(|o| o.name).filter(|name| format!("\n{text}").contains(&format!("\n{name} "))),
        );
        let second = parse(&dumped);
        assert_eq!(second, first, "case {case}:\n{text}\n{dumped}");
        let without_places =
            |text: &str| text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert_eq!(without_places(&second.dump("alpha")), without_places(&dumped), "case {case}");
        assert!(first.dump_xml("random.conf").ends_with("</config>\n"));
    }
    let missing: Vec<&str> =
        OPTIONS.iter().map(|option| option.name).filter(|n| !drawn.contains(n)).collect();
    assert_eq!(missing, NOT_AT_RANDOM, "not tried");
}
