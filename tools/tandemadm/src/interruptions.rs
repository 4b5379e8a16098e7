//! The signals by which somebody ends a program that must tidy up first.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::failure::Failure;

/// From its beginning on, none of them ends the program.
pub(crate) struct Interruptions(SignalFd);

impl Interruptions {
    pub(crate) fn hold_back() -> Result<Interruptions, Failure> {
        let failed = |errno: Errno| Failure::System("waiting for signals", errno.into());
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block().map_err(failed)?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map(Interruptions).map_err(failed)
    }

    /// Whether one comes before the time is over.
    pub(crate) fn within(&self, pause: Duration) -> Result<bool, Failure> {
        self.poll(&[], pause)
    }

    /// Whether one comes before the time is over or `input` can be read.
    pub(crate) fn before(&self, input: BorrowedFd<'_>, pause: Duration) -> Result<bool, Failure> {
        self.poll(&[input], pause)
    }

    fn poll(&self, inputs: &[BorrowedFd<'_>], pause: Duration) -> Result<bool, Failure> {
        let fds = [self.0.as_fd()].into_iter().chain(inputs.iter().copied());
        let mut polled: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)) {
            Ok(_) => Ok(polled[0].any().unwrap_or(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Failure::System("waiting", errno.into())),
        }
    }
}
