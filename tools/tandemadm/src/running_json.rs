//! `show --json` with drbdsetup's keys.

use serde_json::{Map, Value, json};
use tandem_config::{Kind, Section};
use tandem_control::ResourceStatus;
use tandem_core::state::DiskState;

use crate::settings::{self, Setting};

/// All resources, with a newline at the end; with `defaults`, options that have theirs, too.
pub fn resources(all: &[ResourceStatus], defaults: bool) -> String {
    let all: Vec<Value> = all.iter().map(|status| resource(status, defaults)).collect();
    match serde_json::to_string_pretty(&all) {
        Ok(text) if !all.is_empty() => format!("{text}\n"),
        // Numbers, words and lists can always be written.
        _ => "[\n]\n".to_owned(),
    }
}

fn resource(status: &ResourceStatus, defaults: bool) -> Value {
    let settings = settings::of(&status.spec);
    let object = |settings: &[Setting], section| -> Value {
        let shown = settings
            .iter()
            .filter(|s| s.section == section && !s.is_secret() && (defaults || !s.is_default()));
        Value::Object(shown.map(|setting| (setting.name.to_owned(), value(setting))).collect())
    };
    let options = |section| object(&settings, section);
    let volumes = status.spec.volumes().map(|volume| {
        let mut shown = Map::new();
        shown.insert("volume_nr".into(), volume.number.into());
        shown.insert("device_minor".into(), volume.minor.into());
        if status.engine.disk != DiskState::Diskless {
            let meta_disk = volume.meta_disk.as_ref().map_or("internal".into(), |p| p.display().to_string());
            shown.insert("backing-disk".into(), volume.disk.display().to_string().into());
            shown.insert("meta-disk".into(), meta_disk.into());
        }
        shown.insert("disk".into(), object(&settings::of_disk(&status.spec, volume), Section::Disk));
        Value::Object(shown)
    });
    let connections = status.engine.peers.iter().map(|peer| {
        let host = |address: std::net::SocketAddr| {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            json!({ "address": address.ip().to_string(), "port": address.port(), "family": family })
        };
        let paths = status.spec.paths_to(peer.id);
        let paths =
            paths.map(|path| json!({ "_this_host": host(path.local), "_remote_host": host(path.remote) }));
        let mut net = options(Section::Net);
        net["_name"] = peer.name.clone().into();
        let of_peer = status
            .spec
            .volumes()
            .map(|volume| json!({ "volume_nr": volume.number, "disk": options(Section::PeerDevice) }));
        json!({
            "_peer_node_id": peer.id.0,
            "_cstate": peer.connection.to_string(),
            "paths": paths.collect::<Vec<_>>(),
            "net": net,
            "volumes": of_peer.collect::<Vec<_>>(),
        })
    });
    json!({
        "resource": status.spec.name,
        "options": options(Section::Options),
        "_this_host": { "node-id": status.spec.node.id.0, "volumes": volumes.collect::<Vec<_>>() },
        "connections": connections.collect::<Vec<_>>(),
    })
}

/// Numbers and flags are such.
fn value(setting: &Setting) -> Value {
    let text = setting.value.as_str();
    match setting.definition().map(|option| option.kind) {
        Some(Kind::Flag { .. }) => (text == "yes").into(),
        Some(Kind::Number { .. } | Kind::ChoiceOrCount { .. }) => {
            text.parse::<u64>().map_or_else(|_| text.into(), Value::from)
        }
        _ => text.into(),
    }
}
