//! Keeps one service: a thread that owns its [`Machine`], runs the plans it asks for and tells whoever must know.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::decider::Telling;
use super::machine::{Found, Input, Machine, Output};
use super::mailbox::{Letter, Mailbox};
use super::{Outcome, Wish, Word};
use crate::carry_out::Way;
use crate::health::{Phase, ServiceView};
use crate::peer::Checked;
use crate::plan::{Cancel, Trouble};
use tandem_control::output::outln;

/// How a service is moved, and how it is looked at. Each may take its time.
pub trait Mover: Send + Sync + 'static {
    /// Runs a plan to its end. A cancelled one undoes what it has done.
    fn run(&self, which: Way, cancel: &Cancel) -> Outcome;
    /// What an earlier service has left.
    fn found(&self) -> Found;
    /// Has ready whatever a promotion needs and other nodes do not mind.
    fn prepare(&self) {}
    /// Whether the server answers.
    fn server_answers(&self) -> bool;
    /// Sees to it that clients find at the server what is configured; whether they do.
    fn tend_server(&self) -> bool {
        true
    }
    /// What has become of the volume or the server that its answers do not show, if anything.
    fn hidden_trouble(&self) -> Option<String> {
        None
    }
    /// Puts back what others have taken away of a service that is up; what cannot be put back, if anything.
    fn tend(&self) -> Option<String> {
        None
    }
    /// Gives up a role that this node has while nothing is served, if it has.
    fn yield_role(&self) {}
    /// Reads the configuration again, and has a server that runs export what it says; what that has changed.
    fn reload(&self) -> Result<Vec<String>, Trouble> {
        Ok(Vec::new())
    }
    /// Kills the server, if there is one: a drill.
    fn kill_server(&self) {}
    /// What is found out about this node, where that is asked for.
    fn check(&self) -> Option<Checked> {
        None
    }
}

/// What a keeper is sent.
enum Event {
    Input(Input),
    /// There may be a new wish in the mailbox.
    Ring,
    /// The operator's wish; what came of it is sent back when nothing is left to do.
    ByHand(Wish, Sender<ServiceView>),
}

/// How others speak to a keeper.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    events: Sender<Event>,
    view: Arc<Mutex<ServiceView>>,
    /// The operator's wishes that the keeper has not heard yet.
    unheard: Arc<AtomicUsize>,
}

impl Handle {
    pub(crate) fn send(&self, input: Input) {
        // A keeper ends with the process.
        let _ = self.events.send(Event::Input(input));
    }

    pub(crate) fn ring(&self) {
        let _ = self.events.send(Event::Ring);
    }

    /// What becomes of a wish of the operator.
    pub(crate) fn by_hand(&self, wish: Wish, limit: Duration) -> Option<ServiceView> {
        let (reply, answered) = mpsc::channel();
        self.unheard.fetch_add(1, Ordering::SeqCst);
        self.events.send(Event::ByHand(wish, reply)).ok()?;
        answered.recv_timeout(limit).ok()
    }

    pub(crate) fn view(&self) -> ServiceView {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What went wrong before the operator's wish says nothing about what comes of it.
        let is_stale = self.unheard.load(Ordering::SeqCst) > 0;
        ServiceView { trouble: view.trouble.filter(|_| !is_stale), ..view }
    }

    /// Notes what was seen from outside.
    pub(crate) fn note_server(&self, answers: bool) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).server_answers = answers;
    }
}

struct Keeper {
    machine: Machine,
    mover: Arc<dyn Mover>,
    mailbox: Mailbox,
    telling: Telling,
    handle: Handle,
    began: Instant,
    cancel: Cancel,
    /// The last letter that was read.
    letter: Option<Letter>,
    waiting: Vec<Sender<ServiceView>>,
}

/// Starts keeping a service that is described by `view`, as it has been found.
pub(crate) fn start(
    view: ServiceView,
    found: Found,
    mover: Arc<dyn Mover>,
    mailbox: Mailbox,
    telling: Telling,
) -> Handle {
    let (events, inbox) = mpsc::channel();
    let handle = Handle { events, view: Arc::new(Mutex::new(view)), unheard: Arc::default() };
    let keeper = Keeper {
        machine: Machine::new(found, 0),
        mover,
        mailbox,
        telling,
        handle: handle.clone(),
        began: Instant::now(),
        cancel: Cancel::default(),
        letter: None,
        waiting: Vec::new(),
    };
    keeper.show();
    // What was wished while no service ran; then whatever is to be done without a wish.
    handle.ring();
    handle.send(Input::Tick);
    thread::spawn(move || keeper.keep(&inbox));
    handle
}

impl Keeper {
    fn keep(mut self, inbox: &Receiver<Event>) {
        let mut is_ready = false;
        loop {
            // Also after each demotion, which takes some of it along.
            let is_up = self.machine.phase() != Phase::Down;
            if !is_ready && !is_up {
                self.mover.prepare();
            }
            is_ready = !is_up;
            match self.next(inbox) {
                Some(Event::Input(input)) => self.handle(input),
                Some(Event::Ring) => self.read_mail(),
                Some(Event::ByHand(wish, reply)) => {
                    self.waiting.push(reply);
                    // It must be found there after a restart.
                    match self.mailbox.leave_by_hand(wish) {
                        Ok(letter) => self.letter = Some(letter),
                        Err(error) => self.report(Err(error), "leaving a wish"),
                    }
                    self.handle(Input::Wish { wish, by_hand: true });
                    self.show();
                    self.handle.unheard.fetch_sub(1, Ordering::SeqCst);
                }
                None => self.handle(Input::Tick),
            }
            self.show();
            self.answer();
        }
    }

    /// `None` when it is time to look again.
    fn next(&self, inbox: &Receiver<Event>) -> Option<Event> {
        let Some(deadline_ms) = self.machine.deadline_ms() else {
            // This thread holds a sender itself: the other end is always there.
            return inbox.recv().ok();
        };
        let left = Duration::from_millis(deadline_ms.saturating_sub(self.now_ms()));
        inbox.recv_timeout(left).ok()
    }

    fn read_mail(&mut self) {
        match self.mailbox.newest() {
            Ok(Some(letter)) if self.letter.as_ref() != Some(&letter) => {
                let (wish, by_hand) = (letter.wish, letter.is_by_hand());
                self.letter = Some(letter);
                self.log(&format!("wished {wish}"));
                self.handle(Input::Wish { wish, by_hand });
            }
            Ok(_) => {}
            Err(error) => self.report(Err(error), "reading the wish"),
        }
    }

    fn handle(&mut self, input: Input) {
        let now_ms = self.now_ms();
        let was_up = self.machine.phase() == Phase::Up;
        for output in self.machine.handle(now_ms, input) {
            match output {
                Output::Spend => {
                    if let Some(letter) = &self.letter {
                        self.report(self.mailbox.spend(letter), "spending the wish");
                    }
                }
                Output::Start(which) => self.run(which),
                Output::Cancel => {
                    self.log("the promotion is not wanted any more: it is cancelled");
                    self.cancel.set();
                }
                Output::Tell(word) => {
                    match &word {
                        Word::Unfit(reason) => self.log(&format!("not fit to serve: {reason}")),
                        Word::Fit => self.log("fit to serve again"),
                    }
                    self.report(self.telling.tell(&word, was_up), "telling whoever elects");
                }
            }
        }
    }

    fn run(&mut self, which: Way) {
        if which == Way::Promote {
            self.telling.begins_anew();
        }
        self.cancel = Cancel::default();
        let (mover, cancel, events) =
            (Arc::clone(&self.mover), self.cancel.clone(), self.handle.events.clone());
        thread::spawn(move || {
            let outcome = mover.run(which, &cancel);
            let _ = events.send(Event::Input(Input::Ended(outcome)));
        });
    }

    /// What everybody sees.
    fn show(&self) {
        let mut view = self.handle.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.phase = self.machine.phase();
        view.wish = self.machine.wish();
        view.must_fence = self.machine.must_fence().map(str::to_owned);
        view.trouble = self.machine.trouble().map(str::to_owned);
        view.held = self.machine.is_held();
        // A plan ends only once the server answers.
        view.server_answers |= view.phase == Phase::Promoting;
        view.server_answers &= matches!(view.phase, Phase::Up | Phase::Promoting);
    }

    fn answer(&mut self) {
        if self.machine.is_quiet() {
            for waiting in self.waiting.drain(..) {
                // Whoever asked may have gone.
                let _ = waiting.send(self.handle.view());
            }
        }
    }

    fn report(&self, result: std::io::Result<()>, doing: &str) {
        if let Err(error) = result {
            self.log(&format!("{doing}: {error}"));
        }
    }

    fn log(&self, text: &str) {
        outln!("{}: {text}", self.handle.view().name);
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}
