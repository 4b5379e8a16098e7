//! What the administrator does in several steps.

use std::collections::VecDeque;

use tandem_core::io::Input;
use tandem_core::state::Role;

use super::errand::Errand;
use super::faults::Kind;
use super::link::Micros;
use super::oracle::Violation;
use super::truck::Part;
use super::world::World;

/// A script that takes longer is given up.
const SCRIPT_PATIENCE: Micros = 500_000;

/// Several steps, one after the other.
#[derive(Debug)]
pub(super) struct Script {
    kind: Kind,
    steps: VecDeque<Step>,
    began: Micros,
    not_before: Micros,
}

impl Script {
    /// Its kind.
    pub(super) fn is_of(&self, kind: Kind) -> bool {
        self.kind == kind
    }
}

/// One step of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The client on this node ends what it is doing and goes.
    Quiesce(usize),
    /// A command, to be waited for.
    Do(usize, Errand),
    /// A command, not to be waited for.
    Start(usize, Errand),
    /// These nodes' disks grow.
    GrowDisks([bool; 2]),
    /// The node's disk grows as soon as it has been measured for the next connection.
    GrowWhenMet(usize),
    /// The node's disk grows, and should not have.
    GrowByMistake(usize),
    /// The mistake is seen: the disk is as large as before, unless somebody has used what is new.
    CutDisk(usize),
    /// The connection breaks.
    Flap,
    /// Wait for the answer.
    Await(usize),
    /// From now on the node shall (not) be connected.
    WantNet(usize, bool),
    /// From now on the node's disk shall (not) be attached.
    WantDisk(usize, bool),
    /// The node's disk makes way for a new one.
    Replace(usize),
    /// The process ends in good order.
    Stop(usize),
    /// Another resource's resync comes first, or no longer.
    ResyncMustWait(usize, bool),
    /// The node is stopped, and its disk awaits a copy.
    Load(usize),
    /// A part of a disk is copied to the other node's, which is on its way.
    Carry { from: usize, part: Part },
    /// The copy has arrived.
    Unload(usize),
    /// Wait.
    Pause(Micros),
}

impl World {
    /// Begins a script, unless one is under way.
    pub(super) fn begin_script(&mut self, kind: Kind, steps: Vec<Step>) {
        if self.script.is_none() && self.healing.is_none() {
            self.counts.note(kind);
            self.trace(None, "script", || format!("{kind:?} {steps:?}"));
            self.script = Some(Script { kind, steps: steps.into(), began: self.now, not_before: 0 });
        }
    }

    pub(super) fn give_up_script(&mut self) {
        if let Some(script) = self.script.take() {
            self.trace(None, "script", || format!("{:?} is given up", script.kind));
            self.lose_load();
            for node in &mut self.nodes {
                (node.want_disk, node.want_net) = (true, true);
                if let Some(client) = node.client.as_mut() {
                    client.leaving = false;
                }
            }
        }
    }

    pub(super) fn follow_script(&mut self) -> Result<(), Violation> {
        loop {
            let Some(script) = self.script.as_mut() else { return Ok(()) };
            let Some(&step) = script.steps.front() else {
                self.give_up_script();
                return Ok(());
            };
            if self.now < script.not_before {
                return Ok(());
            }
            if self.now > script.began + SCRIPT_PATIENCE {
                self.give_up_script();
                return Ok(());
            }
            if !self.take_step(step)? {
                return Ok(());
            }
            if let Some(script) = self.script.as_mut() {
                script.steps.pop_front();
            }
        }
    }

    /// True if the step is done.
    fn take_step(&mut self, step: Step) -> Result<bool, Violation> {
        match step {
            Step::Quiesce(n) => return Ok(self.see_client_off(n)),
            Step::Do(n, errand) | Step::Start(n, errand) => {
                if self.nodes[n].engine.is_none() {
                    self.give_up_script();
                    return Ok(false);
                }
                if self.nodes[n].errand.is_some() {
                    return Ok(false);
                }
                if errand == (Errand::Primary { force: false }) && self.oracle.is_stale(n) {
                    self.give_up_script();
                    return Ok(false);
                }
                if matches!(errand, Errand::NewCurrentUuid { .. }) {
                    if self.goes_on(1 - n) {
                        self.give_up_script();
                        return Ok(false);
                    }
                    self.begun_alone = Some(n);
                }
                if World::given_up_by(n, errand).is_some_and(|n| !self.may_give_up(n)) {
                    self.give_up_script();
                    return Ok(false);
                }
                if let Some(script) = self.script.as_mut().filter(|_| matches!(step, Step::Do(..))) {
                    script.steps.insert(1, Step::Await(n));
                }
                self.send_errand(n, errand)?;
            }
            Step::Await(n) => return Ok(self.nodes[n].errand.is_none()),
            Step::WantNet(n, want) => self.nodes[n].want_net = want,
            Step::WantDisk(n, want) => self.nodes[n].want_disk = want,
            Step::Replace(n) if self.nodes[n].disk_in_use || !self.disk_may_be_replaced(n) => {
                self.give_up_script();
                return Ok(false);
            }
            Step::Replace(n) => self.replace_disk(n),
            Step::Stop(n) => {
                let script = self.script.take();
                self.die(n, false);
                self.script = script;
            }
            Step::GrowDisks(which) => (0..2).filter(|n| which[*n]).for_each(|n| self.grow_disk(n)),
            Step::GrowWhenMet(n) => self.nodes[n].grows_when_met = true,
            Step::GrowByMistake(n) => self.grow_by_mistake(n),
            Step::CutDisk(n) => self.cut_disk(n)?,
            Step::Flap => self.break_connection([true; 2]),
            Step::Load(n) => self.load(n),
            Step::Carry { from, part } => self.carry(from, part),
            Step::Unload(n) => self.unload(n)?,
            Step::ResyncMustWait(n, wait) => self.feed(n, Input::ResyncMustWait(wait))?,
            Step::Pause(time) => {
                if let Some(script) = self.script.as_mut() {
                    script.not_before = self.now + time;
                }
            }
        }
        Ok(true)
    }

    /// The steps of a piece of work, if it makes sense now.
    pub(super) fn script_for(&mut self, kind: Kind) -> Option<Vec<Step>> {
        let primary = (0..2).find(|n| self.role(*n) == Some(Role::Primary));
        let pause = Step::Pause(self.prng.below(20_000));
        let any = self.prng.node();
        let demotion = |p: usize| vec![Step::Quiesce(p), Step::Do(p, Errand::Secondary)];
        let detach =
            |n| vec![Step::WantDisk(n, false), Step::Do(n, Errand::Detach), pause, Step::WantDisk(n, true)];
        Some(match kind {
            Kind::Demotion => demotion(primary?),
            Kind::Switchover => {
                let p = primary?;
                if !self.in_sync {
                    return None;
                }
                let promotion = Step::Do(1 - p, Errand::Primary { force: false });
                [demotion(p), vec![promotion]].concat()
            }
            Kind::BusyDemotion => {
                let p = primary.filter(|p| self.nodes[*p].client.as_ref().is_some_and(|c| !c.leaving))?;
                vec![Step::Do(p, Errand::SecondaryWhileOpen)]
            }
            Kind::Disconnect => {
                vec![
                    Step::WantNet(any, false),
                    Step::Do(any, Errand::Disconnect),
                    pause,
                    Step::WantNet(any, true),
                ]
            }
            // A generation that a Secondary begins may meet one of the other node, which was promoted meanwhile.
            Kind::Truck => self.truck_script(primary?)?,
            Kind::PauseSync if self.prng.chance(1, 3) => {
                vec![Step::ResyncMustWait(any, true), pause, Step::ResyncMustWait(any, false)]
            }
            Kind::PauseSync => {
                let (pausing, resuming) =
                    (Step::Do(any, Errand::PauseSync), Step::Do(any, Errand::ResumeSync));
                let doubtful = [resuming, Step::Do(1 - any, Errand::PauseSync)][self.prng.below(2) as usize];
                vec![pausing, pause, doubtful, pause]
            }
            Kind::Options => vec![Step::Do(any, Errand::SetOptions)],
            Kind::DetachSecondary => detach(1 - primary?),
            // A new disk, which is lost before it was brought up to date.
            Kind::DetachPrimary if self.prng.chance(1, 6) => {
                let p = primary?;
                let moment = Step::Pause(self.prng.below(5_000));
                vec![
                    Step::WantDisk(p, false),
                    Step::Do(p, Errand::Detach),
                    Step::Replace(p),
                    Step::Do(p, Errand::Attach),
                    moment,
                    Step::Do(p, Errand::ForceDetach),
                    Step::Flap,
                    pause,
                    Step::WantDisk(p, true),
                ]
            }
            Kind::DetachPrimary if self.prng.chance(1, 4) => {
                let p = primary?;
                vec![
                    Step::WantDisk(p, false),
                    Step::Do(p, Errand::ForceDetach),
                    pause,
                    Step::WantDisk(p, true),
                ]
            }
            Kind::DetachPrimary => detach(primary?),
            Kind::Verify => self.verify_script(primary)?,
            Kind::Invalidate => {
                let reset_bitmap = self.prng.chance(3, 4);
                let remote = self.prng.chance(1, 2);
                if !self.may_give_up(any) && self.prng.chance(7, 8) {
                    return None;
                }
                // Whoever resolves a split brain looks at every sector.
                if self.met && !self.plan.split_brain && self.prng.chance(2, 3) {
                    self.rot(any);
                }
                vec![if remote {
                    Step::Do(1 - any, Errand::InvalidateRemote { reset_bitmap })
                } else {
                    Step::Do(any, Errand::Invalidate { reset_bitmap })
                }]
            }
            Kind::CleanRestart => {
                let leave = vec![
                    Step::WantNet(any, false),
                    Step::Do(any, Errand::Disconnect),
                    Step::WantDisk(any, false),
                    Step::Do(any, Errand::Detach),
                    Step::Stop(any),
                ];
                if primary == Some(any) { [demotion(any), leave].concat() } else { leave }
            }
            Kind::Policy => self.policy_script()?,
            Kind::Grow => self.grow_script()?,
            Kind::GrowByMistake => self.mistake_script()?,
            // resume-io thaws without fencing: who relies on that does not say it.
            Kind::Suspension if self.is_trusting => return None,
            Kind::Suspension => {
                vec![Step::Do(any, Errand::SuspendIo), pause, Step::Do(any, Errand::ResumeIo)]
            }
            Kind::Outdate => vec![
                Step::WantNet(any, false),
                Step::Do(any, Errand::Disconnect),
                Step::Do(any, Errand::Outdate),
                pause,
                Step::WantNet(any, true),
            ],
            _ => return None,
        })
    }
}
