//! `split-brain show --json`. Generations are hexadecimal text, as everywhere else; offsets and lengths are bytes.

use serde_json::{Value, json};
use tandem_control::ResourceSpec;
use tandem_core::divergence::{CopyState, Divergence};

/// A resource.
pub fn resource(spec: &ResourceSpec, divergences: &[Divergence]) -> Value {
    let peers: Vec<Value> = divergences.iter().map(|divergence| peer(spec, divergence)).collect();
    json!({ "name": spec.name, "peers": peers })
}

fn peer(spec: &ResourceSpec, divergence: &Divergence) -> Value {
    let meeting = divergence.meeting.as_ref();
    let there = meeting.map(|m| copy(&divergence.peer_name, &m.there, m.complete));
    json!({
        "peer-node-id": divergence.peer,
        "peer": divergence.peer_name,
        "split-brain": meeting.is_some(),
        "met-ms-ago": meeting.map(|m| m.age_ms),
        "last-common-generation": meeting.map(|m| generation(m.common)),
        "marks-tell": meeting.map(|m| m.bitmaps_tell),
        "outcome": meeting.map(|m| m.outcome),
        "size": divergence.volume_bytes,
        "changed-by-both": divergence.changed_by_both_bytes(),
        "here": copy(&spec.node.name, &divergence.here, true),
        "there": there,
    })
}

fn copy(node: &str, copy: &CopyState, ranges_known: bool) -> Value {
    let ranges: Vec<Value> =
        copy.ranges.iter().map(|r| json!({ "offset": r.offset, "length": r.length })).collect();
    json!({
        "node": node,
        "role": copy.role,
        "disk-state": copy.disk,
        "current-generation": generation(copy.current),
        "parted-at-generation": (copy.parted_at != 0).then(|| generation(copy.parted_at)),
        "history": copy.history.iter().map(|id| generation(*id)).collect::<Vec<_>>(),
        "stayed-primary": copy.stayed_primary,
        "changed-is-bound": copy.overcounted,
        "changed": copy.changed_bytes,
        "ranges": ranges_known.then_some(ranges),
    })
}

fn generation(id: u64) -> String {
    format!("{id:016X}")
}
