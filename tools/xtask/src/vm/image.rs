//! The machines' disk image: a Debian of the host's own release, made of packages alone, kept until the recipe changes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::unistd::mkdtemp;

use crate::packages;
use crate::process::{Result, run, stdout};

/// What the guests have installed.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "drbd-utils",
    "e2fsprogs",
    "iproute2",
    "iputils-arping",
    "iputils-ping",
    "kmod",
    "mount",
    "nbd-client",
    "nfs-common",
    "nfs-kernel-server",
    "nftables",
    "procps",
    "psmisc",
    "rpcbind",
    "strace",
    "tcpdump",
    "ucarp",
    "util-linux",
];
/// What of the kernel's modules is in the image, beside what these need.
const MODULES: &[&str] = &[
    "9p",
    "9pnet_virtio",
    "crc32c_generic",
    "drbd",
    "dummy",
    "ext4",
    "fuse",
    "loop",
    "nbd",
    "nf_tables",
    "nfsd",
    "nfsv3",
    "nfsv4",
    "nft_ct",
    "nft_reject_inet",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_pci",
    "virtio_rng",
];
/// What finds the root file system.
const FIRST_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
/// The root file system's size; a sparse file.
const ROOT_SIZE: &str = "900M";
const INIT: &str = include_str!("guest/init.sh");
const AGENT: &str = include_str!("guest/agent.sh");
const INITRD: &str = include_str!("guest/initrd.sh");

/// What a machine boots.
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    pub(super) root: PathBuf,
}

impl Image {
    /// The image of this recipe from the folder, built if it is not there yet.
    pub(super) fn ensure(cache: &Path) -> Result<Image> {
        // The host's own release: what cargo builds here finds its libraries there.
        let release = packages::release_name()?;
        let folder = cache.join(format!("image-{release}-{:016x}", recipe(&release)));
        let image = Image {
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd.gz"),
            root: folder.join("root.img"),
        };
        if folder.exists() {
            println!("The machines' image: {}", folder.display());
            return Ok(image);
        }
        println!("Building the machines' image from Debian's packages, about a minute: {}", folder.display());
        fs::create_dir_all(cache)?;
        let work = Workplace(mkdtemp(&cache.join("building-XXXXXX"))?);
        Builder::new(&work.0, release).build()?;
        // Only a whole image gets the name that is looked for.
        fs::rename(work.0.join("image"), &folder)?;
        Ok(image)
    }
}

/// The folder of an unfinished build; goes when the build ends, however it does.
struct Workplace(PathBuf);

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} stays behind: {error}", self.0.display());
        }
    }
}

struct Builder {
    work: PathBuf,
    release: String,
    /// Where the kernel's package was unpacked.
    kernel: PathBuf,
    root: PathBuf,
    image: PathBuf,
    started: Instant,
}

impl Builder {
    fn new(work: &Path, release: String) -> Builder {
        let [kernel, root, image] = ["kernel", "root", "image"].map(|name| work.join(name));
        Builder { work: work.to_owned(), release, kernel, root, image, started: Instant::now() }
    }

    fn build(&self) -> Result<()> {
        fs::create_dir(&self.image)?;
        self.say("lists of packages");
        run(Command::new("apt-get").args(["-qq", "-o", "DPkg::Lock::Timeout=300", "update"]))?;
        self.say("kernel");
        let version = self.unpack_kernel()?;
        self.say("root file system");
        self.bootstrap()?;
        self.install_modules(&version)?;
        self.install_our_own()?;
        self.say("disk image and initial ramdisk");
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
            .args([&self.root, &self.image.join("root.img")])
            .arg(ROOT_SIZE))?;
        self.make_initrd(&version)?;
        self.say("image is there");
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("  [{:5.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// The release's kernel, not installed but unpacked; returns its version.
    fn unpack_kernel(&self) -> Result<String> {
        let depends = stdout(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|p| p.starts_with("linux-image")))
            .ok_or("apt knows no linux-image-amd64: is Debian's main among its sources?")?;
        run(Command::new("apt-get").current_dir(&self.work).args([
            "-qq",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            package,
        ]))?;
        let archive = find_in(&self.work, "linux-image")?;
        run(Command::new("dpkg").arg("-x").args([&archive, &self.kernel]))?;
        let modules = find_in(&self.kernel.join("lib/modules"), "")?;
        let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        run(Command::new("depmod").arg("-b").arg(&self.kernel).arg(&version))?;
        fs::copy(find_in(&self.kernel.join("boot"), "vmlinuz")?, self.image.join("vmlinuz"))?;
        Ok(version)
    }

    fn bootstrap(&self) -> Result<()> {
        run(Command::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase"])
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .args(["man", "locale", "doc"].map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")))
            .arg(&self.release)
            .arg(&self.root)
            .arg(packages::mirror(&self.release)?))
    }

    fn install_modules(&self, version: &str) -> Result<()> {
        let folder = Path::new("lib/modules").join(version);
        let mut files = self.with_what_they_need(MODULES, version)?;
        files.sort();
        files.dedup();
        let lists = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];
        let lists = lists.map(|name| self.kernel.join(&folder).join(name));
        for file in files.iter().chain(&lists) {
            let copy = self.root.join(file.strip_prefix(&self.kernel)?);
            fs::create_dir_all(copy.parent().unwrap_or(&self.root))?;
            fs::copy(file, copy)?;
        }
        run(Command::new("depmod").arg("-b").arg(&self.root).arg(version))
    }

    /// The modules' files, each after those that it needs.
    fn with_what_they_need(&self, modules: &[&str], version: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for module in modules {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("-d").arg(&self.kernel).args(["-S", version, "--show-depends", module]);
            let lines = stdout(&mut modprobe)?;
            let found = lines.lines().filter_map(|l| l.strip_prefix("insmod ")?.split(' ').next());
            files.extend(found.map(PathBuf::from));
        }
        Ok(files)
    }

    fn install_our_own(&self) -> Result<()> {
        write_program(&self.root.join("sbin/lab-init"), INIT)?;
        write_program(&self.root.join("sbin/lab-agent"), AGENT)?;
        for folder in ["host", "srv/nfs", "usr/local/sbin"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        Ok(())
    }

    fn make_initrd(&self, version: &str) -> Result<()> {
        let tree = self.work.join("initrd");
        for folder in ["bin", "proc", "sys", "dev", "root", "modules"] {
            fs::create_dir_all(tree.join(folder))?;
        }
        write_program(&tree.join("init"), INITRD)?;
        fs::copy(self.root.join("bin/busybox"), tree.join("bin/busybox"))?;
        let mut files: Vec<PathBuf> = Vec::new();
        for file in self.with_what_they_need(FIRST_MODULES, version)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        for (place, file) in files.iter().enumerate() {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            fs::copy(file, tree.join(format!("modules/{place:02}-{name}")))?;
        }
        let script = "find . | cpio --quiet -o -H newc | gzip -1 > ../image/initrd.gz";
        run(Command::new("sh").current_dir(&tree).args(["-c", script]))
    }
}

/// What the image is made of, as a number.
fn recipe(release: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (release, PACKAGES, MODULES, FIRST_MODULES, ROOT_SIZE, INIT, AGENT, INITRD).hash(&mut hasher);
    hasher.finish()
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The file in a folder whose name begins like this.
fn find_in(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let found = entries.iter().find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    Ok(found.ok_or_else(|| format!("{}: no file {prefix}*", folder.display()))?.path())
}
