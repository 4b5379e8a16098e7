//! The list of NFSv3 clients that have mounted an export, which `rpc.mountd` keeps on its node for `showmount -a`. What
//! concerns this service's exports lies on the volume too, and comes along.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Server, Service};
use crate::plan::{Trouble, trouble};
use crate::system::filesystem;

/// Of `rpc.mountd`: lines of `HOST:FOLDER:COUNT`.
const FILE: &str = "/var/lib/nfs/rmtab";

/// Has `rpc.mountd` know whom the former server knew.
pub(super) fn restore(service: &Service) -> Result<(), Trouble> {
    bring_back(service, Path::new(FILE)).map_err(trouble(FILE))
}

/// Brings what is on the volume up to date, if this service has such clients.
pub(in crate::steps) fn save(service: &Service) -> Result<(), Trouble> {
    match service.server {
        Server::Kernel => take_along(service, Path::new(FILE)).map_err(trouble(kept(service).display())),
        Server::Ganesha | Server::None => Ok(()),
    }
}

fn bring_back(service: &Service, file: &Path) -> io::Result<()> {
    let (present, saved) = (lines(file)?, lines(&kept(service))?);
    let missing: Vec<String> = saved.into_iter().filter(|line| !present.contains(line)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => fs::write(file, text(&[present, missing].concat())),
    }
}

fn take_along(service: &Service, file: &Path) -> io::Result<()> {
    let mut ours = lines(file)?;
    ours.retain(|line| is_of(service, line));
    match lines(&kept(service))? == ours {
        true => Ok(()),
        false => filesystem::replace(&kept(service), text(&ours).as_bytes()),
    }
}

fn is_of(service: &Service, line: &str) -> bool {
    let folder = line.rsplit_once(':').and_then(|(rest, _count)| rest.split_once(":/"));
    folder.is_some_and(|(_, folder)| {
        service.exports.iter().any(|export| Path::new("/").join(folder).starts_with(&export.path))
    })
}

fn kept(service: &Service) -> PathBuf {
    service.state.join("rmtab")
}

/// None of a file that is not there.
fn lines(file: &Path) -> io::Result<Vec<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use nix::unistd::mkdtemp;

    use super::*;
    use crate::config::Config;

    #[test]
    fn clients_of_the_service_come_along_and_others_stay() {
        let folder = mkdtemp(&std::env::temp_dir().join("tandem-rmtab-XXXXXX")).unwrap();
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server kernel; \
                    export \"/srv/nfs/data *(rw,fsid=1)\"; vip 10.0.0.100/24 dev eth0; }";
        let mut service = Config::parse("nfs.conf".as_ref(), text).unwrap().services[0].clone();
        service.state = folder.clone();
        let (here, there) = (folder.join("here"), folder.join("there"));
        take_along(&service, &here).unwrap();
        assert!(!kept(&service).exists(), "nobody has mounted anything");

        let ours = "c1:/srv/nfs/data:0x00000001\nfd00::7:/srv/nfs/data/below:0x00000002\n";
        fs::write(&here, format!("c9:/srv/nfs/database:0x00000001\n{ours}c9:/home:0x00000001\n")).unwrap();
        take_along(&service, &here).unwrap();
        assert_eq!(fs::read_to_string(kept(&service)).unwrap(), ours);

        fs::write(&there, "c9:/home:0x00000001\n").unwrap();
        for _ in 0..2 {
            bring_back(&service, &there).unwrap();
            assert_eq!(fs::read_to_string(&there).unwrap(), format!("c9:/home:0x00000001\n{ours}"));
        }
        fs::write(&there, "").unwrap();
        take_along(&service, &there).unwrap();
        assert_eq!(fs::read_to_string(kept(&service)).unwrap(), "");
        fs::remove_dir_all(folder).unwrap();
    }
}
