//! Every short history of two nodes, lived by real engines and judged by the truth.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tandem_core::config::Protocol;
use tandem_core::mutation::Mutation;
use tandem_tests::histories::{self, PAIR_IN_SYNC, Plan};

/// Enumerates the histories of two nodes and checks what comes of every meeting.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Events after both nodes were in sync once.
    #[arg(long, default_value_t = 7)]
    depth: usize,
    /// Events with two disks that have never held data.
    #[arg(long, default_value_t = 7)]
    fresh_depth: usize,
    /// Threads; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// With this seeded bug.
    #[arg(long, value_parser = mutation_named)]
    mutation: Option<Mutation>,
    /// Run every seeded bug of the decision: each must be caught.
    #[arg(long)]
    mutations: bool,
    /// Only this protocol: A, B or C.
    #[arg(long, value_parser = protocol_named)]
    protocol: Option<Protocol>,
}

/// Events that show every seeded bug.
const ENOUGH: usize = 5;
/// Failures printed.
const SHOWN: usize = 5;

fn mutation_named(name: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL.iter().find(|m| m.name().eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| "no such seeded bug".into())
}

fn protocol_named(name: &str) -> Result<Protocol, String> {
    name.bytes().next().and_then(Protocol::from_letter).ok_or_else(|| "A, B or C".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (passed, failed) = if arguments.mutations { arguments.hunt() } else { arguments.enumerate() };
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Arguments {
    /// Both beginnings, for every protocol.
    fn plans(&self, mutation: Option<Mutation>, most: usize) -> Vec<(&'static str, Plan)> {
        let wanted = [Protocol::C, Protocol::A, Protocol::B].into_iter();
        let wanted = wanted.filter(|protocol| self.protocol.is_none_or(|only| only == *protocol));
        let plan =
            |protocol, depth: usize, prologue| Plan { protocol, depth: depth.min(most), prologue, mutation };
        wanted
            .flat_map(|protocol| {
                [
                    ("a pair in sync", plan(protocol, self.depth, PAIR_IN_SYNC)),
                    ("fresh disks", plan(protocol, self.fresh_depth, &[])),
                ]
            })
            .collect()
    }

    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// How many plans passed, and failed.
    fn enumerate(&self) -> (u32, u32) {
        let (mut passed, mut failed) = (0, 0);
        for (name, plan) in self.plans(self.mutation, usize::MAX) {
            let began = Instant::now();
            let report = histories::enumerate(plan, self.jobs());
            println!(
                "protocol {}, {} events from {name}: {} histories, {} states, {} events lived, {:.1} s",
                plan.protocol.letter(),
                plan.depth,
                report.histories,
                report.states,
                report.events,
                began.elapsed().as_secs_f64()
            );
            let rules: Vec<String> = report.rules.iter().map(|(r, n)| format!("{r} {n}")).collect();
            println!("  rules: {}", rules.join(", "));
            for failure in report.failures.iter().take(SHOWN) {
                println!("  FAILED {failure}");
            }
            if report.failures.is_empty() { passed += 1 } else { failed += 1 }
        }
        (passed, failed)
    }

    /// How many seeded bugs were caught, and not caught: each by the shortest history that shows it.
    fn hunt(&self) -> (u32, u32) {
        let (mut caught, mut missed) = (0, 0);
        for mutation in Mutation::ALL.iter().filter(|m| m.breaks_a_decision()) {
            let found = self.plans(Some(*mutation), ENOUGH).into_iter().find_map(|(_, plan)| {
                let failure = histories::enumerate(plan, self.jobs()).failures.into_iter().next();
                failure.map(|failure| (plan, failure))
            });
            match found {
                Some((plan, failure)) => {
                    caught += 1;
                    let (name, letter) = (mutation.name(), plan.protocol.letter());
                    println!("{name:<24} {letter} {:?}", failure.events);
                }
                None => {
                    missed += 1;
                    println!("{:<24} NOT CAUGHT: {}", mutation.name(), mutation.breaks().trim());
                }
            }
        }
        (caught, missed)
    }
}
