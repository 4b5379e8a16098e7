//! Two servers with a replicated volume, and what `nfs-failover` makes of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::client::Program;
use crate::host::Host;
use crate::lab::{Lab, VIP};
use crate::outcome::{Outcome, binary};
use crate::switch::Switch;
use crate::wait;

const DISK_BYTES: u64 = 96 << 20;
/// What is exported.
pub(crate) const EXPORT: &str = "/srv/nfs/data";

/// The lab with a volume that holds an empty export; nothing is promoted.
pub(crate) struct Servers {
    pub(crate) lab: Lab,
    pub(crate) client: Program,
}

impl Servers {
    /// Both nodes are up and UpToDate, and neither serves. `service` is what stands in the service's configuration
    /// besides the usual.
    pub(crate) fn new(service: &str) -> Servers {
        Servers::replicated(Lab::new(), service, "")
    }

    /// The same with fencing: whoever loses the other goes on if the witness lets it.
    pub(crate) fn fenced(service: &str) -> Servers {
        let lab = Lab::new();
        let statements = start_witness(&lab);
        Servers::replicated(lab, service, &statements)
    }

    /// `resource` is what stands in the resource's configuration besides.
    pub(crate) fn replicated(lab: Lab, service: &str, resource: &str) -> Servers {
        let client = Program::build(lab.folder(), EXPORT);
        let servers = Servers { lab, client };
        servers.write_configuration(service, resource);
        for host in servers.hosts() {
            File::create(servers.disk(host)).unwrap().set_len(DISK_BYTES).unwrap();
            servers.adm(host, &["create-md", "r0"]).ok();
            servers.adm(host, &["up", "r0"]).ok();
        }
        servers.make_file_system();
        servers
    }

    fn make_file_system(&self) {
        let a = &self.lab.a;
        wait::until("the nodes see each other", || self.adm(a, &["cstate", "r0"]).stdout == "Connected\n");
        self.adm(a, &["primary", "--force", "r0"]).ok();
        a.run("mkfs.ext4", &["-q", "-F", "/dev/drbd0"]).ok();
        a.run("mkdir", &["-p", "/srv/nfs"]).ok();
        a.run("mount", &["-t", "ext4", "/dev/drbd0", "/srv/nfs"]).ok();
        a.run("mkdir", &[EXPORT]).ok();
        a.run("umount", &["/srv/nfs"]).ok();
        self.adm(a, &["secondary", "r0"]).ok();
        wait::until("both nodes are UpToDate", || self.are_healed());
    }

    /// The two hosts that can serve.
    pub(crate) fn hosts(&self) -> [&Host; 2] {
        [&self.lab.a, &self.lab.b]
    }

    /// The one of this name.
    pub(crate) fn host(&self, name: &str) -> &Host {
        self.hosts().into_iter().find(|host| host.name == name).unwrap()
    }

    /// Cuts the power of a server.
    pub(crate) fn power_off(&mut self, name: &str) {
        let (switch, host) = self.outlet(name);
        host.power_off(switch);
    }

    /// Switches a server on again and brings its resource up.
    pub(crate) fn return_to_life(&mut self, name: &str) {
        let (switch, host) = self.outlet(name);
        host.power_on(switch);
        self.adm(self.host(name), &["up", "r0"]).ok();
    }

    fn outlet(&mut self, name: &str) -> (&Switch, &mut Host) {
        let Lab { switch, a, b, .. } = &mut self.lab;
        (switch, if name == a.name { a } else { b })
    }

    /// `tandemadm` on a host.
    pub(crate) fn adm(&self, host: &Host, arguments: &[&str]) -> Outcome {
        let config = self.configuration();
        let mut all = vec!["-c", config.to_str().unwrap()];
        all.extend(arguments);
        host.run(binary("tandemadm"), &all)
    }

    /// `nfs-failover` on a host.
    pub(crate) fn failover(&self, host: &Host, arguments: &[&str]) -> Outcome {
        let config = self.failover_configuration();
        let mut all = vec!["-c", config.to_str().unwrap()];
        all.extend(arguments);
        host.run(binary("nfs-failover"), &all)
    }

    /// The service on both hosts, which live as long as these.
    pub(crate) fn serve(&self) -> [Child; 2] {
        let children = self.hosts().map(|host| self.start_service(host));
        wait::until("both services can be asked", || {
            self.hosts().into_iter().all(|host| self.failover(host, &["check"]).code == Some(0))
        });
        children
    }

    /// The service on a host.
    pub(crate) fn start_service(&self, host: &Host) -> Child {
        let mut serve = host.command(binary("nfs-failover"));
        serve.arg("-c").arg(self.failover_configuration()).arg("serve");
        serve.stdout(append(&host.folder.join("serve.log"))).spawn().unwrap()
    }

    /// Where the resource's configuration lies.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.lab.folder().join("tandem.conf")
    }

    /// Where the services' configuration lies.
    pub(crate) fn failover_configuration(&self) -> PathBuf {
        self.lab.folder().join("nfs-failover.conf")
    }

    /// The host serves an export that holds no records yet.
    #[track_caller]
    pub(crate) fn expect_up(&self, host: &Host) {
        self.expect_serving(host);
        self.client.read_nothing(&self.lab.c);
    }

    /// The host serves: everything is there, and nothing is blocked.
    #[track_caller]
    pub(crate) fn expect_serving(&self, host: &Host) {
        let [address, mounts, rules, role] = self.look(host);
        assert!(
            address.contains(VIP) && mounts.contains(" /srv/nfs ") && role.contains("role:Primary"),
            "{role}"
        );
        assert!(!rules.contains("nfs-failover"), "{rules}");
    }

    /// The host is a clean secondary: nothing is left.
    #[track_caller]
    pub(crate) fn expect_down(&self, host: &Host) {
        let [address, mounts, rules, role] = self.look(host);
        assert!(!address.contains(VIP) && !mounts.contains("/srv/nfs"), "{address}\n{mounts}");
        assert!(!rules.contains("nfs-failover") && role.contains("role:Secondary"), "{rules}\n{role}");
        assert_ne!(host.run("pgrep", &["-x", "ganesha.nfsd"]).code, Some(0));
        let mapped = format!("[::ffff:{VIP}]");
        let sockets = host.run("ss", &["-Htan", "(", "src", VIP, "or", "src", &mapped, ")"]).ok().stdout;
        assert_eq!(sockets, "", "connections of clients are left");
    }

    fn look(&self, host: &Host) -> [String; 4] {
        [
            host.run("ip", &["address"]).ok().stdout,
            host.run("cat", &["/proc/self/mounts"]).ok().stdout,
            host.run("nft", &["list", "tables"]).ok().stdout,
            self.adm(host, &["status", "r0"]).ok().stdout,
        ]
    }

    /// Whether both nodes see each other and hold the same.
    pub(crate) fn are_healed(&self) -> bool {
        self.hosts().into_iter().all(|host| {
            let status = self.adm(host, &["status", "r0"]).stdout;
            status.matches("UpToDate").count() == 2
                && !status.contains("SyncSource")
                && !status.contains("SyncTarget")
        })
    }

    fn disk(&self, host: &Host) -> PathBuf {
        host.folder.join("disk")
    }

    fn write_configuration(&self, service: &str, resource: &str) {
        let sides = self.hosts().map(|host| {
            let (name, disk, address) = (host.name, self.disk(host), &host.address);
            format!(
                "  on {name} {{ device /dev/drbd0; disk {}; address {address}:7789; meta-disk internal; }}\n",
                disk.display()
            )
        });
        let tandem = format!("resource r0 {{\n  protocol C;\n{resource}{}}}\n", sides.concat());
        fs::write(self.configuration(), tandem).unwrap();
        let failover = format!(
            "service nfs {{\n  resource r0;\n  mount /srv/nfs {{ fstype ext4; options noatime,errors=remount-ro; }}\n  \
             server ganesha;\n  export \"{EXPORT} 10.99.0.0/24(rw,sync,no_subtree_check,no_root_squash,insecure)\";\n  \
             vip {VIP}/24 dev eth0;\n  grace 10; lease 10;\n  {service}\n}}\n"
        );
        fs::write(self.failover_configuration(), failover).unwrap();
    }
}

/// A log that goes on after its host was off.
pub(crate) fn append(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

/// A witness on the third host; what a resource says to use it.
fn start_witness(lab: &Lab) -> String {
    let (program, secret, listen) = (binary("nfs-failover"), lab.folder().join("secret"), "0.0.0.0:7791");
    fs::write(&secret, "known to both\n").unwrap();
    let mut witness = lab.w.command(&program);
    witness.args(["witness", "--listen", listen, "--state"]).arg(lab.w.folder.join("claims"));
    witness.arg("--secret-file").arg(&secret).stdout(append(&lab.w.folder.join("witness.log")));
    // It lives as long as the host.
    drop(witness.spawn().unwrap());
    wait::until("the witness listens", || lab.w.run("ss", &["-Hltn"]).stdout.contains(":7791"));
    let (program, secret) = (program.display(), secret.display());
    let way = format!("--witness {}:7791 --secret-file {secret}", lab.w.address);
    format!(
        "  net {{ fencing resource-and-stonith; rr-conflict retry-connect; timeout 20; ping-int 3; }}\n  handlers {{\n    \
         fence-peer \"{program} fence-peer --via witness {way}\";\n    unfence-peer \"{program} unfence-peer {way}\";\n  }}\n"
    )
}
