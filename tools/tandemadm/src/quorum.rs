//! Quorum, as it is configured, and what it costs where there are only two nodes.

use tandem_config::Resource;
use tandem_control::ResourceSpec;
use tandem_core::config::{OnNoQuorum, Quorum, Votes};

use crate::failure::Failure;

/// What a Primary requires.
pub(crate) fn required(resource: &Resource) -> Result<Quorum, Failure> {
    let [nodes, redundancy, on_loss] = resource.quorum();
    let on_loss = if on_loss == "io-error" { OnNoQuorum::IoError } else { OnNoQuorum::SuspendIo };
    Ok(Quorum { votes: votes(&nodes)?, minimum_redundancy: votes(&redundancy)?, on_loss })
}

/// The table lets pass these words and small numbers.
fn votes(word: &str) -> Result<Votes, Failure> {
    match word {
        "off" => Ok(Votes::Off),
        "majority" => Ok(Votes::Majority),
        "all" => Ok(Votes::All),
        count => match count.parse() {
            Ok(count) => Ok(Votes::Count(count)),
            Err(error) => Err(Failure::Config(format!("quorum {count}: {error}"), 10)),
        },
    }
}

/// Of two nodes, both are needed: that is worth knowing.
pub(crate) fn note(spec: &ResourceSpec) -> Option<String> {
    let nodes = 1 + spec.peers.len();
    let quorum = spec.options.quorum;
    let both = quorum.votes.at(nodes).max(quorum.minimum_redundancy.at(nodes)) >= nodes;
    (nodes == 2 && both).then(|| {
        format!(
            "note: {}: with this quorum of two nodes the service stops when either of them fails; `quorum off` and fencing \
             let the other go on",
            spec.name
        )
    })
}
