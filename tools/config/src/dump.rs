//! The configuration in its normal form, laid out as `drbdadm dump` prints it. What it prints parses to an equal
//! configuration: every connection of a mesh stands alone, and every volume stands in its hosts.

use std::fmt::Write;

use crate::check::WORDS;
use crate::lexer::is_word_character;
use crate::load::TEMPLATE;
use crate::model::{Config, Connection, Host, HostKind, MetaDisk, PathEnd, Resource, Verbatim, Volume};
use crate::options::{Section, Value};
use crate::settings::Settings;

/// drbdadm reads longer words in quotes only.
const MAX_PLAIN_BYTES: usize = 120;

impl Config {
    /// All resources, each with a header that says where it comes from and whether `node` takes part.
    pub fn dump(&self, node: &str) -> String {
        let mut text = String::new();
        options(&mut text, 0, &self.global.settings, Section::Top);
        let has = |settings: &Settings, section| settings.iter().any(|(option, _)| option.home() == section);
        if has(&self.global.settings, Section::Global) {
            section(&mut text, 0, "global", |text| options(text, 1, &self.global.settings, Section::Global));
        }
        if self.common.iter().next().is_some() {
            section(&mut text, 0, "common", |text| {
                Section::OF_RESOURCE.iter().for_each(|one| option_section(text, 1, &self.common, *one));
            });
        }
        for resource in &self.resources {
            text.push_str(&self.dump_resource(resource, node));
            text.push('\n');
        }
        text
    }

    /// One resource, with the header; what it has from `common` stands there only.
    pub fn dump_resource(&self, resource: &Resource, node: &str) -> String {
        let ignored = if resource.local(node).is_some() { "not ignored" } else { "ignored" };
        let stacked = |host: &Host| matches!(host.kind, HostKind::Stacked(_));
        let stacked = if resource.hosts.iter().any(stacked) { "stacked" } else { "not stacked" };
        let (file, line) = &resource.source;
        let own = resource.own_settings(&self.common);
        let mut text = String::new();
        let _ = writeln!(text, "# resource {} on {node}: {ignored}, {stacked}", resource.name);
        let _ = writeln!(text, "# defined at {}:{line}", file.display());
        section(&mut text, 0, &format!("resource {}", name(&resource.name)), |text| {
            if let Some((file, _)) = &resource.template {
                statement(text, 1, TEMPLATE, &word(&file.to_string_lossy()));
            }
            options(text, 1, &own, Section::Resource);
            resource.hosts.iter().for_each(|host| dump_host(text, host));
            let explicit = resource.connections.iter().filter(|connection| !connection.implicit);
            explicit.for_each(|connection| dump_connection(text, connection, &resource.hosts));
            Section::OF_RESOURCE.iter().for_each(|one| option_section(text, 1, &own, *one));
            dump_proxy(text, 1, &resource.proxy);
        });
        text
    }
}

fn dump_host(text: &mut String, host: &Host) {
    let header = match (&host.kind, &host.address) {
        (HostKind::Named(names), _) => {
            format!("on {}", names.iter().map(|one| name(one)).collect::<Vec<_>>().join(" "))
        }
        (HostKind::Floating, Some(address)) => format!("floating {address}"),
        (HostKind::Floating, None) => "floating".to_owned(),
        (HostKind::Stacked(lower), _) => format!("stacked-on-top-of {}", name(lower)),
    };
    section(text, 1, &header, |text| {
        statement(text, 2, "node-id", &host.node_id.to_string());
        let stacked = matches!(host.kind, HostKind::Stacked(_));
        host.volumes.iter().for_each(|volume| dump_volume(text, volume, stacked));
        if let (Some(address), false) = (&host.address, host.kind == HostKind::Floating) {
            statement(text, 2, "address", &address.to_string());
        }
        host.proxy.iter().for_each(|proxy| verbatim(text, 2, proxy));
    });
}

/// What is stacked has the lower resource's device for its disk, and no statement that says so.
fn dump_volume(text: &mut String, volume: &Volume, stacked: bool) {
    section(text, 2, &format!("volume {}", volume.number), |text| {
        let path = |path: &std::path::Path| word(&path.to_string_lossy());
        option_section(text, 3, &volume.settings, Section::Disk);
        statement(text, 3, "device", &format!("{} minor {}", path(&volume.device), volume.minor));
        if stacked && volume.disk.is_none() {
            return;
        }
        statement(text, 3, "disk", &volume.disk.as_deref().map_or("none".to_owned(), path));
        match &volume.meta_disk {
            MetaDisk::Internal => statement(text, 3, "meta-disk", "internal"),
            MetaDisk::External(device) => statement(text, 3, "meta-disk", &path(device)),
            MetaDisk::Indexed(device, slot) => {
                statement(text, 3, "meta-disk", &format!("{} [{slot}]", path(device)));
            }
        }
    });
}

fn dump_connection(text: &mut String, connection: &Connection, hosts: &[Host]) {
    section(text, 1, "connection", |text| {
        for path in &connection.paths {
            section(text, 2, "path", |text| {
                path.iter().for_each(|end| dump_end(text, end, hosts));
            });
        }
        option_section(text, 2, &connection.settings, Section::Net);
        option_section(text, 2, &connection.settings, Section::Disk);
        for (number, own) in &connection.volumes {
            section(text, 2, &format!("volume {number}"), |text| option_section(text, 3, own, Section::Disk));
        }
        dump_proxy(text, 2, &connection.proxy);
    });
}

fn dump_end(text: &mut String, end: &PathEnd, hosts: &[Host]) {
    let host = hosts.get(end.host).map(|host| name(&host.reference())).unwrap_or_default();
    match &end.via {
        None => statement(text, 3, "host", &format!("{host} address {}", end.address)),
        Some(Verbatim { words, body }) => {
            let via: Vec<String> = words.iter().map(|one| word(one)).collect();
            let header = format!("host {host} address {} {}", end.address, via.join(" "));
            section(text, 3, &header, |text| body.iter().flatten().for_each(|one| verbatim(text, 4, one)));
        }
    }
}

fn dump_proxy(text: &mut String, depth: usize, proxy: &[Verbatim]) {
    if !proxy.is_empty() {
        section(text, depth, "proxy", |text| proxy.iter().for_each(|one| verbatim(text, depth + 1, one)));
    }
}

fn verbatim(text: &mut String, depth: usize, kept: &Verbatim) {
    let mut words = kept.words.iter();
    // The keyword of a statement has no quotes.
    let keyword = words.next().cloned();
    let line: Vec<String> =
        keyword.into_iter().chain(words.map(|text| quoted_unless(text, is_word_character))).collect();
    match &kept.body {
        None => statement(text, depth, &line.join(" "), ""),
        Some(body) => section(text, depth, &line.join(" "), |text| {
            body.iter().for_each(|inner| verbatim(text, depth + 1, inner));
        }),
    }
}

fn option_section(text: &mut String, depth: usize, settings: &Settings, one: Section) {
    if settings.iter().any(|(definition, _)| definition.home() == one) {
        section(text, depth, one.keyword(), |text| options(text, depth + 1, settings, one));
    }
}

fn options(text: &mut String, depth: usize, settings: &Settings, section: Section) {
    for (definition, value) in settings.iter().filter(|(definition, _)| definition.home() == section) {
        // drbdadm knows flags of `global`, and some of `startup`, only without a word behind them.
        let value = match (section, value) {
            (Section::Global | Section::Startup, Value::Flag(true)) => String::new(),
            (_, value) => value.to_string(),
        };
        statement(text, depth, definition.name, &value);
    }
}

fn section(text: &mut String, depth: usize, header: &str, body: impl FnOnce(&mut String)) {
    let indent = "    ".repeat(depth);
    let _ = writeln!(text, "{indent}{header} {{");
    body(text);
    let _ = writeln!(text, "{indent}}}");
}

fn statement(text: &mut String, depth: usize, name: &str, value: &str) {
    let indent = "    ".repeat(depth);
    let _ = match value {
        "" => writeln!(text, "{indent}{name};"),
        value => writeln!(text, "{indent}{name:<16} {value};"),
    };
}

/// A word as the grammar reads it back, drbdadm's too: in quotes if it needs them.
pub(crate) fn word(text: &str) -> String {
    quoted_unless(text, |c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// The same of a resource or a host, which drbdadm takes for a keyword or a number otherwise.
fn name(text: &str) -> String {
    let is_keyword = WORDS.iter().any(|one| one.name == text);
    let is_special = is_keyword || text.starts_with(|c: char| c.is_ascii_digit());
    if is_special { quoted_unless(text, |_| false) } else { word(text) }
}

fn quoted_unless(text: &str, is_plain: impl Fn(char) -> bool) -> String {
    if (1..MAX_PLAIN_BYTES).contains(&text.len()) && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
