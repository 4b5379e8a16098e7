//! The configuration as XML, with the elements and attributes of `drbdadm dump-xml`, for tools that read it.

use std::fmt::Write;

use crate::model::{
    Address, Config, Connection, Host, HostKind, MetaDisk, PathEnd, Resource, Verbatim, Volume,
};
use crate::options::{Section, Value};
use crate::settings::Settings;

impl Config {
    /// All resources. `file` is what the configuration was read from.
    pub fn dump_xml(&self, file: &str) -> String {
        let mut xml = Xml::default();
        xml.element("config", &[("file", file)], |xml| {
            if self.global.settings.iter().next().is_some() {
                xml.element("global", &[], |xml| global(xml, &self.global.settings));
            }
            if self.common.iter().next().is_some() {
                xml.element("common", &[], |xml| sections(xml, &self.common));
            }
            self.resources.iter().for_each(|resource| self.resource(xml, resource));
        });
        xml.text
    }

    /// One resource.
    pub fn dump_xml_resource(&self, resource: &Resource) -> String {
        let mut xml = Xml::default();
        self.resource(&mut xml, resource);
        xml.text
    }

    fn resource(&self, xml: &mut Xml, resource: &Resource) {
        let (file, line) = &resource.source;
        let place = format!("{}:{line}", file.display());
        xml.element("resource", &[("name", &resource.name), ("conf-file-line", &place)], |xml| {
            if let Some((file, _)) = &resource.template {
                xml.empty("template", &[("file", &file.to_string_lossy())]);
            }
            for (place, one) in resource.hosts.iter().enumerate() {
                let ends = resource.connections.iter().flat_map(|one| one.paths.iter().flatten());
                let mut ends = ends.filter(|end| end.host == place);
                host(xml, one, one.address.or_else(|| ends.next().map(|end| end.address)));
            }
            resource.connections.iter().for_each(|one| connection(xml, one, &resource.hosts));
            sections(xml, &resource.own_settings(&self.common));
            if !resource.proxy.is_empty() {
                xml.element("section", &[("name", "proxy")], |xml| verbatim(xml, &resource.proxy));
            }
        });
    }
}

fn global(xml: &mut Xml, settings: &Settings) {
    for (definition, value) in settings.iter() {
        match (definition.name, value) {
            (name, Value::Flag(true)) => xml.empty(name, &[]),
            (_, Value::Flag(false)) => {}
            ("minor-count", value) => xml.empty("minor-count", &[("count", &plain(value))]),
            ("dialog-refresh", value) => xml.empty("dialog-refresh", &[("refresh", &plain(value))]),
            // drbdadm has no elements for the others; a name and a value are read by whoever reads options.
            (name, value) => xml.empty("option", &[("name", name), ("value", &plain(value))]),
        }
    }
}

/// A host without an address of its own is shown with that of its first path.
fn host(xml: &mut Xml, host: &Host, reached_at: Option<Address>) {
    let name = host.name();
    let attributes = match &host.kind {
        HostKind::Named(_) => ("name", name.as_str()),
        HostKind::Floating => ("floating", "1"),
        HostKind::Stacked(lower) => ("stacked-on-top-of", lower.as_str()),
    };
    xml.element("host", &[attributes], |xml| {
        host.volumes.iter().for_each(|one| volume(xml, one));
        reached_at.iter().for_each(|one| address(xml, one));
    });
}

fn volume(xml: &mut Xml, volume: &Volume) {
    let (number, minor) = (volume.number.to_string(), volume.minor.to_string());
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    xml.element("volume", &[("vnr", &number)], |xml| {
        section(xml, &volume.settings, Section::Disk);
        xml.leaf("device", &[("minor", &minor)], &path(&volume.device));
        xml.leaf("disk", &[], &volume.disk.as_deref().map_or("none".to_owned(), path));
        match &volume.meta_disk {
            MetaDisk::Internal => xml.leaf("meta-disk", &[], "internal"),
            MetaDisk::External(device) => xml.leaf("meta-disk", &[], &path(device)),
            MetaDisk::Indexed(device, slot) => {
                xml.leaf("meta-disk", &[("index", &slot.to_string())], &path(device));
            }
        }
    });
}

fn connection(xml: &mut Xml, connection: &Connection, hosts: &[Host]) {
    xml.element("connection", &[], |xml| {
        match connection.paths.as_slice() {
            [path] => ends(xml, path, hosts),
            paths => paths.iter().for_each(|path| xml.element("path", &[], |xml| ends(xml, path, hosts))),
        }
        section(xml, &connection.settings, Section::Net);
        section(xml, &connection.settings, Section::Disk);
        for (number, own) in &connection.volumes {
            xml.element("volume", &[("vnr", &number.to_string())], |xml| section(xml, own, Section::Disk));
        }
        if !connection.proxy.is_empty() {
            xml.element("section", &[("name", "proxy")], |xml| verbatim(xml, &connection.proxy));
        }
    });
}

fn ends(xml: &mut Xml, path: &[PathEnd; 2], hosts: &[Host]) {
    for end in path {
        let name = hosts.get(end.host).map(Host::reference).unwrap_or_default();
        xml.element("host", &[("name", &name)], |xml| address(xml, &end.address));
    }
}

fn address(xml: &mut Xml, address: &Address) {
    let (ip, port) = (address.socket.ip().to_string(), address.socket.port().to_string());
    xml.leaf("address", &[("family", address.family.word()), ("port", &port)], &ip);
}

fn sections(xml: &mut Xml, settings: &Settings) {
    Section::OF_RESOURCE.iter().for_each(|one| section(xml, settings, *one));
}

fn section(xml: &mut Xml, settings: &Settings, one: Section) {
    let mut own = settings.iter().filter(|(definition, _)| definition.home() == one).peekable();
    if own.peek().is_some() {
        xml.element("section", &[("name", one.keyword())], |xml| {
            own.for_each(|(definition, value)| option(xml, definition.name, &plain(value)));
        });
    }
}

fn option(xml: &mut Xml, name: &str, value: &str) {
    xml.empty("option", &[("name", name), ("value", value)]);
}

fn verbatim(xml: &mut Xml, kept: &[Verbatim]) {
    for Verbatim { words, body } in kept {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (body, words.as_slice()) {
            (Some(body), words) => {
                xml.element("section", &[("name", &words.join(" "))], |xml| verbatim(xml, body));
            }
            (None, [name, value]) => option(xml, name, value),
            (None, words) => xml.empty("option", &[("name", &words.join(" "))]),
        }
    }
}

/// The value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Elements, one a line, each level indented.
#[derive(Default)]
struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    fn element(&mut self, name: &str, attributes: &[(&str, &str)], inside: impl FnOnce(&mut Self)) {
        self.open(name, attributes, ">\n");
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        let _ = writeln!(self.text, "{:1$}</{name}>", "", 4 * self.depth);
    }

    fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes, ">");
        let _ = writeln!(self.text, "{}</{name}>", escaped(text));
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.open(name, attributes, "/>\n");
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)], end: &str) {
        let _ = write!(self.text, "{:1$}<{name}", "", 4 * self.depth);
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\"{}\"", escaped(value));
        }
        self.text.push_str(end);
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
