//! What `device`, `disk` and `meta-disk` say of volumes, in `volume N {}` and outside of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::settings::{self, Assigned};
use super::slot::Slot;
use super::unknown;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{body, missing_semicolon, section_body, words};
use crate::model::{MetaDisk, Volume};
use crate::options::{self, Section};
use crate::source::Span;
use crate::spelling::nearest;
use crate::tree::{Statement, Word};
use crate::value;

/// DRBD's limits: 16 bits less two special numbers, 20 bits of minors.
const MAX_VOLUME: u32 = 65_534;
const MAX_MINOR: u32 = (1 << 20) - 1;
/// `PATH [ SLOT ]`.
const MAX_META_DISK_WORDS: usize = 4;
const STATEMENTS: &[&str] = &["device", "disk", "meta-disk", "flexible-meta-disk"];

/// The device of a volume: its node and its minor number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    path: PathBuf,
    pub(super) minor: u32,
}

/// Where the data of a volume lies; nowhere on this host with `disk none`.
pub(super) type Disk = Option<PathBuf>;

/// What is said of one volume, at one level or merged.
#[derive(Clone, Debug, Default)]
pub(super) struct VolumeParts {
    pub(super) device: Slot<Device>,
    pub(super) disk: Slot<Disk>,
    pub(super) meta_disk: Slot<MetaDisk>,
    pub(super) options: Assigned,
}

/// DRBD 8.4 had options of the connection in `disk`.
fn concerns_all(option: &Statement) -> bool {
    options::find(Section::Disk, option.name()).is_some_and(|(_, option)| option.home() != Section::Disk)
}

impl VolumeParts {
    /// Reads one statement; false if it does not concern a volume.
    fn read(&mut self, statement: &Statement, diagnostics: &mut Diagnostics) -> bool {
        match statement.name() {
            "device" => self.device.fill(statement, device(statement, diagnostics), diagnostics),
            "meta-disk" | "flexible-meta-disk" => {
                self.meta_disk.fill(statement, meta_disk(statement, diagnostics), diagnostics);
            }
            "disk" if statement.body.is_none() => {
                self.disk.fill(statement, disk(statement, diagnostics), diagnostics);
            }
            "disk" => {
                if let Some(body) = section_body(statement, diagnostics) {
                    settings::section(Section::Disk, body, &mut self.options, diagnostics);
                    body.iter().filter(|option| concerns_all(option)).for_each(|option| {
                        let text = format!("`{}` is no volume's or host's own", option.name());
                        let error = Diagnostic::error(option.span(), text);
                        diagnostics.push(error.help("it holds for the resource: write it into its `net {}`"));
                    });
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

    /// Whether it is more than options.
    fn stands(&self) -> bool {
        self.device.stands() || self.disk.stands() || self.meta_disk.stands()
    }

    /// The finished volume. What is missing goes to `missing`; `None` also if something was bad and is reported already.
    pub(super) fn complete(
        &self,
        number: u32,
        stacked: bool,
        missing: &mut Vec<&'static str>,
    ) -> Option<Volume> {
        let disk = match (stacked && !self.disk.stands(), &self.disk.value) {
            (true, _) => Some(None),
            (false, disk) => disk.clone(),
        };
        missing.extend((!self.device.stands()).then_some("device"));
        missing.extend((!self.disk.stands() && !stacked).then_some("disk"));
        let meta_disk = match self.meta_disk.stands() {
            true => self.meta_disk.value.clone()?,
            false => MetaDisk::Internal,
        };
        let Device { path, minor } = self.device.value.clone()?;
        let settings = settings::values(&self.options);
        Some(Volume { number, minor, device: path, disk: disk?, meta_disk, settings })
    }
}

/// What is said of volumes at one level: with `volume N {}`, and without, which counts for all.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    implicit: VolumeParts,
    pub(super) numbered: BTreeMap<u32, (Span, VolumeParts)>,
}

impl Volumes {
    /// Reads one statement of a `resource` or `on` section; false if it does not concern volumes.
    pub(super) fn read(&mut self, statement: &Statement, diagnostics: &mut Diagnostics) -> bool {
        if statement.name() != "volume" {
            return self.implicit.read(statement, diagnostics);
        }
        if let Some((word, number, body)) = volume_header(statement, diagnostics) {
            if let Some((earlier, _)) = self.numbered.get(&number) {
                let error = Diagnostic::error(&word.span, format!("duplicate `volume {number}`"));
                diagnostics.push(error.related(earlier, "it first stands here"));
                return true;
            }
            let mut parts = VolumeParts::default();
            for inner in body {
                if !parts.read(inner, diagnostics) {
                    unknown(inner, "in `volume`", STATEMENTS, None, diagnostics);
                }
            }
            self.numbered.insert(number, (word.span.clone(), parts));
        }
        true
    }

    /// Whether a volume follows from what stands outside of `volume {}`.
    pub(super) fn implies_one(&self) -> bool {
        self.implicit.stands()
    }

    /// Whether a device or disk stands outside of `volume {}`.
    pub(super) fn names_one(&self) -> bool {
        self.implicit.device.stands() || self.implicit.disk.stands()
    }

    /// What holds for one volume on one host, with what the resource says.
    pub(super) fn merged(&self, host: &Self, number: u32) -> VolumeParts {
        let mut merged = VolumeParts::default();
        for level in [self, host] {
            merged.overlay(&level.implicit);
            if let Some((_, parts)) = level.numbered.get(&number) {
                merged.overlay(parts);
            }
        }
        merged
    }

    /// A disk or device outside of `volume {}` is that of volume 0: beside other volumes it must say so.
    pub(super) fn not_mixed(&self, other: Option<(u32, &Span)>, diagnostics: &mut Diagnostics) {
        let Some((number, span)) = other else { return };
        for (name, place) in [("device", &self.implicit.device.span), ("disk", &self.implicit.disk.span)] {
            let Some(place) = place else { continue };
            let message = format!("`{name}` outside of `volume {{}}` beside `volume {number}`");
            let error = Diagnostic::error(place, message).related(span, "the other volume");
            diagnostics.push(error.help("write it into `volume 0 { ... }`"));
        }
    }
}

/// The number of a `volume` section, and what stands in it.
pub(super) fn volume_header<'a>(
    statement: &'a Statement,
    diagnostics: &mut Diagnostics,
) -> Option<(&'a Word, u32, &'a [Statement])> {
    let [word] = statement.arguments.as_slice() else {
        let error = Diagnostic::error(statement.span(), "expected one number behind `volume`");
        diagnostics.push(error.help("write `volume 0 { ... }`"));
        return None;
    };
    Some((word, number(word, MAX_VOLUME, diagnostics)?, body(statement, diagnostics)?))
}

/// A plain number up to `max`.
pub(super) fn number(word: &Word, max: u32, diagnostics: &mut Diagnostics) -> Option<u32> {
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
    // DRBD's own devices may be written without their folder.
    let absolute = match path.text.starts_with("drbd") {
        true => Path::new("/dev").join(&path.text),
        false => absolute(path, diagnostics)?,
    };
    let implied = absolute
        .to_str()
        .and_then(|text| text.strip_prefix("/dev/drbd"))
        .and_then(|digits| value::plain_number(digits, MAX_MINOR).ok());
    let error = match (explicit, implied) {
        (Some(minor), None) | (None, Some(minor)) => return Some(Device { path: absolute, minor }),
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

fn disk(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<Disk> {
    let word = words(statement, "the path of the backing device", 1..=1, diagnostics)?.first()?;
    match word.text.as_str() {
        "none" => Some(None),
        _ => absolute(word, diagnostics).map(Some),
    }
}

/// `internal`, a device, or a device with the number of a slot in brackets, with or without a blank before it.
fn meta_disk(statement: &Statement, diagnostics: &mut Diagnostics) -> Option<MetaDisk> {
    let found = words(statement, "`internal` or a path", 1..=MAX_META_DISK_WORDS, diagnostics)?;
    let word = found.first()?;
    let joined: String = found.iter().map(|word| word.text.as_str()).collect();
    let help = "write `meta-disk internal;`, `meta-disk PATH;` or `meta-disk PATH[SLOT];`";
    let flexible = statement.name() == "flexible-meta-disk";
    let error = match joined.strip_suffix(']').and_then(|text| text.rsplit_once('[')) {
        _ if joined == "internal" => return Some(MetaDisk::Internal),
        None if joined == "flexible" => Diagnostic::error(&word.span, "expected a device, found `flexible`"),
        Some((path, slot)) if !flexible => {
            let Ok(slot) = value::plain_number(slot, MAX_MINOR) else {
                let message = format!("expected the number of a slot in brackets, found {}", quote(slot));
                diagnostics.push(Diagnostic::error(&word.span, message).help(help));
                return None;
            };
            let word = Word { text: path.to_owned(), span: word.span.clone() };
            return absolute(&word, diagnostics).map(|path| MetaDisk::Indexed(path, slot));
        }
        _ if found.len() == 1 => match nearest(&word.text, ["internal"].into_iter()) {
            None => return absolute(word, diagnostics).map(MetaDisk::External),
            Some(_) => {
                let message = format!("expected `internal` or a path, found {}", quote(&word.text));
                diagnostics.push(Diagnostic::error(&word.span, message).help("did you mean `internal`?"));
                return None;
            }
        },
        _ => {
            let excess = found.get(1).map_or(&word.span, |word| &word.span);
            missing_semicolon(statement, 1)
                .unwrap_or_else(|| Diagnostic::error(excess, "expected `;` or a slot in brackets"))
        }
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
    let error = Diagnostic::error(&word.span, message);
    let is_name = !word.text.is_empty() && !word.text.contains('/');
    diagnostics.push(match is_name {
        true => error.help(format!("did you mean `/dev/{}`?", word.text)),
        false => error,
    });
    None
}
