//! What `top` knows: the resources, how fast they are, and what is looked at.

use tandem_control::ResourceStatus;

use crate::diagnosis::{Finding, of_resource};

/// Everything that is drawn.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Each resource, in the daemon's order.
    pub resources: Vec<Row>,
    /// Why nothing new is known.
    pub away: Option<String>,
    /// Which of them is looked at.
    pub selected: usize,
    /// How.
    pub mode: Mode,
    seen_at_ms: Option<u64>,
}

/// One resource.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the daemon tells it.
    pub status: ResourceStatus,
    /// What is amiss.
    pub findings: Vec<Finding>,
    /// How fast it is; not known after the first look.
    pub rates: Option<Rates>,
}

/// Bytes per second since the last look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// From the local disk.
    pub read: u64,
    /// To it.
    pub written: u64,
    /// To all peers.
    pub sent: u64,
    /// From them.
    pub received: u64,
}

/// What is on the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// All resources.
    #[default]
    List,
    /// The selected one, with what is amiss and what to do.
    Details,
    /// What the keys do.
    Help,
}

/// What a key means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// End.
    Quit,
    /// The resource above.
    Up,
    /// The one below.
    Down,
    /// Its details.
    Enter,
    /// All of them.
    Back,
    /// What the keys do.
    Help,
}

impl Model {
    /// Takes a look in. What was seen before stays while the daemon is away.
    pub fn see(&mut self, now_ms: u64, seen: Result<Vec<ResourceStatus>, String>) {
        let all = match seen {
            Ok(all) => all,
            Err(why) => {
                (self.away, self.seen_at_ms) = (Some(why), None);
                return;
            }
        };
        self.away = None;
        let passed_ms = self.seen_at_ms.map(|before| now_ms.saturating_sub(before)).filter(|ms| *ms > 0);
        let row = |status: ResourceStatus| {
            let before = self.resources.iter().find(|row| row.status.spec.name == status.spec.name);
            let rates = before.zip(passed_ms).map(|(before, ms)| rates(&before.status, &status, ms));
            Row { findings: of_resource(&status), status, rates }
        };
        self.resources = all.into_iter().map(row).collect();
        self.seen_at_ms = Some(now_ms);
        self.selected = self.selected.min(self.resources.len().saturating_sub(1));
    }

    /// Whether that was the end.
    pub fn press(&mut self, key: Key) -> bool {
        let last = self.resources.len().saturating_sub(1);
        match (key, self.mode) {
            (Key::Quit, _) => return true,
            (Key::Up, _) => self.selected = self.selected.saturating_sub(1),
            (Key::Down, _) => self.selected = (self.selected + 1).min(last),
            (Key::Enter, Mode::List) => self.mode = Mode::Details,
            (Key::Help, Mode::Help) | (Key::Enter | Key::Back, _) => self.mode = Mode::List,
            (Key::Help, _) => self.mode = Mode::Help,
        }
        false
    }
}

/// Counters that have become smaller were begun anew.
fn rates(before: &ResourceStatus, now: &ResourceStatus, passed_ms: u64) -> Rates {
    let rate = |count: &dyn Fn(&ResourceStatus) -> u64| {
        count(now).saturating_sub(count(before)).saturating_mul(1000) / passed_ms
    };
    Rates {
        read: rate(&|status| status.engine.disk_read_bytes),
        written: rate(&|status| status.engine.disk_written_bytes),
        sent: rate(&|status| status.engine.peers.iter().map(|peer| peer.sent_bytes).sum()),
        received: rate(&|status| status.engine.peers.iter().map(|peer| peer.received_bytes).sum()),
    }
}
