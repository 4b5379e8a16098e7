//! The machine: programs, processes, mounts, filesystems. Everything here has a time limit.

pub mod filesystem;
pub mod interfaces;
pub mod logs;
pub mod mounts;
pub mod process;
pub mod program;
pub mod shut_down;
pub mod users;

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Does something on a thread of its own, which is left behind if it hangs: a thread in a hanging system call cannot be
/// helped, only outlived. `None` if it hangs.
pub fn within<T: Send + 'static>(limit: Duration, what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = what();
        // Nobody listens any more if it took too long.
        let _ = answer.send(result);
    });
    match answered.recv_timeout(limit) {
        Ok(result) => Some(result),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => None,
        },
    }
}
