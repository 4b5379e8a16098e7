//! The machine: programs, processes, mounts, filesystems. Everything here has a time limit, be it its own.

pub mod filesystem;
pub mod holders;
pub mod interfaces;
pub mod logs;
pub mod mounts;
pub mod pacemaker;
pub mod process;
pub mod program;
pub mod shut_down;
pub mod users;

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Does something on a thread of its own, which is left behind if it hangs: a thread in a hanging system call cannot be
/// helped, only outlived. `None` if it hangs.
pub fn within<T: Send + 'static>(limit: Duration, what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    Worker::default().within(limit, what)
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread for what may hang, one thing after the other. When it does, another takes its place.
#[derive(Debug, Default)]
pub struct Worker(Option<(Sender<Job>, JoinHandle<()>)>);

impl Worker {
    /// Does something; `None` if it hangs.
    pub fn within<T: Send + 'static>(
        &mut self,
        limit: Duration,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        let job = move || {
            let result = what();
            // Nobody listens any more if it took too long.
            let _ = answer.send(result);
        };
        let (jobs, _) = self.0.get_or_insert_with(start);
        // Refused, it is dropped, and the answer with it.
        let _ = jobs.send(Box::new(job));
        match answered.recv_timeout(limit) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => {
                self.0 = None;
                None
            }
            Err(RecvTimeoutError::Disconnected) => match self.0.take()?.1.join() {
                Err(panic) => resume_unwind(panic),
                Ok(()) => None,
            },
        }
    }
}

fn start() -> (Sender<Job>, JoinHandle<()>) {
    let (jobs, queue) = mpsc::channel::<Job>();
    (jobs, thread::spawn(move || queue.iter().for_each(|job| job())))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_worker_that_hangs_is_replaced() {
        let mut worker = Worker::default();
        let id = || thread::current().id();
        let first = worker.within(LONG, id).unwrap();
        assert_eq!(worker.within(LONG, id), Some(first));
        let (end, ended) = mpsc::channel::<()>();
        assert_eq!(worker.within(Duration::from_millis(10), move || ended.recv().is_ok()), None);
        assert_ne!(worker.within(LONG, id).unwrap(), first);
        drop(end);
    }

    #[test]
    fn who_panics_is_heard() {
        let mut worker = Worker::default();
        let job = || -> () { panic!("as it must") };
        assert!(catch_unwind(AssertUnwindSafe(|| worker.within(LONG, job))).is_err());
        assert_eq!(worker.within(LONG, || 7), Some(7));
    }
}
