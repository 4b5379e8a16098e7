//! Monitors that others have written, from Debian's packages, fed by a real pair; and the status file's counters beside
//! traffic that is known.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::mkdtemp;
use tandem_core::state::ConnectionState;

use crate::node::{Node, Outcome, RESOURCE, binary};
use crate::pair::{Pair, Setup, free_port};
use crate::wait;

const KIB: u64 = 1 << 10;

/// A program that answers over HTTP until it is dropped.
struct Exporter {
    child: Child,
    port: u16,
}

impl Exporter {
    fn start(mut command: Command, listen_option: &str) -> Exporter {
        let port = free_port();
        command.arg(format!("{listen_option}=127.0.0.1:{port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let exporter = Exporter { child: command.spawn().unwrap(), port };
        wait::until("the exporter answers", || exporter.page().is_some());
        exporter
    }

    fn page(&self) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    /// Samples by name and labels.
    fn samples(&self) -> BTreeMap<String, f64> {
        let page = self.page().unwrap();
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
    }

    /// Waits until these samples are these; the file is written once a second.
    #[track_caller]
    fn shows(&self, expected: &[(&str, u64)]) {
        let differ = |samples: &BTreeMap<String, f64>| {
            let is = |(name, value): &&(&str, u64)| samples.get(*name) != Some(&(*value as f64));
            expected
                .iter()
                .filter(is)
                .map(|(name, _)| format!("{name} {:?}", samples.get(*name)))
                .collect::<Vec<_>>()
        };
        let same = wait::holds_within(wait::LIMIT, || differ(&self.samples()).is_empty());
        assert!(same, "{:#?} of {expected:#?}", differ(&self.samples()));
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The counters of the status file's only device.
fn counters(node: &Node) -> BTreeMap<String, u64> {
    let file = fs::read_to_string(node.run.proc_drbd()).unwrap();
    let line = file.lines().find(|line| line.starts_with("    ns:")).unwrap_or_else(|| panic!("{file}"));
    let counter = |word: &str| {
        let (key, value) = word.split_once(':')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    line.split_whitespace().filter_map(counter).collect()
}

/// Waits until the file says so.
#[track_caller]
fn counts(node: &Node, expected: &[(&str, u64)]) {
    let holds = || {
        let now = counters(node);
        expected.iter().all(|(key, value)| now.get(*key) == Some(value))
    };
    assert!(wait::holds_within(wait::LIMIT, holds), "{}: {:?}, not {expected:?}", node.name, counters(node));
}

fn first_line(node: &Node) -> String {
    let file = fs::read_to_string(node.run.proc_drbd()).unwrap();
    file.lines().find(|line| line.starts_with(" 0: ")).unwrap_or_default().to_owned()
}

fn write(node: &Node, bytes: u64) {
    let mut client = node.client().unwrap();
    for offset in (0..bytes).step_by(64 << 10) {
        client.write(offset, &[7; 64 << 10], false).unwrap();
    }
    client.flush().unwrap();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_status_files_counters_count_what_was_done() {
    // A peer that is stopped for a while is not lost.
    let net = "ping-int 120;";
    let pair = Pair::synced(Setup { net, ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    counts(alpha, &[("oos", 0), ("pe", 0), ("ap", 0)]);
    counts(bravo, &[("oos", 0), ("ua", 0)]);
    let (a, b) = (counters(alpha), counters(bravo));
    write(alpha, 1024 * KIB);
    counts(
        alpha,
        &[("ns", a["ns"] + 1024), ("dw", a["dw"] + 1024), ("nr", a["nr"]), ("dr", a["dr"]), ("oos", 0)],
    );
    counts(
        bravo,
        &[("nr", b["nr"] + 1024), ("dw", b["dw"] + 1024), ("ns", b["ns"]), ("dr", b["dr"]), ("oos", 0)],
    );
    counts(alpha, &[("lo", 0), ("pe", 0), ("ua", 0), ("ap", 0), ("ep", 1)]);
    assert!(counters(alpha)["al"] > a["al"], "an extent was begun");
    alpha.client().unwrap().read(0, 256 << 10).unwrap();
    counts(alpha, &[("dr", a["dr"] + 256)]);

    let pid = bravo.pid().unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| alpha.client().unwrap().write(0, &[8; 4096], false).unwrap());
        counts(alpha, &[("pe", 1), ("ap", 1)]);
        kill(pid, Signal::SIGCONT).unwrap();
        writer.join().unwrap();
    });
    counts(alpha, &[("pe", 0), ("ap", 0)]);
    alpha.adm(&["suspend-io", RESOURCE]).ok();
    wait::until("the file says that requests wait", || first_line(alpha).ends_with(" C s-----"));
    alpha.adm(&["resume-io", RESOURCE]).ok();

    bravo.adm(&["disconnect", RESOURCE]).ok();
    let sent = counters(alpha)["ns"];
    write(alpha, 128 * KIB);
    counts(alpha, &[("oos", 128), ("ns", sent)]);
    let waiting = " 0: cs:WFConnection ro:Primary/Unknown ds:UpToDate/Outdated C r-----";
    wait::until("the connection is waited for", || first_line(alpha) == waiting);
    let before = counters(bravo)["nr"];
    bravo.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    counts(alpha, &[("oos", 0)]);
    counts(bravo, &[("nr", before + 128)]);
    bravo.adm(&["down", RESOURCE]).ok();
    wait::until("nothing is left in the file", || {
        fs::read_to_string(bravo.run.proc_drbd()).is_ok_and(|file| file.lines().count() == 2)
    });
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn node_exporter_and_check_drbd_read_the_status_file() {
    let pair = Pair::synced(Setup::default());
    let Pair { alpha, bravo, .. } = &pair;
    write(alpha, 512 * KIB);
    let file = alpha.run.proc_drbd();
    let mut command = alpha.command(Path::new("prometheus-node-exporter"));
    command.args(["--collector.disable-defaults", "--collector.drbd", "--web.disable-exporter-metrics"]);
    command.arg(format!("--path.procfs={}", file.parent().unwrap().display()));
    let exporter = Exporter::start(command, "--web.listen-address");
    let (status, peer) = (alpha.status().unwrap(), alpha.peer().unwrap());
    exporter.shows(&[
        ("node_drbd_connected{device=\"drbd0\"}", 1),
        ("node_drbd_node_role_is_primary{device=\"drbd0\",node=\"local\"}", 1),
        ("node_drbd_node_role_is_primary{device=\"drbd0\",node=\"remote\"}", 0),
        ("node_drbd_disk_state_is_up_to_date{device=\"drbd0\",node=\"local\"}", 1),
        ("node_drbd_disk_state_is_up_to_date{device=\"drbd0\",node=\"remote\"}", 1),
        ("node_drbd_network_sent_bytes_total{device=\"drbd0\"}", peer.sent_bytes),
        ("node_drbd_network_received_bytes_total{device=\"drbd0\"}", peer.received_bytes),
        ("node_drbd_disk_written_bytes_total{device=\"drbd0\"}", status.disk_written_bytes),
        ("node_drbd_disk_read_bytes_total{device=\"drbd0\"}", status.disk_read_bytes),
        ("node_drbd_activitylog_writes_total{device=\"drbd0\"}", status.activity_log_writes),
        ("node_drbd_bitmap_writes_total{device=\"drbd0\"}", status.bitmap_writes),
        ("node_drbd_local_pending{device=\"drbd0\"}", 0),
        ("node_drbd_remote_pending{device=\"drbd0\"}", 0),
        ("node_drbd_remote_unacknowledged{device=\"drbd0\"}", 0),
        ("node_drbd_application_pending{device=\"drbd0\"}", 0),
        ("node_drbd_epochs{device=\"drbd0\"}", 1),
        ("node_drbd_out_of_sync_bytes{device=\"drbd0\"}", 0),
        ("node_scrape_collector_success{collector=\"drbd\"}", 1),
    ]);
    let check = || {
        let mut plugin = Command::new("/usr/lib/nagios/plugins/check_drbd");
        plugin.arg("-p").arg(&file).args(["-d", "All"]);
        Outcome::of(plugin)
    };
    assert_eq!(check().ok().stdout, "DRBD OK: Device 0 Connected UpToDate\n");
    bravo.adm(&["disconnect", RESOURCE]).ok();
    wait::until("check_drbd raises an alarm", || check().code == Some(2));
    write(alpha, 64 * KIB);
    exporter.shows(&[
        ("node_drbd_connected{device=\"drbd0\"}", 0),
        ("node_drbd_disk_state_is_up_to_date{device=\"drbd0\",node=\"remote\"}", 0),
        ("node_drbd_out_of_sync_bytes{device=\"drbd0\"}", 64 * KIB),
    ]);
    let differs = check();
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(differs.stdout.starts_with("DRBD WARNING: Out of sync on device 0: 64 sectors"), "{differs:?}");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn ha_cluster_exporter_reads_the_json() {
    let pair = Pair::synced(Setup::default());
    let Pair { alpha, bravo, .. } = &pair;
    write(alpha, 512 * KIB);
    let drbdsetup = pair.folder().join("drbdsetup");
    symlink(binary("tandemadm"), &drbdsetup).unwrap();
    let mut command = alpha.command(Path::new("ha_cluster_exporter"));
    command.arg(format!("--drbdsetup-path={}", drbdsetup.display()));
    for other in ["crm-mon", "cibadmin", "corosync-cfgtoolpath", "corosync-quorumtool", "sbd"] {
        command.arg(format!("--{other}-path=/nonexistent"));
    }
    let exporter = Exporter::start(command, "--web.listen-address");
    let (status, peer) = (alpha.status().unwrap(), alpha.peer().unwrap());
    let of_peer = "{peer_node_id=\"1\",resource=\"r0\",volume=\"0\"}";
    let sample = |name: &str| format!("ha_cluster_drbd_{name}{of_peer}");
    exporter.shows(&[
        (
            "ha_cluster_drbd_resources{disk_state=\"uptodate\",resource=\"r0\",role=\"Primary\",volume=\"0\"}",
            1,
        ),
        ("ha_cluster_drbd_written{resource=\"r0\",volume=\"0\"}", status.disk_written_bytes / KIB),
        ("ha_cluster_drbd_read{resource=\"r0\",volume=\"0\"}", status.disk_read_bytes / KIB),
        ("ha_cluster_drbd_al_writes{resource=\"r0\",volume=\"0\"}", status.activity_log_writes),
        ("ha_cluster_drbd_bm_writes{resource=\"r0\",volume=\"0\"}", status.bitmap_writes),
        ("ha_cluster_drbd_quorum{resource=\"r0\",volume=\"0\"}", 1),
        (&sample("connections_sync"), 100),
        (&sample("connections_sent"), peer.sent_bytes / KIB),
        (&sample("connections_received"), peer.received_bytes / KIB),
        (&sample("connections_pending"), 0),
        ("ha_cluster_scrape_success{collector=\"drbd\"}", 1),
    ]);
    bravo.adm(&["down", RESOURCE]).ok();
    wait::until("bravo is missed", || alpha.connection() == Some(ConnectionState::Connecting));
    let missed = |name: &String| {
        name.starts_with("ha_cluster_drbd_connections{") && name.contains("peer_role=\"Unknown\"")
    };
    wait::until("the exporter misses it, too", || exporter.samples().keys().any(missed));

    // What scripts ask under the names of DRBD's tools.
    let mut status = alpha.command(&drbdsetup);
    status.arg("status");
    let text = Outcome::of(status).ok().stdout;
    assert_eq!(text, "r0 role:Primary\n  disk:UpToDate open:no\n  bravo connection:Connecting\n\n");
    let mut unknown = alpha.command(&drbdsetup);
    unknown.args(["role", "r1"]);
    Outcome::of(unknown).refused(10, "r1: Unknown resource");
}

/// DRBD's own monitor reads the events.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn drbdmon_reads_the_events() {
    let pair = Pair::synced(Setup::default());
    symlink(binary("tandemadm"), pair.folder().join("drbdsetup")).unwrap();
    let path = format!("{}:{}", pair.folder().display(), std::env::var("PATH").unwrap());
    let mut monitor = pair
        .alpha
        .command(Path::new("script"))
        .args(["-qec", "stty rows 30 cols 100; exec drbdmon", "/dev/null"])
        .env("PATH", path)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let shown: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (mut screen, seen) = (monitor.stdout.take().unwrap(), shown.clone());
    thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut part) {
            seen.lock().unwrap().extend_from_slice(&part[..length]);
        }
    });
    let shows = |word: &str| String::from_utf8_lossy(&shown.lock().unwrap()).contains(word);
    wait::until("drbdmon shows the Primary", || shows("RES:") && shows("Primary") && shows("bravo"));
    pair.alpha.adm(&["secondary", RESOURCE]).ok();
    wait::until("drbdmon has heard of the change", || shows("Secondary"));
    monitor.stdin.take().unwrap().write_all(b"q").unwrap();
    wait::until("drbdmon has ended", || monitor.try_wait().unwrap().is_some());
}

/// What the target has asked for and the source has not sent.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_resyncs_requests_count_until_they_are_answered() {
    let net = "ping-int 120;";
    let pair = Pair::synced(Setup { net, ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    for node in pair.nodes() {
        node.adm(&["peer-device-options", RESOURCE, "--c-max-rate=1M"]).ok();
    }
    bravo.adm(&["disconnect", RESOURCE]).ok();
    write(alpha, 8192 * KIB);
    bravo.adm(&["connect", RESOURCE]).ok();
    wait::until("the resync has begun", || counters(bravo)["oos"] > 0);
    let pid = alpha.pid().unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    let waits = wait::holds_within(wait::LIMIT, || counters(bravo)["pe"] > 0);
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(waits, "{:?}", counters(bravo));
    for node in pair.nodes() {
        node.adm(&["peer-device-options", RESOURCE, "--c-max-rate=0"]).ok();
    }
    pair.wait_healed();
    counts(bravo, &[("pe", 0), ("ua", 0), ("oos", 0)]);
}

/// Those of drbd-utils that call its programs by name, and one that reads the status file once it is told where that is.
#[test]
#[ignore = "needs the release daemons and drbd-utils: cargo xtask test"]
fn drbd_utils_scripts_understand_what_they_are_told() {
    let folder = mkdtemp(&std::env::temp_dir().join("tandem-scripts-XXXXXX")).unwrap();
    let program = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let snapshot = folder.join("snapshot.sh");
    let path = format!("PATH={}:$PATH", folder.display());
    let statements = format!("handlers {{ before-resync-target \"{path} {}\"; }}", snapshot.display());
    let pair = Pair::new(Setup { statements, ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    let (tandemadm, config) = (binary("tandemadm").canonicalize().unwrap(), bravo.config.display());
    program("drbdadm", &format!("#!/bin/sh\nexec {} -c {config} \"$@\"\n", tandemadm.display()));
    symlink(&tandemadm, folder.join("drbdsetup")).unwrap();
    program("lvs", "#!/bin/sh\necho vg lv 65536\n");
    let log = folder.join("lvcreate.log");
    program("lvcreate", &format!("#!/bin/sh\necho \"$*\" >> {}\n", log.display()));
    let theirs = fs::read_to_string("/usr/lib/drbd/snapshot-resync-target-lvm.sh").unwrap();
    program("snapshot.sh", &theirs.replace("/proc/drbd", &bravo.run.proc_drbd().display().to_string()));
    pair.bring_up();

    bravo.adm(&["disconnect", RESOURCE]).ok();
    write(alpha, 1024 * KIB);
    bravo.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    // A tenth of the volume, 10 MiB, and what is out of sync.
    let size = 32768 / 10 + 10240 + 1024;
    let taken = fs::read_to_string(log).unwrap_or_default();
    assert!(taken.ends_with(&format!("-L {size}k vg/lv\n")), "{taken}");

    let bash = |node: &Node, line: &str| {
        let mut command = node.command(Path::new("bash"));
        command.args(["-c", &format!("{path}; {line}")]);
        Outcome::of(command)
    };
    let variables = "source /usr/lib/ocf/resource.d/linbit/drbd.shellfuncs.sh; DRBD_HAS_EVENTS2=true; \
                     DRBD_RESOURCE=r0; DRBD_MY_NODE_ID=0; drbd_set_status_variables; \
                     echo $status_primary $status_some_peer_all_up_to_date $status_have_quorum $FAKE_UP_TO_DATE_NODE_MASK";
    assert_eq!(bash(alpha, variables).ok().stdout, "true true true 0x3\n");
    bravo.adm(&["down", RESOURCE]).ok();
    wait::until("bravo is missed", || alpha.connection() == Some(ConnectionState::Connecting));
    assert_eq!(bash(alpha, variables).ok().stdout, "true false true 0x1\n");
    bash(alpha, "drbdsetup secondary --force=yes r0").ok();
    bash(alpha, "timeout 60 /lib/drbd/scripts/drbd-wait-promotable.sh r0").ok();
    fs::remove_dir_all(folder).unwrap();
}
