//! Exports in the syntax of exports(5): `PATH CLIENT(OPTIONS) CLIENT(OPTIONS)`.

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tandem_config::Diagnostic;
use tandem_config::language::{Diagnostics, Word, nearest, quote};

/// Options that stand alone.
const FLAGS: &[&str] = &[
    "rw",
    "ro",
    "sync",
    "secure",
    "insecure",
    "root_squash",
    "no_root_squash",
    "all_squash",
    "no_all_squash",
    "subtree_check",
    "no_subtree_check",
    "wdelay",
    "no_wdelay",
    "hide",
    "nohide",
    "crossmnt",
    "acl",
    "no_acl",
    "auth_nlm",
    "no_auth_nlm",
    "secure_locks",
    "insecure_locks",
    "security_label",
    "mp",
    "mountpoint",
    "async",
];
/// Options with a value.
const VALUED: &[&str] = &["fsid", "anonuid", "anongid", "sec", "mp", "mountpoint"];

/// One exported folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// The folder.
    pub path: PathBuf,
    /// Who may use it, and how; at least one.
    pub clients: Vec<Client>,
    /// What file handles name the filesystem by: the same on both nodes.
    pub fsid: String,
}

/// Who may use an export, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// A host, a network, a netgroup or `*`.
    pub host: String,
    /// As written, without `fsid` and `mountpoint`.
    pub options: Vec<String>,
}

/// Whose requests are made those of nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Squash {
    /// Nobody's.
    None,
    /// Root's.
    Root,
    /// Everybody's.
    All,
}

impl Export {
    /// What NFS-Ganesha numbers it by, which is part of what clients hold: the same on both nodes, whatever else is exported.
    pub fn number(&self) -> u16 {
        match self.fsid.parse() {
            Ok(number) if number > 0 => number,
            _ => {
                let digest = Sha256::digest(&self.fsid);
                // 0 is where NFSv4 clients begin.
                1 + u16::from_be_bytes([digest[0], digest[1]]) % u16::MAX
            }
        }
    }
}

impl Client {
    /// Whether the client may write.
    pub fn may_write(&self) -> bool {
        self.has("rw")
    }

    /// Whether an option that stands alone is given.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }

    /// The value of an option that has one.
    pub fn value(&self, option: &str) -> Option<&str> {
        self.options.iter().find_map(|one| one.strip_prefix(option)?.strip_prefix('='))
    }

    /// Whose requests are made those of nobody.
    pub fn squash(&self) -> Squash {
        match (self.has("all_squash"), self.has("no_root_squash")) {
            (true, _) => Squash::All,
            (false, true) => Squash::None,
            (false, false) => Squash::Root,
        }
    }
}

/// Reads one export; without a `fsid` it gets one that follows from the resource and the path.
pub(super) fn export(word: &Word, resource: &str, found: &mut Diagnostics) -> Option<Export> {
    let mut parts = word.text.split_ascii_whitespace();
    let path = match parts.next() {
        Some(path) if path.starts_with('/') => path.replace("\\040", " "),
        _ => {
            let error = Diagnostic::error(&word.span, "expected an absolute path and who may use it");
            found.push(
                error.help("as in exports(5): \"/srv/nfs/data 10.0.0.0/24(rw,sync,no_subtree_check)\""),
            );
            return None;
        }
    };
    let mut reader = Reader { word, fsid: None, found };
    let clients: Vec<Client> = parts.map_while(|part| reader.client(part)).collect();
    if clients.len() != word.text.split_ascii_whitespace().count() - 1 {
        return None;
    }
    if clients.is_empty() {
        reader.error(
            format!("{} names nobody who may use it", quote(&path)),
            "add a client, as 10.0.0.0/24(rw,sync)",
        );
        return None;
    }
    let fsid = reader.fsid.take().unwrap_or_else(|| derived_fsid(resource, &path));
    Some(Export { path: path.into(), clients, fsid })
}

/// The same on every node that has the same configuration.
pub(crate) fn derived_fsid(resource: &str, path: &str) -> String {
    let digest = Sha256::digest(format!("{resource}\0{path}"));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

struct Reader<'a> {
    word: &'a Word,
    fsid: Option<String>,
    found: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn client(&mut self, part: &str) -> Option<Client> {
        let (host, options) = match part.split_once('(') {
            Some((host, rest)) => match rest.strip_suffix(')') {
                Some(options) => (host, options),
                None => {
                    self.error(
                        format!("expected `)` at the end of {}", quote(part)),
                        "options stand without blanks",
                    );
                    return None;
                }
            },
            None => (part, ""),
        };
        if host.is_empty() {
            self.error(
                format!("{} stands alone and would be for the whole world", quote(part)),
                "write it behind its client without a blank, or `*` if the world is meant",
            );
            return None;
        }
        if host.starts_with('-') {
            self.error("default options with `-` are not supported", "write the options behind each client");
            return None;
        }
        let mut kept = Vec::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            if self.option(option)? {
                kept.push(option.to_owned());
            }
        }
        let client = Client { host: host.to_owned(), options: kept };
        self.warn_about(&client);
        Some(client)
    }

    /// Whether the option is to be kept with its client; `None` if it is wrong.
    fn option(&mut self, option: &str) -> Option<bool> {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("async", None) => {
                let help = "write `sync`";
                self.error(
                    "`async` loses writes that the client was told are safe when the service moves",
                    help,
                );
                None
            }
            // Every export is guarded by the mount anyway.
            ("mp" | "mountpoint", _) => Some(false),
            ("fsid", Some(value)) if !value.is_empty() => {
                let value = if value == "root" { "0" } else { value };
                if self.fsid.as_deref().is_some_and(|earlier| earlier != value) {
                    self.error(
                        "an export has one `fsid`, and here are two",
                        "write the same one for each client",
                    );
                    return None;
                }
                self.fsid = Some(value.to_owned());
                Some(false)
            }
            (name, None) if FLAGS.contains(&name) => Some(true),
            (name, Some(value)) if VALUED.contains(&name) && !value.is_empty() => Some(true),
            _ => {
                let near = nearest(name, FLAGS.iter().chain(VALUED).copied());
                let help = near.map_or("see exports(5)".to_owned(), |near| format!("did you mean `{near}`?"));
                self.error(format!("{} is not an option of exports(5)", quote(option)), help);
                None
            }
        }
    }

    fn warn_about(&mut self, client: &Client) {
        let host = quote(&client.host);
        if client.has("no_root_squash") {
            self.warning(
                format!("root on {host} is root on the export (`no_root_squash`)"),
                "leave it out unless those machines are as trusted as this one",
            );
        }
        if client.host == "*" && client.may_write() {
            self.warning("the whole world may write (`*`)".to_owned(), "name the clients' network");
        }
        if client.has("subtree_check") {
            self.warning(
                format!("`subtree_check` makes file handles of {host} stale when files are renamed"),
                "write `no_subtree_check`",
            );
        }
        if client.has("secure") && client.has("insecure") || client.has("rw") && client.has("ro") {
            self.warning(format!("the options of {host} contradict each other"), "leave one of them out");
        }
    }

    fn error(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Diagnostic::error(&self.word.span, message).help(help));
    }

    fn warning(&mut self, message: String, help: &str) {
        self.found.push(Diagnostic::warning(&self.word.span, message).help(help));
    }
}
