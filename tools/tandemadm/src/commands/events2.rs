//! `events2`: the state of the resources, and then what changes, until the reader is gone.

use std::io::{Write, stdin, stdout};
use std::os::fd::AsFd;
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem_control::{ClientError, Reply, ResourceStatus, Watch};

use crate::cli::EventOptions;
use crate::events::{self, Detail};
use crate::failure::Failure;
use crate::local_time::Clock;
use crate::output::{self, errln};
use crate::session::{CalledAs, Session};
use crate::terminal;
use crate::view::ResourceView;

/// How often it is looked whether a tandemd that has gone is back.
const RETURN_INTERVAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// What is said of a resource at the beginning, and of one that comes later.
const EXISTS: &str = "exists";
const CREATE: &str = "create";

pub(crate) fn events2(
    session: &Session,
    resource: Option<&str>,
    options: &EventOptions,
) -> Result<u8, Failure> {
    if let Some(name) = resource {
        may_come(session, name)?;
    }
    let events = Events { session, resource, options, clock: Clock::here(), printed: Vec::new() };
    match if options.now { events.now() } else { events.follow() } {
        // Who has closed our stdout has heard enough.
        Err(Ended::Reader) => Ok(0),
        Err(Ended::Failure(failure)) => Err(failure),
        Ok(()) => Ok(0),
    }
}

/// Who waits for a name that is in no configuration waits for ever; drbdsetup, which asks none, waits.
fn may_come(session: &Session, name: &str) -> Result<(), Failure> {
    if matches!(session.called, CalledAs::Drbdsetup(_)) || session.find_status(name)?.is_some() {
        return Ok(());
    }
    match super::config(session) {
        Ok(config) => config.require(name),
        // Nobody can say that it will not come.
        Err(_) => Ok(()),
    }
}

/// Why nothing more is printed.
enum Ended {
    Reader,
    Failure(Failure),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Ended::Failure(error.into())
    }
}

struct Events<'a> {
    session: &'a Session,
    resource: Option<&'a str>,
    options: &'a EventOptions,
    clock: Clock,
    /// What the reader knows.
    printed: Vec<ResourceView>,
}

/// What there is to do.
struct Ready {
    news: bool,
    wish: bool,
}

impl Events<'_> {
    fn now(mut self) -> Result<(), Ended> {
        loop {
            self.printed.clear();
            let statuses = self.ask()?;
            self.print(&statuses, EXISTS)?;
            self.say(&["exists -".to_owned()])?;
            if !self.options.poll || !wants_next() {
                return Ok(());
            }
        }
    }

    fn follow(mut self) -> Result<(), Ended> {
        let mut watch = self.begin()?;
        // Without tandemd there is nothing, and that is known.
        let mut knows_all = watch.is_none();
        if knows_all {
            errln!("tandemd is not running: waiting for it");
            self.say(&["exists -".to_owned()])?;
        }
        loop {
            let ready = self.wait(watch.as_ref())?;
            match if ready.wish { wish() } else { Wish::None } {
                Wish::End => return Ok(()),
                Wish::Next => {
                    let statuses = self.ask()?;
                    self.print(&statuses, CREATE)?;
                }
                Wish::None => (),
            }
            let Some(open) = watch.as_mut() else {
                watch = match self.begin() {
                    // It is just ending.
                    Err(ClientError::Io { .. }) => None,
                    begun => begun?,
                };
                continue;
            };
            match if ready.news { open.take() } else { Ok(Vec::new()) } {
                Ok(replies) => {
                    for reply in replies {
                        self.print_reply(reply, &mut knows_all)?;
                    }
                }
                Err(_) => {
                    errln!("tandemd has ended: waiting for it to come back");
                    watch = None;
                    self.print(&[], CREATE)?;
                }
            }
        }
    }

    fn print_reply(&mut self, reply: Reply, knows_all: &mut bool) -> Result<(), Ended> {
        if reply.error.is_some() {
            return Err(Ended::Failure(Failure::Refused(Box::new(reply))));
        }
        let helpers: Vec<String> =
            reply.helpers.iter().map(|event| events::helper(event, &self.printed)).collect();
        self.say(&helpers)?;
        let told: Vec<&String> =
            reply.status.iter().map(|status| &status.spec.name).chain(&reply.gone).collect();
        let (old, rest) =
            std::mem::take(&mut self.printed).into_iter().partition(|v| told.contains(&&v.name));
        self.print_changes(old, &reply.status, if *knows_all { CREATE } else { EXISTS })?;
        self.printed.extend(rest);
        if !std::mem::replace(knows_all, true) {
            self.say(&["exists -".to_owned()])?;
        }
        Ok(())
    }

    /// `None` if tandemd does not run.
    fn begin(&self) -> Result<Option<Watch>, ClientError> {
        match Watch::begin(&self.session.run.control_socket(), self.resource) {
            Err(ClientError::NotRunning(_)) => Ok(None),
            begun => begun.map(Some),
        }
    }

    fn ask(&self) -> Result<Vec<ResourceStatus>, Ended> {
        self.session.status(self.resource).map_err(Ended::Failure)
    }

    /// Until tandemd has news or the reader a wish; for a while only if tandemd is not there.
    fn wait(&self, watch: Option<&Watch>) -> Result<Ready, Ended> {
        let (stdin, stdout) = (stdin(), stdout());
        let stdout = PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty());
        let mut polled = vec![stdout];
        if self.options.poll {
            polled.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        polled.extend(watch.map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        let limit = watch.is_none().then_some(&RETURN_INTERVAL);
        match poll(&mut polled, limit) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(Ended::Failure(Failure::System("waiting for news", error.into()))),
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        if ready.next().unwrap_or_default() {
            return Err(Ended::Reader);
        }
        let wish = self.options.poll && ready.next().unwrap_or_default();
        Ok(Ready { wish, news: ready.next().unwrap_or_default() })
    }

    /// What must be said for the reader to know that these are the resources.
    fn print(&mut self, statuses: &[ResourceStatus], appear: &str) -> Result<(), Ended> {
        let mut old = std::mem::take(&mut self.printed);
        old.sort_by(|a, b| a.name.cmp(&b.name));
        self.print_changes(old, statuses, appear)
    }

    /// The same of some, of which the reader knows what they were.
    fn print_changes(
        &mut self,
        old: Vec<ResourceView>,
        new: &[ResourceStatus],
        appear: &str,
    ) -> Result<(), Ended> {
        let EventOptions { statistics, full, diff, color, .. } = *self.options;
        let detail = Detail { statistics, full, diff, colours: terminal::colours(color) };
        let mut views: Vec<ResourceView> = new.iter().map(ResourceView::new).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        let lines = events::changes(&old, &views, appear, detail);
        self.printed = views;
        self.say(&lines)
    }

    fn say(&self, lines: &[String]) -> Result<(), Ended> {
        let time = || self.clock.iso8601(SystemTime::now()) + " ";
        let prefix = if self.options.timestamps { time() } else { String::new() };
        let text: String = lines.iter().map(|line| format!("{prefix}{line}\n")).collect();
        let mut stdout = stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
            output::note(error);
            Ended::Reader
        })
    }
}

/// What the reader says.
enum Wish {
    None,
    /// The state anew.
    Next,
    End,
}

/// Waits for the reader's next word: `n`, next; a line may end behind it; anything else is the end, as is the end of stdin.
fn wish() -> Wish {
    let mut word = [0];
    match rustix::io::read(stdin(), &mut word) {
        Ok(1..) if word == [b'n'] => Wish::Next,
        Ok(1..) if word == [b'\n'] => Wish::None,
        _ => Wish::End,
    }
}

/// Waits until the reader has a wish.
fn wants_next() -> bool {
    loop {
        match wish() {
            Wish::Next => return true,
            Wish::End => return false,
            Wish::None => (),
        }
    }
}
