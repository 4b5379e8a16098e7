//! The configuration in its normal form, laid out as `drbdadm dump` prints it. What it prints parses to an equal
//! configuration: inherited options stand in every resource, so there is no `common` section.

use std::fmt::Write;

use crate::lexer::is_word_character;
use crate::model::{Config, Host, MetaDisk, Resource, Settings, Volume};
use crate::options::Section;

impl Config {
    /// All resources, each with a header that says where it comes from and whether `node` takes part.
    pub fn dump(&self, node: &str) -> String {
        let mut text = String::new();
        if self.global.settings.iter().next().is_some() {
            section(&mut text, 0, "global", |text| options(text, 1, &self.global.settings, Section::Global));
            text.push('\n');
        }
        for resource in &self.resources {
            text.push_str(&resource.dump(node));
            text.push('\n');
        }
        text
    }
}

impl Resource {
    /// This resource alone, with the header.
    pub fn dump(&self, node: &str) -> String {
        let ignored = if self.local(node).is_some() { "not ignored" } else { "ignored" };
        let (file, line) = &self.source;
        let mut text = String::new();
        let _ = writeln!(text, "# resource {} on {node}: {ignored}, not stacked", self.name);
        let _ = writeln!(text, "# defined at {}:{line}", file.display());
        section(&mut text, 0, &format!("resource {}", self.name), |text| {
            options(text, 1, &self.settings, Section::Resource);
            self.hosts.iter().for_each(|host| dump_host(text, host));
            for one in [Section::Net, Section::Disk, Section::Options, Section::Startup, Section::Handlers] {
                option_section(text, 1, &self.settings, one);
            }
        });
        text
    }
}

fn dump_host(text: &mut String, host: &Host) {
    section(text, 1, &format!("on {}", host.names.join(" ")), |text| {
        statement(text, 2, "node-id", &host.node_id.to_string());
        host.volumes.iter().for_each(|volume| dump_volume(text, volume));
        let family = if host.address.is_ipv4() { "ipv4" } else { "ipv6" };
        statement(text, 2, "address", &format!("{family} {}", host.address));
    });
}

fn dump_volume(text: &mut String, volume: &Volume) {
    section(text, 2, &format!("volume {}", volume.number), |text| {
        let path = |path: &std::path::Path| word(&path.to_string_lossy());
        statement(text, 3, "device", &format!("{} minor {}", path(&volume.device), volume.minor));
        statement(text, 3, "disk", &path(&volume.disk));
        match &volume.meta_disk {
            MetaDisk::Internal => statement(text, 3, "meta-disk", "internal"),
            MetaDisk::External(device) => statement(text, 3, "meta-disk", &path(device)),
        }
        option_section(text, 3, &volume.settings, Section::Disk);
    });
}

fn option_section(text: &mut String, depth: usize, settings: &Settings, one: Section) {
    if settings.iter().any(|(definition, _)| definition.home() == one) {
        section(text, depth, one.keyword(), |text| options(text, depth + 1, settings, one));
    }
}

fn options(text: &mut String, depth: usize, settings: &Settings, section: Section) {
    for (definition, value) in settings.iter().filter(|(definition, _)| definition.home() == section) {
        statement(text, depth, definition.name, &value.to_string());
    }
}

fn section(text: &mut String, depth: usize, header: &str, body: impl FnOnce(&mut String)) {
    let indent = "    ".repeat(depth);
    let _ = writeln!(text, "{indent}{header} {{");
    body(text);
    let _ = writeln!(text, "{indent}}}");
}

fn statement(text: &mut String, depth: usize, name: &str, value: &str) {
    let _ = writeln!(text, "{}{name:<16} {value};", "    ".repeat(depth));
}

/// A word as the grammar reads it back: in quotes if it needs them.
pub(crate) fn word(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_word_character) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
