//! drbd-utils' own drbdadm, which knows nothing of Tandem, drives a pair: it calls what tandemadm answers to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::node::{Node, Outcome};
use crate::outcome::binary;
use crate::pair::{Pair, Setup};
use crate::wait;

/// Where drbdadm notes which file a resource is in, for its handlers.
const REGISTRY: &str = "/run/drbd";

/// A pair with a configuration for drbdadm. Names and minors are this process's own: drbdadm notes them for the whole machine.
struct Administered {
    pair: Pair,
    resource: String,
    minors: [u32; 2],
    /// With the names that drbdadm calls.
    programs: PathBuf,
}

impl Administered {
    fn new() -> Administered {
        let pair = Pair::new(Setup::default());
        let programs = pair.folder().join("bin");
        fs::create_dir(&programs).unwrap();
        for name in ["drbdsetup", "drbdmeta"] {
            symlink(fs::canonicalize(binary("tandemadm")).unwrap(), programs.join(name)).unwrap();
        }
        let first = 100_000 + std::process::id() % 400_000 * 2;
        let resource = format!("e2e-{}", std::process::id());
        Administered { pair, resource, minors: [first, first + 1], programs }
    }

    fn configure(&self, net: &str) {
        let mut text = "global { usage-count no; disable-ip-verification; }\n".to_owned();
        text += &format!("resource {} {{\n  net {{ protocol C; {net} }}\n", self.resource);
        text += "  disk { on-io-error detach; al-extents 1999; c-max-rate 0; }\n";
        for ((node, minor), id) in self.pair.nodes().into_iter().zip(self.minors).zip(0..) {
            let (name, address, disk) = (node.name, node.address, node.disk.display());
            text += &format!(
                "  on {name} {{ node-id {id}; address {address}; device minor {minor}; disk {disk}; meta-disk internal; }}\n"
            );
        }
        fs::write(&self.pair.alpha.config, text + "}\n").unwrap();
    }

    /// The program by its name: called by its path, drbdadm would look for the others beside itself.
    fn run(&self, node: &Node, program: &str, args: &[&str]) -> Outcome {
        let mut command = node.command(Path::new(program));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.programs.display()));
        command.env("__DRBD_NODE__", node.name).args(args);
        Outcome::of(command)
    }

    /// `drbdadm ARGS RESOURCE`.
    fn adm(&self, node: &Node, args: &[&str]) -> Outcome {
        let config = node.config.display().to_string();
        self.run(node, "drbdadm", &[&["-c", &config], args, &[&self.resource]].concat())
    }

    /// One of ours: drbd-utils' own would say that there is no kernel module.
    fn own(&self, node: &Node, program: &str, args: &str) -> Outcome {
        let program = self.programs.join(program).display().to_string();
        self.run(node, &program, &args.split(' ').collect::<Vec<_>>())
    }

    /// Asks drbdadm until it answers so.
    fn until(&self, node: &Node, word: &str, is_so: impl Fn(&Outcome) -> bool) {
        let mut last = None;
        let holds = wait::holds_within(wait::LIMIT, || {
            let outcome = self.adm(node, &[word]);
            let holds = is_so(&outcome);
            last = Some(outcome);
            holds
        });
        assert!(holds, "{}: in the end, {word}: {last:?}", node.name);
    }

    fn until_says(&self, node: &Node, word: &str, answer: &str) {
        self.until(node, word, |outcome| outcome.stdout.trim() == answer);
    }

    /// Refused as long as a client that has gone, or the other node's role, is not noticed.
    fn until_done(&self, node: &Node, word: &str) {
        self.until(node, word, |outcome| outcome.code == Some(0));
    }
}

impl Drop for Administered {
    fn drop(&mut self) {
        let minors = self.minors.map(|minor| format!("drbd-minor-{minor}.conf"));
        for name in minors.into_iter().chain([format!("drbd-resource-{}.conf", self.resource)]) {
            // It is there only if drbdadm came so far.
            let _ = fs::remove_file(Path::new(REGISTRY).join(name));
        }
    }
}

#[test]
#[ignore = "needs the release daemons and drbd-utils: cargo xtask test"]
fn drbd_utils_drbdadm_drives_a_pair() {
    let world = Administered::new();
    let Pair { alpha, bravo, .. } = &world.pair;
    let (name, [minor, _]) = (world.resource.as_str(), world.minors);
    world.configure("");
    for (node, minor) in [alpha, bravo].into_iter().zip(world.minors) {
        // As drbdadm calls it, which itself takes only block devices for disks here.
        let line = format!("{minor} v09 {} internal create-md 1 --force", node.disk.display());
        let said = world.own(node, "drbdmeta", &line).ok();
        assert!(said.stdout.contains("New tandem meta data block successfully created."), "{said:?}");
        world.adm(node, &["up"]).ok();
    }
    world.until_says(alpha, "dstate", "Inconsistent/Inconsistent");
    world.adm(alpha, &["primary"]).refused(17, "(-2) Need access to UpToDate data");
    world.adm(alpha, &["primary", "--force"]).ok();
    world.until_says(bravo, "dstate", "UpToDate/UpToDate");
    world.adm(bravo, &["primary"]).refused(11, "(-1) Multiple primaries not allowed by config");

    let block = [0x5A; 4096];
    let mut client = alpha.client_of(name).unwrap();
    client.write(1 << 20, &block, true).unwrap();
    drop(client);
    world.until_done(alpha, "secondary");
    world.until_done(bravo, "primary");
    assert_eq!(world.adm(bravo, &["role"]).ok().stdout, "Primary\n");
    assert_eq!(bravo.client_of(name).unwrap().read(1 << 20, 4096).unwrap(), block);
    world.until_says(alpha, "cstate", "Connected");

    // What the file says now counts at once, and nothing else changes.
    world.configure("ping-int 7;");
    world.adm(alpha, &["adjust"]).ok();
    let shown = world.own(alpha, "drbdsetup", &format!("show {name}")).ok().stdout;
    assert!(shown.contains("ping-int        \t7;"), "{shown}");
    assert_eq!(world.adm(alpha, &["cstate"]).ok().stdout, "Connected\n");
    let status = world.adm(alpha, &["status"]).ok().stdout;
    assert_eq!(
        status,
        format!(
            "{name} role:Secondary\n  disk:UpToDate open:no\n  bravo role:Primary\n    peer-disk:UpToDate\n\n"
        )
    );

    world.adm(alpha, &["disconnect"]).ok();
    world.until_says(alpha, "cstate", "StandAlone");
    world.adm(alpha, &["detach"]).ok();
    world.until_says(alpha, "dstate", "Diskless/DUnknown");
    world.adm(alpha, &["adjust"]).ok();
    world.until_says(alpha, "dstate", "UpToDate/UpToDate");

    for (line, number) in [
        (format!("new-minor {name} {minor} 1"), "(162) Invalid configuration request"),
        (format!("new-minor {name} 99999 0"), "(161) Minor or volume exists already"),
        (format!("del-minor {minor}"), "(160) Minor still configured"),
        (format!("attach {minor} /dev/null /dev/null internal"), "(124) Device is attached to a disk"),
        (format!("del-resource {name}"), "(159) Resource still in use"),
        ("new-minor nobody 99999 0".to_owned(), "(158) Unknown resource"),
        ("attach 99999 /dev/null /dev/null internal".to_owned(), "(127) Device minor not allocated"),
    ] {
        world.own(alpha, "drbdsetup", &line).refused(10, number);
    }
    for node in [alpha, bravo] {
        world.until_done(node, "down");
        world.adm(node, &["status"]).refused(10, "No such resource");
    }
}
