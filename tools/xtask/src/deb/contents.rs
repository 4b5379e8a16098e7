//! What the packages hold, and where Debian expects it.

/// A package.
pub(super) struct Package {
    pub(super) name: &'static str,
    /// One line.
    pub(super) summary: &'static str,
    /// The paragraph below it.
    pub(super) description: &'static str,
    /// What else it needs, besides the libraries of its programs; `${version}` is its own version.
    pub(super) depends: &'static [&'static str],
    pub(super) recommends: &'static str,
    pub(super) suggests: &'static str,
    /// To `/usr/sbin`, as cargo has built them.
    pub(super) programs: &'static [&'static str],
    /// What the programs themselves write.
    pub(super) written: &'static [Written],
    /// From the repository, as programs.
    pub(super) scripts: &'static [(&'static str, &'static str)],
    /// From the repository, a folder with what is in it. What goes to `/etc` is the administrator's from then on.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// Where a symbolic link lies, and what it leads to.
    pub(super) links: &'static [(&'static str, &'static str)],
    /// Empty ones.
    pub(super) folders: &'static [&'static str],
    /// What dpkg runs, in `packaging/debian`.
    pub(super) hooks: &'static [&'static str],
}

/// What a program writes when it is called: into the folder that takes the place of `{}`, otherwise to its output.
pub(super) struct Written {
    pub(super) program: &'static str,
    pub(super) arguments: &'static [&'static str],
    pub(super) to: &'static str,
}

const fn man(program: &'static str, argument: &'static [&'static str]) -> Written {
    Written { program, arguments: argument, to: "usr/share/man" }
}

const fn completion(shell: &'static [&'static str], to: &'static str) -> Written {
    Written { program: "tandemadm", arguments: shell, to }
}

/// All of them, in the order in which they can be installed.
pub(super) const PACKAGES: &[Package] = &[
    Package {
        name: "tandem",
        summary: "replicated block devices in user space",
        description: "Keeps a block device identical on two nodes, with replication protocols A, B and C and the\n\
                      configuration language and commands that DRBD administrators know. The Primary has it as a\n\
                      block device and over NBD. No kernel module is needed.",
        depends: &[],
        recommends: "kmod",
        suggests: "nfs-failover, libnbd-bin",
        programs: &["tandemd", "tandem-device", "tandemadm"],
        written: &[
            man("tandemd", &["--man", "{}"]),
            man("tandemadm", &["man", "{}"]),
            completion(&["completion", "bash"], "usr/share/bash-completion/completions/tandemadm"),
            completion(&["completion", "zsh"], "usr/share/zsh/vendor-completions/_tandemadm"),
            completion(&["completion", "fish"], "usr/share/fish/vendor_completions.d/tandemadm.fish"),
        ],
        scripts: &[("packaging/ocf/tandem", "usr/lib/ocf/resource.d/tandem/tandem")],
        files: &[
            ("packaging/tandem.conf", "etc/tandem.conf"),
            ("packaging/tandem.d/global_common.conf", "etc/tandem.d/global_common.conf"),
            ("packaging/systemd/tandemd.service", "usr/lib/systemd/system/tandemd.service"),
            ("packaging/debian/copyright", "usr/share/doc/tandem/copyright"),
            ("packaging/pacemaker", "usr/share/doc/tandem/examples/pacemaker"),
            ("README.md", "usr/share/doc/tandem/README.md"),
            ("docs", "usr/share/doc/tandem/docs"),
        ],
        // Names that tools call, apart from where drbd-utils has its own.
        links: &[
            ("usr/lib/tandem/bin/drbdadm", "/usr/sbin/tandemadm"),
            ("usr/lib/tandem/bin/drbdsetup", "/usr/sbin/tandemadm"),
            ("usr/lib/tandem/bin/drbdmeta", "/usr/sbin/tandemadm"),
        ],
        folders: &[],
        hooks: &["tandem.prerm"],
    },
    Package {
        name: "nfs-failover",
        summary: "makes the surviving node the NFS server behind a virtual address",
        description: "Promotes and demotes a node in order, as UCARP, keepalived, Pacemaker or the operator wish and as\n\
                      tandemd permits: replicated volume, mount, NFS server (the kernel's or NFS-Ganesha), exports,\n\
                      virtual address.",
        depends: &["tandem (= ${version})", "nftables", "iproute2", "mount"],
        recommends: "nfs-kernel-server | nfs-ganesha, rpcbind",
        suggests: "ucarp, keepalived, haproxy, pacemaker",
        programs: &["nfs-failover"],
        written: &[man("nfs-failover", &["man", "{}"])],
        scripts: &[
            ("packaging/ucarp/vip-up", "usr/lib/tandem/vip-up"),
            ("packaging/ucarp/vip-down", "usr/lib/tandem/vip-down"),
            ("packaging/hooks/postgresql", "usr/lib/tandem/hooks/postgresql"),
        ],
        files: &[
            ("packaging/systemd/nfs-failover.service", "usr/lib/systemd/system/nfs-failover.service"),
            (
                "packaging/systemd/nfs-failover-leave.service",
                "usr/lib/systemd/system/nfs-failover-leave.service",
            ),
            (
                "packaging/systemd/nfs-failover-witness.service",
                "usr/lib/systemd/system/nfs-failover-witness.service",
            ),
            ("packaging/ucarp/ucarp@.service", "usr/lib/systemd/system/ucarp@.service"),
            ("packaging/nfs-failover.conf.example", "usr/share/doc/nfs-failover/examples/nfs-failover.conf"),
            ("packaging/ucarp/interfaces.example", "usr/share/doc/nfs-failover/examples/ucarp/interfaces"),
            ("packaging/ucarp/nfs.example", "usr/share/doc/nfs-failover/examples/ucarp/nfs"),
            ("packaging/keepalived", "usr/share/doc/nfs-failover/examples/keepalived"),
            ("packaging/haproxy", "usr/share/doc/nfs-failover/examples/haproxy"),
            ("packaging/debian/copyright", "usr/share/doc/nfs-failover/copyright"),
        ],
        links: &[],
        folders: &["etc/tandem/ucarp"],
        hooks: &["nfs-failover.prerm"],
    },
];
