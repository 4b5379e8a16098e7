//! Where things are, and how they are built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process::{Result, run, stdout};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors().nth(2).unwrap_or(here).to_owned()
    })
}

/// `cargo`, the one that runs this program, in the repository's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The folder of the release binaries, wherever cargo was told to put it.
pub(crate) fn release_dir() -> Result<PathBuf> {
    let metadata = stdout(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"].as_str().ok_or("cargo metadata names no target_directory")?;
    Ok(Path::new(target).join("release"))
}

/// Builds what is shipped, as it is shipped.
pub(crate) fn build_release() -> Result<()> {
    run(&mut release_build())
}

/// Only what is shipped, so that no other member's features find their way in.
pub(crate) fn release_build() -> Command {
    let mut cargo = cargo();
    cargo.args([
        "build",
        "--release",
        "-p",
        "tandemd",
        "-p",
        "tandem-device",
        "-p",
        "tandemadm",
        "-p",
        "nfs-failover",
    ]);
    cargo
}

/// The paths of the repository's files, relative to its root; without what git ignores. With `tracked_only`, without
/// what was not added yet.
pub(crate) fn files(tracked_only: bool) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z", "--cached"]);
    if !tracked_only {
        git.args(["--others", "--exclude-standard"]);
    }
    let list = stdout(&mut git)?;
    let paths = list.split('\0').filter(|p| !p.is_empty()).map(PathBuf::from);
    Ok(paths.filter(|p| root().join(p).is_file()).collect())
}
