//! The tree that becomes a package, and what dpkg wants to know about it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::contents::{Package, Written};
use crate::process::{Result, run, stdout};
use crate::repo;

const PROGRAM: u32 = 0o755;
const FILE: u32 = 0o644;
/// What programs say about the C library that they need.
const LIBC_SYMBOLS: &str = "GLIBC_2.";
/// What systemd must be told when units come and go.
const RELOAD: &str = "#!/bin/sh\nset -e\n\
    if [ -z \"$DPKG_ROOT\" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";

/// Lays everything out.
pub(super) fn stage(package: &Package, binaries: &Path, architecture: &str, tree: &Path) -> Result<()> {
    for program in package.programs {
        copy(&binaries.join(program), &tree.join("usr/sbin").join(program), PROGRAM)?;
    }
    for written in package.written {
        write(written, binaries, tree)?;
    }
    in_tree(tree, "find usr/share/man -type f -exec gzip -9n {} +")?;
    for (from, to) in package.scripts {
        copy(&repo::root().join(from), &tree.join(to), PROGRAM)?;
    }
    for (from, to) in package.files {
        copy(&repo::root().join(from), &tree.join(to), FILE)?;
    }
    for (at, to) in package.links {
        let at = tree.join(at);
        fs::create_dir_all(at.parent().unwrap_or(tree))?;
        symlink(to, at)?;
    }
    for folder in package.folders {
        fs::create_dir_all(tree.join(folder))?;
    }
    let control = tree.join("DEBIAN");
    fs::create_dir_all(&control)?;
    fs::write(control.join("control"), described(package, binaries, architecture, tree)?)?;
    fs::write(control.join("conffiles"), conffiles(package))?;
    fs::write(
        control.join("md5sums"),
        in_tree(tree, "find * -path DEBIAN -prune -o -type f -print0 | xargs -0 md5sum")?,
    )?;
    for hook in package.hooks {
        let name = hook.rsplit('.').next().unwrap_or(hook);
        copy(&repo::root().join("packaging/debian").join(hook), &control.join(name), PROGRAM)?;
    }
    for name in ["postinst", "postrm"] {
        fs::write(control.join(name), RELOAD)?;
        fs::set_permissions(control.join(name), Permissions::from_mode(PROGRAM))?;
    }
    // Whatever the umask was.
    in_tree(tree, "find . -type d -exec chmod 755 {} +").map(drop)
}

/// What a program says of itself.
pub(super) fn write(written: &Written, binaries: &Path, tree: &Path) -> Result<()> {
    let mut command = Command::new(binaries.join(written.program));
    let to = tree.join(written.to);
    if written.arguments.contains(&"{}") {
        let folder = to.display().to_string();
        return run(command.args(written.arguments.iter().map(|word| word.replace("{}", &folder))));
    }
    fs::create_dir_all(to.parent().unwrap_or(&to))?;
    fs::write(&to, stdout(command.args(written.arguments))?)?;
    Ok(fs::set_permissions(&to, Permissions::from_mode(FILE))?)
}

/// A file, or a folder with what is in it.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let failed = |error: std::io::Error| format!("{}: {error}", from.display());
    if from.is_dir() {
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()), mode)?;
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).map_err(failed)?;
    fs::set_permissions(to, Permissions::from_mode(mode))?;
    match to.starts_with("DEBIAN") || mode != PROGRAM || fs::read(to)?.starts_with(b"#!") {
        true => Ok(()),
        false => strip(to),
    }
}

/// Without what only a debugger reads, where the tool for that is installed.
fn strip(program: &Path) -> Result<()> {
    match run(Command::new("strip").args(["--strip-debug", "--remove-section=.comment"]).arg(program)) {
        Err(error) if error.to_string().starts_with("cannot start") => Ok(()),
        result => result,
    }
}

fn described(package: &Package, binaries: &Path, architecture: &str, tree: &Path) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut depends =
        vec![format!("libc6 (>= {})", libc_version(package, binaries)?), "libgcc-s1".to_owned()];
    depends.extend(package.depends.iter().map(|one| one.replace("${version}", version)));
    let size_kib = in_tree(tree, "du -sk --exclude=DEBIAN .")?;
    let size_kib = size_kib.split_whitespace().next().unwrap_or("0").to_owned();
    let description: String = package.description.lines().map(|line| format!(" {line}\n")).collect();
    Ok(format!(
        "Package: {}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: Tandem <tandem@localhost>\n\
         Installed-Size: {size_kib}\nDepends: {}\nRecommends: {}\nSuggests: {}\nSection: admin\nPriority: optional\n\
         Description: {}\n{description}",
        package.name,
        depends.join(", "),
        package.recommends,
        package.suggests,
        package.summary,
    ))
}

/// The newest version of the C library that one of the programs names: 2.34 for `GLIBC_2.34`.
fn libc_version(package: &Package, binaries: &Path) -> Result<String> {
    let mut newest = 0;
    for program in package.programs {
        newest = newest.max(newest_libc(&fs::read(binaries.join(program))?));
    }
    Ok(format!("2.{newest}"))
}

pub(super) fn newest_libc(program: &[u8]) -> u32 {
    let mark = LIBC_SYMBOLS.as_bytes();
    let named = program.windows(mark.len() + 3).filter(|window| window.starts_with(mark));
    let minor = |window: &[u8]| {
        let digits = window[mark.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    named.map(minor).max().unwrap_or(0)
}

fn conffiles(package: &Package) -> String {
    let in_etc = package.files.iter().map(|(_, to)| to).filter(|to| to.starts_with("etc/"));
    in_etc.map(|to| format!("/{to}\n")).collect()
}

fn in_tree(tree: &Path, script: &str) -> Result<String> {
    stdout(Command::new("sh").args(["-c", script]).current_dir(tree))
}
