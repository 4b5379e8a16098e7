//! Every fixture is run, parsed or refused as its first lines say, and what is parsed survives a dump.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{Drbdadm, Fixture, Tandem, fixtures};
use tandem_config::Config;

/// What Tandem made of it, and what it said.
fn outcome(fixture: &Fixture) -> (Tandem, String) {
    let config = match Config::load(Some(&fixture.path)) {
        Ok(config) => config,
        Err(error) => return (Tandem::Refuses, error.to_string()),
    };
    let obstacles: Vec<String> = config
        .resources
        .iter()
        .filter_map(|resource| resource.runnable().err())
        .map(|error| error.to_string())
        .collect();
    (if obstacles.is_empty() { Tandem::Runs } else { Tandem::Parses }, obstacles.join("\n"))
}

#[test]
fn every_fixture_is_treated_as_it_says() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 60, "{}", fixtures.len());
    let mut wrong = Vec::new();
    for fixture in &fixtures {
        let (tandem, said) = outcome(fixture);
        let silent: Vec<_> = fixture.says.iter().filter(|part| !said.contains(part.as_str())).collect();
        if tandem != fixture.tandem || !silent.is_empty() {
            wrong.push(format!("{}: {tandem:?}, without {silent:?}\n{said}", fixture.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), fixtures.len(), wrong.join("\n\n"));
}

#[test]
fn every_difference_has_its_reason_and_every_refusal_its_sentence() {
    for fixture in fixtures() {
        let differs = (fixture.drbdadm == Drbdadm::Refuses) != (fixture.tandem == Tandem::Refuses);
        assert!(fixture.because.is_some() || !differs && fixture.compare, "{}: no reason", fixture.name);
        assert_eq!(fixture.says.is_empty(), fixture.tandem == Tandem::Runs, "{}: no sentence", fixture.name);
    }
}

#[test]
fn every_fixture_survives_a_dump() {
    for fixture in fixtures().iter().filter(|fixture| fixture.tandem != Tandem::Refuses) {
        let config = fixture.config();
        let dumped = config.dump("alpha");
        let again = Config::parse(Path::new("dump"), &dumped)
            .unwrap_or_else(|error| panic!("{}:\n{dumped}\n{error}", fixture.name));
        assert_eq!(again, config, "{}:\n{dumped}", fixture.name);
        let runs = |config: &Config| config.resources.iter().all(|resource| resource.runnable().is_ok());
        assert_eq!(runs(&again), runs(&config), "{}", fixture.name);
    }
}
