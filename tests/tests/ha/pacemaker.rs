//! Debian's corosync and Pacemaker elect and fence, with the agent and the examples of packaging/; a client writes all the
//! time.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nfs_failover::health::Phase;

use crate::client::Client;
use crate::host::Host;
use crate::lab::Lab;
use crate::outcome::{Outcome, binary};
use crate::power_strip::PowerStrip;
use crate::servers::{Servers, append};
use crate::site::{packaging, phase, read};
use crate::wait;
use crate::watch::Watch;

/// Forming a cluster, noticing, fencing with its delay, and moving, on a machine with other load.
const LIMIT: Duration = Duration::from_secs(90);
const SERVICE: &str =
    r#"peer 10.99.0.11:7790 10.99.0.12:7790; shared-secret "of the lab"; decider pacemaker;"#;
/// A lost link is noticed soon.
const QUICK: &str = "net { timeout 20; ping-int 3; }\n";
/// What stands in /usr/sbin.
const PROGRAMS: &[&str] = &["tandemd", "tandem-device", "tandemadm", "nfs-failover"];
const GANESHA: &str = "/usr/bin/ganesha.nfsd";
/// What a host has of its own, as Debian's packages make it.
const FOLDERS: &str = "install -d -o hacluster -g haclient -m 750 /var/log/pacemaker \
    {own}/var/lib/pacemaker/cib {own}/var/lib/pacemaker/pengine {own}/var/lib/pacemaker/cores \
    {own}/var/lib/pacemaker/blackbox
    install -d -m 755 /var/log/corosync /var/log/crmsh {own}/var/lib/corosync
    for name in corosync pacemaker; do mount --bind {own}/var/lib/$name /var/lib/$name; done
    lay() { mount -t overlay overlay -o lowerdir={installed}/$1:$2 $2; }
    lay etc /etc; lay sbin /usr/sbin; lay ocf /usr/lib/ocf/resource.d";
const START: &str =
    "corosync -f & until corosync-cfgtool -s >/dev/null 2>&1; do sleep 0.1; done; exec pacemakerd";
/// A cluster that has never been is not to wait for others for 20 s before it elects who coordinates.
const PROMPT: &str = "<crm_config><cluster_property_set id='prompt'>\
    <nvpair id='dc-deadtime' name='dc-deadtime' value='2s'/></cluster_property_set></crm_config>";

/// The servers in a cluster.
struct Cluster {
    strip: PowerStrip,
    watch: Watch,
    servers: Servers,
}

impl Cluster {
    /// Both nodes are in it, and one of them serves.
    fn new() -> Cluster {
        let servers = Servers::replicated(Lab::new(), SERVICE, &(read("pacemaker/fencing.example") + QUICK));
        let strip = PowerStrip::new(servers.lab.folder(), &servers.lab.switch);
        let cluster = Cluster { strip, watch: Watch::new(servers.hosts()), servers };
        cluster.install();
        cluster.servers.hosts().into_iter().for_each(|host| cluster.start(host));
        cluster.wait("both nodes are in the cluster", || {
            let said = cluster.a().run("crm_mon", &["--one-shot", "--output-as=xml"]).stdout;
            said.matches("online=\"true\"").count() == 2
        });
        let example = cluster.file("cluster.crm");
        fs::write(&example, named(&read("pacemaker/cluster.crm.example"))).unwrap();
        let mut crm = cluster.a().command("crm");
        crm.env("HOME", &cluster.a().folder).args(["configure", "load", "update"]).arg(&example);
        Outcome::of(crm).ok();
        cluster.wait("one node serves", || cluster.try_roles().is_some());
        cluster.expect_cut(&[]);
        cluster
    }

    /// What packages install, seen by both nodes in its place.
    fn install(&self) {
        for folder in ["etc/tandem", "etc/corosync", "sbin", "ocf/tandem"] {
            fs::create_dir_all(self.installed(folder)).unwrap();
        }
        symlink(self.servers.configuration(), self.installed("etc/tandem.conf")).unwrap();
        let configuration = self.servers.failover_configuration();
        symlink(configuration, self.installed("etc/tandem/nfs-failover.conf")).unwrap();
        for program in PROGRAMS {
            symlink(binary(program), self.installed("sbin").join(program)).unwrap();
        }
        fs::copy(packaging("ocf/tandem"), self.installed("ocf/tandem/tandem")).unwrap();
        self.strip.install_agent(&self.installed("sbin/fence_ipmilan"));
        let corosync = named(&read("pacemaker/corosync.conf.example"));
        fs::write(self.installed("etc/corosync/corosync.conf"), corosync).unwrap();
        let mut key = [0; 256];
        File::open("/dev/urandom").unwrap().read_exact(&mut key).unwrap();
        let key_file = self.installed("etc/corosync/authkey");
        fs::write(&key_file, key).unwrap();
        fs::set_permissions(&key_file, Permissions::from_mode(0o400)).unwrap();
        let empty = self.a().run("cibadmin", &["--empty"]).ok().stdout;
        for host in self.servers.hosts() {
            self.prepare(host);
            let path = host.folder.join("var/lib/pacemaker/cib/cib.xml");
            fs::write(&path, empty.replace("<crm_config/>", PROMPT)).unwrap();
            host.run("chown", &["hacluster:haclient", path.to_str().unwrap()]).ok();
        }
    }

    fn prepare(&self, host: &Host) {
        let own = host.folder.display().to_string();
        let installed = self.installed("").display().to_string();
        let script = FOLDERS.replace("{own}", &own).replace("{installed}/", &installed);
        host.run("bash", &["-ec", &script]).ok();
    }

    /// Starts everything on a host that was prepared.
    fn start(&self, host: &Host) {
        self.strip.connect(host);
        drop(self.servers.start_service(host));
        let log = append(&host.folder.join("decider.log"));
        let mut command = host.command("bash");
        command.args(["-c", START]).env("PCMK_logfile", "/var/log/pacemaker/pacemaker.log");
        // They live as long as the host.
        drop(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Cuts the power of a host.
    fn power_off(&mut self, name: &str) {
        self.servers.power_off(name);
    }

    /// Switches a host on again, with all that runs on it.
    fn power_on(&mut self, name: &str) {
        let Lab { switch, a, b, .. } = &mut self.servers.lab;
        let host = if name == a.name { a } else { b };
        host.power_on(switch);
        let host = self.host(name);
        self.prepare(host);
        self.start(host);
        self.watch.add(host);
    }

    /// The cable between them.
    fn isolate(&self, names: &[&str], is_on: bool) {
        let switch = &self.servers.lab.switch;
        names.iter().for_each(|name| switch.isolate(self.host(name).port(), is_on));
    }

    /// A host drops what the other one's tandemd says, and nothing else.
    fn cut_replication(&self, name: &str) {
        let rules = "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; \
            add rule inet cut in tcp dport 7789 drop; add rule inet cut in tcp sport 7789 drop";
        self.host(name).run("nft", &[rules]).ok();
    }

    /// Waits until both have the same, and either may be promoted.
    #[track_caller]
    fn wait_whole(&self) {
        self.wait("both hold the same", || self.servers.are_healed());
        self.wait("both may be promoted again", || self.holder().is_empty());
    }

    /// Waits until the cluster takes either for as good as the other.
    #[track_caller]
    fn wait_candidates(&self) {
        self.wait("both are good candidates", || {
            self.servers.hosts().iter().all(|host| self.score(host.name) == "10000")
        });
    }

    /// Whose power the cluster has cut since this was asked last.
    #[track_caller]
    fn expect_cut(&self, names: &[&str]) {
        let outlets: Vec<&str> =
            names.iter().map(|name| if *name == "a" { "10.99.9.11" } else { "10.99.9.12" }).collect();
        assert_eq!(self.strip.take_cut(), outlets);
    }

    fn a(&self) -> &Host {
        &self.servers.lab.a
    }

    fn host(&self, name: &str) -> &Host {
        self.servers.host(name)
    }

    /// The one that serves, and the other one.
    #[track_caller]
    fn roles(&self) -> (&'static str, &'static str) {
        self.try_roles().expect("one node serves")
    }

    fn try_roles(&self) -> Option<(&'static str, &'static str)> {
        let [a, b] = self.servers.hosts();
        let is_up = |host: &Host| host.is_on() && phase(host) == Some(Phase::Up);
        match (is_up(a), is_up(b)) {
            (true, false) => Some((a.name, b.name)),
            (false, true) => Some((b.name, a.name)),
            _ => None,
        }
    }

    /// Who alone may be promoted; nobody's name if either may.
    fn holder(&self) -> String {
        let on = self.servers.hosts().into_iter().find(|host| host.is_on()).unwrap();
        let path = "//rsc_location[@id='tandem-fence-r0']//expression";
        let said = on.run("cibadmin", &["--query", "--xpath", path]).stdout;
        let value = said.split_once(" value=\"").and_then(|(_, rest)| rest.split_once('"'));
        value.map(|(value, _)| value.to_owned()).unwrap_or_default()
    }

    /// How good a candidate the cluster takes a node for.
    fn score(&self, name: &str) -> String {
        let about = ["--promotion=nfs", "--node", name, "--query", "--quiet"];
        self.a().run("crm_attribute", &about).stdout.trim().to_owned()
    }

    /// Waits, and shows what everybody has said if that was in vain.
    #[track_caller]
    fn wait(&self, what: &str, condition: impl FnMut() -> bool) {
        let began = Instant::now();
        if wait::holds_within(LIMIT, condition) {
            println!("{what}: after {:.1?}", began.elapsed());
            return;
        }
        for host in self.servers.hosts() {
            for log in ["serve.log", "decider.log", "var/log/pacemaker/pacemaker.log"] {
                let text = fs::read_to_string(host.folder.join(log)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(200)..].join("\n");
                println!("--- {} {log}:\n{last}", host.name);
            }
        }
        panic!("not within {} s: {what}", LIMIT.as_secs());
    }

    /// This node serves again, or instead.
    #[track_caller]
    fn wait_up(&self, event: &str, to: &str, client: &Client) {
        self.wait(&format!("{event}: {to} serves"), || self.try_roles().is_some_and(|(up, _)| up == to));
        client.goes_on();
        println!("Pacemaker, {event}: the client's longest stall {:.2?}", client.longest_stall());
    }

    fn installed(&self, path: &str) -> PathBuf {
        self.file("installed").join(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.servers.lab.folder().join(name)
    }
}

/// With the names of the lab's hosts.
fn named(text: &str) -> String {
    text.replace("alpha", "a").replace("bravo", "b")
}

#[test]
#[ignore = "needs root, corosync, pacemaker, crmsh, nfs-ganesha, libnfs-dev and the release binaries"]
fn pacemaker_fences_and_moves_the_service() {
    let mut cluster = Cluster::new();
    let (first, second) = cluster.roles();
    let client = cluster.servers.client.start(&cluster.servers.lab.c);
    client.goes_on();
    client.longest_stall();
    cluster.wait_candidates();

    // The power of the one that serves fails: nobody but the other may be promoted, which takes over.
    cluster.power_off(first);
    cluster.wait_up("power off", second, &client);
    cluster.expect_cut(&[first]);
    assert_eq!(cluster.holder(), second);

    // It comes back: nothing moves back.
    cluster.power_on(first);
    cluster.wait_whole();
    cluster.wait_candidates();
    client.goes_on();
    assert_eq!(cluster.roles(), (second, first));

    let to_first = ["--move", "--resource", "nfs-clone", "--promoted", "--node", first];
    client.longest_stall();
    cluster.a().run("crm_resource", &to_first).ok();
    cluster.wait_up("planned move", first, &client);
    cluster.a().run("crm_resource", &["--clear", "--resource", "nfs-clone"]).ok();

    // The server dies there and cannot be started again.
    cluster.host(first).run("mount", &["--bind", "/bin/false", GANESHA]).ok();
    cluster.host(first).signal("ganesha.nfsd", "KILL");
    cluster.wait_up("kill -9 of ganesha", second, &client);
    cluster.host(first).run("umount", &[GANESHA]).ok();
    let first = second;

    // Nobody watches the server any more: that it dies is found out by the cluster's own monitor.
    cluster.host(first).signal("nfs-failover", "KILL");
    cluster.host(first).signal("ganesha.nfsd", "KILL");
    cluster.wait("the monitor says that what was promoted has failed", || {
        cluster.a().run("crm_mon", &["--one-shot", "--output-as=xml"]).stdout.contains("exitcode=\"9\"")
    });
    client.goes_on();
    println!(
        "Pacemaker, kill -9 of ganesha and the service: the longest stall {:.2?}",
        client.longest_stall()
    );
    drop(cluster.servers.start_service(cluster.host(first)));
    cluster.wait("one node serves", || cluster.try_roles().is_some());
    cluster.wait_whole();
    cluster.expect_cut(&[]);
    let (first, second) = cluster.roles();

    // They lose each other, but not the cluster: that one may go on is known to all, and nobody is fenced.
    cluster.cut_replication(second);
    cluster.wait("the one that serves has claimed the resource", || cluster.holder() == first);
    client.goes_on();
    println!("Pacemaker, cut replication: the client's longest stall {:.2?}", client.longest_stall());
    assert_ne!(cluster.servers.adm(cluster.host(second), &["primary", "r0"]).code, Some(0));
    cluster.wait("the other one is no candidate", || cluster.score(second).is_empty());
    cluster.host(second).run("nft", &["delete table inet cut"]).ok();
    cluster.wait_whole();
    cluster.expect_cut(&[]);

    // They lose each other altogether: the one that serves has the other fenced.
    cluster.isolate(&[first, second], true);
    cluster.wait("the other one is fenced", || !cluster.host(second).is_on());
    client.goes_on();
    println!("Pacemaker, cut link: the client's longest stall {:.2?}", client.longest_stall());
    assert_eq!((cluster.try_roles(), cluster.holder().as_str()), (Some((first, second)), first));
    // It is booted before the link is mended, and does nothing alone.
    cluster.power_on(second);
    cluster.isolate(&[second], true);
    cluster.wait("the other one coordinates a cluster of itself, without a quorum", || {
        cluster.host(second).run("crm_mon", &["--one-shot"]).stdout.contains("partition WITHOUT quorum")
    });
    cluster.expect_cut(&[second]);
    cluster.isolate(&[first, second], false);
    cluster.wait_whole();
    cluster.expect_cut(&[]);
    assert_eq!(cluster.roles(), (first, second));

    // A power cut for both: they come back by themselves.
    cluster.power_off(first);
    cluster.power_off(second);
    cluster.power_on(first);
    cluster.power_on(second);
    cluster.wait("one node serves", || cluster.try_roles().is_some());
    client.goes_on();
    println!("Pacemaker, power cut for both: the client's longest stall {:.2?}", client.longest_stall());
    cluster.wait_whole();
    cluster.expect_cut(&[]);

    cluster.watch.expect_one_mount();
    let seen = client.end();
    cluster.servers.client.expect(&cluster.servers.lab.c, seen.acknowledged);
    println!("{} records acknowledged and there", seen.acknowledged);
}
