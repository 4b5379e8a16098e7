//! What NFS-Ganesha is told and asked on D-Bus, by the program of D-Bus's own package, which Ganesha's depends on.

use std::path::Path;
use std::time::Duration;

use super::exports::Present;
use crate::plan::Trouble;
use crate::system::program::{output, program};

const PROGRAM: &str = "dbus-send";
/// It may have to ask for the addresses of clients that are named.
const LIMIT: Duration = Duration::from_secs(20);

/// What it exports.
pub(super) fn exports() -> Result<Vec<Present>, Trouble> {
    call("ShowExports", &[]).map(|said| listed(&said))
}

/// Has it export what stands in a configuration file under this number.
pub(super) fn add(file: &Path, number: u16) -> Result<(), Trouble> {
    call("AddExport", &[&text(file), &block(number)]).and_then(|said| expect_all(&said))
}

/// Has it export otherwise what it exports already.
pub(super) fn update(file: &Path, number: u16) -> Result<(), Trouble> {
    call("UpdateExport", &[&text(file), &block(number)]).and_then(|said| expect_all(&said))
}

/// Has it export that no longer.
pub(super) fn remove(number: u16) -> Result<(), Trouble> {
    call("RemoveExport", &[&format!("uint16:{number}")]).map(drop)
}

/// It takes what it can, as a client of several whose name leads to an address, and says what it has left out.
fn expect_all(said: &str) -> Result<(), Trouble> {
    match said.split_once("Errors found:") {
        None => Ok(()),
        Some((_, errors)) => Err(Trouble::new(errors.trim_end().trim_end_matches('"').trim())),
    }
}

fn text(file: &Path) -> String {
    format!("string:{}", file.display())
}

fn block(number: u16) -> String {
    format!("string:EXPORT(Export_Id={number})")
}

fn call(method: &str, arguments: &[&str]) -> Result<String, Trouble> {
    let method = format!("org.ganesha.nfsd.exportmgr.{method}");
    let limit = format!("--reply-timeout={}", LIMIT.as_millis());
    let to = ["--system", "--print-reply", &limit, "--dest=org.ganesha.nfsd", "/org/ganesha/nfsd/ExportMgr"];
    // The program itself gives up a little earlier.
    output(program(PROGRAM, &[&to[..], &[method.as_str()], arguments].concat()), LIMIT + LIMIT / 4)
}

/// A number is followed by its folder.
fn listed(said: &str) -> Vec<Present> {
    let mut lines = said.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let number = line.strip_prefix("uint16 ").and_then(|number| number.parse().ok());
        let Some(number) = number else { continue };
        let path = lines.next().and_then(|line| line.strip_prefix("string \"")?.strip_suffix('"'));
        found.extend(path.map(|path| (number, path.into())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said() {
        let said = "method return\n   string \"1 exports updated. Errors found:\nConfig File (nfs.ganesha.conf.new:19): Client \
            (nobody) not found because Temporary failure in name resolution\n\"\n";
        let trouble = expect_all(said).unwrap_err().message;
        assert!(trouble.starts_with("Config File") && trouble.ends_with("name resolution"), "{trouble}");
        expect_all("method return\n   string \"1 exports updated\"\n").unwrap();
    }

    #[test]
    fn exports_are_found_in_what_is_printed() {
        let said = "method return time=1.8 sender=:1.0 -> destination=:1.1 serial=4 reply_serial=2\n   struct {\n      \
            uint64 1\n   }\n   array [\n      struct {\n         uint16 4711\n         string \"/srv/nfs/a b\"\n         \
            struct {\n            struct {\n               string \"NFSv3\"\n               boolean true\n            }\n   \
            }\n      struct {\n         uint16 0\n         string \"/\"\n      }\n   ]\n";
        assert_eq!(listed(said), [(4711, "/srv/nfs/a b".into()), (0, "/".into())]);
        assert!(listed("").is_empty());
    }
}
