//! A pair on this machine, from `create-md` to the return of the node that was killed, on the repository's own files.

mod pair;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::packages;
use crate::process::{Result, run as run_command, shown, stdout};
use crate::repo;
use crate::sandbox::Sandbox;
use crate::steps::Steps;
use pair::{Node, Pair, RESOURCE};

/// The disks: small enough to be quick, large enough that a progress bar moves.
const DISK_BYTES: u64 = 256 << 20;
/// What is on alpha's disk before the first sync: zeroes would be synced in no time.
const OLD_DATA_BYTES: u64 = 224 << 20;
/// What is written while alpha is away, so that there is something to resync.
const BALLAST_BYTES: u64 = 128 << 20;
/// Block size of the ext4 image.
const EXT4_BLOCK_BYTES: u64 = 4096;
/// The last row of the table.
const SINCE_BUILT: &str = "all, once built";

/// The whole story. With `keep`, the pair stays up.
pub(crate) fn run(keep: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("packages: nbdcopy, mke2fs", || packages::ensure(packages::DEMO))?;
    steps.run("build tandemd and tandemadm", repo::build_release)?;
    let built = Instant::now();
    let sandbox = Sandbox::new()?;
    let pair = Pair::new(sandbox.path(), DISK_BYTES)?;
    let story = Story { work: sandbox.path().to_owned(), pair: &pair };

    steps.run("create-md, up on both nodes", || story.bring_up())?;
    steps.run("primary --force, initial sync", || story.first_sync())?;
    let image = steps.run("ext4 image of this repository", || story.make_image())?;
    steps.run("nbdcopy onto the device", || story.write(&pair.alpha, &image))?;
    steps.run("kill -9 the primary, promote", || story.fail_over())?;
    let copy = steps.run("read back, e2fsck, sha256", || story.read_back(&image))?;
    steps.run("write on as the survivor", || story.write_more(&copy))?;
    steps.run("alpha returns, resync", || story.rejoin())?;
    let size = story.device_bytes(&pair.bravo)?;
    if keep {
        steps.note(SINCE_BUILT, built.elapsed());
        steps.print();
        what_to_try(&pair, sandbox.path());
        return sandbox.keep();
    }
    steps.run("down, compare the disks", || story.take_down_and_compare(size))?;
    steps.note(SINCE_BUILT, built.elapsed());
    steps.print();
    Ok(())
}

struct Story<'a> {
    work: PathBuf,
    pair: &'a Pair,
}

impl Story<'_> {
    fn bring_up(&self) -> Result<()> {
        say("One file describes the resource for both nodes:");
        print!("{}", indented(&fs::read_to_string(&self.pair.config)?));
        for node in self.pair.nodes() {
            node.adm(&["create-md", RESOURCE])?;
        }
        say("alpha's disk has been in use, so that there is something to sync:");
        let alpha = &self.pair.alpha;
        alpha.shell(&mut noise(&alpha.disk, OLD_DATA_BYTES))?;
        for node in self.pair.nodes() {
            node.adm(&["up", RESOURCE])?;
        }
        alpha.adm(&["wait-connect", "-t", "10", RESOURCE])
    }

    fn first_sync(&self) -> Result<()> {
        let alpha = &self.pair.alpha;
        alpha.adm(&["primary", "--force", RESOURCE])?;
        alpha.adm(&["wait-sync", "--progress", "-t", "60", RESOURCE])?;
        alpha.adm(&["status", RESOURCE])?;
        alpha.shell(Command::new("cat").arg(alpha.run_dir.join("proc/drbd")))
    }

    /// An ext4 file system that fills the device and holds every file of this repository.
    fn make_image(&self) -> Result<PathBuf> {
        let tree = self.work.join("tree");
        let files = repo::files(true)?;
        for file in &files {
            let copy = tree.join(file);
            fs::create_dir_all(copy.parent().unwrap_or(&tree))?;
            fs::copy(repo::root().join(file), copy)?;
        }
        let blocks = self.device_bytes(&self.pair.alpha)? / EXT4_BLOCK_BYTES;
        say(&format!(
            "An ext4 image of the {} files of this repository, as large as the device:",
            files.len()
        ));
        let image = self.work.join("repository.ext4");
        self.pair.alpha.shell(
            tool("mke2fs")
                .args(["-q", "-t", "ext4", "-b", &EXT4_BLOCK_BYTES.to_string(), "-d"])
                .args([&tree, &image])
                .arg(blocks.to_string()),
        )?;
        Ok(image)
    }

    fn write(&self, node: &Node, image: &Path) -> Result<()> {
        node.shell(tool("nbdcopy").arg("--flush").arg(image).arg(node.uri()))
    }

    fn fail_over(&self) -> Result<()> {
        let Pair { alpha, bravo, .. } = self.pair;
        alpha.kill()?;
        bravo.wait_until("alpha's death is noticed", &["cstate", RESOURCE], |state| state != "Connected")?;
        say("bravo's view:");
        bravo.adm(&["status", RESOURCE])?;
        bravo.adm(&["primary", RESOURCE])?;
        bravo.adm(&["role", RESOURCE])
    }

    /// Everything that was written, read from the survivor.
    fn read_back(&self, image: &Path) -> Result<PathBuf> {
        let bravo = &self.pair.bravo;
        let copy = self.work.join("from-bravo.ext4");
        bravo.shell(tool("nbdcopy").arg(bravo.uri()).arg(&copy))?;
        bravo.shell(tool("e2fsck").arg("-fn").arg(&copy))?;
        bravo.shell(tool("sha256sum").args([image, &copy]))?;
        self.must_be_equal(image, &copy, fs::metadata(image)?.len())?;
        Ok(copy)
    }

    /// A note and some ballast, put into the file system and with it onto the device.
    fn write_more(&self, image: &Path) -> Result<()> {
        let bravo = &self.pair.bravo;
        let (note, ballast) = (self.work.join("note"), self.work.join("ballast"));
        fs::write(&note, "written while alpha was dead\n")?;
        bravo.shell(&mut noise(&ballast, BALLAST_BYTES))?;
        for (file, name) in [(&note, "NOTE"), (&ballast, "BALLAST")] {
            let command = format!("write {} {name}", file.display());
            bravo.shell(tool("debugfs").args(["-w", "-R", &command]).arg(image))?;
        }
        self.write(bravo, image)?;
        bravo.adm(&["status", RESOURCE])
    }

    fn rejoin(&self) -> Result<()> {
        let Pair { alpha, bravo, .. } = self.pair;
        alpha.adm(&["up", RESOURCE])?;
        alpha.adm(&["wait-sync", "--progress", "-t", "60", RESOURCE])?;
        bravo.adm(&["status", RESOURCE])?;
        for node in self.pair.nodes() {
            let states = stdout(&mut node.adm_command(&["dstate", RESOURCE]))?;
            if states.trim() != "UpToDate/UpToDate" {
                return Err(format!("{}: disks are {} after the resync", node.name, states.trim()).into());
            }
        }
        Ok(())
    }

    fn take_down_and_compare(&self, size: u64) -> Result<()> {
        let Pair { alpha, bravo, .. } = self.pair;
        bravo.adm(&["secondary", RESOURCE])?;
        for node in [bravo, alpha] {
            node.adm(&["down", RESOURCE])?;
        }
        say(&format!(
            "Both disks over the device's {size} bytes (behind them lies each node's own metadata):"
        ));
        bravo.shell(tool("cmp").arg("-n").arg(size.to_string()).args([&alpha.disk, &bravo.disk]))?;
        self.must_be_equal(&alpha.disk, &bravo.disk, size)?;
        say("identical");
        bravo.shell(tool("debugfs").arg("-R").arg("cat NOTE").arg(&alpha.disk))
    }

    fn device_bytes(&self, node: &Node) -> Result<u64> {
        let size = stdout(tool("nbdinfo").arg("--size").arg(node.uri()))?;
        Ok(size.trim().parse()?)
    }

    /// Does not rely on the tools that were shown.
    fn must_be_equal(&self, a: &Path, b: &Path, length: u64) -> Result<()> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        fs::File::open(a)?.take(length).read_to_end(&mut left)?;
        fs::File::open(b)?.take(length).read_to_end(&mut right)?;
        if left.len() as u64 != length || left != right {
            return Err(format!("{} and {} differ", a.display(), b.display()).into());
        }
        Ok(())
    }
}

/// Overwrites the beginning of a file with bytes that nobody can take a shortcut with.
fn noise(path: &Path, bytes: u64) -> Command {
    let mut dd = tool("dd");
    dd.args(["if=/dev/urandom", "bs=1M", "conv=notrunc", "status=none"]);
    dd.arg(format!("count={}", bytes >> 20)).arg(format!("of={}", path.display()));
    dd
}

fn what_to_try(pair: &Pair, folder: &Path) {
    println!("\nThe pair is up, bravo is Primary. In a shell:\n");
    println!("  export PATH={}:$PATH", pair.bravo.programs.display());
    for node in pair.nodes() {
        println!(
            "  {}() {{ {} tandemadm -c {} \"$@\"; }}",
            node.name,
            node.environment(),
            pair.config.display()
        );
    }
    println!("\n  bravo status");
    println!("  alpha primary {RESOURCE}                  # refused, exit status 11: bravo is Primary");
    println!("  nbdinfo '{}'", pair.bravo.uri());
    println!("  bravo secondary {RESOURCE} && alpha primary {RESOURCE}   # change roles");
    println!("  cat {}", pair.alpha.run_dir.join("proc/drbd").display());
    println!("\nTo end it:\n  alpha down {RESOURCE}; bravo down {RESOURCE}");
    println!("  kill $(cat {0}/alpha/tandemd.pid {0}/bravo/tandemd.pid) && rm -r {0}", folder.display());
}

/// A program, found also where only root's PATH leads.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

fn say(text: &str) {
    println!("{text}");
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
