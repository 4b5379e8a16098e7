//! The simulator: the engines of two nodes, driven by one seed.
//!
//! # What may happen
//!
//! **Disks** complete operations in any order and after any time. A completed write lies in a volatile cache until a
//! flush that began after its completion has completed, or a FUA write that began after it; a FUA write is durable
//! itself when it completes. When the power fails, each 512-byte sector of each write that is not durable, completed
//! or in flight, survives or not, independently of all others: a later write to a sector may survive and an earlier
//! one not, and the other way round. When only the process dies, what was in flight lands wholly, in part (by
//! sectors) or not at all, and what was completed stays in the cache, where a later power loss still finds it. A data
//! sector is never torn; a metadata sector that was being written when the power failed may be. Disks do not lie about
//! flushes; some rot: a sector changes silently; and they fail, in the ways that [`trouble`] tells. A node whose receiver
//! does not flush between epochs (`WriteOrdering::Drain`, `None`) has a disk without volatile cache. Metadata lies behind the data
//! on the same device, or on a device with a cache of its own.
//!
//! **The network** carries one connection at a time. Each direction of each of the two streams keeps its order, and
//! takes any time; between streams there is no order. A connection may break at any moment, and each stream then
//! loses everything from some point on. Either side, both, or neither hears of it; heartbeats must find out. Messages
//! are not damaged, doubled or reordered: TCP and checksums see to that. Some pass through the codec.
//!
//! **Nodes** lose their process or their power at any moment, one or both, together or shortly after each other, and
//! come back later with what their disk kept. Clocks run alike, but one may jump ahead or stand still for a while.
//!
//! **Clients** write sectors and blocks, with and without FUA, zero, flush and read, several requests at a time, that
//! may overlap. They talk to the Primary only.
//!
//! **The administrator** knows everything. It connects and attaches, promotes and demotes, disconnects, detaches, and
//! takes nodes down, at any moment, grows disks and volumes, and disks by mistake ([`resize`]), but never promotes a node while the other may be writing, nor one that lacks
//! completed writes; unless fencing is resource-and-stonith: then it promotes what it likes ([`fencing`]). It suspends
//! and resumes requests, undoes resyncs that were interrupted ([`undo`]), outdates disks, and carries copies of disks from node to node ([`truck`]). A few histories split the brain on purpose.
//!
//! **Strangers** have a peer's address, and not the secret that some histories configure ([`impostor`]).
//!
//! **Handlers** are configured on both nodes or not, take their time, and may fail or hang until their limit. fence-peer
//! does what its exit code says.
//!
//! # What must hold
//!
//! The checkers have numbers, K1 to K11. They are in [`oracle`] (versions: K1 to K4, K7, K11), [`observe`] (what nodes say of
//! themselves) and [`checks`] (after every event: K5; at rest: K6), besides K8 (a split brain is only ever found where there is one) and K10
//! (nothing takes forever). "handlers": the data is at rest
//! while a handler sees it before a resync. "fencing": with resource-and-stonith, there is one Primary at most, and it
//! has every completed write. "suspended": what is frozen does not complete, and both copies are equal once suspend-io
//! is done. "exposed": a Primary that works through its peer does not refuse it without reason. "layout": what lies in two pieces of
//! the space is no request. "stamp": no volume grows over what marks its disk. "authentication": a stranger is told nothing. "rest": an engine sleeps only when it has nothing to do. "contract" is a breach of the contract between engine and driver.

mod admin;
mod checks;
mod client;
pub mod disk;
mod drive;
mod errand;
mod exposed;
pub mod faults;
mod fencing;
pub mod handlers;
mod impostor;
mod inject;
pub mod link;
mod network;
mod no_data;
mod node;
mod observe;
pub mod oracle;
pub mod policy;
pub mod prng;
mod report;
mod resize;
mod rot;
mod script;
mod split;
mod trouble;
mod truck;
mod undo;
mod verify;
mod world;
mod zone;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use tandem_core::config::Protocol;
use tandem_core::mutation::Mutation;

use oracle::Violation;
pub use report::{Counts, Failure};
use world::World;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lives the history of a seed: the counts, or the rule that was broken.
pub fn run(seed: u64, protocol: Protocol, mutation: Option<Mutation>) -> Result<Counts, Failure> {
    live(seed, protocol, mutation, false)
}

/// As [`run`], printing a line for every event.
pub fn replay(seed: u64, protocol: Protocol, mutation: Option<Mutation>) -> Result<Counts, Failure> {
    live(seed, protocol, mutation, true)
}

fn live(seed: u64, protocol: Protocol, mutation: Option<Mutation>, tracing: bool) -> Result<Counts, Failure> {
    keep_panics_quiet();
    let mut world = World::new(seed, protocol, mutation, tracing);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match outcome {
        Ok(Ok(())) => return Ok(world.counts().clone()),
        Ok(Err(violation)) => violation,
        Err(_) => Violation::new("panic", PANIC.take().unwrap_or_default()),
    };
    Err(Failure {
        seed,
        protocol,
        mutation,
        checker: violation.checker,
        message: violation.message,
        event: world.counts().events,
        micros: world.now(),
    })
}

/// A panic is a finding like any other: its text belongs into the failure, not onto the screen.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let simulated = std::thread::current().name().is_some_and(|n| n.starts_with("sim"));
            PANIC.set(Some(info.to_string().replace('\n', " ")));
            if !simulated {
                usual(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but the seed decides: neither addresses, nor the order of a hash map, nor the machine's clock.
    #[test]
    fn a_seed_is_a_whole_history() {
        for seed in 0..20 {
            let tell = || match run(seed, Protocol::C, None) {
                Ok(counts) => format!("{counts:?}"),
                Err(failure) => failure.to_string(),
            };
            assert_eq!(tell(), tell(), "seed {seed}");
        }
    }

    #[test]
    fn different_seeds_are_different_histories() {
        let digest = |seed| run(seed, Protocol::B, None).map(|c| c.digest).unwrap_or(seed);
        assert_ne!(digest(1), digest(2));
    }
}
