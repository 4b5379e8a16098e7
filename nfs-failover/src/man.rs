//! The manual pages, from the definition of the command line and the table of the configuration's words.

use clap::CommandFactory;
use tandem_man::{Page, Term};

use crate::cli::Cli;
use crate::config::{DEFAULT_PATH, IN_HOOKS, IN_MOUNT, IN_SERVICE, Word};

/// What is done again and again.
const EXAMPLES: [(&str, &str); 6] = [
    ("nfs-failover check", "Is everything there that a move needs, and both nodes configured alike?"),
    ("nfs-failover promote nfs", "Serve from this node; the other one demotes first, if it serves."),
    ("nfs-failover switchover nfs", "Move it to the other node, from wherever it is."),
    ("nfs-failover drill nfs", "Rehearse what can be rehearsed without harm, and measure it."),
    ("nfs-failover demote --all", "Leave this node, before it is shut down or upgraded."),
    (
        "nfs-failover clear nfs",
        "A node that must be fenced was, or nothing of the service is left there: it may serve again.",
    ),
];

/// Both of them.
pub fn pages() -> [Page; 2] {
    [nfs_failover(), nfs_failover_conf()]
}

fn nfs_failover() -> Page {
    let mut page = Page::of_command(&Cli::command(), 8);
    page.section("examples");
    for (line, text) in EXAMPLES {
        page.entry(&Term::default().literal(line), text);
    }
    page.section("environment");
    page.entry(
        &Term::default().literal("TANDEM_RUN_DIR"),
        "Where tandemd has its sockets, and services their files, instead of `/run/tandem`.",
    );
    page.section("files");
    for (path, text) in [
        (DEFAULT_PATH, "The configuration."),
        ("/run/tandem/nfs-failover", "What becomes of the services; gone after a boot."),
        ("/var/lib/tandem/nfs-failover", "Which filesystem was served, and which peer was met."),
        ("/usr/lib/tandem/vip-up, /usr/lib/tandem/vip-down", "UCARP's scripts: each leaves a wish."),
        ("/usr/share/doc/nfs-failover/examples", "For UCARP, keepalived and HAProxy."),
        (
            "/usr/share/doc/tandem/docs/quickstart-nfs.md",
            "From two fresh machines to an export that fails over.",
        ),
        ("/usr/share/doc/tandem/docs/failure-modes.md", "What can go wrong, and what comes of it."),
    ] {
        page.entry(&Term::default().literal(path), text);
    }
    page.see_also(&[("nfs-failover.conf", 5), ("tandemadm", 8), ("tandemd", 8)]);
    page
}

const GRAMMAR: &str = "\
The language is that of tandem.conf(5): statements that end in `;` or in a body between `{` and `}`, `#` before a comment, quotes \
around what has blanks, `include \"GLOB\";`. Each `service NAME { ... }` is a volume with the server on it and its addresses, which \
move from node to node together. The same file belongs on both nodes.";

const EXAMPLE: &str = include_str!("../../packaging/nfs-failover.conf.example");

fn nfs_failover_conf() -> Page {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = Page::new("nfs-failover.conf", 5, version, "the services that nfs-failover moves");
    page.section("description");
    page.paragraphs(GRAMMAR);
    for (title, words) in [("service", IN_SERVICE), ("mount", IN_MOUNT), ("hooks", IN_HOOKS)] {
        page.section(&format!("in {title}"));
        words.iter().for_each(|word| page.entry(&term(word), &explanation(word)));
    }
    page.section("example");
    page.verbatim(EXAMPLE);
    page.section("files");
    page.entry(&Term::default().literal(DEFAULT_PATH), "Read unless `-c` names another.");
    page.see_also(&[("nfs-failover", 8), ("tandem.conf", 5), ("exports", 5)]);
    page
}

fn term(word: &Word) -> Term {
    Term::default().literal(word.name).plain(" ").placeholder(word.value)
}

fn explanation(word: &Word) -> String {
    let often = if word.repeated { " May be said several times." } else { "" };
    format!("{}{often}", word.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_and_the_example_is_good() {
        let [command, configuration] = pages();
        for one in Cli::command().get_subcommands().filter(|one| !one.is_hide_set()) {
            assert!(
                command.roff().contains(&format!("\n.SS\n\\fB{}\\fR", one.get_name().replace('-', "\\-")))
            );
        }
        for word in IN_SERVICE.iter().chain(IN_MOUNT).chain(IN_HOOKS) {
            assert!(configuration.roff().contains(&format!("\\fB{}\\fR ", word.name.replace('-', "\\-"))));
        }
        assert!(crate::config::Config::parse("example".as_ref(), EXAMPLE).is_ok());
    }
}
