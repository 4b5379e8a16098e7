//! The simulator's command line: many seeds, fresh seeds for a time, one seed again, or the seeded bugs that it must
//! catch.

use std::hash::{BuildHasher, RandomState};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tandem_core::config::Protocol;
use tandem_core::mutation::Mutation;
use tandem_tests::sim::{self, Counts, Failure};

/// Lives simulated histories of two nodes and checks after every event that nothing promised was broken.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds to run, with each protocol.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run fresh seeds, drawn at random, for so many minutes instead.
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["seeds", "from", "replay", "mutations"])]
    soak: Option<u64>,
    /// Which protocol.
    #[arg(long, value_enum, ignore_case = true, default_value = "all")]
    protocol: Protocols,
    /// Threads; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after failures and report this many of them.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Run one seed and print a line for every event.
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// With this seeded bug.
    #[arg(long, value_parser = mutation_named)]
    mutation: Option<Mutation>,
    /// Run every seeded bug: each must be caught within the seeds.
    #[arg(long)]
    mutations: bool,

    /// With --mutations: look no further for a bug that was caught
    #[arg(long, requires = "mutations")]
    briefly: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocols {
    A,
    B,
    C,
    All,
}

impl Protocols {
    fn list(self) -> &'static [Protocol] {
        match self {
            Protocols::A => &[Protocol::A],
            Protocols::B => &[Protocol::B],
            Protocols::C => &[Protocol::C],
            Protocols::All => &[Protocol::C, Protocol::B, Protocol::A],
        }
    }
}

fn mutation_named(name: &str) -> Result<Mutation, String> {
    let known = || Mutation::ALL.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ");
    let found = Mutation::ALL.iter().find(|m| m.name().eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| format!("no such seeded bug; there are: {}", known()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let good = match arguments.replay {
        Some(seed) => replay(seed, &arguments),
        None if arguments.mutations => hunt_mutations(&arguments),
        None => run_seeds(&arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64, arguments: &Arguments) -> bool {
    let mut good = true;
    for protocol in arguments.protocol.list() {
        match sim::replay(seed, *protocol, arguments.mutation) {
            Ok(counts) => println!("seed {seed} protocol {}: no rule broken\n{counts}", protocol.letter()),
            Err(failure) => {
                print_failure(&failure);
                good = false;
            }
        }
    }
    good
}

fn run_seeds(arguments: &Arguments) -> bool {
    let began = Instant::now();
    let mut hunt = Hunt::new(arguments, arguments.mutation, arguments.protocol.list(), arguments.failures);
    if let Some(minutes) = arguments.soak {
        hunt.first_seed = fresh_seed();
        hunt.last_minute = Some(began + Duration::from_secs(minutes.saturating_mul(60)));
        println!("seeds from {}", hunt.first_seed);
    }
    let outcome = hunt.run();
    let seconds = began.elapsed().as_secs_f64();
    print!("{}", outcome.counts);
    println!("{seconds:.1} s, {:.0} seeds/s", outcome.counts.seeds as f64 / seconds);
    outcome.failures.iter().for_each(print_failure);
    outcome.failures.is_empty()
}

/// Where nobody has looked before: from the hash keys that the operating system gives every process. Short enough for
/// an operator to copy, long enough never to come twice.
fn fresh_seed() -> u64 {
    RandomState::new().hash_one("soak") >> 16
}

/// Failing seeds that end a brief hunt: some may fail without the bug as well.
const ENOUGH_FAILURES: usize = 3;

/// One line per seeded bug; true if every one was caught.
fn hunt_mutations(arguments: &Arguments) -> bool {
    println!("{:<26} {:<8} {:>10} {:>10}  caught by", "seeded bug", "protocol", "first seed", "failing");
    let mut all_caught = true;
    let most_failures = if arguments.briefly { ENOUGH_FAILURES } else { usize::MAX };
    for mutation in Mutation::ALL.iter().filter(|m| !m.breaks_a_decision()) {
        let mut caught = false;
        for protocol in arguments.protocol.list() {
            let mut outcome =
                Hunt::new(arguments, Some(*mutation), std::slice::from_ref(protocol), most_failures).run();
            // A seed that fails without the bug as well says nothing about it.
            outcome.failures.retain(|f| sim::run(f.seed, *protocol, None).is_ok());
            let first = outcome.failures.first();
            caught |= first.is_some();
            println!(
                "{:<26} {:<8} {:>10} {:>10}  {}",
                mutation.name(),
                protocol.letter(),
                first.map_or("-".into(), |f| f.seed.to_string()),
                format!("{}/{}", outcome.failures.len(), outcome.counts.seeds),
                checkers(&outcome.failures)
            );
            if caught && arguments.briefly {
                break;
            }
        }
        if !caught {
            println!("{:<26} NOT CAUGHT: {}", mutation.name(), mutation.breaks().trim());
        }
        all_caught &= caught;
    }
    all_caught
}

/// Which checkers found the failures, the busiest first.
fn checkers(failures: &[Failure]) -> String {
    let mut found: Vec<(usize, &str)> = Vec::new();
    for failure in failures {
        match found.iter_mut().find(|(_, c)| *c == failure.checker) {
            Some((n, _)) => *n += 1,
            None => found.push((1, failure.checker)),
        }
    }
    found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    found.iter().map(|(n, c)| format!("{c}:{n}")).collect::<Vec<_>>().join(" ")
}

/// A range of seeds, spread over threads.
struct Hunt<'a> {
    arguments: &'a Arguments,
    mutation: Option<Mutation>,
    protocols: &'a [Protocol],
    most_failures: usize,
    first_seed: u64,
    /// No seed is begun after this; without it, the number of seeds ends the hunt.
    last_minute: Option<Instant>,
    next: AtomicU64,
    stop: AtomicBool,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    counts: Counts,
    failures: Vec<Failure>,
}

impl<'a> Hunt<'a> {
    fn new(
        arguments: &'a Arguments,
        mutation: Option<Mutation>,
        protocols: &'a [Protocol],
        most_failures: usize,
    ) -> Self {
        Hunt {
            arguments,
            mutation,
            protocols,
            most_failures,
            first_seed: arguments.from,
            last_minute: None,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            outcome: Mutex::default(),
        }
    }

    fn run(self) -> Outcome {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.arguments.jobs.unwrap_or(available).max(1);
        std::thread::scope(|scope| {
            for job in 0..jobs {
                let thread = std::thread::Builder::new().name(format!("sim{job}"));
                if let Err(e) = thread.spawn_scoped(scope, || self.work()) {
                    eprintln!("no thread: {e}");
                }
            }
        });
        let mut outcome = self.outcome.into_inner().unwrap_or_default();
        outcome.failures.sort_by_key(|f| f.seed);
        outcome
    }

    fn work(&self) {
        let mut counts = Counts::default();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (seed, protocol) =
                (number / self.protocols.len() as u64, number % self.protocols.len() as u64);
            if self.is_over(seed) {
                break;
            }
            match sim::run(self.first_seed + seed, self.protocols[protocol as usize], self.mutation) {
                Ok(one) => counts.add(&one),
                Err(failure) => {
                    counts.seeds += 1;
                    self.failed(failure);
                }
            }
        }
        if let Ok(mut outcome) = self.outcome.lock() {
            outcome.counts.add(&counts);
        }
    }

    fn is_over(&self, seed: u64) -> bool {
        match self.last_minute {
            Some(end) => Instant::now() >= end,
            None => seed >= self.arguments.seeds,
        }
    }

    fn failed(&self, failure: Failure) {
        if let Ok(mut outcome) = self.outcome.lock() {
            outcome.failures.push(failure);
            if outcome.failures.len() >= self.most_failures {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn print_failure(failure: &Failure) {
    println!("\nFAILED {failure}");
    println!("commit {}", commit().unwrap_or("unknown".into()));
    println!("replay: {}", failure.replay_command());
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
