//! Drives the engines, and keeps their driver's contract to the letter.

use tandem_core::Engine;
use tandem_core::io::{self, Input, Output};
use tandem_core::units::Timestamp;

use super::impostor::ended_by_impostor;
use super::oracle::Violation;
use super::report;
use super::world::{Event, World};

/// Events between two looks at whether an engine sleeps too early: the look takes as long as several events.
const REST_EVERY: u64 = 16;

impl World {
    /// Gives an engine one input and does what it asks for.
    pub(super) fn feed(&mut self, n: usize, input: Input) -> Result<(), Violation> {
        let now = self.nodes[n].clock.read(self.now);
        let holders_before = self.holders(n);
        let Some(engine) = self.nodes[n].engine.as_mut() else { return Ok(()) };
        engine.handle(now, input);
        self.nodes[n].connection_changed = false;
        while let Some(output) = self.nodes[n].engine.as_mut().and_then(Engine::poll_output) {
            self.obey(n, output)?;
        }
        self.check_rest(n, now)?;
        let Some(engine) = self.nodes[n].engine.as_mut() else { return Ok(()) };
        let status = engine.status(now);
        let deadline = engine.deadline();
        let before = self.nodes[n].status.replace(status);
        self.nodes[n].holders_before = holders_before;
        self.schedule_tick(n, deadline);
        self.observe(n, before)?;
        self.check_size(n)?;
        while let Some(completion) = self.completions.pop() {
            self.completed(completion)?;
        }
        while let Some((n, id, result)) = self.commands_done.pop() {
            self.command_done(n, id, result)?;
        }
        Ok(())
    }

    /// An engine that has had its say does nothing more before the next input or its deadline: whatever it could do now would
    /// wait for something that may never come.
    fn check_rest(&self, n: usize, now: Timestamp) -> Result<(), Violation> {
        let engine = self.nodes[n].engine.as_ref();
        let resting = engine.filter(|e| e.deadline().is_none_or(|at| at > now));
        let Some(engine) = resting.filter(|_| self.counts.events.is_multiple_of(REST_EVERY)) else {
            return Ok(());
        };
        let mut engine = engine.clone();
        (0..2).for_each(|_| engine.handle(now, Input::Tick));
        match engine.poll_output() {
            None => Ok(()),
            Some(late) => {
                let text =
                    format!("node {n} sleeps although it has something to do: {late:?}; {}", self.describe());
                Err(Violation::new("rest", text))
            }
        }
    }

    fn obey(&mut self, n: usize, output: Output) -> Result<(), Violation> {
        match output {
            Output::Disk(op) => {
                self.trace(Some(n), "disk", || report::show_disk_op(&op));
                let (low, high) = self.plan.disk_delay;
                let slowness = self.nodes[n].disk_slowness * self.plan.disk_factors[n];
                let delay = self.prng.between(low, high) * slowness * self.straggling(&op);
                let (id, incarnation) = (op.id, self.nodes[n].incarnation);
                if !self.nodes[n].disk_in_use {
                    return Err(Violation::new(
                        "contract",
                        format!("node {n} uses a disk that it does not have"),
                    ));
                }
                self.check_metadata_stays_away(n, &op)?;
                self.note_image(n, &op);
                self.nodes[n].disk.begin(op);
                self.at(delay, Event::DiskDone { node: n, incarnation, op: id });
            }
            Output::Send { message, stream, .. } => self.send(n, stream, message)?,
            Output::Complete { id, result } => self.note_completion(n, id, result),
            Output::Connect(_) => {
                self.link.wanted[n] = true;
                self.try_to_meet();
            }
            Output::StopConnecting(_) => self.link.wanted[n] = false,
            Output::ClosePeer(_) if self.has_intruder() => return Err(ended_by_impostor(n)),
            Output::ClosePeer(_) if self.impostor.take().is_some() => {}
            Output::ClosePeer(_) => self.close(n),
            Output::Newcomer { act, .. } => self.answer_intruder(n, act)?,
            Output::CommandDone { id, result } => self.commands_done.insert(0, (n, id, result)),
            Output::RunHandler { id, handler, .. } => self.run_handler(n, id, handler)?,
            Output::MeasureDisk { use_all } => self.asked_to_measure(n, use_all),
            Output::DropClients => self.drop_client(n),
            Output::ReleaseDisk => {
                if self.nodes[n].disk.in_flight() > 0 {
                    return Err(Violation::new(
                        "contract",
                        format!("node {n} releases a disk that is at work"),
                    ));
                }
                self.trace(Some(n), "releases", || "the disk".into());
                self.nodes[n].disk_in_use = false;
                self.nodes[n].disk.close();
            }
            Output::Event(event) => {
                self.trace(Some(n), "event", || report::show_event(&event));
                if self.has_intruder() && matches!(event, io::Event::Connection { .. }) {
                    return Err(ended_by_impostor(n));
                }
                self.nodes[n].connection_changed |= matches!(event, io::Event::Connection { .. });
                self.disk_given_up(n, &event);
                self.note_called_off(n, &event);
                self.watch(n, &event)?;
            }
        }
        Ok(())
    }

    fn schedule_tick(&mut self, n: usize, deadline: Option<Timestamp>) {
        let Some(Timestamp(due)) = deadline else { return };
        let due = self.now + due.saturating_sub(self.nodes[n].clock.read(self.now).0);
        if self.nodes[n].tick_at.is_none_or(|at| at > due) {
            self.nodes[n].tick_at = Some(due);
            let incarnation = self.nodes[n].incarnation;
            self.at(due - self.now, Event::Tick { node: n, incarnation });
        }
    }

    pub(super) fn tick(&mut self, n: usize, incarnation: u32) -> Result<(), Violation> {
        let now = self.now;
        let node = &mut self.nodes[n];
        if node.incarnation != incarnation || node.tick_at != Some(now) {
            return Ok(());
        }
        node.tick_at = None;
        let deadline = node.engine.as_ref().and_then(Engine::deadline);
        if deadline.is_some_and(|d| d <= node.clock.read(now)) {
            self.trace(Some(n), "tick", String::new);
            return self.feed(n, Input::Tick);
        }
        self.schedule_tick(n, deadline);
        Ok(())
    }
}
