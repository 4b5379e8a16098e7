//! Two configurations that disagree are named where the nodes meet, option by option.

use tandem_core::config::{Fencing, Options, Protocol, Quorum, Votes};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::state::ConnectionState;

use crate::harness::Pair;
use crate::scene::{connections, peer, start_again};

/// Node 1 comes back with other options.
fn met_again(change: impl Fn(&mut Options)) -> Pair {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    change(&mut pair.options);
    pair.warnings.clear();
    pair.crash(1);
    start_again(&mut pair, 1);
    pair
}

fn warnings(pair: &Pair, n: usize) -> Vec<&str> {
    let differences =
        pair.warnings.iter().filter(|(node, text)| *node == n && text.contains("equal on both"));
    differences.map(|(_, text)| text.as_str()).collect()
}

#[test]
fn what_must_be_alike_is_refused_with_both_values() {
    let pair = met_again(|options| {
        options.protocol = Protocol::A;
        options.after_split_brain.always = true;
    });
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
    assert_eq!(
        peer(&pair, 0).standalone_reason.as_deref(),
        Some(
            "incompatible protocol settings: protocol is C here and A on bravo, always-asbp is no here and yes on \
             bravo; make the configuration files equal on both nodes"
        )
    );
    assert_eq!(
        peer(&pair, 1).standalone_reason.as_deref(),
        Some(
            "incompatible protocol settings: protocol is A here and C on alpha, always-asbp is yes here and no on \
             alpha; make the configuration files equal on both nodes"
        )
    );
}

#[test]
fn what_should_be_alike_is_warned_of_with_both_values() {
    let pair = met_again(|options| {
        options.fencing = Fencing::ResourceOnly;
        options.quorum = Quorum { votes: Votes::Majority, ..Quorum::default() };
        options.verify_algorithm = Some(DigestAlgorithm::Sha1);
    });
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    let equal = ": make the configuration files equal on both nodes";
    assert_eq!(
        warnings(&pair, 0),
        [
            format!("fencing is dont-care here and resource-only on bravo{equal}"),
            format!("quorum is off here and majority on bravo{equal}"),
            format!("verify-alg is not set here and sha1 on bravo{equal}"),
        ]
    );
    assert_eq!(warnings(&pair, 1)[1], format!("quorum is majority here and off on alpha{equal}"));
}

#[test]
fn what_each_may_choose_for_itself_is_not_spoken_of() {
    let pair = met_again(|options| (options.al_extents, options.ko_count) = (67, 3));
    assert_eq!((warnings(&pair, 0), warnings(&pair, 1)), (vec![], vec![]));
}
