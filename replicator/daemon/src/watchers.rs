//! Who wants to be told what changes: every state that a resource comes to, in order, and the handlers that are run.
//!
//! The resources' threads report as it happens; what only a look shows, such as counters, is told once a second. A watcher that
//! is [`REMEMBERED`] behind misses what came first, but not the state in the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::slice::from_mut;
use std::sync::{Arc, Weak};

use tandem_control::{HelperEvent, Reply, ResourceStatus};
use tandem_core::handler::HandlerOutcome;
use tandem_core::io::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::openers::Openers;

/// At once; others must still get a word in.
const MAX_WATCHERS: usize = 32;
/// What is kept for watchers that read slowly.
const REMEMBERED: usize = 4096;
/// What `wait(2)` says of a program that a shell could not find.
const NOT_STARTED: u32 = 127 << 8;
/// And of one that was killed.
const KILLED: u32 = 9;

/// What happens to a resource.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// It is like this now.
    State(Arc<ResourceStatus>),
    /// One of its handlers was started, or has ended.
    Helper(HelperEvent),
    /// It is down.
    Gone(String),
}

impl News {
    /// A handler was started; or it has ended, with an outcome.
    pub(crate) fn of_handler(resource: &str, event: &Event) -> Option<News> {
        let (peer, handler, outcome) = match event {
            Event::HandlerCalled { handler, peer } => (*peer, *handler, None),
            Event::HandlerDone { handler, peer, outcome } => (*peer, *handler, Some(*outcome)),
            _ => return None,
        };
        let wait_status = outcome.map(|outcome| match outcome {
            HandlerOutcome::Exited(code) => u32::from(code) << 8,
            HandlerOutcome::NotStarted => NOT_STARTED,
            HandlerOutcome::TimedOut => KILLED,
        });
        Some(News::Helper(HelperEvent { resource: resource.to_owned(), peer, handler, wait_status }))
    }
}

/// What watchers are told.
#[derive(Clone)]
enum Told {
    News(News),
    /// All resources as they were at some time after this look had begun. Nobody needs one once there is another.
    Look(u64, Weak<Seen>),
}

/// Resources by name.
type Seen = BTreeMap<String, Arc<ResourceStatus>>;

/// All that are told.
pub(crate) struct Watchers {
    told: broadcast::Sender<Told>,
    reporter: UnboundedSender<News>,
    reported: RefCell<UnboundedReceiver<News>>,
    /// The last look that has begun.
    look: Cell<u64>,
    /// What the last one that has ended has shown.
    seen: RefCell<Arc<Seen>>,
}

impl Watchers {
    pub(crate) fn new() -> Watchers {
        let (reporter, reported) = unbounded_channel();
        let (told, _) = broadcast::channel(REMEMBERED);
        let (reported, look) = (RefCell::new(reported), Cell::default());
        Watchers { told, reporter, reported, look, seen: RefCell::default() }
    }

    /// Where what happens is reported.
    pub(crate) fn reporter(&self) -> UnboundedSender<News> {
        self.reporter.clone()
    }

    /// Somebody watches.
    pub(crate) fn any(&self) -> bool {
        self.told.receiver_count() > 0
    }

    /// From now on the resources are looked at.
    pub(crate) fn begin_look(&self) {
        self.look.set(self.look.get() + 1);
    }

    /// Tells what was reported, and that the resources are like this. Of one that has reported anything, that is newer.
    pub(crate) fn tell(&self, statuses: Vec<ResourceStatus>, openers: &Openers) {
        let seen = |mut status: Arc<ResourceStatus>| {
            openers.add_to(from_mut(Arc::make_mut(&mut status)));
            status
        };
        let of_look = statuses.into_iter().map(|status| (status.spec.name.clone(), seen(Arc::new(status))));
        let mut now: Seen = of_look.collect();
        while let Ok(news) = self.reported.borrow_mut().try_recv() {
            let news = match news {
                News::State(status) => News::State(seen(status)),
                other => other,
            };
            match &news {
                News::State(status) => {
                    now.insert(status.spec.name.clone(), status.clone());
                }
                News::Gone(name) => {
                    now.remove(name);
                }
                News::Helper(_) => (),
            }
            self.say(Told::News(news));
        }
        let now = Arc::new(now);
        self.say(Told::Look(self.look.get(), Arc::downgrade(&now)));
        self.seen.replace(now);
    }

    fn say(&self, told: Told) {
        // Nobody may listen.
        let _ = self.told.send(told);
    }

    /// Tells one watcher until it has heard enough. `ask` is to bring about a look at the resources; what was seen before is
    /// old.
    pub(crate) async fn serve(
        &self,
        stream: &mut UnixStream,
        resource: Option<&str>,
        ask: impl FnOnce(),
    ) -> io::Result<()> {
        if self.told.receiver_count() >= MAX_WATCHERS {
            let error = Some(format!("{MAX_WATCHERS} programs watch already"));
            return say(stream, &Reply { exit_code: 10, error, ..Reply::default() }).await;
        }
        let (mut told, last_look) = (self.told.subscribe(), self.look.get());
        ask();
        let mut watcher = Watcher { resource, last_look, knows: None };
        loop {
            let mut beyond = [0];
            let told = tokio::select! {
                told = told.recv() => told,
                // It has nothing to say; this is its end.
                _ = stream.read(&mut beyond) => return Ok(()),
            };
            let reply = match told {
                Ok(told) => watcher.hears(told),
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return Ok(()),
            };
            if let Some(reply) = reply {
                say(stream, &reply).await?;
            }
        }
    }
}

/// What one watcher knows.
struct Watcher<'a> {
    /// The one that it cares for, if it does not care for all.
    resource: Option<&'a str>,
    /// The last look that had begun when it came.
    last_look: u64,
    /// Nothing before its first look has ended.
    knows: Option<Seen>,
}

impl Watcher<'_> {
    /// What is new to it.
    fn hears(&mut self, told: Told) -> Option<Reply> {
        let is_meant = |name: &str| self.resource.is_none_or(|resource| resource == name);
        let is_first = self.knows.is_none();
        match (told, self.knows.as_mut()) {
            (Told::Look(look, _), None) if look <= self.last_look => None,
            (Told::Look(_, now), _) => {
                let now = now.upgrade()?;
                let knows = self.knows.get_or_insert_default();
                let now = || now.iter().filter(|(name, _)| is_meant(name));
                let new = now().filter(|(name, status)| knows.get(*name) != Some(status));
                let status: Vec<_> = new.map(|(_, status)| ResourceStatus::clone(status)).collect();
                let is_gone = |name: &&String| !now().any(|(is, _)| is == *name);
                let gone: Vec<_> = knows.keys().filter(is_gone).cloned().collect();
                let is_news = is_first || !status.is_empty() || !gone.is_empty();
                *knows = now().map(|(name, status)| (name.clone(), status.clone())).collect();
                is_news.then(|| Reply { status, gone, ..Reply::default() })
            }
            (Told::News(_), None) => None,
            (Told::News(News::State(status)), Some(knows)) => {
                let name = status.spec.name.clone();
                let is_new = is_meant(&name) && knows.get(&name) != Some(&status);
                is_new.then(|| {
                    let reply = Reply { status: vec![ResourceStatus::clone(&status)], ..Reply::default() };
                    knows.insert(name, status);
                    reply
                })
            }
            (Told::News(News::Helper(event)), Some(_)) => {
                is_meant(&event.resource).then(|| Reply { helpers: vec![event], ..Reply::default() })
            }
            (Told::News(News::Gone(name)), Some(knows)) => {
                knows.remove(&name).map(|_| Reply { gone: vec![name], ..Reply::default() })
            }
        }
    }
}

async fn say(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use tandem_core::handler::Handler;
    use tandem_core::state::Role;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::task::yield_now;

    use super::*;
    use crate::proc_drbd::tests::resource;

    fn look(watchers: &Watchers, minors: &[u32]) {
        watchers.tell(minors.iter().map(|minor| resource(*minor, Vec::new())).collect(), &Openers::default());
    }

    fn helper(outcome: Option<HandlerOutcome>) -> News {
        let (handler, peer) = (Handler::SplitBrain, None);
        let event = match outcome {
            None => Event::HandlerCalled { handler, peer },
            Some(outcome) => Event::HandlerDone { handler, peer, outcome },
        };
        News::of_handler("r9", &event).unwrap()
    }

    /// What a watcher hears while this is done, which begins when it has come.
    fn heard(watchers: &Watchers, resource: Option<&str>, happens: impl AsyncFnOnce()) -> Vec<Reply> {
        let conversation = async {
            let (mut stream, reader) = UnixStream::pair().unwrap();
            let happens = async {
                yield_now().await;
                happens().await;
                yield_now().await;
            };
            tokio::select! {
                // It is told of all that has happened before that is seen to be over.
                biased;
                served = watchers.serve(&mut stream, resource, || ()) => served.unwrap(),
                () = happens => (),
            }
            drop(stream);
            let mut lines = BufReader::new(reader).lines();
            let mut replies = Vec::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                replies.push(serde_json::from_str(&line).unwrap());
            }
            replies
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(conversation)
    }

    fn names(reply: &Reply) -> Vec<&str> {
        reply.status.iter().map(|status| status.spec.name.as_str()).collect()
    }

    #[test]
    fn a_watcher_hears_nothing_that_was_seen_before_it_came() {
        let watchers = Watchers::new();
        watchers.begin_look();
        look(&watchers, &[7]);
        watchers.begin_look();
        let heard = heard(&watchers, None, async || {
            look(&watchers, &[8]);
            yield_now().await;
            watchers.begin_look();
            look(&watchers, &[9]);
        });
        assert_eq!(heard.iter().map(names).collect::<Vec<_>>(), [["r9"]]);
    }

    #[test]
    fn every_state_and_every_handler_is_told_in_order_and_nothing_twice() {
        let watchers = Watchers::new();
        let reporter = watchers.reporter();
        let state = |role| {
            let mut status = resource(9, Vec::new());
            status.engine.role = role;
            News::State(Arc::new(status))
        };
        let heard = heard(&watchers, Some("r9"), async || {
            watchers.begin_look();
            look(&watchers, &[7, 9]);
            yield_now().await;
            let ended = HandlerOutcome::Exited(3);
            for news in [state(Role::Unknown), helper(None), helper(Some(ended)), state(Role::Secondary)] {
                reporter.send(news).unwrap();
            }
            for news in [News::Gone("r7".into()), News::Gone("r9".into()), state(Role::Unknown)] {
                reporter.send(news).unwrap();
            }
            // What it shows of the resource is older than what was reported.
            look(&watchers, &[7, 9]);
        });
        let said = heard.iter().map(|Reply { status, helpers, gone, .. }| {
            let roles = status.iter().map(|status| status.engine.role.to_string());
            let helpers = helpers.iter().map(|helper| format!("{:?}", helper.wait_status));
            roles.chain(helpers).chain(gone.iter().cloned()).collect::<String>()
        });
        let expected = ["Primary", "Unknown", "None", "Some(768)", "Secondary", "r9", "Unknown"];
        assert_eq!(said.collect::<Vec<_>>(), expected);
    }
}
