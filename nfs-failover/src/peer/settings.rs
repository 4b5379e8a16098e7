//! What both nodes' configurations of a service must say alike: else the service that comes up on the other node is another
//! one.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{Decider, Export, Server, Service};

/// By keyword, as it would be written.
pub(crate) type Settings = BTreeMap<String, String>;

/// What a node's configuration says. Left out is what is each node's own: the interface of an address, `health`, `peer`,
/// `on-stuck`; and the secret, without which nobody is answered.
pub(crate) fn settings(service: &Service) -> Settings {
    let mut said = Settings::new();
    let mut say = |keyword: &str, value: String| said.insert(keyword.to_owned(), value);
    let mount = &service.mount;
    say("resource", service.resource.clone());
    say("mount", mount.point.display().to_string());
    say("mount fstype", mount.fstype.clone());
    say("mount options", mount.options.clone());
    say("mount uuid", mount.uuid.clone().unwrap_or_default());
    say("server", server(service.server).into());
    say("state", service.state.display().to_string());
    let mut exports: Vec<String> = service.exports.iter().map(export).collect();
    exports.sort();
    say("export", exports.join(", "));
    let mut vips: Vec<String> =
        service.vips.iter().map(|vip| format!("{}/{}", vip.address, vip.prefix)).collect();
    vips.sort();
    say("vip", vips.join(", "));
    let mut ports = service.ports.clone();
    ports.sort_unstable();
    say("port", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "));
    say("grace", service.grace_s.to_string());
    say("lease", service.lease_s.to_string());
    say("nfs3-locks", if service.nfs3_locks { "yes" } else { "no" }.into());
    say("decider", decider(service.decider).into());
    let hooks = &service.hooks;
    for (hook, program) in [("start", &hooks.start), ("stop", &hooks.stop), ("check", &hooks.check)] {
        let program = program.as_deref().map(Path::to_string_lossy).unwrap_or_default();
        say(&format!("hooks {hook}"), program.into_owned());
    }
    said
}

/// What is not alike, with both values.
pub(crate) fn differences(here: &Settings, there: &Settings) -> Vec<String> {
    let shown = |value: Option<&String>| match value.map_or("", String::as_str) {
        "" => "nothing".to_owned(),
        value => format!("'{value}'"),
    };
    let keywords = here.keys().chain(there.keys().filter(|keyword| !here.contains_key(*keyword)));
    keywords
        .filter(|keyword| here.get(*keyword) != there.get(*keyword))
        .map(|keyword| {
            let (here, there) = (shown(here.get(keyword)), shown(there.get(keyword)));
            format!("`{keyword}` is {here} here and {there} on the other node")
        })
        .collect()
}

fn export(export: &Export) -> String {
    let clients =
        export.clients.iter().map(|client| format!("{}({})", client.host, client.options.join(",")));
    let clients: Vec<String> = clients.collect();
    format!("{} {} fsid={}", export.path.display(), clients.join(" "), export.fsid)
}

fn server(server: Server) -> &'static str {
    match server {
        Server::Kernel => "kernel",
        Server::Ganesha => "ganesha",
        Server::None => "none",
    }
}

fn decider(decider: Decider) -> &'static str {
    match decider {
        Decider::None => "none",
        Decider::Ucarp => "ucarp",
        Decider::Keepalived => "keepalived",
        Decider::Pacemaker => "pacemaker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn service(text: &str) -> Settings {
        let text = format!(
            "service nfs {{ resource r0; mount /srv/nfs {{ fstype ext4; }} server ganesha; {text} }}"
        );
        settings(&Config::parse("nfs-failover.conf".as_ref(), &text).unwrap().services[0])
    }

    const USUAL: &str = "export \"/srv/nfs/data *(rw)\"; vip 10.0.0.100/24 dev eth0; vip fd00::100/64 dev eth0; grace 10; lease 10;";

    #[test]
    fn what_each_node_has_of_its_own_is_no_difference() {
        let there = USUAL.replace("eth0", "enp1s0") + " health 0.0.0.0:8008; on-stuck reboot;";
        assert!(differences(&service(USUAL), &service(&there)).is_empty());
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let there = USUAL.replace("*(rw)", "*(ro)").replace("grace 10", "grace 20")
            + "hooks { start /bin/a; stop /bin/b; }";
        let found = differences(&service(USUAL), &service(&there));
        let expected = [
            "`export` is '/srv/nfs/data *(rw) fsid=",
            "`grace` is '10' here and '20' on the other node",
            "`hooks start` is nothing here and '/bin/a' on the other node",
            "`hooks stop` is nothing here and '/bin/b' on the other node",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn what_only_one_version_knows_is_shown() {
        let (mut newer, older) = (service(USUAL), service(USUAL));
        newer.insert("colour".into(), "blue".into());
        assert_eq!(differences(&older, &newer), ["`colour` is nothing here and 'blue' on the other node"]);
        assert_eq!(differences(&newer, &older), ["`colour` is 'blue' here and nothing on the other node"]);
    }
}
