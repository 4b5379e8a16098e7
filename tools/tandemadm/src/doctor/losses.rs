//! What losing a node would do, as the policies have it.

use tandem_control::{ResourceSpec, ResourceStatus};
use tandem_core::config::{Fencing, OnNoQuorum, Protocol};
use tandem_core::handler::Handler;
use tandem_core::state::DiskState;

use super::Finding;

const CHECK: &str = "loss";

pub(super) fn examine(spec: &ResourceSpec, status: Option<&ResourceStatus>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let disk = status.map(|status| status.engine.disk).filter(|disk| *disk < DiskState::Consistent);
    for peer in &spec.peers {
        findings.push(secondary_lost(spec, &peer.name));
        findings.push(match disk {
            Some(disk) => left_with_bad_data(spec, &peer.name, disk),
            None => primary_lost(spec, &peer.name),
        });
    }
    findings
}

fn nodes(spec: &ResourceSpec) -> usize {
    1 + spec.peers.len()
}

/// One that is left alone lacks quorum.
fn needs_both(spec: &ResourceSpec) -> bool {
    let quorum = spec.options.quorum;
    [quorum.votes, quorum.minimum_redundancy].iter().any(|votes| votes.at(nodes(spec)) > 1)
}

fn secondary_lost(spec: &ResourceSpec, lost: &str) -> Finding {
    let has_handler = spec.handlers.commands.contains_key(&Handler::FencePeer);
    let told = |what: &str| format!("{lost} lost while this node is Primary: {what}");
    let handler = "write 'handlers { fence-peer \"PROGRAM\"; }': docs/handlers.md says what it must do";
    match (spec.options.fencing, needs_both(spec), spec.options.quorum.on_loss) {
        (Fencing::ResourceAndStonith, ..) if !has_handler => {
            Finding::bad(CHECK, told("requests wait for ever, since no fence-peer handler is configured"))
                .todo(handler)
        }
        (Fencing::ResourceOnly, ..) if !has_handler => Finding::warn(
            CHECK,
            told("it goes on; fencing is asked for, and no fence-peer handler is configured"),
        )
        .todo(handler),
        (_, true, OnNoQuorum::SuspendIo) => {
            Finding::ok(CHECK, told("requests wait until there is quorum again"))
        }
        (_, true, OnNoQuorum::IoError) => {
            Finding::ok(CHECK, told("requests fail until there is quorum again"))
        }
        (Fencing::ResourceAndStonith, ..) => {
            Finding::ok(CHECK, told("requests wait until fence-peer has succeeded, then it goes on"))
        }
        (Fencing::ResourceOnly, ..) => Finding::ok(CHECK, told("it goes on at once, and runs fence-peer")),
        (Fencing::DontCare, ..) => Finding::ok(CHECK, told("it goes on at once")),
    }
}

fn left_with_bad_data(spec: &ResourceSpec, lost: &str, disk: DiskState) -> Finding {
    let what = format!(
        "{lost} lost while it is Primary: this node cannot be promoted, for its disk is {disk} now: nobody serves until {lost} \
         is back"
    );
    Finding::warn(CHECK, what).todo(format!("tandemadm status --why {}", spec.name))
}

fn primary_lost(spec: &ResourceSpec, lost: &str) -> Finding {
    let promotion = match (spec.options.fencing, needs_both(spec)) {
        (_, true) => "this node is not promoted without it, unless it is known to be outdated",
        (Fencing::DontCare, false) => {
            "this node can be promoted at once, also if only the network is cut: nothing prevents a split brain but whoever \
             decides"
        }
        (Fencing::ResourceOnly | Fencing::ResourceAndStonith, false) => {
            "this node can be promoted once fence-peer has succeeded"
        }
    };
    let data = match spec.options.protocol {
        Protocol::A => "the last writes that were completed may be missing",
        Protocol::B => "every completed write is there, unless this node crashed, too",
        Protocol::C => "every completed write is there",
    };
    Finding::ok(CHECK, format!("{lost} lost while it is Primary: {promotion}; {data}"))
}
