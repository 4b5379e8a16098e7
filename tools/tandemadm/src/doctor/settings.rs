//! Whether both nodes have chosen alike, and whether what was chosen is what counts now.

use tandem_control::{ResourceSpec, ResourceStatus};
use tandem_core::state::ConnectionState;

use super::Finding;

const CHECK: &str = "settings";

/// What the nodes have told each other when they met, and what the configuration says by now.
pub(super) fn examine(spec: &ResourceSpec, status: Option<&ResourceStatus>) -> Vec<Finding> {
    let name = &spec.name;
    let Some(status) = status else {
        return vec![Finding::bad(CHECK, format!("{name} is not up")).todo(format!("tandemadm up {name}"))];
    };
    let mut findings = vec![match status.spec == *spec {
        true => Finding::ok(CHECK, "what was brought up is what the configuration says"),
        false => Finding::warn(CHECK, "the configuration has changed since the resource was brought up")
            .todo(format!("tandemadm adjust {name}")),
    }];
    for peer in &status.engine.peers {
        let other = &peer.name;
        findings.extend(peer.differing_options.iter().map(|difference| {
            Finding::warn(CHECK, difference).todo("make the configuration files equal on both nodes")
        }));
        if peer.connection == ConnectionState::Connected && peer.differing_options.is_empty() {
            findings.push(Finding::ok(CHECK, format!("{other} has chosen the same where both should")));
        }
    }
    findings
}
