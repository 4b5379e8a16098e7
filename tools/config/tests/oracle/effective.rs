//! What holds in the end: the options that `drbdadm -d up` hands to drbdsetup are those that a pair runs with.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::support::{Drbdadm, Fixture, Tandem, fixtures};
use tandem_config::{Config, DiskOptions, NetOptions, Resource};

const NODE: &str = "alpha";
/// It is a name for us, and a minor number for drbdsetup.
const NAMED_OTHERWISE: &str = "--resync-after=";

/// The calls of drbdsetup, word by word; none if drbdadm finds an option inherited from two places, which it does not allow.
fn calls(fixture: &Fixture) -> Option<Vec<Vec<String>>> {
    let as_node = format!("hostname {NODE}; exec drbdadm -c \"$0\" -d up all");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--uts", "sh", "-c", &as_node])
        .arg(&fixture.path)
        .output()
        .unwrap();
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let calls = lines.filter_map(|line| line.strip_prefix(b"drbdsetup ")).map(words);
    output.status.success().then(|| calls.collect())
}

/// Words of a shell: a backslash is before a byte that stands for itself.
fn words(line: &[u8]) -> Vec<String> {
    let mut words = vec![Vec::new()];
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, words.last_mut()) {
            (b' ', _) => words.push(Vec::new()),
            (b'\\', Some(word)) => word.extend(bytes.next()),
            (byte, word) => word.unwrap().push(byte),
        }
    }
    words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
}

/// A resource's calls as a configuration without any inheritance.
#[derive(Default)]
struct Flat {
    node_id: String,
    options: String,
    /// By minor: the volume's number, and what `attach` says.
    volumes: BTreeMap<String, (String, String)>,
    peer_id: String,
    net: String,
    paths: String,
    resync: String,
}

impl Flat {
    fn add(&mut self, call: &[&str]) {
        let number_of =
            |minor: &str| self.volumes.get(minor).map_or(String::new(), |(number, _)| number.clone());
        match call {
            ["new-resource", _, id, options @ ..] => {
                self.node_id = (*id).to_owned();
                self.options = settings(options);
            }
            ["new-minor", _, minor, number, ..] => {
                self.volumes.insert((*minor).to_owned(), ((*number).to_owned(), String::new()));
            }
            ["new-peer", _, id, _, options @ ..] => {
                self.peer_id = (*id).to_owned();
                self.net = settings(options);
            }
            ["new-path", _, _, local, remote] => {
                let [local, remote] = [local, remote].map(|end| end.replacen(':', " ", 1));
                let path = format!("path {{ host {NODE} address {local}; host peer address {remote}; }} ");
                // Two hosts of two meshes are told of twice.
                if !self.paths.contains(&path) {
                    self.paths += &path;
                }
            }
            ["peer-device-options", _, _, number, options @ ..] => {
                let _ = write!(self.resync, "volume {number} {{ disk {{ {} }} }} ", settings(options));
            }
            ["attach", minor, disk, meta, place, options @ ..] => {
                let meta = if *place == "internal" { place } else { meta };
                let text = format!("disk \"{disk}\"; meta-disk \"{meta}\"; disk {{ {} }}", settings(options));
                self.volumes.insert((*minor).to_owned(), (number_of(minor), text));
            }
            _ => {}
        }
    }

    fn text(&self, name: &str) -> String {
        let volume = |(minor, (number, attach)): (&String, &(String, String))| {
            format!("volume {number} {{ device minor {minor}; {attach} }}\n")
        };
        format!(
            "resource \"{name}\" {{ options {{ {} }}\n{}on {NODE} {{ node-id {}; }} on peer {{ node-id {}; }}\n\
             connection {{ {}\nnet {{ {} }} {} }} }}\n",
            self.options,
            self.volumes.iter().map(volume).collect::<String>(),
            self.node_id,
            self.peer_id,
            self.paths,
            self.net,
            self.resync,
        )
    }
}

fn settings(options: &[&str]) -> String {
    let known = options.iter().filter(|option| !option.starts_with(NAMED_OTHERWISE));
    let pairs = known.filter_map(|option| option.strip_prefix("--")?.split_once('='));
    pairs.map(|(name, value)| format!("{name} \"{}\"; ", value.replace('"', "\\\""))).collect()
}

/// What a pair runs with.
#[derive(PartialEq, Debug)]
struct Effective {
    net: NetOptions,
    paths: Vec<[SocketAddr; 2]>,
    disks: Vec<(u32, u32, DiskOptions)>,
    quorum: [String; 3],
    on_no_data: String,
}

fn effective(resource: &Resource) -> Effective {
    let pair = resource.pair(NODE).unwrap_or_else(|error| panic!("{}: {error}", resource.name));
    let volumes = std::iter::once(pair.volume).chain(pair.more_volumes);
    let disk = |disk: DiskOptions| DiskOptions { resync_after: None, ..disk };
    Effective {
        net: pair.net(),
        paths: pair.paths().collect(),
        disks: volumes.map(|volume| (volume.number, volume.minor, disk(pair.disk(volume)))).collect(),
        quorum: resource.quorum(),
        on_no_data: resource.on_no_data(),
    }
}

/// How many resources were compared.
fn compare(fixture: &Fixture) -> usize {
    let Some(calls) = calls(fixture) else { return 0 };
    let config = fixture.config();
    let ours = config.for_node(NODE);
    for resource in &ours {
        let minors: Vec<String> = resource
            .local(NODE)
            .map(|host| host.volumes.iter().map(|volume| volume.minor.to_string()).collect())
            .unwrap_or_default();
        let mut flat = Flat::default();
        for call in &calls {
            let call: Vec<&str> = call.iter().map(String::as_str).collect();
            if call[1] == resource.name || call[0] == "attach" && minors.iter().any(|minor| minor == call[1])
            {
                flat.add(&call);
            }
        }
        let text = flat.text(&resource.name);
        let theirs = Config::parse(Path::new("flat"), &text)
            .unwrap_or_else(|error| panic!("{}:\n{text}\n{error}", fixture.name));
        assert_eq!(effective(&theirs.resources[0]), effective(resource), "{}:\n{text}", fixture.name);
    }
    ours.len()
}

#[test]
#[ignore = "needs drbd-utils, and root"]
fn what_holds_in_the_end_is_what_drbdsetup_is_told() {
    let fixtures = fixtures();
    let of_both =
        fixtures.iter().filter(|f| f.drbdadm == Drbdadm::Accepts && f.tandem == Tandem::Runs && f.compare);
    let compared: usize = of_both.map(compare).sum();
    println!("{compared} resources compared");
    assert!(compared > 90, "{compared}");
}
