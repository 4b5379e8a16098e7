//! The OCF agent on real daemons: ocf-tester, return codes, promotion scores.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::node::{Node, Outcome, RESOURCE, binary};
use crate::pair::{Pair, Setup};
use crate::wait;

const SUCCESS: Option<i32> = Some(0);
const NOT_CONFIGURED: Option<i32> = Some(6);
const NOT_RUNNING: Option<i32> = Some(7);
const RUNNING_PROMOTED: Option<i32> = Some(8);

/// A pair, and what stands in for the cluster: a program that notes the scores it is told.
struct Cluster {
    pair: Pair,
    programs: PathBuf,
}

impl Cluster {
    fn new() -> Cluster {
        let pair = Pair::synced(Setup::default());
        pair.alpha.adm(&["secondary", RESOURCE]).ok();
        let programs = pair.folder().join("cluster");
        fs::create_dir(&programs).unwrap();
        for name in ["crm_master", "crm_attribute"] {
            let path = programs.join(name);
            fs::write(&path, "#!/bin/sh\necho \"$*\" > \"$TANDEM_RUN_DIR/score\"\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Cluster { pair, programs }
    }

    fn command(&self, node: &Node, program: &Path) -> std::process::Command {
        let mut command = node.command(program);
        let binaries = binary("tandemadm");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries.parent().unwrap().display());
        command.env("PATH", path).env("HA_SBIN_DIR", &self.programs).env("OCF_ROOT", "/usr/lib/ocf");
        command
    }

    fn agent(&self, node: &Node, action: &str, resource: &str) -> Option<i32> {
        let mut command = self.command(node, &agent());
        command.arg(action).env("OCF_RESOURCE_INSTANCE", "nfs").env("OCF_RESKEY_resource", resource);
        command.env("OCF_RESKEY_conf", &node.config).env("OCF_RESKEY_CRM_meta_interval", "10000");
        command.env("OCF_RESKEY_crm_feature_set", "3.16.2");
        Outcome::of(command).code
    }

    fn score(&self, node: &Node) -> String {
        fs::read_to_string(node.run.path().join("score")).unwrap_or_default().trim().to_owned()
    }
}

fn agent() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/ocf/tandem")
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn ocf_tester_passes() {
    let cluster = Cluster::new();
    let alpha = &cluster.pair.alpha;
    let mut tester = cluster.command(alpha, Path::new("ocf-tester"));
    tester.args(["-n", "nfs", "-o", &format!("resource={RESOURCE}"), "-o"]);
    tester.arg(format!("conf={}", alpha.config.display())).arg(agent());
    let said = Outcome::of(tester).ok();
    assert!(said.stdout.contains("passed all tests"), "{said:?}");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn return_codes_and_scores_are_what_a_cluster_expects() {
    let cluster = Cluster::new();
    let Pair { alpha, bravo, .. } = &cluster.pair;
    let on_alpha = |action| cluster.agent(alpha, action, RESOURCE);
    assert_eq!(on_alpha("monitor"), SUCCESS);
    assert!(cluster.score(alpha).ends_with("-v 10000"), "{}", cluster.score(alpha));
    assert_eq!(on_alpha("promote"), SUCCESS);
    assert_eq!((on_alpha("monitor"), on_alpha("promote")), (RUNNING_PROMOTED, SUCCESS));
    assert_eq!((on_alpha("demote"), on_alpha("monitor")), (SUCCESS, SUCCESS));
    bravo.kill();
    wait::until("alpha has noticed", || {
        assert_eq!(on_alpha("notify"), SUCCESS);
        cluster.score(alpha).ends_with("-v 1000")
    });
    assert_eq!((on_alpha("stop"), on_alpha("stop"), on_alpha("monitor")), (SUCCESS, SUCCESS, NOT_RUNNING));
    assert_eq!(on_alpha("demote"), NOT_RUNNING);
    assert!(cluster.score(alpha).ends_with("-D"), "{}", cluster.score(alpha));
    assert_eq!((on_alpha("start"), on_alpha("start"), on_alpha("monitor")), (SUCCESS, SUCCESS, SUCCESS));
    assert_eq!(cluster.agent(alpha, "validate-all", ""), NOT_CONFIGURED);
    assert_eq!(cluster.agent(alpha, "stop", "unknown"), SUCCESS);
}
