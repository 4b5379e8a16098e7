//! Plans on a made-up world: killed, failing and hanging at every step.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;

const STEPS: [&str; 5] = ["block", "primary", "mount", "server", "address"];

/// What is up, and when the power goes.
#[derive(Default)]
struct World {
    up: Vec<&'static str>,
    /// Accesses left until the process is killed.
    kill_after: Option<usize>,
    failing: Option<&'static str>,
    hanging: Option<&'static str>,
    undo_failing: Option<(&'static str, Trouble)>,
    /// Nothing can be noted.
    is_full: bool,
    lines: Vec<Progress>,
}

type Shared = Arc<Mutex<World>>;

/// The world; the process dies here when its time has come.
fn touch(world: &Shared) -> MutexGuard<'_, World> {
    let mut world = world.lock().unwrap();
    match &mut world.kill_after {
        Some(0) => {
            drop(world);
            panic!("killed");
        }
        Some(left) => *left -= 1,
        None => {}
    }
    world
}

struct Fake {
    name: &'static str,
    world: Shared,
    /// Down instead of up.
    removes: bool,
}

impl Step for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn intention(&self) -> String {
        format!("make {}", self.name)
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        let is_up = touch(&self.world).up.contains(&self.name);
        Ok((is_up != self.removes).then(|| "there".to_owned()))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        {
            let mut world = touch(&self.world);
            if world.failing == Some(self.name) {
                return Err(Trouble::new("no"));
            }
            if world.hanging == Some(self.name) {
                drop(world);
                loop {
                    thread::park();
                }
            }
            match self.removes {
                true => world.up.retain(|name| *name != self.name),
                false => {
                    // The order is what keeps the data safe.
                    assert_eq!(STEPS[..world.up.len()], world.up[..], "{} comes too early", self.name);
                    world.up.push(self.name);
                }
            }
        }
        // Killed after it was done and before anybody noted it.
        drop(touch(&self.world));
        Ok("done".to_owned())
    }

    fn undo(&self, _turn: &Turn) -> Result<(), Trouble> {
        let mut world = touch(&self.world);
        if let Some((_, trouble)) = world.undo_failing.clone().filter(|(name, _)| *name == self.name) {
            return Err(trouble);
        }
        world.up.retain(|name| *name != self.name);
        Ok(())
    }
}

/// A journal that outlives the process.
struct FakeJournal(Shared);

impl Journal for FakeJournal {
    fn start(&mut self, plan: &str) -> io::Result<Inherited> {
        let inherited = Inherited::by(plan, journal::unfinished(touch(&self.0).lines.iter().cloned()));
        self.note(Progress::Started(plan.to_owned())).map(|()| inherited)
    }

    fn note(&mut self, progress: Progress) -> io::Result<()> {
        let mut world = touch(&self.0);
        match world.is_full {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => {
                world.lines.push(progress);
                Ok(())
            }
        }
    }
}

fn promote(world: &Shared) -> Plan {
    let step = |name| Arc::new(Fake { name, world: Arc::clone(world), removes: false }) as Arc<dyn Step>;
    Plan { name: "promote", service: "nfs".into(), steps: STEPS.map(step).to_vec(), undo_on_failure: true }
}

fn demote(world: &Shared) -> Plan {
    let step = |name| Arc::new(Fake { name, world: Arc::clone(world), removes: true }) as Arc<dyn Step>;
    let steps = STEPS.into_iter().rev().map(step).collect();
    Plan { name: "demote", service: "nfs".into(), steps, undo_on_failure: false }
}

fn play(plan: &Plan, world: &Shared) -> Report {
    run(plan, &mut FakeJournal(Arc::clone(world)), &Cancel::default(), &mut |_| {})
}

/// Runs the plan and kills it at its `kill_after`th access to the world; false if it came to its end.
fn kill(plan: &Plan, world: &Shared, kill_after: usize) -> bool {
    world.lock().unwrap().kill_after = Some(kill_after);
    let killed = catch_unwind(AssertUnwindSafe(|| play(plan, world))).is_err();
    world.lock().unwrap().kill_after = None;
    killed
}

/// A world for every moment at which a plan can be killed.
fn killed_worlds(make: impl Fn(&Shared) -> Plan, prepare: impl Fn(&mut World)) -> Vec<Shared> {
    let mut worlds = Vec::new();
    for kill_after in 0.. {
        let world = Shared::default();
        prepare(&mut world.lock().unwrap());
        let killed = kill(&make(&world), &world, kill_after);
        worlds.push(world);
        if !killed {
            break;
        }
    }
    assert!(worlds.len() > STEPS.len() * 4, "{} moments", worlds.len());
    worlds
}

#[test]
fn a_plan_runs_once_and_then_finds_everything_done() {
    let world = Shared::default();
    let report = play(&promote(&world), &world);
    assert_eq!(report.ending, Ending::Done);
    assert_eq!(world.lock().unwrap().up, STEPS);
    let again = play(&promote(&world), &world);
    assert!(again.lines.iter().all(|line| line.event == Event::Already), "{again:?}");
    assert_eq!(play(&demote(&world), &world).ending, Ending::Done);
    assert!(world.lock().unwrap().up.is_empty());
    assert_eq!(play(&demote(&world), &world).ending, Ending::Done, "safe when nothing is up");
}

#[test]
fn killed_at_every_step_it_goes_on_from_there() {
    for world in killed_worlds(promote, |_| {}) {
        assert_eq!(play(&promote(&world), &world).ending, Ending::Done);
        assert_eq!(world.lock().unwrap().up, STEPS);
    }
}

#[test]
fn killed_at_every_step_it_can_be_turned_round() {
    for world in killed_worlds(promote, |_| {}) {
        assert_eq!(play(&demote(&world), &world).ending, Ending::Done);
        assert!(world.lock().unwrap().up.is_empty());
        assert_eq!(play(&promote(&world), &world).ending, Ending::Done);
    }
    for world in killed_worlds(demote, |world| world.up = STEPS.to_vec()) {
        assert_eq!(play(&demote(&world), &world).ending, Ending::Done);
        assert!(world.lock().unwrap().up.is_empty());
    }
}

#[test]
fn killed_and_then_failing_it_takes_back_what_the_killed_run_did() {
    for world in killed_worlds(promote, |_| {}) {
        let finished = world.lock().unwrap().up.len() == STEPS.len();
        world.lock().unwrap().failing = Some("address");
        let report = play(&promote(&world), &world);
        if finished {
            continue;
        }
        assert_eq!(report.ending, Ending::Failed, "{report:?}");
        assert!(world.lock().unwrap().up.is_empty(), "{report:?}");
    }
}

#[test]
fn a_promotion_that_fails_takes_back_what_a_killed_demotion_has_left() {
    for world in killed_worlds(demote, |world| world.up = STEPS.to_vec()) {
        let finished = world.lock().unwrap().up.is_empty();
        world.lock().unwrap().failing = Some("address");
        let report = play(&promote(&world), &world);
        if report.ending == Ending::Done {
            continue;
        }
        assert_eq!(report.ending, Ending::Failed, "{finished} {report:?}");
        assert!(world.lock().unwrap().up.is_empty(), "{report:?}");
    }
}

#[test]
fn a_demotion_needs_no_journal_and_a_promotion_does() {
    let world = Shared::default();
    world.lock().unwrap().is_full = true;
    let refused = play(&promote(&world), &world);
    assert!(refused.why.unwrap().contains("cannot write the journal"));
    assert!(world.lock().unwrap().up.is_empty());
    world.lock().unwrap().up = STEPS.to_vec();
    assert_eq!(play(&demote(&world), &world).ending, Ending::Done);
    assert!(world.lock().unwrap().up.is_empty());
}

#[test]
fn what_could_not_be_taken_back_is_not_taken_for_gone() {
    let world = Shared::default();
    world.lock().unwrap().failing = Some("address");
    world.lock().unwrap().undo_failing = Some(("server", Trouble::new("it hangs")));
    assert_eq!(play(&promote(&world), &world).ending, Ending::Halfway);
    assert!(journal::unfinished(world.lock().unwrap().lines.iter().cloned()).is_some());
    world.lock().unwrap().up = STEPS.to_vec();
    world.lock().unwrap().failing = Some("server");
    assert_eq!(play(&demote(&world), &world).ending, Ending::MustFence);
}

#[test]
fn killed_while_taking_back_it_starts_again() {
    for world in killed_worlds(promote, |world| world.failing = Some("server")) {
        world.lock().unwrap().failing = None;
        assert_eq!(play(&promote(&world), &world).ending, Ending::Done);
        assert_eq!(world.lock().unwrap().up, STEPS);
    }
}

#[test]
fn failing_at_every_step_it_takes_back_what_came_before() {
    for failing in STEPS {
        let world = Shared::default();
        world.lock().unwrap().failing = Some(failing);
        let report = play(&promote(&world), &world);
        assert_eq!(report.ending, Ending::Failed);
        assert_eq!(report.why, Some(format!("{failing}: no")));
        assert!(world.lock().unwrap().up.is_empty());
    }
}

#[test]
fn hanging_at_every_step_it_gives_up_in_time() {
    for hanging in STEPS {
        let world = Shared::default();
        world.lock().unwrap().hanging = Some(hanging);
        let report = play(&promote(&world), &world);
        assert_eq!(report.ending, Ending::Failed);
        assert!(report.why.unwrap().contains("hangs"));
        assert!(world.lock().unwrap().up.is_empty());
    }
}

#[test]
fn a_demotion_that_hangs_calls_for_fencing() {
    for hanging in STEPS {
        let world = Shared::default();
        world.lock().unwrap().up = STEPS.to_vec();
        world.lock().unwrap().hanging = Some(hanging);
        assert_eq!(play(&demote(&world), &world).ending, Ending::MustFence, "{hanging}");
    }
}

#[test]
fn what_was_there_before_stays_when_the_plan_fails() {
    let world = Shared::default();
    world.lock().unwrap().up = vec!["block", "primary"];
    world.lock().unwrap().failing = Some("address");
    assert_eq!(play(&promote(&world), &world).ending, Ending::Failed);
    assert_eq!(world.lock().unwrap().up, ["block", "primary"]);
}

#[test]
fn a_step_that_cannot_be_taken_back_calls_for_fencing() {
    let world = Shared::default();
    world.lock().unwrap().failing = Some("server");
    world.lock().unwrap().undo_failing = Some(("mount", Trouble::stuck("stuck")));
    assert_eq!(play(&promote(&world), &world).ending, Ending::MustFence);
}

#[test]
fn a_cancelled_plan_is_taken_back() {
    let world = Shared::default();
    let cancel = Cancel::default();
    let mut log = |line: &Line| {
        if line.step == "mount" {
            cancel.set();
        }
    };
    let report = run(&promote(&world), &mut FakeJournal(Arc::clone(&world)), &cancel, &mut log);
    assert_eq!(report.ending, Ending::Cancelled);
    assert!(world.lock().unwrap().up.is_empty());
}

#[test]
fn the_journal_in_a_file_survives_and_forgets() {
    let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
    let path = folder.join("nfs.journal");
    let mut journal = FileJournal::new(&path);
    assert_eq!(journal.start("promote").unwrap(), Inherited::Steps(BTreeSet::new()));
    journal.note(Progress::Begun("mount".into())).unwrap();
    journal.note(Progress::Begun("server".into())).unwrap();
    journal.note(Progress::Undone("server".into())).unwrap();
    let mount = Inherited::Steps(["mount".to_owned()].into());
    assert_eq!(FileJournal::new(&path).start("promote").unwrap(), mount);
    assert_eq!(FileJournal::new(&path).start("demote").unwrap(), Inherited::Everything);
    let mut journal = FileJournal::new(&path);
    journal.start("demote").unwrap();
    journal.note(Progress::Ended("demote".into())).unwrap();
    assert_eq!(FileJournal::unfinished(&path).unwrap(), None);
    std::fs::remove_dir_all(folder).unwrap();
}
