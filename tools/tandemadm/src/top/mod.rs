//! `top`: the resources on the whole screen, every second anew.
//!
//! [`model`] is what is known and what the keys do to it, [`view`] draws it; neither touches the terminal.

pub mod model;
#[cfg(test)]
mod tests;
pub mod view;

use std::io::{IsTerminal, stdin};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::failure::Failure;
use crate::interruptions::Interruptions;
use crate::session::Session;
use model::{Key, Model};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// The screen of those who have none.
const ONCE: (u16, u16) = (120, 40);

/// One frame, as text without colours.
pub fn once(session: &Session) -> Result<String, Failure> {
    let mut model = Model::default();
    look(session, &mut model, Instant::now());
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
    loop {
        look(session, &mut model, began);
        let looked = Instant::now();
        loop {
            terminal.draw(|frame| view::draw(&model, frame)).map_err(failed)?;
            let left = PAUSE.saturating_sub(looked.elapsed());
            if !event::poll(Duration::ZERO).map_err(failed)? {
                if interruptions.before(stdin().as_fd(), left)? {
                    return Ok(());
                }
                if left.is_zero() {
                    break;
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
}

fn failed(error: std::io::Error) -> Failure {
    Failure::System("drawing on the terminal", error)
}

fn look(session: &Session, model: &mut Model, began: Instant) {
    let seen = session.ask_status(None).map(|reply| reply.status).map_err(|error| error.to_string());
    model.see(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), seen);
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
