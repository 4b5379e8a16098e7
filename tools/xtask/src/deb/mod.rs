//! `cargo xtask deb` and `man`: Debian packages of what is shipped, made with `dpkg-deb` of a staged tree.

mod contents;
mod stage;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Result, run, stdout};
use crate::repo;
use contents::{PACKAGES, Package};

/// Builds what is shipped and packs it; prints where the packages lie.
pub(crate) fn run_build() -> Result<()> {
    repo::build_release()?;
    let binaries = repo::release_dir()?;
    let folder = binaries.with_file_name("debian");
    for package in build(&binaries, &folder)? {
        println!("{}", package.display());
    }
    Ok(())
}

/// Builds what is shipped and writes its manual pages; prints where they lie.
pub(crate) fn run_man() -> Result<()> {
    repo::build_release()?;
    let binaries = repo::release_dir()?;
    let tree = binaries.with_file_name("pages");
    for written in PACKAGES.iter().flat_map(|package| package.written) {
        stage::write(written, &binaries, &tree)?;
    }
    println!("{}", tree.display());
    Ok(())
}

/// Packs programs that are built into packages in a folder, whose earlier content goes.
fn build(binaries: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let architecture = stdout(Command::new("dpkg").arg("--print-architecture"))?;
    PACKAGES.iter().map(|package| pack(package, binaries, folder, architecture.trim())).collect()
}

fn pack(package: &Package, binaries: &Path, folder: &Path, architecture: &str) -> Result<PathBuf> {
    let tree = folder.join(package.name);
    stage::stage(package, binaries, architecture, &tree)?;
    let version = env!("CARGO_PKG_VERSION");
    let file = folder.join(format!("{}_{version}_{architecture}.deb", package.name));
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&file))?;
    Ok(file)
}
