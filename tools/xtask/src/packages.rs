//! Programs that come from Debian's packages.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use crate::process::{Result, run, stdout};

/// A package, how its presence is seen, and why it is needed.
pub(crate) struct Package {
    name: &'static str,
    program: &'static str,
    reason: &'static str,
}

const LIBNBD: Package = Package {
    name: "libnbd-bin",
    program: "nbdcopy",
    reason: "nbdinfo and nbdcopy, the reference NBD client",
};
const E2FSPROGS: Package = Package {
    name: "e2fsprogs",
    program: "mke2fs",
    reason: "makes and checks the ext4 image that is replicated",
};
const QEMU: Package = Package {
    name: "qemu-utils",
    program: "qemu-io",
    reason: "qemu-io, qemu-img and qemu-nbd, a second client and a peer",
};
const FIO: Package =
    Package { name: "fio", program: "fio", reason: "loads an export and verifies checksums" };
const LOSETUP: Package =
    Package { name: "mount", program: "losetup", reason: "loop devices and tmpfs for failing disks" };
const IPROUTE: Package =
    Package { name: "iproute2", program: "ip", reason: "the cable between two nodes' network namespaces" };
const NFTABLES: Package = Package { name: "nftables", program: "nft", reason: "cuts that cable" };
const UTIL_LINUX: Package =
    Package { name: "util-linux", program: "unshare", reason: "namespaces: unshare, nsenter, setpriv" };
const POSTGRESQL: Package =
    Package { name: "postgresql", program: "postgres", reason: "the database that must not lose a commit" };
const OCF_TESTER: Package =
    Package { name: "resource-agents", program: "ocf-tester", reason: "tries the cluster's agent" };
const UCARP: Package = Package { name: "ucarp", program: "ucarp", reason: "elects a node" };
const KEEPALIVED: Package = Package { name: "keepalived", program: "keepalived", reason: "elects a node" };
const HAPROXY: Package =
    Package { name: "haproxy", program: "haproxy", reason: "leads clients to the node that serves" };
const COROSYNC: Package =
    Package { name: "corosync", program: "corosync", reason: "the members of a cluster" };
const PACEMAKER: Package =
    Package { name: "pacemaker", program: "pacemakerd", reason: "elects a node, and fences the other" };
const PACEMAKER_TOOLS: Package =
    Package { name: "pacemaker-cli-utils", program: "cibadmin", reason: "asks the cluster" };
const CRMSH: Package = Package { name: "crmsh", program: "crm", reason: "loads the example of a cluster" };
const XMLLINT: Package =
    Package { name: "libxml2-utils", program: "xmllint", reason: "checks the agent's description" };
const GANESHA: Package =
    Package { name: "nfs-ganesha", program: "ganesha.nfsd", reason: "an NFS server in user space" };
const GANESHA_VFS: Package = Package {
    name: "nfs-ganesha-vfs",
    // It has no program.
    program: "/etc/ganesha/vfs.conf",
    reason: "lets that server export a file system",
};
const RPCBIND: Package =
    Package { name: "rpcbind", program: "rpcbind", reason: "tells NFSv3 clients the ports" };
const LIBNFS: Package = Package {
    name: "libnfs-dev",
    program: "/usr/include/nfsc/libnfs.h",
    reason: "an NFS client that needs no mount",
};
const DRBD_UTILS: Package =
    Package { name: "drbd-utils", program: "drbdadm", reason: "the oracle: its configuration is ours" };
const ZSH: Package = Package { name: "zsh", program: "zsh", reason: "completes command lines" };
const FISH: Package = Package { name: "fish", program: "fish", reason: "completes command lines" };
const GROFF: Package = Package { name: "groff-base", program: "groff", reason: "reads the manual pages" };
const NODE_EXPORTER: Package = Package {
    name: "prometheus-node-exporter",
    program: "prometheus-node-exporter",
    reason: "reads the status file",
};
const HA_CLUSTER_EXPORTER: Package = Package {
    name: "prometheus-hacluster-exporter",
    program: "ha_cluster_exporter",
    reason: "reads status --json",
};
const CHECK_DRBD: Package = Package {
    name: "monitoring-plugins-contrib",
    program: "/usr/lib/nagios/plugins/check_drbd",
    reason: "reads the status file",
};
const GCC: Package = Package { name: "gcc", program: "gcc", reason: "builds that client" };
const PROCPS: Package = Package { name: "procps", program: "pgrep", reason: "sees what is left running" };
const NBDKIT: Package = Package { name: "nbdkit", program: "nbdkit", reason: "the server to compare with" };

const QEMU_SYSTEM: Package =
    Package { name: "qemu-system-x86", program: "qemu-system-x86_64", reason: "the virtual machines" };
const MMDEBSTRAP: Package =
    Package { name: "mmdebstrap", program: "mmdebstrap", reason: "makes their root file system" };
const KMOD: Package = Package { name: "kmod", program: "depmod", reason: "picks their kernel modules" };
const CPIO: Package = Package { name: "cpio", program: "cpio", reason: "packs their initial ramdisk" };

/// What the demo runs.
pub(crate) const DEMO: &[Package] = &[LIBNBD, E2FSPROGS];
/// What the tests run.
pub(crate) const TEST: &[Package] = &[
    LIBNBD,
    E2FSPROGS,
    QEMU,
    FIO,
    LOSETUP,
    IPROUTE,
    NFTABLES,
    UTIL_LINUX,
    POSTGRESQL,
    OCF_TESTER,
    XMLLINT,
    UCARP,
    KEEPALIVED,
    HAPROXY,
    DRBD_UTILS,
    NODE_EXPORTER,
    HA_CLUSTER_EXPORTER,
    CHECK_DRBD,
    ZSH,
    FISH,
    GROFF,
];
/// What the virtual machines' lab runs.
pub(crate) const VM: &[Package] = &[QEMU_SYSTEM, MMDEBSTRAP, KMOD, CPIO, E2FSPROGS, IPROUTE, UTIL_LINUX];
/// What the tests of high availability run besides.
pub(crate) const HIGH_AVAILABILITY: &[Package] = &[
    E2FSPROGS,
    IPROUTE,
    NFTABLES,
    UTIL_LINUX,
    GANESHA,
    GANESHA_VFS,
    RPCBIND,
    LIBNFS,
    GCC,
    PROCPS,
    COROSYNC,
    PACEMAKER,
    PACEMAKER_TOOLS,
    CRMSH,
    OCF_TESTER,
];
/// What the side-by-side measurement runs.
pub(crate) const BENCH: &[Package] = &[LIBNBD, QEMU, FIO, NBDKIT];

/// Installs those of the packages whose program is missing. The error names the ones that could not be installed.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|p| !present(p.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("Installing from Debian's packages:");
    for package in &missing {
        println!("  {:<12} {}", package.name, package.reason);
    }
    // Lists may be there and yet too old to find anything: then a second attempt with fresh ones.
    let installed = (lists_present() && install(&missing).is_ok())
        || (update().is_ok() && install(&missing).is_ok())
        || install_from_backports(&missing).is_ok();
    let names = |packages: &[&Package]| packages.iter().map(|p| p.name).collect::<Vec<_>>().join(" ");
    let still: Vec<&Package> = missing.into_iter().filter(|p| !present(p.program)).collect();
    match installed && still.is_empty() {
        true => Ok(()),
        false => {
            Err(format!("needed and not to be had: {0}; install by hand: apt-get install {0}", names(&still))
                .into())
        }
    }
}

/// Found by its name where programs lie, or by its whole path.
fn present(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    // A user's PATH often lacks the folders where mke2fs and losetup live.
    let usual = path.split(':').chain(["/usr/sbin", "/sbin"]).map(PathBuf::from);
    usual.chain(database_folders()).any(|folder| folder.join(program).is_file())
}

/// Debian keeps a database server's programs apart, by version.
fn database_folders() -> impl Iterator<Item = PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin"))
}

fn lists_present() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|mut files| {
        files.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().contains("_Packages")))
    })
}

fn update() -> Result<()> {
    run(apt_get().arg("update").stdout(Stdio::null()))
}

/// The name of the Debian release that this machine runs.
pub(crate) fn release_name() -> Result<String> {
    let about = fs::read_to_string("/etc/os-release")?;
    let value =
        |key: &str| about.lines().find_map(|line| line.strip_prefix(key)).map(|v| v.trim_matches('"'));
    match (value("ID="), value("VERSION_CODENAME=")) {
        (Some("debian"), Some(name)) => Ok(name.to_owned()),
        _ => Err("this is no Debian: /etc/os-release".into()),
    }
}

/// The address that apt has a release from.
pub(crate) fn mirror(release: &str) -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let mirrors = stdout(apt.arg(format!("Release: {release}")))?;
    Ok(mirrors.lines().next().ok_or_else(|| format!("apt has no source for {release}"))?.to_owned())
}

fn install(packages: &[&Package]) -> Result<()> {
    run(add_install(&mut apt_get(), packages))
}

/// Completes the command; nothing that is installed may go.
fn add_install<'a>(apt: &'a mut Command, packages: &[&Package]) -> &'a mut Command {
    apt.args(["install", "-y", "--no-install-recommends", "--no-remove"])
        .args(packages.iter().map(|p| p.name))
}

/// Where a relative was installed from backports, a package fits only if it comes from there, too. The machine's own
/// list of sources stays as it is.
fn install_from_backports(packages: &[&Package]) -> Result<()> {
    let release = release_name()?;
    let mirror = mirror(&release)?;
    println!("Not to be had from {release}; from {release}-backports:");
    let list = std::env::temp_dir().join(format!("tandem-backports-{}.list", std::process::id()));
    let suites = ["", "-updates", "-backports"].map(|suite| format!("deb {mirror} {release}{suite} main\n"));
    fs::write(&list, suites.concat())?;
    let with_list = |mut apt: Command| -> Command {
        apt.arg("-o").arg(format!("Dir::Etc::sourcelist={}", list.display()));
        apt.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0"]);
        apt
    };
    let updated = run(with_list(apt_get()).arg("update").stdout(Stdio::null()));
    let installed = updated.and_then(|()| {
        let release = format!("{release}-backports");
        run(add_install(&mut with_list(apt_get()), packages).args(["-t", &release]))
    });
    fs::remove_file(&list)?;
    installed
}

fn apt_get() -> Command {
    let mut apt = if Uid::effective().is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "apt-get"]);
        sudo
    };
    apt.args(["-q", "-o", "Dpkg::Use-Pty=0"]).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path() {
        assert!(present("sh") && present("/bin/sh"));
        assert!(!present("no-such-program-anywhere"));
    }
}
