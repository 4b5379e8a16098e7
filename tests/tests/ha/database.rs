//! Any other service, by hooks: PostgreSQL with packaging/'s hook, moved, killed and cut off under a client that commits.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::host::Host;
use crate::lab::VIP;
use crate::outcome::Outcome;
use crate::servers::Servers;
use crate::wait;

const HOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/hooks/postgresql");
const DATA: &str = "/srv/nfs/postgresql";
/// Commits that show that it goes on.
const STEADY: usize = 10;

#[test]
#[ignore = "needs root, postgresql and the release binaries"]
fn every_acknowledged_commit_survives_a_move_a_crash_and_a_power_cut() {
    let mut servers = Servers::new("");
    make_database(&servers);
    fs::write(servers.failover_configuration(), configuration()).unwrap();
    let services = servers.serve();
    println!("{}", servers.failover(&servers.lab.a, &["promote"]).ok().stdout);
    query(&servers.lab.c, "CREATE TABLE ledger (number bigint PRIMARY KEY)").ok();
    let ledger = Ledger::start(&servers.lab.c);
    ledger.goes_on("at first");

    servers.failover(&servers.lab.a, &["switchover"]).ok();
    expect_clean(&servers, &servers.lab.a);
    ledger.goes_on("after a planned move");

    // Nobody elects here: whose database dies steps down by itself, and the operator has the other serve.
    servers.lab.b.signal("postgres", "KILL");
    wait::until("the node whose database was killed is down", || is_clean(&servers, &servers.lab.b));
    servers.failover(&servers.lab.a, &["promote"]).ok();
    ledger.goes_on("after the database was killed");

    let lab = &mut servers.lab;
    lab.a.power_off(&lab.switch);
    servers.failover(&servers.lab.b, &["promote"]).ok();
    ledger.goes_on("after the power was cut");

    servers.return_to_life("a");
    wait::until("the node that was off has what it missed", || servers.are_healed());
    let acknowledged = ledger.end();
    let found = query(&servers.lab.c, "SELECT number FROM ledger").ok().stdout;
    let found: BTreeSet<u64> = found.lines().map(|number| number.parse().unwrap()).collect();
    let lost: Vec<&u64> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    println!("{} commits were acknowledged, and all are there", acknowledged.len());
    for mut service in services {
        // One of them went with its host.
        let _ = service.kill();
        service.wait().unwrap();
    }
}

fn configuration() -> String {
    let hook = fs::canonicalize(HOOK).unwrap();
    let hook = hook.display();
    format!(
        "service pg {{\n  resource r0;\n  mount /srv/nfs {{ fstype ext4; options noatime,errors=remount-ro; }}\n  \
         server none;\n  vip {VIP}/24 dev eth0;\n  port 5432;\n  hooks {{ start {hook}; stop {hook}; check {hook}; }}\n  \
         peer 10.99.0.11:7790 10.99.0.12:7790; shared-secret \"of the lab\";\n}}\n"
    )
}

/// As docs/hooks.md says, in small.
fn make_database(servers: &Servers) {
    let a = &servers.lab.a;
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().map(|version| version.unwrap().path());
    let initdb = versions.max().unwrap().join("bin/initdb");
    let script = format!(
        "set -e; mount /dev/drbd0 /srv/nfs; install -d -m 700 -o postgres -g postgres {DATA}\n\
         setpriv --reuid=postgres --regid=postgres --init-groups {} -D {DATA} --auth=trust --no-locale --encoding=UTF8 \
         --wal-segsize=1 >/dev/null\n\
         echo 'host all all 10.99.0.0/24 trust' >>{DATA}/pg_hba.conf\n\
         printf 'shared_buffers = 16MB\\nmax_wal_size = 8MB\\nmin_wal_size = 2MB\\n' >>{DATA}/postgresql.conf\n\
         umount /srv/nfs",
        initdb.display()
    );
    servers.adm(a, &["primary", "r0"]).ok();
    a.run("bash", &["-c", &script]).ok();
    servers.adm(a, &["secondary", "r0"]).ok();
}

/// One SQL command of a client, which waits for nobody who is gone.
fn psql(host: &Host, sql: &str) -> Command {
    let mut command = host.command("timeout");
    command.args(["3", "psql", "-X", "-q", "-A", "-t", "-h", VIP, "-U", "postgres", "-c", sql]);
    command
}

fn query(host: &Host, sql: &str) -> Outcome {
    Outcome::of(psql(host, sql))
}

/// Commits one number after the other, and notes what was acknowledged.
struct Ledger {
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Ledger {
    fn start(host: &Host) -> Ledger {
        let (acknowledged, end) = (Arc::<Mutex<BTreeSet<u64>>>::default(), Arc::<AtomicBool>::default());
        let (own, own_end) = (Arc::clone(&acknowledged), Arc::clone(&end));
        // A program of its own for each commit: who has lost the server connects anew.
        let insert = psql(host, "INSERT INTO ledger VALUES (:number)");
        let (program, arguments) =
            (insert.get_program().to_owned(), insert.get_args().map(ToOwned::to_owned));
        let arguments: Vec<_> = arguments.collect();
        let thread = thread::spawn(move || {
            for number in 0.. {
                if own_end.load(Ordering::Acquire) {
                    return;
                }
                let mut command = Command::new(&program);
                let told = arguments
                    .iter()
                    .map(|argument| argument.to_string_lossy().replace(":number", &number.to_string()));
                command.args(told).current_dir("/");
                if Outcome::of(command).code == Some(0) {
                    own.lock().unwrap().insert(number);
                }
            }
        });
        Ledger { acknowledged, end, thread }
    }

    #[track_caller]
    fn goes_on(&self, when: &str) {
        let count = || self.acknowledged.lock().unwrap().len();
        let before = count();
        wait::until(&format!("commits go on {when}"), || count() >= before + STEADY);
        println!("{when}: {} commits", count());
    }

    fn end(self) -> BTreeSet<u64> {
        self.end.store(true, Ordering::Release);
        self.thread.join().unwrap();
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

/// Nothing of the service is left there.
fn is_clean(servers: &Servers, host: &Host) -> bool {
    let mounts = host.run("cat", &["/proc/self/mounts"]).ok().stdout;
    let runs = host.run("pgrep", &["-x", "postgres"]).code == Some(0);
    let role = servers.adm(host, &["status", "r0"]).stdout;
    !mounts.contains(" /srv/nfs ") && !runs && role.contains("r0 role:Secondary")
}

#[track_caller]
fn expect_clean(servers: &Servers, host: &Host) {
    assert!(is_clean(servers, host), "something is left on {}", host.name);
    assert!(!Path::new(&host.outside(&format!("{DATA}/PG_VERSION"))).exists());
}
