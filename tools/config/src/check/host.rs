//! `on` and `volume` sections, and what `device`, `disk`, `meta-disk` and `address` say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::settings::{self, Assigned};
use super::unknown;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{body, missing_semicolon, section_body, words};
use crate::model::{DiskOptions, Host, MetaDisk, Volume};
use crate::options::Section;
use crate::source::Span;
use crate::tree::{Statement, Word};
use crate::value;

/// DRBD's limits: 16 bits less two special numbers, 20 bits of minors.
const MAX_VOLUME: u32 = 65_534;
const MAX_MINOR: u32 = (1 << 20) - 1;
const MAX_NODE_ID: u32 = 31;
/// A host has a short name and a full one, perhaps an old one.
const MAX_HOST_NAMES: usize = 16;
const VOLUME_STATEMENTS: &[&str] = &["device", "disk", "meta-disk"];
const HOST_STATEMENTS: &[&str] = &["device", "disk", "address", "meta-disk", "node-id", "volume"];

/// A statement that may stand once: whether it did, and its value if that was good.
#[derive(Clone, Debug)]
pub(super) struct Slot<T> {
    pub(super) span: Option<Span>,
    pub(super) value: Option<T>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { span: None, value: None }
    }
}

impl<T: Clone> Slot<T> {
    fn fill(&mut self, statement: &Statement, value: Option<T>, diagnostics: &mut Diagnostics) {
        if let Some(earlier) = &self.span {
            let error = Diagnostic::error(statement.span(), format!("duplicate `{}`", statement.name()));
            diagnostics.push(error.related(earlier, "it is first set here"));
            return;
        }
        *self = Self { span: Some(statement.span().clone()), value };
    }

    fn overlay(&mut self, over: &Self) {
        if over.span.is_some() {
            *self = over.clone();
        }
    }

    /// The value; reports the statement as missing unless it stood there with a bad value.
    fn required(self, name: &str, host: &HostParts, diagnostics: &mut Diagnostics) -> Option<T> {
        if self.span.is_none() {
            let message = format!("`on {}` has no `{name}`", host.names.join(" "));
            let help = match name {
                "address" => "add `address IP:PORT;`",
                "device" => "add `device /dev/drbdN;`, here or in the resource",
                "disk" => "add `disk PATH;`, here or in the resource",
                _ => "add `meta-disk internal;`, here or in the resource",
            };
            diagnostics.push(Diagnostic::error(&host.span, message).help(help));
        }
        self.value
    }
}

/// The device of a volume: its node and its minor number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    path: PathBuf,
    pub(super) minor: u32,
}

/// What is said of one volume, at one level or merged.
#[derive(Clone, Debug, Default)]
pub(super) struct VolumeParts {
    pub(super) device: Slot<Device>,
    pub(super) disk: Slot<PathBuf>,
    pub(super) meta_disk: Slot<MetaDisk>,
    options: Assigned,
}

impl VolumeParts {
    /// Reads one statement; false if it does not concern a volume.
    fn read(&mut self, statement: &Statement, diagnostics: &mut Diagnostics) -> bool {
        match statement.name() {
            "device" => self.device.fill(statement, device(statement, diagnostics), diagnostics),
            "meta-disk" => self.meta_disk.fill(statement, meta_disk(statement, diagnostics), diagnostics),
            "disk" if statement.body.is_none() => {
                self.disk.fill(statement, disk(statement, diagnostics), diagnostics);
            }
            "disk" => {
                if let Some(body) = section_body(statement, diagnostics) {
                    settings::section(Section::Disk, body, &mut self.options, diagnostics);
                }
            }
            _ => return false,
        }
        true
    }

    fn overlay(&mut self, over: &Self) {
        self.device.overlay(&over.device);
        self.disk.overlay(&over.disk);
        self.meta_disk.overlay(&over.meta_disk);
        self.options = settings::inherit(&self.options, &over.options);
    }
}

/// What is said of volumes at one level: with `volume N {}`, and without, which counts for all.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    implicit: VolumeParts,
    numbered: BTreeMap<u32, VolumeParts>,
}

impl Volumes {
    /// Reads one statement of a `resource` or `on` section; false if it does not concern volumes.
    pub(super) fn read(&mut self, statement: &Statement, diagnostics: &mut Diagnostics) -> bool {
        if statement.name() != "volume" {
            return self.implicit.read(statement, diagnostics);
        }
        if let Some((number, body)) = self.volume_header(statement, diagnostics) {
            let parts = self.numbered.entry(number).or_default();
            for inner in body {
                if !parts.read(inner, diagnostics) {
                    unknown(inner, "in `volume`", VOLUME_STATEMENTS, None, diagnostics);
                }
            }
        }
        true
    }

    fn volume_header<'a>(
        &self,
        statement: &'a Statement,
        diagnostics: &mut Diagnostics,
    ) -> Option<(u32, &'a [Statement])> {
        let [word] = statement.arguments.as_slice() else {
            let error = Diagnostic::error(statement.span(), "expected one number behind `volume`");
            diagnostics.push(error.help("write `volume 0 { ... }`"));
            return None;
        };
        let number = number(word, MAX_VOLUME, diagnostics)?;
        if number != 0 {
            let error =
                Diagnostic::error(&word.span, "this version supports one volume per resource, `volume 0`");
            diagnostics.push(error.help("make a resource of its own for every volume"));
            return None;
        }
        if self.numbered.contains_key(&number) {
            diagnostics.push(Diagnostic::error(&word.span, format!("duplicate `volume {number}`")));
            return None;
        }
        Some((number, body(statement, diagnostics)?))
    }
}

/// What an `on` section says.
#[derive(Debug)]
pub(super) struct HostParts {
    pub(super) names: Vec<String>,
    pub(super) span: Span,
    pub(super) node_id: Slot<u32>,
    pub(super) address: Slot<SocketAddr>,
    volumes: Volumes,
}

/// Reads an `on` section; `None` if it has no usable host name.
pub(super) fn host(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<HostParts> {
    let names = host_names(statement, diagnostics);
    let span = statement.arguments.first().map_or(statement.span(), |word| &word.span).clone();
    let mut parts = HostParts {
        names,
        span,
        node_id: Slot::default(),
        address: Slot::default(),
        volumes: Volumes::default(),
    };
    for inner in body(statement, diagnostics)? {
        match inner.name() {
            "node-id" => parts.node_id.fill(inner, node_id_value(inner, diagnostics), diagnostics),
            "address" => parts.address.fill(inner, address(inner, diagnostics), diagnostics),
            _ if parts.volumes.read(inner, diagnostics) => {}
            _ => unknown(inner, "in `on`", HOST_STATEMENTS, None, diagnostics),
        }
    }
    (!parts.names.is_empty()).then_some(parts)
}

impl HostParts {
    /// What holds for the volume on this host, with what the resource says.
    pub(super) fn volume(&self, resource: &Volumes) -> VolumeParts {
        let mut merged = VolumeParts::default();
        for level in [resource, &self.volumes] {
            merged.overlay(&level.implicit);
            level.numbered.values().for_each(|parts| merged.overlay(parts));
        }
        merged
    }

    /// The finished host; `None` if anything is missing, which is then reported.
    pub(super) fn complete(
        self,
        node_id: u32,
        volume: VolumeParts,
        resource: &Assigned,
        diagnostics: &mut Diagnostics,
    ) -> Option<Host> {
        let device = volume.device.required("device", &self, diagnostics);
        let disk = volume.disk.required("disk", &self, diagnostics);
        let address = self.address.clone().required("address", &self, diagnostics);
        let meta_disk = volume.meta_disk.required("meta-disk", &self, diagnostics);
        let effective = settings::values(&settings::inherit(resource, &volume.options));
        let Device { path, minor } = device?;
        let volume = Volume {
            number: 0,
            minor,
            device: path,
            disk: disk?,
            meta_disk: meta_disk?,
            disk_options: DiskOptions::from(&effective),
            settings: settings::values(&volume.options),
        };
        Some(Host { names: self.names, node_id, address: address?, volumes: vec![volume] })
    }
}

fn host_names(statement: &Statement, diagnostics: &mut Diagnostics) -> Vec<String> {
    if statement.arguments.is_empty() {
        diagnostics.push(Diagnostic::error(&statement.end, "expected the name of a host behind `on`"));
    }
    if let Some(excess) = statement.arguments.get(MAX_HOST_NAMES) {
        let message = format!("expected at most {MAX_HOST_NAMES} names of one host");
        diagnostics.push(Diagnostic::error(&excess.span, message));
    }
    let mut names: Vec<String> = Vec::new();
    for word in statement.arguments.iter().take(MAX_HOST_NAMES) {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if word.text.is_empty() || word.text.starts_with('-') || !word.text.chars().all(good) {
            let message =
                format!("expected the name of a host (as `uname -n` prints it), found {}", quote(&word.text));
            diagnostics.push(Diagnostic::error(&word.span, message));
        } else if names.contains(&word.text) {
            diagnostics
                .push(Diagnostic::error(&word.span, format!("duplicate host name {}", quote(&word.text))));
        } else {
            names.push(word.text.clone());
        }
    }
    names
}

fn node_id_value(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<u32> {
    let word = words(statement, "a number", 1..=1, diagnostics)?.first()?;
    number(word, MAX_NODE_ID, diagnostics)
}

fn number(word: &Word, max: u32, diagnostics: &mut Diagnostics) -> Option<u32> {
    value::plain_number(&word.text, max)
        .map_err(|reason| diagnostics.push(Diagnostic::error(&word.span, reason)))
        .ok()
}

/// `device /dev/drbdN;`, `device minor N;` or `device PATH minor N;`.
fn device(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<Device> {
    let found = words(statement, "a device", 1..=3, diagnostics)?;
    let (path, minor) = match found {
        [minor, number] if minor.text == "minor" => (None, Some(number)),
        [path, minor, number] if minor.text == "minor" => (Some(path), Some(number)),
        [path] if path.text != "minor" => (Some(path), None),
        _ => {
            let help = "write `device /dev/drbdN;`, `device minor N;` or `device PATH minor N;`";
            diagnostics.push(missing_semicolon(statement, 1).unwrap_or_else(|| {
                Diagnostic::error(statement.span(), "expected a device, found other words").help(help)
            }));
            return None;
        }
    };
    let explicit = match minor {
        Some(word) => Some(number(word, MAX_MINOR, diagnostics)?),
        None => None,
    };
    let Some(path) = path else {
        let minor = explicit?;
        return Some(Device { path: PathBuf::from(format!("/dev/drbd{minor}")), minor });
    };
    let absolute = absolute(path, diagnostics)?;
    let implied =
        path.text.strip_prefix("/dev/drbd").and_then(|digits| value::plain_number(digits, MAX_MINOR).ok());
    let error = match (explicit, implied) {
        (Some(minor), None) => return Some(Device { path: absolute, minor }),
        (None, Some(minor)) => return Some(Device { path: absolute, minor }),
        (Some(minor), Some(implied)) if minor == implied => return Some(Device { path: absolute, minor }),
        (Some(minor), Some(_)) => {
            Diagnostic::error(&path.span, format!("{} cannot have minor {minor}", quote(&path.text)))
        }
        (None, None) => {
            Diagnostic::error(&path.span, format!("the minor number of {} is missing", quote(&path.text)))
                .help("write `device /dev/drbdN;` with N from 0 to 1048575, or `device PATH minor N;`")
        }
    };
    diagnostics.push(error);
    None
}

fn disk(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    let word = words(statement, "the path of the backing device", 1..=1, diagnostics)?.first()?;
    if word.text == "none" {
        let message = "`disk none` is not supported by this version: both nodes need a backing device";
        diagnostics.push(Diagnostic::error(&word.span, message));
        return None;
    }
    absolute(word, diagnostics)
}

fn meta_disk(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<MetaDisk> {
    let word = words(statement, "`internal` or a path", 1..=1, diagnostics)?.first()?;
    let help = "write `meta-disk internal;` or `meta-disk PATH;` with a device that no other volume uses";
    let error = match word.text.as_str() {
        "internal" => return Some(MetaDisk::Internal),
        "flexible" => Diagnostic::error(&word.span, "`meta-disk flexible` is not supported by this version"),
        text if text.ends_with(']') => {
            Diagnostic::error(&word.span, "indexed external metadata is not supported by this version")
        }
        _ => return absolute(word, diagnostics).map(MetaDisk::External),
    };
    diagnostics.push(error.help(help));
    None
}

fn absolute(word: &Word, diagnostics: &mut Diagnostics) -> Option<PathBuf> {
    let path = Path::new(&word.text);
    if path.is_absolute() && !word.text.ends_with('/') {
        return Some(path.to_owned());
    }
    let message = format!("expected a path that starts with `/`, found {}", quote(&word.text));
    diagnostics.push(Diagnostic::error(&word.span, message));
    None
}

/// `address IP:PORT;` or with `ipv4` or `ipv6` before it.
fn address(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<SocketAddr> {
    let found = words(statement, "IP:PORT", 1..=2, diagnostics)?;
    let (family, word) = match found {
        [family, word] => (Some(family), word),
        _ => (None, found.first()?),
    };
    if let Some(error) = family.and_then(bad_family) {
        diagnostics.push(error);
        return None;
    }
    let parsed = value::address(&word.text)
        .map_err(|reason| diagnostics.push(Diagnostic::error(&word.span, reason)))
        .ok()?;
    if family.is_some_and(|family| (family.text == "ipv4") != parsed.is_ipv4()) {
        let message = format!("the address {} is not of the family before it", quote(&word.text));
        diagnostics.push(Diagnostic::error(&word.span, message));
        return None;
    }
    if parsed.ip().is_unspecified() || parsed.ip().is_multicast() {
        let message = format!("expected the host's own address, found {}", quote(&word.text));
        diagnostics.push(Diagnostic::error(&word.span, message).help("the peer connects to this address"));
        return None;
    }
    Some(parsed)
}

fn bad_family(family: &Word) -> Option<Diagnostic> {
    match family.text.as_str() {
        "ipv4" | "ipv6" => None,
        text @ ("ssocks" | "sdp") => {
            let message = format!("`{text}` is not supported by this version: peers use TCP over IP");
            Some(Diagnostic::error(&family.span, message).help("write `address IP:PORT;`"))
        }
        text => {
            let message =
                format!("expected `ipv4`, `ipv6` or IP:PORT behind `address`, found {}", quote(text));
            Some(Diagnostic::error(&family.span, message))
        }
    }
}
