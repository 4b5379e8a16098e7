//! The advice is followed: every command that a remark names is given to real engines that are in the state it is about. The
//! trouble goes, and nothing that was acknowledged is lost.

// What the engine's own scenarios are played on.
#[allow(dead_code)]
#[path = "../../../../../replicator/core/tests/pair/harness.rs"]
mod harness;
mod scenes;
mod world;

use std::collections::BTreeSet;

use super::{Place, Severity, Step, all};
use scenes::{ELSEWHERE, Scene, scenes};
use world::{NAMES, World};

/// One of the ways out that a remark names: in which case, and what to do.
struct Way {
    case: String,
    steps: Vec<Step>,
}

/// What stands before the first case is a way of its own, unless it only looks: then everything begins with it.
fn ways(steps: &[Step]) -> Vec<Way> {
    let is_case = |step: &Step| !["next", "then"].contains(&step.when.as_str());
    let first = steps.iter().position(is_case).unwrap_or(steps.len());
    let (before, cases) = steps.split_at(first);
    let mut ways: Vec<Way> = Vec::new();
    let helps = before.iter().any(|step| changes_something(&step.command));
    if helps || cases.is_empty() {
        ways.push(Way { case: String::new(), steps: before.to_vec() });
    }
    for step in cases {
        let goes_on = !is_case(step) || ways.last().is_some_and(|way| way.case == step.when);
        match ways.last_mut().filter(|_| goes_on) {
            Some(way) => way.steps.push(step.clone()),
            None => {
                let before = if helps { Vec::new() } else { before.to_vec() };
                let steps = before.into_iter().chain([step.clone()]).collect();
                ways.push(Way { case: step.when.clone(), steps });
            }
        }
    }
    // What only looks is no way out, unless there is no other.
    let only_one = ways.len() == 1;
    ways.retain(|way| only_one || way.steps.iter().any(|step| changes_something(&step.command)));
    ways
}

fn changes_something(command: &str) -> bool {
    const LOOKS: [&str; 8] =
        ["status", "dump", "show-gi", "role", "doctor", "split-brain show", "wait-sync", "wait-connect"];
    let looks = |verb: &str| LOOKS.iter().any(|look| verb.starts_with(look));
    let mut verbs = command.split(" && ").filter_map(|part| part.strip_prefix("tandemadm "));
    verbs.any(|verb| !looks(verb))
}

fn node_of(place: &Place, asked: usize) -> usize {
    match place {
        Place::Here => asked,
        Place::On(name) => NAMES.iter().position(|one| one == name).unwrap(),
    }
}

/// Whose data is given up by who follows this way.
fn given_up(case: &str, asked: usize) -> Option<usize> {
    let kept = NAMES.iter().position(|name| case.contains(&format!("{name}'s")));
    kept.or(case.contains("this node's").then_some(asked)).map(|kept| 1 - kept)
}

/// Follows each way of the remark in a world of its own; what went wrong.
fn follow(scene: &Scene) -> Vec<String> {
    let mut world = (scene.world)();
    let sign_in = |world: &mut World| {
        let found = world.findings(scene.asked);
        found.into_iter().find(|finding| finding.trouble.code == scene.code).map(|finding| finding.sign)
    };
    let Some(sign) = sign_in(&mut world) else {
        return vec![format!("{}: not there, but {:?}", scene.what, world.codes(scene.asked))];
    };
    let mut wrong = Vec::new();
    for way in ways(&sign.next) {
        let told = format!("{} {}, on {}, {:?}", scene.code, scene.what, NAMES[scene.asked], way.case);
        let mut world = (scene.world)();
        assert_eq!(sign_in(&mut world).as_ref(), Some(&sign), "{told}: the same state is another");
        (scene.meanwhile)(&mut world, &way.case);
        let refused = way.steps.iter().find_map(|step| {
            let refused = world.tries(node_of(&step.place, scene.asked), &step.command).err()?;
            world.rest();
            Some(format!("{told}: {step}: {refused}"))
        });
        if let Some(refused) = refused {
            wrong.push(refused);
            continue;
        }
        world.rest();
        let left: Vec<_> = [0, 1].into_iter().flat_map(|n| world.findings(n)).collect();
        let bearable = |severity: Severity| world.on.contains(&false) && severity == Severity::Degraded;
        let left: Vec<_> = left.iter().filter(|finding| !bearable(finding.trouble.severity)).collect();
        if !left.is_empty() {
            let left: String = left.iter().map(|finding| finding.remark()).collect();
            wrong.push(format!("{told}: this is left:\n{left}"));
            continue;
        }
        world.assert_nothing_is_lost(given_up(&way.case, scene.asked));
    }
    wrong
}

#[test]
fn what_is_advised_ends_the_trouble_and_loses_nothing() {
    let wrong: Vec<String> = scenes().iter().flat_map(follow).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page of T304 has what no remark says.
#[test]
fn requests_go_on_once_no_quorum_is_asked_for() {
    let scenes = scenes();
    let scene = scenes.iter().find(|scene| scene.code == "T304").unwrap();
    let mut world = (scene.world)();
    world.dies(1);
    world.configured.quorum = Default::default();
    world.types(0, "tandemadm adjust r0");
    world.rest();
    assert_eq!(world.codes(0), ["T103"]);
    world.assert_nothing_is_lost(None);
}

#[test]
fn every_trouble_is_played_here_or_elsewhere() {
    let played: BTreeSet<&str> = scenes().iter().map(|scene| scene.code).collect();
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(code, _)| *code).collect();
    assert!(played.is_disjoint(&elsewhere), "{:?}", played.intersection(&elsewhere));
    let known: BTreeSet<&str> = all().map(|trouble| trouble.code).collect();
    assert_eq!(&played | &elsewhere, known);
}
