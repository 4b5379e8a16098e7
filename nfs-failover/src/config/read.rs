//! From statements to services, reporting everything that is wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tandem_config::language::{
    Diagnostics, Statement, Word, address, body, nearest, plain_number, quote, section_body, words,
};
use tandem_config::{Diagnostic, Span};

use super::words::{IN_HOOKS, IN_MOUNT, IN_SERVICE, names};
use super::{Decider, Hooks, Mount, OnStuck, Secret, Server, Service, Vip, export, rules};

/// RFC 3530 asks for 90 s; what is waited for after each move is this.
const DEFAULT_GRACE_S: u32 = 15;
const DEFAULT_LEASE_S: u32 = 15;
/// Ganesha's limits, the smaller ones.
const MAX_GRACE_S: u32 = 180;
const MAX_LEASE_S: u32 = 120;
/// The name becomes part of file names and of an nftables table's.
const MAX_NAME_CHARS: usize = 32;
/// Whoever guesses it may move the service.
const MIN_SECRET_CHARS: usize = 8;
/// The kernel's.
const MAX_INTERFACE_BYTES: usize = 15;

/// Reads all services. The result is complete only if no error was reported.
pub(super) fn services(statements: &[Statement], found: &mut Diagnostics) -> Vec<Service> {
    let mut services = Vec::new();
    let mut names: BTreeMap<&str, &Span> = BTreeMap::new();
    for statement in statements {
        if statement.name() != "service" {
            unknown(statement, "here", &["service", "include"], found);
            continue;
        }
        let Some(name) = name(statement, found) else { continue };
        if let Some(earlier) = names.insert(&name.text, &name.span) {
            let error = Diagnostic::error(&name.span, format!("duplicate service {}", quote(&name.text)));
            found.push(error.related(earlier, "it is first defined here"));
        }
        services.extend(service(name, statement, found).map(|service| (service, name.span.clone())));
    }
    if statements.is_empty() {
        found.push(Diagnostic::error_at(None, "there is no service").help("write `service NAME { ... }`"));
    }
    rules::between(&services, found);
    services.into_iter().map(|(service, _)| service).collect()
}

fn name<'a>(statement: &'a Statement, found: &mut Diagnostics) -> Option<&'a Word> {
    let [name] = statement.arguments.as_slice() else {
        found.push(Diagnostic::error(statement.span(), "expected one name behind `service`"));
        return None;
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.text.is_empty() || name.text.len() > MAX_NAME_CHARS || !name.text.chars().all(good) {
        let message = format!(
            "expected a name of at most {MAX_NAME_CHARS} letters, digits, `-` and `_`, found {}",
            quote(&name.text)
        );
        found.push(Diagnostic::error(&name.span, message));
        return None;
    }
    Some(name)
}

fn service(name: &Word, statement: &Statement, found: &mut Diagnostics) -> Option<Service> {
    let mut reader = Reader { said: said(statement, found)?, name, found };
    let resource = reader.one("resource", "a resource's name", text);
    let mount = reader.mount();
    let server = reader.one("server", "`kernel`, `ganesha` or `none`", server);
    let state = reader.one("state", "an absolute path", path);
    let hooks = reader.hooks();
    let exports = reader.exports(resource.as_deref().unwrap_or_default());
    let vips = reader.each("vip", "ADDRESS/BITS dev INTERFACE", 3, vip);
    let ports = reader.each("port", "a port", 1, |words| port(&words[0].text));
    let number = |reader: &mut Reader<'_>, keyword, max, default| {
        reader.optional(keyword, "seconds", |word| plain_number(word, max)).unwrap_or(default)
    };
    let grace_s = number(&mut reader, "grace", MAX_GRACE_S, DEFAULT_GRACE_S);
    let lease_s = number(&mut reader, "lease", MAX_LEASE_S, DEFAULT_LEASE_S);
    let nfs3_locks = reader.optional("nfs3-locks", "`yes` or `no`", yes_or_no).unwrap_or_default();
    let health = reader.optional("health", "IP:PORT", address);
    let peers = reader.peers();
    let shared_secret = reader.optional("shared-secret", "a text", secret);
    let on_stuck = reader.optional("on-stuck", "`none` or `reboot`", on_stuck).unwrap_or_default();
    let decider = reader.optional("decider", "`ucarp`, `keepalived`, `pacemaker` or `none`", decider);
    let (mut mount, server) = (mount?, server?);
    if server == Server::Ganesha {
        mount.options = with_durable_names(&mount.options);
    }
    let service = Service {
        name: name.text.clone(),
        resource: resource?,
        state: state.unwrap_or_else(|| mount.point.join(".nfs-state")),
        mount,
        server,
        exports,
        vips,
        ports,
        grace_s,
        lease_s,
        nfs3_locks,
        health,
        peers,
        shared_secret,
        on_stuck,
        hooks,
        decider: decider.unwrap_or_default(),
    };
    let Reader { said, found, .. } = reader;
    rules::within(
        &service,
        &name.span,
        |keyword| said.get(keyword).and_then(|all| all.first()).copied(),
        found,
    );
    Some(service)
}

/// What a client was told to be made, renamed or removed is to be there after a power cut, and so is what is noted of who may
/// have locks. The kernel's server sees to that itself, NFS-Ganesha does not.
fn with_durable_names(options: &str) -> String {
    let mut words: Vec<&str> = options.split(',').filter(|word| !word.is_empty()).collect();
    if !words.iter().any(|word| matches!(*word, "sync" | "dirsync" | "nodirsync")) {
        words.push("dirsync");
    }
    words.join(",")
}

type Said<'a> = BTreeMap<&'a str, Vec<&'a Statement>>;

/// The statements of a service by their keywords, those without a place reported.
fn said<'a>(statement: &'a Statement, found: &mut Diagnostics) -> Option<Said<'a>> {
    let mut said = Said::new();
    for inner in body(statement, found)? {
        let name = inner.name();
        let Some(word) = IN_SERVICE.iter().find(|word| word.name == name) else {
            unknown(inner, "in `service`", &names(IN_SERVICE), found);
            continue;
        };
        let all = said.entry(name).or_default();
        match all.first().filter(|_| !word.repeated) {
            Some(earlier) => {
                let error = Diagnostic::error(inner.span(), format!("duplicate `{name}`"));
                found.push(error.related(earlier.span(), "it is first set here"));
            }
            None => all.push(inner),
        }
    }
    Some(said)
}

struct Reader<'a> {
    said: Said<'a>,
    name: &'a Word,
    found: &'a mut Diagnostics,
}

impl Reader<'_> {
    /// A statement with one word that must be there.
    fn one<T>(
        &mut self,
        keyword: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        // A state folder has a default.
        if !self.said.contains_key(keyword) && keyword != "state" {
            self.missing(keyword, expected);
        }
        self.optional(keyword, expected, parse)
    }

    fn missing(&mut self, keyword: &str, expected: &str) {
        let message = format!("service {} has no `{keyword}`", quote(&self.name.text));
        self.found
            .push(Diagnostic::error(&self.name.span, message).help(format!("add `{keyword}`: {expected}")));
    }

    fn optional<T>(
        &mut self,
        keyword: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.each(keyword, expected, 1, |words| parse(&words[0].text)).into_iter().next()
    }

    /// What each statement of this keyword says, with exactly so many words.
    fn each<T>(
        &mut self,
        keyword: &str,
        expected: &str,
        count: usize,
        parse: impl Fn(&[Word]) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for statement in self.said.get(keyword).into_iter().flatten() {
            let Some(words) = words(statement, expected, count..=count, self.found) else { continue };
            match parse(words) {
                Ok(value) => values.push(value),
                Err(wrong) => {
                    let span = words.first().map_or(statement.span(), |word| &word.span);
                    self.found.push(Diagnostic::error(span, format!("`{keyword}`: {wrong}")));
                }
            }
        }
        values
    }

    fn mount(&mut self) -> Option<Mount> {
        let Some(statement) = self.said.get("mount").and_then(|all| all.first().copied()) else {
            self.missing("mount", "a folder, and `{ fstype ...; }`");
            return None;
        };
        let [point] = statement.arguments.as_slice() else {
            self.found.push(Diagnostic::error(statement.span(), "expected one folder behind `mount`"));
            return None;
        };
        let point = match path(&point.text) {
            Ok(point) => point,
            Err(wrong) => {
                self.found.push(Diagnostic::error(&point.span, format!("`mount`: {wrong}")));
                return None;
            }
        };
        let mut mount = Mount { point, fstype: "auto".to_owned(), options: "noatime".to_owned(), uuid: None };
        for inner in statement.body.iter().flatten() {
            let keywords = names(IN_MOUNT);
            if !keywords.contains(&inner.name()) {
                unknown(inner, "in `mount`", &keywords, self.found);
                continue;
            }
            let Some([word]) = words(inner, "one word", 1..=1, self.found) else { continue };
            match inner.name() {
                "fstype" => mount.fstype = word.text.clone(),
                "options" => mount.options = word.text.clone(),
                _ => mount.uuid = Some(word.text.to_ascii_lowercase()),
            }
        }
        Some(mount)
    }

    fn hooks(&mut self) -> Hooks {
        let mut hooks = Hooks::default();
        let Some(statement) = self.said.get("hooks").and_then(|all| all.first().copied()) else {
            return hooks;
        };
        for inner in section_body(statement, self.found).into_iter().flatten() {
            let slot = match inner.name() {
                "start" => &mut hooks.start,
                "stop" => &mut hooks.stop,
                "check" => &mut hooks.check,
                _ => {
                    unknown(inner, "in `hooks`", &names(IN_HOOKS), self.found);
                    continue;
                }
            };
            let Some([word]) = words(inner, "a program", 1..=1, self.found) else { continue };
            match path(&word.text) {
                Ok(path) => *slot = Some(path),
                Err(wrong) => {
                    self.found.push(Diagnostic::error(&word.span, format!("`{}`: {wrong}", inner.name())))
                }
            }
        }
        hooks
    }

    fn exports(&mut self, resource: &str) -> Vec<export::Export> {
        let mut exports = Vec::new();
        for statement in self.said.get("export").into_iter().flatten() {
            let Some([word]) = words(statement, "one string", 1..=1, self.found) else { continue };
            exports.extend(export::export(word, resource, self.found));
        }
        exports
    }

    fn peers(&mut self) -> Vec<SocketAddr> {
        let Some(statement) = self.said.get("peer").and_then(|all| all.first().copied()) else {
            return Vec::new();
        };
        let mut peers = Vec::new();
        for word in words(statement, "IP:PORT", 1..=2, self.found).into_iter().flatten() {
            match address(&word.text) {
                Ok(address) => peers.push(address),
                Err(wrong) => self.found.push(Diagnostic::error(&word.span, format!("`peer`: {wrong}"))),
            }
        }
        peers
    }
}

fn text(word: &str) -> Result<String, String> {
    if word.is_empty() { Err("expected a text, found nothing".to_owned()) } else { Ok(word.to_owned()) }
}

fn secret(word: &str) -> Result<Secret, String> {
    match word.chars().count() >= MIN_SECRET_CHARS {
        true => Ok(Secret(word.to_owned())),
        // It is not shown.
        false => Err(format!("expected at least {MIN_SECRET_CHARS} characters: shorter ones can be guessed")),
    }
}

fn path(word: &str) -> Result<PathBuf, String> {
    let trimmed = word.trim_end_matches('/');
    match word.starts_with('/') && !trimmed.is_empty() && !word.split('/').any(|part| part == "..") {
        true => Ok(trimmed.into()),
        false => Err(format!("expected an absolute path, found {}", quote(word))),
    }
}

fn server(word: &str) -> Result<Server, String> {
    Ok(match word {
        "kernel" => Server::Kernel,
        "ganesha" => Server::Ganesha,
        "none" => Server::None,
        _ => return Err(format!("expected `kernel`, `ganesha` or `none`, found {}", quote(word))),
    })
}

fn yes_or_no(word: &str) -> Result<bool, String> {
    match word {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("expected `yes` or `no`, found {}", quote(word))),
    }
}

fn on_stuck(word: &str) -> Result<OnStuck, String> {
    Ok(match word {
        "none" => OnStuck::None,
        "reboot" => OnStuck::Reboot,
        _ => return Err(format!("expected `none` or `reboot`, found {}", quote(word))),
    })
}

fn decider(word: &str) -> Result<Decider, String> {
    Ok(match word {
        "ucarp" => Decider::Ucarp,
        "keepalived" => Decider::Keepalived,
        "pacemaker" => Decider::Pacemaker,
        "none" => Decider::None,
        _ => {
            return Err(format!(
                "expected `ucarp`, `keepalived`, `pacemaker` or `none`, found {}",
                quote(word)
            ));
        }
    })
}

fn port(word: &str) -> Result<u16, String> {
    word.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("expected a port from 1 to 65535, found {}", quote(word)))
}

fn vip(words: &[Word]) -> Result<Vip, String> {
    let [address, dev, interface] = words else {
        return Err("expected ADDRESS/BITS dev INTERFACE".to_owned());
    };
    let expected = || format!("expected ADDRESS/BITS dev INTERFACE, found {}", quote(&address.text));
    let (ip, bits) = address.text.split_once('/').ok_or_else(expected)?;
    let ip: IpAddr = ip.parse().map_err(|_| expected())?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = bits.parse().ok().filter(|bits| (1..=longest).contains(bits)).ok_or_else(expected)?;
    if dev.text != "dev" {
        return Err(format!("expected `dev` behind the address, found {}", quote(&dev.text)));
    }
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"');
    if interface.text.is_empty()
        || interface.text.len() > MAX_INTERFACE_BYTES
        || !interface.text.chars().all(good)
    {
        return Err(format!("expected an interface's name, found {}", quote(&interface.text)));
    }
    Ok(Vip { address: ip, prefix, interface: interface.text.clone() })
}

/// Reports a statement that has no place where it stands.
fn unknown(statement: &Statement, place: &str, keywords: &[&str], found: &mut Diagnostics) {
    let error =
        Diagnostic::error(statement.span(), format!("{} is not known {place}", quote(statement.name())));
    found.push(match nearest(statement.name(), keywords.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("expected one of: {}", keywords.join(", "))),
    });
}
