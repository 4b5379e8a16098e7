//! What is seen on the terminal while a booting node waits for its peers.

use std::io::BufRead;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use tandem_control::ResourceStatus;

use super::wait::Watched;
use super::waiting::Waiting;
use crate::bar::redraw;
use crate::failure::Failure;
use crate::output::errln;

/// The word that ends the wait.
const ENOUGH: &str = "yes";
const RULE: &str = "***************************************************************";

/// How long the peers have been waited for.
pub(super) struct Countdown {
    begun: Instant,
    refresh: Duration,
    drawn_at: Option<Instant>,
    typed: Receiver<String>,
    enough: bool,
}

impl Countdown {
    /// Says what is waited for, and begins to listen to the operator.
    pub(super) fn begin(waiting: &[Waiting], refresh: Duration) -> Countdown {
        errln!("{}", announcement(waiting));
        let (sender, typed) = mpsc::channel();
        // It ends with the program: nothing else reads there.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Countdown { begun: Instant::now(), refresh, drawn_at: None, typed, enough: false }
    }

    fn is_due(&self) -> bool {
        match self.drawn_at {
            None => true,
            Some(at) => !self.refresh.is_zero() && at.elapsed() >= self.refresh,
        }
    }
}

impl Watched for Countdown {
    fn look(&mut self, _waiting: &Waiting, status: &ResourceStatus) -> Result<(), Failure> {
        if self.is_due() {
            redraw(&format!("To abort waiting enter '{ENOUGH}' [{:4}]: ", self.begun.elapsed().as_secs()));
            self.drawn_at = Some(Instant::now());
        }
        self.enough |= self.typed.try_iter().any(|line| line.trim() == ENOUGH);
        match self.enough {
            true => Err(Failure::WaitAborted(status.engine.resource.clone())),
            false => Ok(()),
        }
    }

    fn end(&mut self) {
        if self.drawn_at.take().is_some() {
            errln!("");
        }
    }
}

fn announcement(waiting: &[Waiting]) -> String {
    let mut text = format!("{RULE}\n Waiting for the peers to appear:\n");
    for one in waiting {
        let peers: Vec<&str> = one.spec.peers.iter().map(|peer| peer.name.as_str()).collect();
        text += &format!("  {}: {}, {}\n", one.spec.name, peers.join(", "), one.limit());
    }
    text + RULE
}
