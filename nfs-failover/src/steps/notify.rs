//! Tells NFSv3 clients that the server has restarted, so that they take their locks again.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Scene, server};
use crate::config::Server;
use crate::plan::{Step, Trouble, Turn, trouble};
use crate::system::within;

const HOSTS: &str = "/etc/hosts";
const KEEP_LIMIT: Duration = Duration::from_secs(2);

/// The step, if the server has such locks.
pub(super) fn notify(scene: Arc<Scene>) -> Option<Arc<dyn Step>> {
    let has_locks = scene.service.server == Server::Kernel || scene.service.nfs3_locks;
    has_locks.then(|| Arc::new(Notify(scene)) as Arc<dyn Step>)
}

/// The step that has locks of the kernel's server watched over from now on: nobody waits for it who has none. NFS-Ganesha has
/// it from its beginning.
pub(super) fn watch(scene: Arc<Scene>) -> Option<Arc<dyn Step>> {
    (scene.service.server == Server::Kernel).then(|| Arc::new(Watch(scene)) as Arc<dyn Step>)
}

struct Watch(Arc<Scene>);

impl Step for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn intention(&self) -> String {
        "note who takes NFSv3 locks: rpc.statd".into()
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(server::watches_locks(&self.0).then(|| "rpc.statd runs".into()))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        server::watch_locks(&self.0).map(|()| "begun".into())
    }
}

struct Notify(Arc<Scene>);

impl Step for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn intention(&self) -> String {
        "tell NFSv3 clients to take their locks again: sm-notify".into()
    }

    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok((!knows_anybody(&self.0.service.state)).then(|| "no client has NFSv3 locks".into()))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let Scene { service, here, .. } = self.0.as_ref();
        let Some(vip) = service.vips.first() else { return Ok("nobody".into()) };
        server::watch_locks(&self.0)?;
        let hosts = here.file(&service.name, "hosts");
        let known = fs::read_to_string(HOSTS).unwrap_or_default();
        fs::write(&hosts, hosts_with(vip.address, &known)).map_err(trouble(hosts.display()))?;
        // It goes on trying for minutes by itself.
        let arguments = arguments(&hosts, vip.address, &service.state.join("statd"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        server::start_helper(&self.0, "sm-notify", "unshare", &arguments)?;
        Ok("begun".into())
    }
}

/// Whether somebody has NFSv3 locks: noted while they had some, or not reached by a former server.
pub(super) fn knows_anybody(state: &Path) -> bool {
    ["sm", "sm.bak"].iter().any(|folder| has_any(&state.join("statd").join(folder)))
}

/// Whether anything is in a folder.
pub(super) fn has_any(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut names| names.next().is_some())
}

/// Has the next server tell those who have locks now: the kernel ends these with its threads, and has `rpc.statd` forget one
/// after the other who had them; NFS-Ganesha has it forget them all when it begins. It is told by a copy, which `sm-notify`
/// reads, too. Whether there is anybody, as far as that can be seen.
pub(super) fn keep_noted(state: &Path) -> bool {
    let statd = state.join("statd");
    let copy = move || {
        let mut is_anybody = false;
        for noted in fs::read_dir(statd.join("sm")).into_iter().flatten().flatten() {
            // Whoever cannot be noted loses its locks, which is no reason to go on serving.
            let _ = fs::copy(noted.path(), statd.join("sm.bak").join(noted.file_name()));
            is_anybody = true;
        }
        is_anybody
    };
    // Nor is a volume that hangs.
    within(KEEP_LIMIT, copy).unwrap_or(true)
}

/// What clients are told is the name of the server must lead back from the address, or `sm-notify` says nothing at all. So
/// that it needs no name server, and does not wait for one, it sees the address as a name of its own, and clients know that.
fn hosts_with(address: IpAddr, known: &str) -> String {
    format!("{address} {address}\n{known}")
}

/// `sm-notify` with that list of hosts, which nobody else sees. Unmounting the volume is seen there, too.
fn arguments(hosts: &Path, address: IpAddr, state: &Path) -> Vec<String> {
    let script = format!("mount --bind \"$1\" {HOSTS} && exec sm-notify -d -f -v \"$2\" -P \"$3\"");
    let fixed =
        ["--mount", "--propagation", "slave", "--", "sh", "-c", &script, "sm-notify"].map(str::to_owned);
    let given =
        [hosts.to_string_lossy().into_owned(), address.to_string(), state.to_string_lossy().into_owned()];
    fixed.into_iter().chain(given).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;
    use std::process::Command;

    use super::*;

    /// What statd has noted of a client that holds locks.
    const CLIENT: &str =
        "0000000000000000 000186b5 00000003 00000010 0123456789abcdef0123456789abcdef 127.0.0.1 server\n";

    #[test]
    fn who_has_locks_is_told_by_the_next_server_although_this_one_forgets_them() {
        let state = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-noted-XXXXXX")).unwrap();
        // Where nothing is mounted there is nothing.
        assert!(!keep_noted(&state));
        for folder in ["statd/sm", "statd/sm.bak"] {
            fs::create_dir_all(state.join(folder)).unwrap();
        }
        fs::write(state.join("statd/sm/10.0.0.7"), CLIENT).unwrap();
        fs::write(state.join("statd/sm.bak/10.0.0.8"), "not reached yet").unwrap();
        assert!(keep_noted(&state), "somebody has locks");
        fs::remove_file(state.join("statd/sm/10.0.0.7")).unwrap();
        let kept = |name: &str| fs::read_to_string(state.join("statd/sm.bak").join(name)).unwrap();
        assert_eq!((kept("10.0.0.7"), kept("10.0.0.8")), (CLIENT.into(), "not reached yet".into()));
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn the_address_is_the_first_name_for_itself() {
        let hosts = hosts_with("10.99.0.100".parse().unwrap(), "127.0.0.1 localhost\n");
        assert_eq!(hosts, "10.99.0.100 10.99.0.100\n127.0.0.1 localhost\n");
    }

    #[test]
    #[ignore = "needs root and nfs-common; tries for seconds to reach a client that is not there"]
    fn nobody_has_to_resolve_the_address() {
        let folder = std::env::temp_dir().join(format!("nfs-failover-notify-{}", std::process::id()));
        for inner in ["sm", "sm.bak"] {
            fs::create_dir_all(folder.join(inner)).unwrap();
        }
        // It gives its rights up to whoever has this.
        for path in [&folder, &folder.join("sm"), &folder.join("sm.bak")] {
            chown(path, Some(1), Some(1)).unwrap();
        }
        fs::write(folder.join("sm/127.0.0.1"), CLIENT).unwrap();
        let (hosts, address) = (folder.join("hosts"), "127.0.0.9".parse().unwrap());
        let run = |known: String| {
            fs::write(&hosts, known).unwrap();
            let arguments = arguments(&hosts, address, &folder);
            let output = Command::new("timeout").args(["3", "unshare"]).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let said = run("127.0.0.1 localhost\n".into());
        assert!(said.contains("'127.0.0.9' is unusable"), "{said}");
        let said = run(hosts_with(address, "127.0.0.1 localhost\n"));
        assert!(said.contains("Sending PMAP_GETPORT") && !said.contains("unusable"), "{said}");
        fs::remove_dir_all(folder).unwrap();
    }
}
