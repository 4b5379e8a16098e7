//! The packages are built, listed, installed into a folder, tried and removed.

use nix::unistd::mkdtemp;

use super::*;

#[test]
fn the_newest_library_is_found() {
    let text = b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0";
    assert_eq!((stage::newest_libc(text), stage::newest_libc(b"")), (34, 0));
}

/// A folder into which dpkg installs.
struct Root(PathBuf);

impl Root {
    fn new(path: PathBuf) -> Root {
        fs::create_dir_all(path.join("var/lib/dpkg/info")).unwrap();
        fs::create_dir_all(path.join("var/lib/dpkg/updates")).unwrap();
        fs::write(path.join("var/lib/dpkg/status"), "").unwrap();
        Root(path)
    }

    /// What the packages depend on is not in there; their scripts run out here, and know it.
    fn dpkg(&self, arguments: &[&str]) -> Command {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.0.display())).arg("--force-depends");
        dpkg.args(["--force-script-chrootless", "--log=/dev/null"]).args(arguments);
        dpkg
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        stdout(Command::new(self.0.join(program)).args(arguments)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }
}

/// Of the manual pages as they are installed.
fn groff_has_nothing_to_say(root: &Root) {
    let pages = stdout(Command::new("find").arg(root.0.join("usr/share/man")).args(["-type", "f"])).unwrap();
    assert_eq!(pages.lines().count(), 5, "{pages}");
    for page in pages.lines() {
        let check = "zcat \"$1\" | groff -ww -man -Tutf8 -z 2>&1";
        assert_eq!(stdout(Command::new("sh").args(["-c", check, "sh", page])).unwrap(), "", "{page}");
    }
}

#[test]
#[ignore = "needs root and the release binaries"]
fn packages_are_built_installed_tried_and_removed() {
    let sandbox = mkdtemp(&std::env::temp_dir().join("tandem-deb-XXXXXX")).unwrap();
    let binaries = std::env::var_os("TANDEM_BIN_DIR").map(PathBuf::from);
    let packages =
        build(&binaries.unwrap_or_else(|| repo::release_dir().unwrap()), &sandbox.join("debian")).unwrap();
    let listed: String = packages
        .iter()
        .map(|package| stdout(Command::new("dpkg-deb").arg("-c").arg(package)).unwrap())
        .collect();
    for (mode, path) in [
        ("-rwxr-xr-x", "usr/sbin/tandemd"),
        ("-rwxr-xr-x", "usr/sbin/tandem-device"),
        ("-rwxr-xr-x", "usr/sbin/tandemadm"),
        ("-rwxr-xr-x", "usr/sbin/nfs-failover"),
        ("-rwxr-xr-x", "usr/lib/tandem/vip-up"),
        ("-rwxr-xr-x", "usr/lib/tandem/hooks/postgresql"),
        ("-rwxr-xr-x", "usr/lib/ocf/resource.d/tandem/tandem"),
        ("-rw-r--r--", "usr/share/man/man8/tandemd.8.gz"),
        ("-rw-r--r--", "usr/share/man/man8/tandemadm.8.gz"),
        ("-rw-r--r--", "usr/share/man/man5/tandem.conf.5.gz"),
        ("-rw-r--r--", "usr/share/man/man8/nfs-failover.8.gz"),
        ("-rw-r--r--", "usr/share/man/man5/nfs-failover.conf.5.gz"),
        ("-rw-r--r--", "usr/share/bash-completion/completions/tandemadm"),
        ("-rw-r--r--", "usr/share/zsh/vendor-completions/_tandemadm"),
        ("-rw-r--r--", "usr/share/fish/vendor_completions.d/tandemadm.fish"),
        ("-rw-r--r--", "etc/tandem.conf"),
        ("-rw-r--r--", "usr/lib/systemd/system/tandemd.service"),
        ("-rw-r--r--", "usr/share/doc/tandem/docs/guarantees.md"),
        ("drwxr-xr-x", "etc/tandem/ucarp/"),
    ] {
        let is_it = |line: &str| {
            line.starts_with(&format!("{mode} root/root")) && line.ends_with(&format!(" ./{path}"))
        };
        assert!(listed.lines().any(is_it), "{mode} {path} in\n{listed}");
    }

    let root = Root::new(sandbox.join("root"));
    let files: Vec<&str> = packages.iter().map(|package| package.to_str().unwrap()).collect();
    run(root.dpkg(&["--install"]).args(&files)).unwrap();
    groff_has_nothing_to_say(&root);
    for (program, says) in [
        ("tandemd", "tandemd "),
        ("tandem-device", "tandem-device "),
        ("tandemadm", ""),
        ("nfs-failover", "nfs-failover "),
    ] {
        let said = root.run(&format!("usr/sbin/{program}"), &["--version"]);
        assert!(said.starts_with(says) && said.contains(env!("CARGO_PKG_VERSION")), "{program}: {said}");
    }
    let example = root.0.join("usr/share/doc/nfs-failover/examples/nfs-failover.conf");
    let steps = root.run("usr/sbin/nfs-failover", &["-c", example.to_str().unwrap(), "plan"]);
    assert!(steps.contains("make r0 Primary"), "{steps}");
    expect_units_to_be_complete(&root);

    // What the administrator has written stays until it is purged.
    fs::write(root.0.join("etc/tandem.conf"), "# mine\n").unwrap();
    run(root.dpkg(&["--install"]).args(&files)).unwrap();
    assert_eq!(fs::read_to_string(root.0.join("etc/tandem.conf")).unwrap(), "# mine\n");
    run(&mut root.dpkg(&["--remove", "nfs-failover", "tandem"])).unwrap();
    assert!(root.has("etc/tandem.conf") && !root.has("usr/sbin/tandemd") && !root.has("usr/lib/tandem"));
    run(&mut root.dpkg(&["--purge", "tandem"])).unwrap();
    assert!(!root.has("etc/tandem.conf"));
    fs::remove_dir_all(&sandbox).unwrap();
}

/// Whatever a unit or a hook runs of ours is installed where it says.
fn expect_units_to_be_complete(root: &Root) {
    let units = fs::read_dir(root.0.join("usr/lib/systemd/system")).unwrap();
    let mut found = 0;
    for unit in units {
        let text = fs::read_to_string(unit.unwrap().path()).unwrap();
        for word in text.split(['=', ' ', '\n']).filter(|word| word.starts_with("/usr/")) {
            if !matches!(word, "/usr/sbin/ucarp" | "/usr/share/doc/tandem") {
                assert!(root.has(&word[1..]), "{word}");
                found += 1;
            }
        }
    }
    assert!(found >= 6, "{found}");
}
