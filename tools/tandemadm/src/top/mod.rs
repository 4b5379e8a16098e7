//! `top`: the resources on the whole screen, every second anew.
//!
//! [`model`] is what is known and what the keys do to it, [`view`] draws it; neither touches the terminal.

pub mod model;
#[cfg(test)]
mod tests;
pub mod view;

use std::io::{IsTerminal, stdin};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tandem_control::ResourceStatus;

use crate::failure::Failure;
use crate::interruptions::Interruptions;
use crate::session::Session;
use model::{Key, Model};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// An answer that is there within this time is on the next frame.
const AT_ONCE: Duration = Duration::from_millis(50);
/// When it is said that there is none.
const PATIENCE: Duration = Duration::from_secs(2);
/// The screen of those who have none: nothing is cut off.
const ONCE: (u16, u16) = (160, 1000);

/// One frame, as text without colours.
pub fn once(session: &Session) -> Result<String, Failure> {
    let mut model = Model::default();
    model.see(0, ask(session));
    let Ok(mut terminal) = Terminal::new(TestBackend::new(ONCE.0, ONCE.1));
    let Ok(_) = terminal.draw(|frame| view::draw(&model, frame));
    let buffer = terminal.backend().buffer();
    // The last one says which keys there are.
    let lines = buffer.content().chunks(usize::from(ONCE.0)).take(usize::from(ONCE.1) - 1);
    let text = lines.map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>());
    let text = text.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    Ok(format!("{}\n", text.trim_end()))
}

/// Until somebody presses q, or a signal comes.
pub fn run(session: &Session) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !stdin().is_terminal() {
        let text = "stdin and stdout are no terminal; 'tandemadm top --once' prints one frame".to_owned();
        return Err(Failure::Config(text, 1));
    }
    let began = Instant::now();
    let interruptions = Interruptions::hold_back()?;
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let ended = keep_drawing(session, &mut terminal, &interruptions, began);
    ratatui::restore();
    ended
}

fn keep_drawing(
    session: &Session,
    terminal: &mut ratatui::DefaultTerminal,
    interruptions: &Interruptions,
    began: Instant,
) -> Result<(), Failure> {
    let mut model = Model::default();
    let mut looks = Looks::begin(session.clone());
    loop {
        looks.take_in(&mut model, began);
        terminal.draw(|frame| view::draw(&model, frame)).map_err(failed)?;
        if !event::poll(Duration::ZERO).map_err(failed)? {
            if interruptions.before(stdin().as_fd(), looks.next_in())? {
                return Ok(());
            }
            continue;
        }
        if let Event::Key(pressed) = event::read().map_err(failed)?
            && let Some(key) = meaning(pressed)
            && model.press(key)
        {
            return Ok(());
        }
    }
}

/// What a look finds: the resources, or why there is nothing to see.
type Seen = Result<Vec<ResourceStatus>, String>;

/// Asks tandemd on a thread of its own: the keys count, whatever becomes of the answer.
struct Looks {
    wishes: Sender<()>,
    answers: Receiver<Seen>,
    asked_at: Option<Instant>,
    next_at: Instant,
}

impl Looks {
    fn begin(session: Session) -> Looks {
        let (wishes, wished) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        // It ends with the program, at the latest.
        std::thread::spawn(move || wished.iter().try_for_each(|()| answer.send(ask(&session))));
        Looks { wishes, answers, asked_at: None, next_at: Instant::now() }
    }

    /// Asks if it is time to, and takes in what is answered by now.
    fn take_in(&mut self, model: &mut Model, began: Instant) {
        if self.asked_at.is_none() && self.next_at <= Instant::now() {
            self.asked_at = self.wishes.send(()).ok().map(|()| Instant::now());
        }
        let Some(asked_at) = self.asked_at else { return };
        match self.answers.recv_timeout(AT_ONCE) {
            Ok(seen) => {
                model.see(elapsed_ms(began), seen);
                (self.asked_at, self.next_at) = (None, asked_at + PAUSE);
            }
            Err(_) if asked_at.elapsed() > PATIENCE => {
                model.away = Some(format!("tandemd has not answered for {} s", asked_at.elapsed().as_secs()));
            }
            Err(_) => (),
        }
    }

    /// When there may be something new.
    fn next_in(&self) -> Duration {
        match self.asked_at {
            Some(_) => AT_ONCE,
            None => self.next_at.saturating_duration_since(Instant::now()),
        }
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::System("drawing on the terminal", error)
}

fn ask(session: &Session) -> Seen {
    session.ask_status(None).map(|reply| reply.status).map_err(|error| error.to_string())
}

fn elapsed_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn meaning(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    match pressed.code {
        KeyCode::Char('c') if pressed.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') => Some(Key::Quit),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc | KeyCode::Backspace => Some(Key::Back),
        KeyCode::Char('?' | 'h') => Some(Key::Help),
        _ => None,
    }
}
