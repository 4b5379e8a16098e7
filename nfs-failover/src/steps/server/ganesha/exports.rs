//! What NFS-Ganesha exports, one block of its configuration each, and what makes one list of them another.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use super::bus;
use crate::config::{Client, Export, Squash};
use crate::plan::{Trouble, trouble};

/// Where NFSv4 clients begin; it is Ganesha's own.
const ROOT: u16 = 0;

/// An export that there is: its number, and the folder.
pub(super) type Present = (u16, PathBuf);

/// One export, as Ganesha reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    number: u16,
    path: PathBuf,
    pub(super) text: String,
}

/// Both nodes give clients the same handles: numbers of exports are part of them.
pub(super) fn blocks(exports: &[Export]) -> Vec<Block> {
    exports.iter().map(block).collect()
}

fn block(export: &Export) -> Block {
    let (number, path) = (export.number(), quoted(&export.path));
    let mut text = format!(
        "EXPORT {{\n  Export_Id = {number};\n  Path = {path};\n  Pseudo = {path};\n  Protocols = 3, 4;\n  \
         Access_Type = None;\n  FSAL {{ Name = VFS; }}\n"
    );
    for client in &export.clients {
        let _ = writeln!(text, "  CLIENT {{ {} }}", client_options(client));
    }
    text.push_str("}\n");
    Block { number, path: export.path.clone(), text }
}

fn client_options(client: &Client) -> String {
    let access = if client.may_write() { "RW" } else { "RO" };
    let squash = match client.squash() {
        Squash::None => "No_root_squash",
        Squash::Root => "Root_squash",
        Squash::All => "All_squash",
    };
    let mut text = format!("Clients = {}; Access_Type = {access}; Squash = {squash};", client.host);
    for (ours, theirs) in [("anonuid", "Anonymous_Uid"), ("anongid", "Anonymous_Gid")] {
        if let Some(number) = client.value(ours) {
            let _ = write!(text, " {theirs} = {number};");
        }
    }
    let security = client.value("sec").unwrap_or("sys").replace(':', ", ");
    let _ = write!(text, " SecType = {security}; PrivilegedPort = {};", !client.has("insecure"));
    text
}

pub(super) fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('"', "\\\""))
}

/// What is done to one export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change<'a> {
    Remove(&'a Present),
    Add(&'a Block),
    Update(&'a Block),
}

impl Change<'_> {
    /// Makes it; `file` is the configuration that the blocks stand in.
    pub(super) fn make(&self, file: &Path) -> Result<(), Trouble> {
        let said = match self {
            Change::Remove((number, _)) => bus::remove(*number),
            Change::Add(block) => bus::add(file, block.number),
            Change::Update(block) => bus::update(file, block.number),
        };
        said.map_err(trouble(format_args!("{}: NFS-Ganesha does not take that", self.path().display())))
    }

    fn path(&self) -> &Path {
        match self {
            Change::Remove((_, path)) => path,
            Change::Add(block) | Change::Update(block) => &block.path,
        }
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self {
            Change::Remove(_) => "is not exported any more",
            Change::Add(_) => "is exported",
            Change::Update(_) => "is exported in another way",
        };
        write!(f, "{} {done}", self.path().display())
    }
}

/// What makes the exports that there are those that are wanted, in this order: a folder may go under another number, or a
/// number to another folder. `known` is the configuration that those were made by.
pub(super) fn changes<'a>(wanted: &'a [Block], present: &'a [Present], known: &str) -> Vec<Change<'a>> {
    let is_wanted = |(number, path): &&Present| {
        *number == ROOT || wanted.iter().any(|block| (block.number, &block.path) == (*number, path))
    };
    let is_present =
        |block: &Block| present.iter().any(|(number, path)| (block.number, &block.path) == (*number, path));
    let mut removed: Vec<&Present> = present.iter().filter(|one| !is_wanted(one)).collect();
    // None that has others inside of it can be removed.
    removed.sort_by(|one, other| other.1.cmp(&one.1));
    let others = wanted.iter().filter_map(|block| match is_present(block) {
        false => Some(Change::Add(block)),
        true => (!known.contains(&block.text)).then_some(Change::Update(block)),
    });
    removed.into_iter().map(Change::Remove).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn list(exports: &[&str]) -> Vec<Block> {
        let exports: String = exports.iter().map(|export| format!("export \"{export}\"; ")).collect();
        let text = format!(
            "service nfs {{ resource r0; mount /srv/nfs {{ fstype ext4; }} server ganesha; {exports} \
             vip 10.0.0.100/24 dev eth0; }}"
        );
        blocks(&Config::parse("nfs-failover.conf".as_ref(), &text).unwrap().services[0].exports)
    }

    fn present(blocks: &[Block]) -> Vec<Present> {
        let own = [(ROOT, "/".into())];
        blocks.iter().map(|block| (block.number, block.path.clone())).chain(own).collect()
    }

    fn known(blocks: &[Block]) -> String {
        blocks.iter().map(|block| block.text.as_str()).collect()
    }

    fn said(wanted: &[Block], present: &[Present], known: &str) -> Vec<String> {
        changes(wanted, present, known).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_did_not_change_is_left_alone() {
        let before = list(&["/srv/nfs/a *(ro)", "/srv/nfs/b *(ro)", "/srv/nfs/c *(ro)"]);
        let after = list(&["/srv/nfs/d *(ro)", "/srv/nfs/c *(ro)", "/srv/nfs/b *(ro,all_squash)"]);
        let found = said(&after, &present(&before), &known(&before));
        let expected = [
            "/srv/nfs/a is not exported any more",
            "/srv/nfs/d is exported",
            "/srv/nfs/b is exported in another way",
        ];
        assert_eq!(found, expected);
        assert!(said(&before, &present(&before), &known(&before)).is_empty());
    }

    #[test]
    fn without_knowing_what_was_every_export_is_told_anew() {
        let exports = list(&["/srv/nfs/a *(ro)"]);
        assert_eq!(said(&exports, &present(&exports), ""), ["/srv/nfs/a is exported in another way"]);
    }

    #[test]
    fn a_number_that_goes_to_another_folder_is_free_before() {
        let before = list(&["/srv/nfs/a *(ro,fsid=7)", "/srv/nfs/b *(ro,fsid=8)"]);
        let after = list(&["/srv/nfs/a *(ro,fsid=9)", "/srv/nfs/c *(ro,fsid=8)"]);
        let expected = [
            "/srv/nfs/b is not exported any more",
            "/srv/nfs/a is not exported any more",
            "/srv/nfs/a is exported",
            "/srv/nfs/c is exported",
        ];
        assert_eq!(said(&after, &present(&before), &known(&before)), expected);
    }

    #[test]
    fn numbers_do_not_depend_on_other_exports() {
        let [one, two] =
            [&["/srv/nfs/a *(ro)"][..], &["/srv/nfs/b *(ro,fsid=7)", "/srv/nfs/a *(ro)"]].map(list);
        assert_eq!((one[0].number, two[0].number), (two[1].number, 7));
        assert!(two[0].text.contains("Export_Id = 7;"));
    }
}
