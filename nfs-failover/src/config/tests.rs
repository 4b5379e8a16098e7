//! What is read, and what is wrong.

use std::path::Path;

use super::*;

const GOOD: &str = r#"service nfs {
    resource  r0;
    mount     /srv/nfs { fstype ext4; options noatime,errors=remount-ro; }
    server    ganesha;
    state     /srv/nfs/.nfs-state;
    export    "/srv/nfs/data 10.99.0.0/24(rw,sync,no_subtree_check,no_root_squash) 10.98.0.1(ro,sync)";
    export    "/srv/nfs/more 10.99.0.0/24(rw,sync,no_subtree_check,fsid=7)";
    vip       10.99.0.100/24 dev eth0;
    vip       fd00:99::100/64 dev eth0;
    grace 10; lease 10;
    health    0.0.0.0:8008;
    peer      10.99.0.12:7790; shared-secret "abcdefgh";
    on-stuck  none;
    hooks { start /bin/a; stop /bin/b; check /bin/c; }
    decider   ucarp;
}
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("nfs-failover.conf"), text)
}

/// The error of a good file in which one part is replaced.
fn wrong(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    parse(&GOOD.replace(from, to)).unwrap_err().to_string()
}

fn warned(from: &str, to: &str) -> String {
    let warnings = parse(&GOOD.replace(from, to)).unwrap().warnings;
    warnings.iter().map(|warning| warning.to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_server_that_does_not_write_names_back_has_the_filesystem_do_it() {
    let options = |server: &str, options: &str| {
        let text = GOOD.replace("ganesha", server).replace("noatime,errors=remount-ro", options);
        parse(&text).unwrap().services[0].mount.options.clone()
    };
    assert_eq!(options("ganesha", "noatime"), "noatime,dirsync");
    assert_eq!(options("ganesha", "noatime,nodirsync"), "noatime,nodirsync");
    assert_eq!(options("ganesha", "sync"), "sync");
    assert_eq!(options("kernel", "noatime"), "noatime");
}

#[test]
fn everything_is_read() {
    let config = parse(GOOD).unwrap();
    let service = config.service(None).unwrap();
    assert_eq!(service.resource, "r0");
    assert_eq!(service.mount.options, "noatime,errors=remount-ro,dirsync");
    assert_eq!(service.server, Server::Ganesha);
    assert_eq!(service.exports.len(), 2);
    assert_eq!(service.exports[0].clients[0].squash(), Squash::None);
    assert_eq!(service.exports[0].clients[1].squash(), Squash::Root);
    assert!(!service.exports[0].clients[1].may_write());
    assert_eq!(service.exports[1].fsid, "7");
    assert!(!service.exports[1].clients[0].options.iter().any(|option| option.starts_with("fsid")));
    assert_eq!(service.vips[1].to_string(), "fd00:99::100/64 dev eth0");
    assert_eq!((service.grace_s, service.lease_s), (10, 10));
    assert_eq!(service.hooks.check.as_deref(), Some(Path::new("/bin/c")));
    assert_eq!(service.decider, Decider::Ucarp);
    assert!(!format!("{service:?}").contains("abc"));
}

#[test]
fn a_missing_fsid_is_the_same_on_both_nodes_and_differs_between_exports() {
    let fsid = |text: &str| parse(text).unwrap().services[0].exports[0].fsid.clone();
    assert_eq!(fsid(GOOD), fsid(&GOOD.replace("10.99.0.12", "10.99.0.11")));
    assert_ne!(fsid(GOOD), fsid(&GOOD.replace("/srv/nfs/data", "/srv/nfs/other")));
    assert_eq!(fsid(GOOD).len(), 36);
}

#[test]
fn what_is_wrong_is_shown_with_its_place() {
    let message = wrong("server    ganesha", "sevrer    ganesha");
    assert!(message.contains("nfs-failover.conf:4:5"), "{message}");
    assert!(message.contains("did you mean `server`?"), "{message}");
    assert!(message.contains('^'), "{message}");
}

#[test]
fn what_would_be_silently_wrong_is_refused() {
    for (from, to, message) in [
        (
            "    vip       10.99.0.100/24 dev eth0;\n    vip       fd00:99::100/64 dev eth0;\n",
            "",
            "has no `vip`",
        ),
        ("\"/srv/nfs/more", "\"/srv/more", "outside of the mount"),
        ("/srv/nfs/.nfs-state", "/var/lib/nfs", "inside of the mount"),
        ("10.98.0.1(ro,sync)", "10.98.0.1 (ro,sync)", "for the whole world"),
        ("(ro,sync)", "(ro,async)", "loses writes"),
        ("no_root_squash", "no_rot_squash", "did you mean `no_root_squash`?"),
        ("/srv/nfs/more", "/srv/nfs/data", "stands twice"),
        ("10.99.0.100/24", "10.99.0.100", "ADDRESS/BITS"),
        ("; shared-secret \"abcdefgh\"", "", "anybody could move"),
        ("abcdefgh", "abcdefg", "at least 8 characters"),
        ("abcdefgh", "", "at least 8 characters"),
        (" stop /bin/b;", "", "needs one that stops it"),
        ("options noatime", "options ro", "writable"),
        ("server    ganesha", "server    none", "exports nothing"),
        ("lease 10", "lease 500", "0 to 120"),
        ("lease 10", "lease 0", "`lease`: expected at least 1"),
        ("grace 10", "grace 0", "`grace`: expected at least 1"),
        ("service nfs", "service nfs/../x", "expected a name"),
    ] {
        let said = wrong(from, to);
        assert!(said.contains(message), "{from} -> {to}: {said}");
    }
    let kernel = GOOD.replace("ganesha", "kernel").replace("lease 10", "lease 5");
    assert!(parse(&kernel).unwrap_err().to_string().contains("below 10 s"));
}

#[test]
fn what_is_allowed_and_dangerous_is_warned_about() {
    assert!(warned("abcdefgh", "abcdefgh").contains("root on `10.99.0.0/24` is root"));
    assert!(warned("grace 10", "grace 5").contains("shorter than the lease"));
    assert!(warned("on-stuck  none", "on-stuck reboot").contains("reboots at once"));
    assert!(warned("10.98.0.1(ro,", "*(rw,").contains("whole world may write"));
}

#[test]
fn services_must_not_share_what_only_one_can_have() {
    let second = GOOD.replace("service nfs", "service other");
    let message = parse(&format!("{GOOD}{second}")).unwrap_err().to_string();
    for what in [
        "the resource `r0`",
        "the mount /srv/nfs",
        "NFS server",
        "the vip 10.99.0.100",
        "the peer's address 10.99.0.12:7790",
        "health",
    ] {
        assert!(message.contains(what), "{what}: {message}");
    }
    let twice = parse(&format!("{GOOD}{GOOD}")).unwrap_err().to_string();
    assert!(twice.contains("duplicate service `nfs`"), "{twice}");
}

#[test]
fn a_secret_that_everybody_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;

    let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-secret-XXXXXX")).unwrap();
    let path = folder.join("nfs-failover.conf");
    let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; state /srv/nfs/.state; \
                vip 10.0.0.100/24 dev eth0; peer 10.0.0.2:7790; shared-secret \"a quiet one\"; }";
    std::fs::write(&path, text).unwrap();
    for (mode, warned) in [(0o644, true), (0o640, false), (0o600, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let warnings = Config::load(&path).unwrap().warnings;
        assert_eq!(
            warnings.iter().any(|w| w.to_string().contains("can read the secret")),
            warned,
            "{mode:o}"
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}
