//! The replication engine of Tandem as a value: inputs in, outputs out.
//!
//! One [`Engine`] per resource and node. Feed one [`Input`], drain [`Engine::poll_output`] until it is empty,
//! then sleep until the next input or [`Engine::deadline`]. Nothing in this crate does I/O, reads a clock, draws
//! randomness, starts a thread or awaits: the simulator and the daemon drive the same code.

mod activity_log;
pub mod authentication;
pub mod bitmap;
pub mod config;
pub mod digest;
pub mod divergence;
pub mod engine;
pub mod entropy;
pub mod generation;
pub mod handler;
pub mod io;
pub mod layout;
pub mod metadata;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod parting;
mod range_lock;
pub mod refusal;
pub mod settings;
pub mod split_brain;
pub mod state;
pub mod status;
pub mod units;
pub mod wire;

pub use engine::Engine;
pub use io::{Input, Output};

/// True when the named seeded bug is switched on; constant false unless the `mutations` feature is enabled.
#[cfg(feature = "mutations")]
macro_rules! seeded {
    ($engine:expr, $name:ident) => {
        $engine.mutation == Some(crate::mutation::Mutation::$name)
    };
}
#[cfg(not(feature = "mutations"))]
macro_rules! seeded {
    ($engine:expr, $name:ident) => {
        crate::no_seeded_bug()
    };
}
pub(crate) use seeded;

#[cfg(not(feature = "mutations"))]
const fn no_seeded_bug() -> bool {
    false
}
