//! Where a daemon says what it does: standard error, as much as `TANDEM_LOG` wants.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// To be called once, first of all.
pub fn start() {
    let filter = EnvFilter::try_from_env("TANDEM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // Its reader may be gone, its disk full: complaining of that to the same place would be the daemon's end.
        .log_internal_errors(false)
        .init();
}
