//! The OCF agent without a cluster: what its monitor says of a service that is up, broken, withdrawn, down.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::host::Host;
use crate::lab::Lab;
use crate::outcome::{Outcome, binary};
use crate::servers::Servers;
use crate::site::packaging;
use crate::wait;

const UNPROMOTED: Option<i32> = Some(0);
const DONE: Option<i32> = Some(0);
const NOT_RUNNING: Option<i32> = Some(7);
const PROMOTED: Option<i32> = Some(8);
const FAILED_PROMOTED: Option<i32> = Some(9);
/// A lost link is noticed soon, and then requests fail.
const RESOURCE: &str =
    "net { timeout 20; ping-int 3; }\n  options { quorum majority; on-no-quorum io-error; }\n";

/// The agent on a host, with programs that note no scores.
struct Agent<'a> {
    servers: &'a Servers,
    host: &'a Host,
    programs: PathBuf,
}

impl<'a> Agent<'a> {
    fn new(servers: &'a Servers, host: &'a Host) -> Agent<'a> {
        let programs = servers.lab.folder().join("cluster");
        fs::create_dir(&programs).unwrap();
        for name in ["crm_master", "crm_attribute"] {
            symlink("/bin/true", programs.join(name)).unwrap();
        }
        Agent { servers, host, programs }
    }

    fn does(&self, action: &str) -> Outcome {
        let mut command = self.host.command(packaging("ocf/tandem"));
        let binaries = binary("tandemadm");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries.parent().unwrap().display());
        command.arg(action).env("PATH", path).env("HA_SBIN_DIR", &self.programs);
        command.env("OCF_ROOT", "/usr/lib/ocf").env("OCF_RESOURCE_INSTANCE", "nfs");
        command.env("OCF_RESKEY_resource", "r0").env("OCF_RESKEY_service", "nfs");
        command.env("OCF_RESKEY_conf", self.servers.configuration());
        command.env("OCF_RESKEY_service_conf", self.servers.failover_configuration());
        command.env("OCF_RESKEY_CRM_meta_interval", "10000").env("OCF_RESKEY_crm_feature_set", "3.16.2");
        Outcome::of(command)
    }

    #[track_caller]
    fn promote(&self) {
        let promoted = self.does("promote");
        assert_eq!((promoted.code, self.does("monitor").code), (DONE, PROMOTED), "{promoted:?}");
    }

    #[track_caller]
    fn demote(&self) {
        let demoted = self.does("demote");
        assert_eq!((demoted.code, self.does("monitor").code), (DONE, UNPROMOTED), "{demoted:?}");
    }

    /// The cluster is told that what it had promoted has failed, and why.
    #[track_caller]
    fn expect_failed(&self, why: &str) {
        let said = self.does("monitor");
        assert_eq!(said.code, FAILED_PROMOTED, "{said:?}");
        assert!(said.stderr.contains(why), "{said:?}");
    }
}

#[test]
#[ignore = "needs root, resource-agents, nfs-ganesha, libnfs-dev and the release binaries"]
fn what_was_promoted_and_is_broken_is_no_more_than_failed() {
    let servers = Servers::replicated(Lab::new(), "", RESOURCE);
    let a = &servers.lab.a;
    let agent = Agent::new(&servers, a);
    assert_eq!(agent.does("monitor").code, UNPROMOTED);
    agent.promote();
    // What is being written into the configuration does not concern what runs.
    let configuration = fs::read(servers.failover_configuration()).unwrap();
    fs::write(servers.failover_configuration(), "service nfs {").unwrap();
    let said = agent.does("monitor");
    assert!(said.code == PROMOTED && said.stderr.contains("cannot be used"), "{said:?}");
    fs::write(servers.failover_configuration(), configuration).unwrap();
    // The server dies, and nobody has noticed yet.
    a.signal("ganesha.nfsd", "KILL");
    agent.expect_failed("the server has not answered");
    agent.demote();
    // The disk fails; the volume can still be read and written at the peer.
    agent.promote();
    servers.adm(a, &["detach", "--force", "r0"]).ok();
    agent.expect_failed("the disk is Diskless");
    agent.demote();
    servers.adm(a, &["attach", "r0"]).ok();
    wait::until("both nodes are UpToDate", || servers.are_healed());
    // It has withdrawn by itself: the cluster has not heard of that.
    agent.promote();
    servers.failover(a, &["demote"]).ok();
    agent.expect_failed("nfs was promoted here and has withdrawn");
    agent.demote();
    // Quorum is lost.
    agent.promote();
    servers.hosts().iter().for_each(|host| servers.lab.switch.isolate(host.port(), true));
    wait::until("the peer is missed", || agent.does("monitor").code != PROMOTED);
    agent.expect_failed("nfs is broken: ");
    agent.demote();
}

/// What a cluster is told of a node whose tandemd has died decides whether another one is promoted beside it.
#[test]
#[ignore = "needs root, resource-agents, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_service_whose_tandemd_died_is_not_stopped_before_nothing_of_it_is_left() {
    let servers = Servers::new("");
    let a = &servers.lab.a;
    let agent = Agent::new(&servers, a);
    agent.promote();
    a.signal("tandemd", "KILL");
    agent.expect_failed("nfs is primary here, and r0 is not up");
    assert_eq!((agent.does("stop").code, agent.does("monitor").code), (DONE, NOT_RUNNING));
    assert_eq!((agent.does("start").code, agent.does("monitor").code), (DONE, UNPROMOTED));
    servers.expect_down(a);
}
