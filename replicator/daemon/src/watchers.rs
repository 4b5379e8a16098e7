//! Who wants to be told what changes: snapshots, each later than the one before, and the handlers that are run.
//!
//! A watcher that reads slowly misses states, but not the last one; of handlers it misses none of the last
//! [`REMEMBERED`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use tandem_control::{HelperEvent, Reply, ResourceStatus};
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::units::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// At once; others must still get a word in.
const MAX_WATCHERS: usize = 32;
/// Runs of handlers that are remembered for watchers that read slowly.
const REMEMBERED: usize = 256;
/// What `wait(2)` says of a program that a shell could not find.
const NOT_STARTED: u32 = 127 << 8;
/// And of one that was killed.
const KILLED: u32 = 9;

/// All that are told.
pub(crate) struct Watchers {
    latest: watch::Sender<Snapshot>,
    /// The last look that has begun.
    look: Cell<u64>,
    handlers: RefCell<Handlers>,
}

/// The resources as they were at some time after this look had begun.
#[derive(Clone, Default)]
struct Snapshot {
    look: u64,
    statuses: Rc<Vec<ResourceStatus>>,
}

#[derive(Default)]
struct Handlers {
    /// Events before the first that is remembered.
    forgotten: u64,
    events: VecDeque<HelperEvent>,
}

impl Watchers {
    pub(crate) fn new() -> Watchers {
        Watchers { latest: watch::Sender::default(), look: Cell::default(), handlers: RefCell::default() }
    }

    /// Somebody watches.
    pub(crate) fn any(&self) -> bool {
        self.latest.receiver_count() > 0
    }

    /// From now on the resources are looked at.
    pub(crate) fn begin_look(&self) {
        self.look.set(self.look.get() + 1);
    }

    /// They are like this.
    pub(crate) fn tell(&self, statuses: Vec<ResourceStatus>) {
        self.latest.send_replace(Snapshot { look: self.look.get(), statuses: Rc::new(statuses) });
    }

    /// A handler was started; or it has ended, with an outcome.
    pub(crate) fn tell_handler(
        &self,
        resource: &str,
        peer: Option<NodeId>,
        handler: Handler,
        outcome: Option<HandlerOutcome>,
    ) {
        let wait_status = outcome.map(|outcome| match outcome {
            HandlerOutcome::Exited(code) => u32::from(code) << 8,
            HandlerOutcome::NotStarted => NOT_STARTED,
            HandlerOutcome::TimedOut => KILLED,
        });
        let mut handlers = self.handlers.borrow_mut();
        if handlers.events.len() == REMEMBERED {
            handlers.events.pop_front();
            handlers.forgotten += 1;
        }
        handlers.events.push_back(HelperEvent { resource: resource.to_owned(), peer, handler, wait_status });
        drop(handlers);
        self.latest.send_modify(|_| ());
    }

    /// Tells one watcher until it has heard enough. `ask` is to bring about a look at the resources; what was seen before is
    /// old.
    pub(crate) async fn serve(
        &self,
        stream: &mut UnixStream,
        resource: Option<&str>,
        ask: impl FnOnce(),
    ) -> io::Result<()> {
        if self.latest.receiver_count() >= MAX_WATCHERS {
            let error = Some(format!("{MAX_WATCHERS} programs watch already"));
            return say(stream, &Reply { exit_code: 10, error, ..Reply::default() }).await;
        }
        let is_meant = |name: &str| resource.is_none_or(|resource| resource == name);
        let mut latest = self.latest.subscribe();
        let (mut next_handler, last_look) = (self.handlers.borrow().next(), self.look.get());
        ask();
        let mut told = None;
        loop {
            let mut beyond = [0];
            tokio::select! {
                changed = latest.changed() => if changed.is_err() { return Ok(()) },
                // It has nothing to say; this is its end.
                _ = stream.read(&mut beyond) => return Ok(()),
            }
            let Snapshot { look, statuses } = latest.borrow_and_update().clone();
            if look <= last_look {
                continue;
            }
            let status: Vec<_> = statuses.iter().filter(|s| is_meant(&s.spec.name)).cloned().collect();
            let mut helpers = self.handlers.borrow().since(&mut next_handler);
            helpers.retain(|event| is_meant(&event.resource));
            if helpers.is_empty() && told.as_ref() == Some(&status) {
                continue;
            }
            say(stream, &Reply { status: status.clone(), helpers, ..Reply::default() }).await?;
            told = Some(status);
        }
    }
}

impl Handlers {
    fn next(&self) -> u64 {
        self.forgotten + self.events.len() as u64
    }

    fn since(&self, from: &mut u64) -> Vec<HelperEvent> {
        let skipped = from.saturating_sub(self.forgotten) as usize;
        *from = self.next();
        self.events.iter().skip(skipped).cloned().collect()
    }
}

async fn say(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::task::yield_now;

    use super::*;
    use crate::proc_drbd::tests::resource;

    #[test]
    fn a_watcher_hears_nothing_that_was_seen_before_it_came() {
        let watchers = Watchers::new();
        watchers.begin_look();
        watchers.tell(vec![resource(7, Vec::new())]);
        watchers.begin_look();
        let asked = Cell::new(false);
        let conversation = async {
            let (mut stream, reader) = UnixStream::pair().unwrap();
            let serve = watchers.serve(&mut stream, None, || asked.set(true));
            let first = async {
                watchers.tell(vec![resource(8, Vec::new())]);
                yield_now().await;
                watchers.tell_handler("r9", None, Handler::SplitBrain, None);
                yield_now().await;
                watchers.begin_look();
                watchers.tell(vec![resource(9, Vec::new())]);
                // Then it hangs up.
                BufReader::new(reader).lines().next_line().await.unwrap().unwrap()
            };
            tokio::join!(serve, first).1
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first: Reply = serde_json::from_str(&runtime.block_on(conversation)).unwrap();
        assert!(asked.get());
        assert_eq!((first.status[0].spec.name.as_str(), first.helpers.len()), ("r9", 1));
    }

    #[test]
    fn handlers_are_told_once_and_the_oldest_are_forgotten() {
        let watchers = Watchers::new();
        let tell = |n: u8| {
            let outcome = Some(HandlerOutcome::Exited(n));
            watchers.tell_handler("r0", None, Handler::SplitBrain, outcome);
        };
        let mut next = watchers.handlers.borrow().next();
        let mut heard = || {
            let events = watchers.handlers.borrow().since(&mut next);
            events.into_iter().map(|e| e.wait_status.unwrap_or_default() >> 8).collect::<Vec<_>>()
        };
        assert!(heard().is_empty());
        (1..=3).for_each(tell);
        assert_eq!(heard(), [1, 2, 3]);
        assert!(heard().is_empty());
        (0..=255).for_each(tell);
        (0..3).for_each(tell);
        let late = heard();
        assert_eq!((late.len(), late[0], late[255]), (REMEMBERED, 3, 2));
    }
}
