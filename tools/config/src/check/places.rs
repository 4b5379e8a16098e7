//! Which word belongs where, and what is said of one that stands elsewhere.

use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::options::{OPTIONS, OptionDef, Section};
use crate::spelling;
use crate::tree::Statement;

/// Reports a statement that has no place where it stands. `keywords` and the options of `section` would have one.
pub(super) fn unknown(
    statement: &Statement,
    place: &str,
    keywords: &[&str],
    section: Option<Section>,
    diagnostics: &mut Diagnostics,
) {
    let name = statement.name();
    // `disk` has two forms: one of them may stand here.
    let here = format!("`{} {{}}`, ", place.trim_start_matches("in ").trim_matches('`'));
    let belongs = homes(name).replace(&here, "");
    let error = Diagnostic::error(
        statement.span(),
        match belongs.is_empty() {
            true => format!("{} is not known {place}", quote(name)),
            false => format!("`{name}` is not allowed {place}"),
        },
    );
    if !belongs.is_empty() {
        diagnostics.push(error.help(format!("it belongs in {belongs}")));
        return;
    }
    let options = OPTIONS.iter().filter(|option| section.is_some_and(|here| option.sections.contains(&here)));
    let error = match meant(name, keywords, &options.flat_map(names).collect::<Vec<_>>()) {
        Some(help) => error.help(help),
        None if keywords.is_empty() => error,
        None => error.help(format!("expected one of: {}", keywords.join(", "))),
    };
    diagnostics.push(error);
}

/// What may have been meant: one of the words that may stand here, or else another one.
fn meant(name: &str, keywords: &[&str], options: &[&str]) -> Option<String> {
    let positive = name.strip_prefix("no-").and_then(|rest| spelling::nearest(rest, options.iter().copied()));
    if let Some(near) = positive {
        return Some(format!("did you mean `no-{near}`?"));
    }
    if let Some(near) = spelling::nearest(name, keywords.iter().chain(options).copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let everywhere = OPTIONS.iter().flat_map(names).chain(WORDS.iter().map(|word| word.name));
    let near = spelling::nearest(name, everywhere)?;
    Some(format!("did you mean `{near}`? It belongs in {}", homes(near)))
}

/// The option's name, and its old one.
fn names(option: &OptionDef) -> impl Iterator<Item = &'static str> + use<> {
    std::iter::once(option.name).chain(option.formerly)
}

/// Where a word that is known elsewhere belongs. The old section is no place to move to.
fn homes(name: &str) -> String {
    let options = OPTIONS.iter().filter(|option| option.name == name || option.formerly == Some(name));
    let sections = options.flat_map(|option| option.sections).filter(|&&one| one != Section::Syncer);
    let mut places: Vec<String> = sections.map(|section| section.place()).collect();
    places.extend(WORDS.iter().filter(|word| word.name == name).map(|word| word.place.to_owned()));
    places.join(" or ")
}

/// A word of the grammar that is no option.
#[derive(Clone, Copy, Debug)]
pub struct WordDef {
    /// The word.
    pub name: &'static str,
    /// What follows it.
    pub form: &'static str,
    /// Where it may stand.
    pub place: &'static str,
    /// What it means.
    pub help: &'static str,
}

const fn word(name: &'static str, form: &'static str, place: &'static str, help: &'static str) -> WordDef {
    WordDef { name, form, place, help }
}

/// All of them.
pub const WORDS: &[WordDef] = &[
    word("global", "{ ... }", "the top level", "What concerns all resources, and tandemd itself."),
    word("common", "{ ... }", "the top level", "What holds for every resource that does not say otherwise."),
    word(
        "resource",
        "NAME { ... }",
        "the top level",
        "A replicated resource: its volumes, and the nodes that have them.",
    ),
    word("include", "\"GLOB\"", "the top level", "Stands for the files that it names."),
    word(
        "net",
        "{ ... }",
        "`common {}`, `resource {}` or `connection {}`",
        "Options of the connection to the peer.",
    ),
    word(
        "disk",
        "PATH | { ... }",
        "`common {}`, `resource {}`, `on {}`, `volume {}` or `connection {}`",
        "`disk PATH;` is the block device or regular file that holds a volume's data on a node. In braces: options of the disks, and of resync.",
    ),
    word("options", "{ ... }", "`common {}` or `resource {}`", "Options of the resource as a whole."),
    word("startup", "{ ... }", "`common {}` or `resource {}`", "How long peers are waited for at boot."),
    word("handlers", "{ ... }", "`common {}` or `resource {}`", "Programs that are run at events."),
    word("syncer", "{ ... }", "`common {}` or `resource {}`", "Where options of resync stood until 8.3."),
    word(
        "proxy",
        "{ ... }",
        "`common {}`, `resource {}`, `on {}` or `connection {}`",
        "Of DRBD Proxy, which is not supported.",
    ),
    word(
        "peer-device-options",
        "{ ... }",
        "`common {}`, `resource {}` or `connection {}`",
        "Options of resync.",
    ),
    word(
        "on",
        "HOST { ... }",
        "`resource {}`",
        "What a node has, by what `uname -n` says there: its `address`, and all that is not the same on every node.",
    ),
    word(
        "floating",
        "IP:PORT { ... }",
        "`resource {}`",
        "The same of a node that is known by its address instead of its name.",
    ),
    word(
        "stacked-on-top-of",
        "RES { ... }",
        "`resource {}`",
        "Of a stacked resource, which is not supported.",
    ),
    word(
        "connection",
        "[NAME] { ... }",
        "`resource {}`",
        "A connection between two hosts, where it has options or paths of its own; without, all hosts are connected.",
    ),
    word("connection-mesh", "{ ... }", "`resource {}`", "Connections between all of its `hosts`."),
    word("path", "{ ... }", "`connection {}`", "A way from one host to the other, by an address of each."),
    word(
        "host",
        "NAME [address IP:PORT]",
        "`connection {}` or `path {}`",
        "One end; with its address, where that is not the one of the `on` section.",
    ),
    word("hosts", "NAME NAME...", "`connection-mesh {}`", "Who is connected to whom."),
    word(
        "template-file",
        "\"FILE\"",
        "`resource {}`",
        "The file whose `common {}` holds for this resource, in place of the one of the configuration.",
    ),
    word(
        "volume",
        "NUMBER { ... }",
        "`resource {}`, `on {}` or `connection {}`",
        "One of several block devices that share the connection, the role and one order of writes. What stands outside of any is volume 0.",
    ),
    word(
        "device",
        "[/dev/drbdN] minor N | /dev/drbdN",
        "`resource {}`, `on {}` or `volume {}`",
        "The block device that a Primary has.",
    ),
    word(
        "meta-disk",
        "internal | PATH [[INDEX]]",
        "`resource {}`, `on {}` or `volume {}`",
        "Where the meta-data lies: at the end of the `disk`, on a device or in a file of its own, or there in the slot of this number.",
    ),
    word(
        "flexible-meta-disk",
        "internal | PATH",
        "`resource {}`, `on {}` or `volume {}`",
        "The same without slots: 8.4's way to say so.",
    ),
    word(
        "address",
        "[ipv4 | ipv6] IP:PORT",
        "`on {}`",
        "Where a node listens, and is reached by its peer; of IPv6: `[ADDRESS]:PORT`.",
    ),
    word(
        "node-id",
        "NUMBER",
        "`on {}`",
        "The number that the meta-data knows a node by. Where none is given, nodes are counted from 0 in their order.",
    ),
];
