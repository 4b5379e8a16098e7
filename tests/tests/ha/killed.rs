//! `nfs-failover` is killed inside each step of its plans in turn, with a client that has a file open all the time.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Prober;
use crate::host::Host;
use crate::outcome::binary;
use crate::servers::Servers;
use crate::wait;

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn inside_every_step_and_run_again() {
    let servers = Servers::new("");
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    servers.failover(b, &["promote"]).ok();
    let client = servers.client.start(&servers.lab.c);
    client.goes_on();
    let prober = Prober::start(&servers.client, &servers.lab.c);
    servers.failover(b, &["demote"]).ok();
    let (ups, downs) = (steps(&servers, "promote"), steps(&servers, "demote"));
    let mut killed = BTreeSet::new();
    for (index, up) in ups.iter().enumerate() {
        killed.extend(kill_in(&servers, a, "promote", up));
        expect_nothing_exported_unmounted(a);
        servers.failover(a, &["promote"]).ok();
        servers.expect_serving(a);
        client.goes_on();
        killed.extend(kill_in(&servers, a, "demote", &downs[index % downs.len()]));
        servers.failover(a, &["demote"]).ok();
        servers.expect_down(a);
        // And the other way round: what a killed promotion has left, a demotion takes down.
        killed.extend(kill_in(&servers, a, "promote", up));
        servers.failover(a, &["demote"]).ok();
        servers.expect_down(a);
    }
    println!("killed inside {killed:?}");
    // The quickest are over before the signal has come.
    assert!(killed.len() * 2 >= ups.len() + downs.len());
    servers.failover(b, &["promote"]).ok();
    servers.expect_serving(b);
    client.goes_on();
    let seen = client.end();
    servers.client.expect(&servers.lab.c, seen.acknowledged);
    println!("{} records acknowledged and there", seen.acknowledged);
    prober.expect_no_refusal();
}

/// The names of a plan's steps, in order.
fn steps(servers: &Servers, plan: &str) -> Vec<String> {
    let said = servers.failover(&servers.lab.a, &["--json", "plan"]).ok().stdout;
    let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps = lines.filter(|line| line["plan"] == plan);
    steps.map(|line| line["step"].as_str().unwrap().to_owned()).collect()
}

/// Runs a plan that is killed as soon as it has begun a step; inside which step that was, unless the plan was quicker.
fn kill_in(servers: &Servers, host: &Host, plan: &str, step: &str) -> Option<String> {
    let mut command = host.command(binary("nfs-failover"));
    command.arg("-c").arg(servers.failover_configuration()).arg(plan);
    let mut entered = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", entered.id());
    let journal = host.outside("/run/tandem/nfs-failover/nfs.journal");
    let begun = || {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        let (_, own) = text.rsplit_once(&format!(r#"{{"started":"{plan}"}}"#))?;
        let begun = own.lines().filter_map(|line| line.strip_prefix(r#"{"begun":""#)?.strip_suffix(r#""}"#));
        (!own.contains("started") && !own.contains("ended"))
            .then(|| begun.map(str::to_owned).collect::<Vec<_>>())
    };
    let has_begun = || begun().is_some_and(|begun| begun.iter().any(|name| name == step));
    let end = Instant::now() + wait::LIMIT;
    // Without a pause: some steps take less than a millisecond.
    while !has_begun() && entered.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "{plan} does not come to {step}");
    }
    let pid = fs::read_to_string(children).ok().and_then(|pids| pids.trim().parse().ok());
    if let Some(pid) = pid {
        // It may have come to its end.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    entered.wait().unwrap();
    begun().and_then(|mut begun| begun.pop()).map(|step| format!("{plan} {step}"))
}

/// Clients would be told for ever that their files are gone.
#[track_caller]
fn expect_nothing_exported_unmounted(host: &Host) {
    let serves = host.run("pgrep", &["-x", "ganesha.nfsd"]).code == Some(0);
    let mounts = host.run("cat", &["/proc/self/mounts"]).ok().stdout;
    assert!(!serves || mounts.contains(" /srv/nfs "), "a server runs without the volume");
}
