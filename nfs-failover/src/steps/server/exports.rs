//! What the kernel's server is told to export, and what of that is this service's: known again when the configuration has
//! changed since, or when somebody has taken it back.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Scene;
use crate::config::{Client, Export, Service, derived_fsid};
use crate::plan::{Trouble, trouble};
use crate::system::filesystem;

/// What `exportfs` notes for `rpc.mountd`; it outlives the machine.
const EXPORTED_FILE: &str = "/var/lib/nfs/etab";

/// Has exported what is configured, and nothing that was once; what that has changed. `exportfs` is run with the arguments
/// that it is given.
pub(super) fn ensure(
    scene: &Scene,
    exportfs: impl Fn(&[&str]) -> Result<(), Trouble>,
) -> Result<Vec<String>, Trouble> {
    let (service, file) = (&scene.service, note(scene));
    let (wanted, noted, exported) = (wanted(service), Noted::read(&file), Exported::read());
    if noted.holds(&wanted, service, &exported) {
        return Ok(Vec::new());
    }
    let mut changed = Vec::new();
    let export = |one: &Wanted| exportfs(&["-o", &one.options, &one.target()]);
    // Options that were taken away are not missed among those that are listed.
    for one in wanted.iter().filter(|one| !noted.knows(one) || !exported.has(one)) {
        export(one)?;
        changed.push(format!("{} is exported to {} with {}", one.path.display(), one.host, one.options));
    }
    // Then, lest a client that remains is turned away for a moment.
    let exported = Exported::read();
    let stale: Vec<&Entry> = exported.stale(&wanted, service).collect();
    for Entry { host, path, .. } in &stale {
        // That it cannot be is no reason to serve nobody.
        changed.push(match exportfs(&["-u", &target(host, path)]) {
            Ok(()) => format!("{} is not exported to {host} any more", path.display()),
            Err(why) => format!("{} is still exported to {host}: {why}", path.display()),
        });
    }
    if !stale.is_empty() {
        // A host may have been among it by another name.
        wanted.iter().filter(|one| !exported.has(one)).try_for_each(export)?;
    }
    let noted = Noted::of(&wanted, service, &Exported::read());
    filesystem::put(&file, &serde_json::to_vec(&noted).unwrap_or_default())
        .map_err(trouble(file.display()))?;
    Ok(changed)
}

/// Takes back what this service exports, or has once.
pub(super) fn take_back(scene: &Scene, exportfs: impl Fn(&[&str]) -> Result<(), Trouble>) {
    let file = note(scene);
    for entry in Exported::read().ours(&scene.service) {
        // Nothing comes of it once the volume is unmounted.
        let _ = exportfs(&["-u", &target(&entry.host, &entry.path)]);
    }
    // It may never have been written.
    let _ = fs::remove_file(file);
}

/// A folder that is exported, and not by this service.
pub(super) fn of_others(scene: &Scene) -> Option<PathBuf> {
    Exported::read().other(&scene.service).map(Path::to_owned)
}

fn note(scene: &Scene) -> PathBuf {
    scene.here.file(&scene.service.name, "exports")
}

/// One client of one folder, as configured.
struct Wanted<'a> {
    path: &'a Path,
    host: &'a str,
    options: String,
}

fn wanted(service: &Service) -> Vec<Wanted<'_>> {
    let mut wanted = Vec::new();
    for export in &service.exports {
        let each = export.clients.iter();
        wanted.extend(each.map(|client| Wanted {
            path: &export.path,
            host: &client.host,
            options: options(export, client, &service.mount.point),
        }));
    }
    wanted
}

impl Wanted<'_> {
    fn is_for(&self, entry: &Entry) -> bool {
        entry.path == self.path && entry.host == self.host
    }

    fn target(&self) -> String {
        target(self.host, self.path)
    }

    fn to_text(&self) -> String {
        format!("{} {}", self.target(), self.options)
    }
}

/// What `exportfs` is told: as written, and what makes it the same on both nodes, never another filesystem, and nothing
/// while the volume is not mounted.
fn options(export: &Export, client: &Client, point: &Path) -> String {
    let mut options = client.options.clone();
    if !client.has("sync") {
        options.push("sync".into());
    }
    if !client.has("subtree_check") && !client.has("no_subtree_check") {
        options.push("no_subtree_check".into());
    }
    options.push(format!("fsid={}", export.fsid));
    options.push(format!("mountpoint={}", point.display()));
    options.join(",")
}

fn target(host: &str, path: &Path) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{}", path.display()),
        false => format!("{host}:{}", path.display()),
    }
}

/// What was exported last for this service, and how that was listed then: names of hosts, for one, are listed otherwise than
/// they are written.
#[derive(Default, Serialize, Deserialize)]
struct Noted {
    wanted: Vec<String>,
    listed: Vec<String>,
}

impl Noted {
    fn of(wanted: &[Wanted], service: &Service, exported: &Exported) -> Noted {
        let listed = exported.ours(service).map(|entry| entry.line.clone()).collect();
        Noted { wanted: wanted.iter().map(Wanted::to_text).collect(), listed }
    }

    /// What was noted last; nothing, if that makes no sense.
    fn read(file: &Path) -> Noted {
        fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn knows(&self, wanted: &Wanted) -> bool {
        self.wanted.contains(&wanted.to_text())
    }

    /// Whether it is still configured so, and listed so.
    fn holds(&self, wanted: &[Wanted], service: &Service, exported: &Exported) -> bool {
        let now = Noted::of(wanted, service, exported);
        let same = |a: &[String], b: &[String]| a.iter().all(|one| b.contains(one));
        self.wanted == now.wanted && same(&self.listed, &now.listed) && same(&now.listed, &self.listed)
    }
}

/// All that is exported on this machine.
struct Exported(Vec<Entry>);

/// One client of one folder, as `exportfs` has noted it.
struct Entry {
    line: String,
    path: PathBuf,
    host: String,
    options: Vec<String>,
}

impl Exported {
    fn read() -> Exported {
        Exported::parse(&fs::read_to_string(EXPORTED_FILE).unwrap_or_default())
    }

    fn parse(text: &str) -> Exported {
        Exported(text.lines().filter_map(Entry::parse).collect())
    }

    /// Whether one is among it with these options, and maybe others.
    fn has(&self, wanted: &Wanted) -> bool {
        let same = |entry: &&Entry| wanted.is_for(entry);
        let is_so = |entry: &Entry| wanted.options.split(',').all(|option| entry.has(option));
        self.0.iter().find(same).is_some_and(is_so)
    }

    /// This service's, be it of a former configuration.
    fn ours<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().filter(|entry| entry.is_of(service))
    }

    /// Of these, what is not wanted any more.
    fn stale<'a>(&'a self, wanted: &'a [Wanted], service: &'a Service) -> impl Iterator<Item = &'a Entry> {
        self.ours(service).filter(|entry| !wanted.iter().any(|one| one.is_for(entry)))
    }

    /// A folder among it that is none of ours.
    fn other(&self, service: &Service) -> Option<&Path> {
        let is_configured = |entry: &Entry| service.exports.iter().any(|export| export.path == entry.path);
        let other = self.0.iter().find(|entry| !entry.is_of(service) && !is_configured(entry));
        other.map(|entry| entry.path.as_path())
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Entry> {
        let (path, rest) = line.split_once('\t')?;
        let (host, options) = rest.strip_suffix(')')?.split_once('(')?;
        Some(Entry {
            line: line.to_owned(),
            path: unescaped(path),
            host: host.to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
        })
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }

    /// Whether it is exported only while this service's volume is mounted, or has the number that the folder gets from it.
    fn is_of(&self, service: &Service) -> bool {
        let fsid = derived_fsid(&service.resource, &self.path.to_string_lossy());
        self.has(&format!("mountpoint={}", service.mount.point.display()))
            || self.has(&format!("fsid={fsid}"))
    }
}

/// Blanks and the like are listed as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match number.filter(u8::is_ascii) {
            Some(byte) => path.extend([char::from(byte).to_string().as_str(), &part[3..]]),
            None => path.extend(["\\", part]),
        }
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::config::Config;

    fn service(exports: &[&str]) -> Service {
        let exports: String = exports.iter().map(|export| format!("export \"{export}\"; ")).collect();
        let text = format!(
            "service nfs {{ resource r0; mount /srv/nfs {{ fstype ext4; }} server kernel; {exports}\
             vip 10.0.0.100/24 dev eth0; }}"
        );
        Config::parse("nfs-failover.conf".as_ref(), &text).unwrap().services[0].clone()
    }

    /// As `exportfs` lists it, with what it adds.
    fn line(path: &str, host: &str, options: &str) -> String {
        format!("{path}\t{host}({options},wdelay,hide,sec=sys)\n")
    }

    fn listed(service: &Service) -> String {
        let all = wanted(service);
        all.iter().map(|one| line(&one.path.to_string_lossy(), one.host, &one.options)).collect()
    }

    #[test]
    fn an_export_is_there_only_as_it_is_to_be() {
        let service =
            service(&["/srv/nfs/data 10.0.0.0/24(rw,sync) fd00::/64(ro)", "/srv/nfs/a\\\\040b *(ro)"]);
        let text = listed(&service).replace("a b", "a\\040b");
        let all = wanted(&service);
        assert!(all.iter().all(|one| Exported::parse(&text).has(one)), "{text}");
        assert_eq!(all[1].target(), "[fd00::/64]:/srv/nfs/data");
        assert_eq!(all[2].target(), "*:/srv/nfs/a b");
        // Of another time, for somebody else, of something else.
        for (from, to) in
            [("fsid=", "fsid=7"), ("10.0.0.0/24", "10.0.0.0/2"), ("/data", "/dat"), ("rw", "ro")]
        {
            assert!(!Exported::parse(&text.replace(from, to)).has(&all[0]), "{from} {to}");
        }
        assert!(!Exported::parse("").has(&all[0]));
    }

    #[test]
    fn what_somebody_else_exports_is_named() {
        let service = service(&["/srv/nfs/data 10.0.0.0/24(rw,sync)"]);
        let other = |text: &str| Exported::parse(text).other(&service).map(|path| path.display().to_string());
        assert_eq!(other(&listed(&service)), None);
        assert_eq!(other(""), None);
        assert_eq!(other(&(listed(&service) + &line("/home", "*", "ro"))), Some("/home".into()));
        // Of a configuration of another time, when the machine has forgotten it.
        let fsid = derived_fsid("r0", "/srv/nfs/old");
        assert_eq!(other(&line("/srv/nfs/old", "*", &format!("rw,fsid={fsid}"))), None);
        assert_eq!(
            other(&line("/srv/nfs/older", "*", &format!("rw,fsid={fsid}"))),
            Some("/srv/nfs/older".into())
        );
    }

    #[test]
    fn what_was_exported_holds_until_it_is_taken_back_changed_or_configured_anew() {
        let service = service(&["/srv/nfs/data 10.0.0.0/24(rw,sync) client(ro)"]);
        // A name of a host is listed in full.
        let text = listed(&service).replace("client", "client.example.org") + &line("/home", "*", "ro");
        let wanted = wanted(&service);
        let noted = Noted::of(&wanted, &service, &Exported::parse(&text));
        let holds = |text: &str| noted.holds(&wanted, &service, &Exported::parse(text));
        assert_eq!(noted.listed.len(), 2);
        assert!(holds(&text) && holds(&text.replace("/home", "/other")));
        assert!(!holds(&text.lines().skip(1).collect::<Vec<_>>().join("\n")), "taken back");
        assert!(!holds(&text.replace("rw", "ro")), "changed");
        assert!(!noted.holds(&[], &service, &Exported::parse(&text)), "configured anew");
        let more = line("/srv/nfs/data", "*", "rw,mountpoint=/srv/nfs");
        assert!(!holds(&(text + &more)), "for others, too");
        assert!(!Noted::default().holds(&wanted, &service, &Exported::parse("")), "never");
    }

    #[test]
    fn what_was_exported_once_is_known_by_the_volume_or_by_its_number() {
        let now = service(&["/srv/nfs/data 10.0.0.0/24(rw)"]);
        let former =
            service(&["/srv/nfs/old *(rw)", "/srv/nfs/numbered *(rw,fsid=7)", "/srv/nfs/data *(rw)"]);
        let text = listed(&former) + &listed(&now) + &line("/home", "*", "ro,fsid=8");
        let stale = |text: &str| {
            let (exported, wanted) = (Exported::parse(text), wanted(&now));
            exported.stale(&wanted, &now).map(|one| target(&one.host, &one.path)).collect::<Vec<_>>()
        };
        assert_eq!(stale(&text), ["*:/srv/nfs/old", "*:/srv/nfs/numbered", "*:/srv/nfs/data"]);
        // The volume was mounted elsewhere then.
        let elsewhere = text.replace("mountpoint=/srv/nfs", "mountpoint=/srv");
        assert_eq!(stale(&elsewhere), ["*:/srv/nfs/old", "*:/srv/nfs/data"]);
    }

    #[test]
    fn exportfs_is_told_of_each_client() {
        let run = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-exports-XXXXXX")).unwrap();
        let here = crate::here::Here {
            tandem: tandem_control::RuntimeDir::new(&run),
            config_file: "nfs-failover.conf".into(),
        };
        here.folder().unwrap();
        let scene = Scene::new(service(&["/srv/nfs/data 10.0.0.0/24(rw) fd00::/64(ro)"]), here, None);
        let told = RefCell::new(Vec::new());
        let exportfs = |arguments: &[&str]| {
            told.borrow_mut().push(arguments.join(" "));
            Ok(())
        };
        let changed = ensure(&scene, exportfs).unwrap();
        assert!(
            changed.len() == 2 && changed[1].starts_with("/srv/nfs/data is exported to fd00::/64 with ro,")
        );
        let fsid = &scene.service.exports[0].fsid;
        let rest = format!("sync,no_subtree_check,fsid={fsid},mountpoint=/srv/nfs");
        let first = format!("-o rw,{rest} 10.0.0.0/24:/srv/nfs/data");
        assert_eq!(told.take(), [first, format!("-o ro,{rest} [fd00::/64]:/srv/nfs/data")]);
        fs::remove_dir_all(run).unwrap();
    }
}
