//! `connection` and `connection-mesh`: who is connected with whom, by which paths.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::address;
use super::host::HostParts;
use super::settings::{self, Assigned};
use super::unknown;
use super::verbatim;
use super::volume::volume_header;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::language::{body, section_body, words};
use crate::model::{Address, Connection, PathEnd, Verbatim};
use crate::options::Section;
use crate::source::Span;
use crate::tree::{Statement, Word};
use crate::value;

const STATEMENTS: &[&str] = &["host", "path", "net", "disk", "peer-device-options", "volume", "proxy"];
const MESH_STATEMENTS: &[&str] = &["hosts", "net", "disk", "peer-device-options", "proxy"];
/// The name, `address FAMILY [ IP ] : PORT` and `port PORT`.
const MAX_END_WORDS: usize = 10;
const VOLUME_STATEMENTS: &[&str] = &["disk", "peer-device-options"];

/// A connection with the places that messages need.
#[derive(Debug)]
pub(super) struct ConnectionParts {
    pub(super) span: Span,
    implicit: bool,
    pub(super) paths: Vec<[End; 2]>,
    pub(super) options: Assigned,
    pub(super) volumes: BTreeMap<u32, (Span, Assigned)>,
    pub(super) proxy_span: Option<Span>,
    proxy: Vec<Verbatim>,
}

/// One end of a path.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) host: usize,
    pub(super) address: Address,
    /// Where the address stands.
    pub(super) span: Span,
    /// `via proxy on NAME {}`, and where it stands.
    via: Option<(Span, Verbatim)>,
}

impl ConnectionParts {
    fn new(span: &Span) -> Self {
        Self {
            span: span.clone(),
            implicit: false,
            paths: Vec::new(),
            options: Assigned::new(),
            volumes: BTreeMap::new(),
            proxy_span: None,
            proxy: Vec::new(),
        }
    }

    /// Reads what a connection and a mesh share; false if the statement is nothing of that.
    fn read(&mut self, inner: &Statement, diagnostics: &mut Diagnostics) -> bool {
        let section = match inner.name() {
            "net" => Section::Net,
            "disk" | "peer-device-options" => Section::PeerDevice,
            "proxy" => {
                verbatim::proxy(inner, &mut self.proxy, &mut self.proxy_span);
                return true;
            }
            _ => return false,
        };
        if let Some(body) = section_body(inner, diagnostics) {
            settings::section(section, body, &mut self.options, diagnostics);
        }
        true
    }

    /// The places of the two hosts.
    fn pair(&self) -> Option<[usize; 2]> {
        let [one, other] = self.paths.first()?;
        Some([one.host.min(other.host), one.host.max(other.host)])
    }

    /// The finished connection.
    pub(super) fn complete(self) -> Connection {
        let path = |ends: [End; 2]| ends.map(End::complete);
        let volumes = self.volumes.iter().map(|(number, (_, own))| (*number, settings::values(own)));
        Connection {
            implicit: self.implicit,
            volumes: volumes.collect(),
            settings: settings::values(&self.options),
            paths: self.paths.into_iter().map(path).collect(),
            proxy: self.proxy,
        }
    }
}

impl End {
    fn complete(self) -> PathEnd {
        PathEnd { host: self.host, address: self.address, via: self.via.map(|(_, kept)| kept) }
    }
}

/// All connections of a resource: those that are written, those of meshes, or the one that follows from two hosts.
pub(super) fn connections(
    statements: &[&Statement],
    hosts: &[HostParts],
    diagnostics: &mut Diagnostics,
) -> Vec<ConnectionParts> {
    let mut all: Vec<ConnectionParts> = Vec::new();
    for statement in statements.iter().filter(|statement| statement.name() == "connection") {
        let Some(connection) = connection(statement, hosts, diagnostics) else { continue };
        if let Some(earlier) = all.iter().find(|earlier| earlier.pair() == connection.pair()) {
            let error = Diagnostic::error(&connection.span, "duplicate connection of two hosts");
            diagnostics.push(error.related(&earlier.span, "they are connected here already").help(
                "for several paths between two hosts, write `path { ... }` sections into one connection",
            ));
        }
        all.push(connection);
    }
    for statement in statements.iter().filter(|statement| statement.name() == "connection-mesh") {
        for connection in mesh(statement, hosts, diagnostics) {
            // What is written for two hosts wins over the mesh that they are in.
            if all.iter().all(|other| other.pair() != connection.pair()) {
                all.push(connection);
            }
        }
    }
    if statements.is_empty() && hosts.len() == 2 {
        all.extend(between([0, 1], hosts, &hosts[1].span, diagnostics).map(|path| ConnectionParts {
            implicit: true,
            paths: vec![path],
            ..ConnectionParts::new(&hosts[0].span)
        }));
    }
    all
}

/// The path between two hosts by the addresses that their sections give.
fn between(
    pair: [usize; 2],
    hosts: &[HostParts],
    span: &Span,
    diagnostics: &mut Diagnostics,
) -> Option<[End; 2]> {
    let [one, other] = pair.map(|place| end_of(place, hosts, diagnostics));
    let ends = [one?, other?];
    check_ends(&ends, span, diagnostics);
    Some(ends)
}

/// The address of a host's own section.
fn end_of(place: usize, hosts: &[HostParts], diagnostics: &mut Diagnostics) -> Option<End> {
    let host = hosts.get(place)?;
    match (&host.address.span, host.address.value) {
        (Some(span), Some(address)) => Some(End { host: place, address, span: span.clone(), via: None }),
        (Some(_), None) => None,
        (None, _) => {
            let error = Diagnostic::error(&host.span, format!("`{}` has no `address`", host.title));
            diagnostics.push(error.help("add `address IP:PORT;`"));
            None
        }
    }
}

fn check_ends([one, other]: &[End; 2], span: &Span, diagnostics: &mut Diagnostics) {
    let (a, b) = (one.address.socket, other.address.socket);
    if one.host == other.host {
        diagnostics.push(Diagnostic::error(span, "a connection needs two different hosts"));
    } else if a == b {
        let error = Diagnostic::error(&other.span, format!("both hosts have the address {b}"));
        diagnostics.push(error.related(&one.span, "it is first used here"));
    } else if a.is_ipv4() != b.is_ipv4() {
        let error =
            Diagnostic::error(&other.span, "one host has an IPv4 address and the other an IPv6 address");
        diagnostics.push(error.related(&one.span, "the other address"));
    }
}

fn connection(
    statement: &Statement,
    hosts: &[HostParts],
    diagnostics: &mut Diagnostics,
) -> Option<ConnectionParts> {
    if let Some(name) = statement.arguments.first() {
        let text = "the name of a connection has no effect";
        diagnostics.push(Diagnostic::warning(&name.span, text).help("leave it out"));
    }
    let mut parts = ConnectionParts::new(statement.span());
    let mut ends: Vec<&Statement> = Vec::new();
    let mut paths: Vec<&Statement> = Vec::new();
    for inner in body(statement, diagnostics)? {
        match inner.name() {
            "host" => ends.push(inner),
            "path" => paths.push(inner),
            "volume" => volume(inner, &mut parts, diagnostics),
            _ if parts.read(inner, diagnostics) => {}
            _ => unknown(inner, "in `connection`", STATEMENTS, None, diagnostics),
        }
    }
    if let (Some(host), Some(path)) = (ends.first(), paths.first()) {
        let error = Diagnostic::error(path.span(), "`path` beside `host`");
        diagnostics
            .push(error.related(host.span(), "the host stands here").help("write the hosts into a path"));
        return None;
    }
    if paths.is_empty() {
        parts.paths.extend(path(statement, &ends, hosts, diagnostics));
    }
    for &one in &paths {
        let inside = section_body(one, diagnostics)?;
        let (ends, others): (Vec<&Statement>, _) = inside.iter().partition(|inner| inner.name() == "host");
        others.iter().for_each(|inner| unknown(inner, "in `path`", &["host"], None, diagnostics));
        parts.paths.extend(path(one, &ends, hosts, diagnostics));
    }
    distinct_paths(&parts.paths, &paths, diagnostics);
    let via = parts.paths.iter().flatten().find_map(|end| end.via.as_ref());
    parts.proxy_span = parts.proxy_span.or_else(|| via.map(|(span, _)| span.clone()));
    let pairs: Vec<_> = parts.paths.iter().map(|[a, b]| [a.host.min(b.host), a.host.max(b.host)]).collect();
    if pairs.windows(2).any(|two| two[0] != two[1]) {
        diagnostics
            .push(Diagnostic::error(statement.span(), "the paths of a connection join the same two hosts"));
    }
    (!parts.paths.is_empty()).then_some(parts)
}

/// The kernel would refuse the second.
fn distinct_paths(paths: &[[End; 2]], sections: &[&Statement], diagnostics: &mut Diagnostics) {
    // If one of them could not be read, that is reported, and which is which is not known.
    let all = if paths.len() == sections.len() { paths } else { &[] };
    let mut earlier: HashMap<[SocketAddr; 2], &Statement> = HashMap::new();
    for (path, section) in all.iter().zip(sections) {
        let mut addresses = path.each_ref().map(|end| end.address.socket);
        addresses.sort_unstable();
        if let Some(other) = earlier.insert(addresses, section) {
            let error =
                Diagnostic::error(section.span(), "duplicate path: it has the addresses of another one");
            diagnostics.push(error.related(other.span(), "the other one"));
        }
    }
}

/// The path that two `host` statements make.
fn path(
    section: &Statement,
    statements: &[&Statement],
    hosts: &[HostParts],
    diagnostics: &mut Diagnostics,
) -> Option<[End; 2]> {
    let [one, other] = statements else {
        let name = section.name();
        let message = format!("expected two `host` statements in `{name}`, found {}", statements.len());
        diagnostics.push(Diagnostic::error(section.span(), message));
        return None;
    };
    let [one, other] = [one, other].map(|statement| end(statement, hosts, diagnostics));
    let ends = [one?, other?];
    check_ends(&ends, section.span(), diagnostics);
    Some(ends)
}

/// `host NAME;`, with `address FAMILY IP:PORT` or `port PORT` behind the name, and perhaps `via proxy on NAME { ... }`.
fn end(statement: &Statement, hosts: &[HostParts], diagnostics: &mut Diagnostics) -> Option<End> {
    let via_at = statement.arguments.iter().position(|word| word.text == "via");
    let Some((before, via)) = via_at.map(|at| statement.arguments.split_at(at)) else {
        return plain_end(statement, hosts, diagnostics);
    };
    let (first, others) = via.split_first()?;
    let is_via = matches!(others, [proxy, on, _, ..] if proxy.text == "proxy" && on.text == "on");
    if !is_via || statement.body.is_none() {
        diagnostics.push(Diagnostic::error(&first.span, "expected `via proxy on HOST { ... }`"));
        return None;
    }
    let Statement { keyword, end, .. } = statement;
    let plain =
        Statement { keyword: keyword.clone(), arguments: before.to_vec(), body: None, end: end.clone() };
    let kept = verbatim::of(first, others, statement.body.as_deref());
    Some(End { via: Some((first.span.clone(), kept)), ..plain_end(&plain, hosts, diagnostics)? })
}

fn plain_end(statement: &Statement, hosts: &[HostParts], diagnostics: &mut Diagnostics) -> Option<End> {
    let found = words(statement, "the name of a host", 1..=MAX_END_WORDS, diagnostics)?;
    let (name, rest) = found.split_first()?;
    let place = place_of(name, hosts, diagnostics)?;
    let port_at = rest.iter().position(|word| word.text == "port").unwrap_or(rest.len());
    let (before, behind) = rest.split_at(port_at);
    let given = match before {
        [] => None,
        [word, address @ ..] if word.text == "address" => {
            let address = address::of_words(address, statement, diagnostics)?;
            Some(End { host: place, address, span: word.span.clone(), via: None })
        }
        [word, ..] => {
            let message = format!("expected `address`, `port` or `;`, found {}", quote(&word.text));
            diagnostics.push(Diagnostic::error(&word.span, message));
            return None;
        }
    };
    let port = match behind {
        [] => None,
        [_, port] => Some((port, value::plain_number(&port.text, u32::from(u16::MAX)))),
        [word, ..] => {
            diagnostics.push(Diagnostic::error(&word.span, "expected one number behind `port`"));
            return None;
        }
    };
    let mut end = match given {
        Some(end) => end,
        None => end_of(place, hosts, diagnostics)?,
    };
    if let Some((word, port)) = port {
        match port.ok().and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0) {
            Some(port) => end.address.socket.set_port(port),
            None => {
                let message = format!("expected a port from 1 to 65535, found {}", quote(&word.text));
                diagnostics.push(Diagnostic::error(&word.span, message));
            }
        }
    }
    Some(end)
}

fn place_of(name: &Word, hosts: &[HostParts], diagnostics: &mut Diagnostics) -> Option<usize> {
    let found = hosts.iter().position(|host| host.is_called(&name.text));
    if found.is_none() {
        let error = Diagnostic::error(&name.span, format!("there is no `on {}`", name.text));
        let known = hosts.iter().flat_map(HostParts::names).map(String::as_str);
        diagnostics.push(match crate::spelling::nearest(&name.text, known) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        });
    }
    found
}

fn volume(statement: &Statement, parts: &mut ConnectionParts, diagnostics: &mut Diagnostics) {
    let Some((word, number, body)) = volume_header(statement, diagnostics) else { return };
    let mut options = Assigned::new();
    for inner in body {
        if !VOLUME_STATEMENTS.contains(&inner.name()) {
            unknown(inner, "in a connection's `volume`", VOLUME_STATEMENTS, None, diagnostics);
        } else if let Some(body) = section_body(inner, diagnostics) {
            settings::section(Section::PeerDevice, body, &mut options, diagnostics);
        }
    }
    if parts.volumes.insert(number, (word.span.clone(), options)).is_some() {
        diagnostics.push(Diagnostic::error(&word.span, format!("duplicate `volume {number}`")));
    }
}

/// A connection for every two of the hosts that are named.
fn mesh(statement: &Statement, hosts: &[HostParts], diagnostics: &mut Diagnostics) -> Vec<ConnectionParts> {
    let mut shared = ConnectionParts::new(statement.span());
    let mut places: Vec<(usize, &Span)> = Vec::new();
    for inner in section_body(statement, diagnostics).into_iter().flatten() {
        if inner.name() == "hosts" {
            let found = words(inner, "the names of the hosts", 1..=usize::MAX, diagnostics);
            for name in found.into_iter().flatten() {
                let Some(place) = place_of(name, hosts, diagnostics) else { continue };
                if places.iter().any(|(other, _)| *other == place) {
                    let message = format!("duplicate host {}", quote(&name.text));
                    diagnostics.push(Diagnostic::error(&name.span, message));
                } else {
                    places.push((place, &name.span));
                }
            }
        } else if !shared.read(inner, diagnostics) {
            unknown(inner, "in `connection-mesh`", MESH_STATEMENTS, None, diagnostics);
        }
    }
    if places.len() < 2 {
        let error = Diagnostic::error(statement.span(), "a mesh needs two hosts at least");
        diagnostics.push(error.help("write `hosts NAME NAME...;`"));
    }
    let mut all = Vec::new();
    for (index, &(one, _)) in places.iter().enumerate() {
        for &(other, span) in places.iter().skip(index + 1) {
            let Some(path) = between([one, other], hosts, span, diagnostics) else { continue };
            all.push(ConnectionParts {
                paths: vec![path],
                options: shared.options.clone(),
                proxy: shared.proxy.clone(),
                proxy_span: shared.proxy_span.clone(),
                ..ConnectionParts::new(statement.span())
            });
        }
    }
    all
}
