//! The manual pages, from the definition of the command line and the table of the configuration's options.

use clap::CommandFactory;
use tandem_config::{Kind, OPTIONS, OptionDef, Section, WORDS, WordDef};
use tandem_man::{Page, Term};

use crate::cli::Cli;

/// What every command looks at in its environment.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("TANDEM_RUN_DIR", "Where tandemd has its sockets and its status file, instead of `/run/tandem`."),
    (
        "TANDEM_NODE",
        "The node's name in the configuration, instead of what `uname -n` prints. drbdadm's `__DRBD_NODE__` does the same.",
    ),
    ("NO_COLOR", "Set to anything, it stands for `--color=never` where nothing else is said."),
    ("TERM", "So does `dumb`, which is a terminal without colours."),
];

/// What is done again and again.
const EXAMPLES: [(&str, &str); 9] = [
    ("tandemadm create-md r0 && tandemadm up r0", "On both nodes: begin with a new resource."),
    (
        "tandemadm primary --force r0",
        "On one of them: its data counts, and is sent to the other; `tandemadm wait-sync r0` returns when it is there.",
    ),
    (
        "tandemadm secondary r0",
        "Give the role up, once nothing has the device open; `tandemadm primary r0` on the other node takes it.",
    ),
    ("tandemadm status -x", "Is anything amiss? Why, and what is to be done next?"),
    (
        "tandemadm --dry-run adjust r0",
        "What would change if what runs were made what the configuration says? Without `--dry-run` it is.",
    ),
    ("tandemadm net-options r0 --ping-int=5", "Set an option until the next `adjust`."),
    ("tandemadm verify r0", "Compare both copies, with `net { verify-alg sha256; }` on both nodes."),
    ("tandemadm resize r0", "Take more room into use, after the disks of both nodes have grown."),
    (
        "tandemadm split-brain show r0",
        "What has each side written since they parted? `tandemadm split-brain resolve r0 --keep NODE` decides.",
    ),
];

/// All of them.
pub fn pages() -> [Page; 2] {
    [tandemadm(), tandem_conf()]
}

fn tandemadm() -> Page {
    let mut page = Page::of_command(&Cli::command(), 8);
    page.section("examples");
    for (line, text) in EXAMPLES {
        page.entry(&Term::default().literal(line), text);
    }
    page.section("environment");
    for (name, text) in ENVIRONMENT {
        page.entry(&Term::default().literal(name), text);
    }
    page.section("files");
    page.entry(&Term::default().literal(tandem_config::DEFAULT_PATH), "The configuration.");
    page.entry(
        &Term::default().literal("/run/tandem/tandemd.log"),
        "The log of a daemon that `up` has started.",
    );
    page.entry(
        &Term::default().literal("/run/tandem/proc/drbd"),
        "The state of everything, in the format of `/proc/drbd` of DRBD 8.4.",
    );
    page.entry(
        &Term::default().literal("/usr/lib/tandem/bin"),
        "`drbdadm` and `drbdsetup`, for tools that call these names.",
    );
    page.see_also(&[("tandemd", 8), ("tandem.conf", 5), ("nfs-failover", 8)]);
    page
}

const GRAMMAR: &str = "\
The language is that of `drbd.conf`, of DRBD 9 and of 8.4: the files of a cluster that runs DRBD are understood as they are. A \
file is statements; a statement is words that end in `;` or in a body between `{` and `}`. `#` begins a comment, quotes keep \
blanks in a word, `skip` before a section makes it as if it were not there, and `include \"GLOB\";` at the top level stands for \
the files that it names, relative to the including file and sorted.

The same file belongs on all nodes: a node finds its `on` sections by the name that `uname -n` prints. What `common` says holds \
for every resource, what a resource says for its connections and volumes, unless they say otherwise.

Numbers take the suffixes K, M, G and T for powers of 1024 and s for sectors of 512 bytes, unless they count seconds or parts of \
them. What is true or false is written as `option;`, `option yes;` or `option no;`, and in the manner of 8.4 as `no-option;`.";

const EXAMPLE: &str = "\
resource r0 {
  net { protocol C; verify-alg sha256; }
  volume 0 { device minor 0; disk /dev/vg/r0; meta-disk internal; }
  on node1 { address 192.168.100.101:7789; }
  on node2 { address 192.168.100.102:7789; }
}";

fn tandem_conf() -> Page {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = Page::new("tandem.conf", 5, version, "the configuration of Tandem's replicated resources");
    page.section("description");
    page.paragraphs(GRAMMAR);
    page.section("example");
    page.verbatim(EXAMPLE);
    page.section("sections and statements");
    for WordDef { name, form, place, help } in WORDS {
        page.entry(
            &Term::default().literal(name).plain(" ").placeholder(form),
            &format!("{help} In {place}."),
        );
    }
    for section in Section::ALL {
        let mut options = OPTIONS.iter().filter(|option| option.home() == section).peekable();
        if options.peek().is_none() {
            continue;
        }
        let title = match section {
            Section::Top => "options at the top level".to_owned(),
            section => format!("options of {}", section.keyword()),
        };
        page.section(&title);
        options.for_each(|option| page.entry(&term(option), &explanation(option)));
    }
    page.section("files");
    page.entry(&Term::default().literal(tandem_config::DEFAULT_PATH), "Read unless `-c` names another.");
    for (path, text) in [
        ("/etc/tandem.d/global_common.conf", "What is installed with it: what holds for all resources."),
        ("/etc/tandem.d/*.res", "Each resource in a file of its own."),
        ("/usr/share/doc/tandem/docs/handlers.md", "What handlers are told, and fencing with them."),
    ] {
        page.entry(&Term::default().literal(path), text);
    }
    page.see_also(&[("tandemadm", 8), ("tandemd", 8)]);
    page
}

fn term(option: &OptionDef) -> Term {
    let term = Term::default().literal(option.name).plain(" ");
    match option.kind {
        Kind::Flag { .. } => term.plain("[").literal("yes").plain(" | ").literal("no").plain("]"),
        Kind::Number { .. } => term.placeholder("NUMBER"),
        Kind::Choice(words) => choice(term, words),
        Kind::ChoiceOrCount { words, .. } => choice(term, words).plain(" | ").placeholder("NUMBER"),
        Kind::Digest => term.placeholder("DIGEST"),
        Kind::Words => term.placeholder("HOST..."),
        Kind::Text { .. } => term.placeholder("TEXT"),
        Kind::Address => term.placeholder("IP:PORT"),
    }
}

fn choice(term: Term, words: &[&str]) -> Term {
    let mut words = words.iter();
    let first = words.next().map_or(term.clone(), |first| term.literal(first));
    words.fold(first, |term, word| term.plain(" | ").literal(word))
}

/// What `tandemadm options` says of it, and where else it may stand.
fn explanation(option: &OptionDef) -> String {
    let said = option.long_help();
    let mut text: Vec<String> = said.lines().skip(1).map(|line| line.trim().to_owned()).collect();
    let mut values = match option.kind {
        // They stand beside its name.
        Kind::Flag { .. } | Kind::Choice(_) => String::new(),
        kind => format!("{}. ", capital(&kind.expected())),
    };
    values += &option.kind.default_value().map_or("No default.".to_owned(), |v| format!("Default: `{v}`."));
    text.insert(1, values);
    let elsewhere: Vec<String> =
        option.sections.iter().skip(1).map(|section| format!("`{}`", section.keyword())).collect();
    if !elsewhere.is_empty() {
        text.push(format!("Also understood in {}.", elsewhere.join(" and ")));
    }
    text.join("\n\n")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
