//! PostgreSQL on a primary that is killed: what a client was told is committed is there on the survivor.
//!
//! The database lies in ext4 on a loop device on nbdfuse on the primary's export. Clients insert numbered rows and note
//! what COMMIT answered, beside pgbench. `TANDEM_POSTGRES_KILLS` is the number of kills; `cargo xtask postgres` does 20.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tandem_core::config::Protocol;

use crate::machine::Machine;
use crate::node::{Node, Outcome, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::trial::{Passed, rounds_from_env};
use crate::wait;

const KILLS: u64 = 3;
const DISK_BYTES: u64 = 192 << 20;
/// Room for max_wal_size twice.
const LOG_BYTES: u64 = 96 << 20;
/// Clients that insert rows.
const CLIENTS: u64 = 4;
/// More rows than one client inserts in a round.
const ROWS_PER_ROUND: u64 = 1_000_000;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn committed_transactions_survive_the_primary() {
    let count = rounds_from_env("TANDEM_POSTGRES_KILLS").unwrap_or(KILLS);
    survive(Setup { protocol: Protocol::C, disk_bytes: [DISK_BYTES; 2], ..Setup::default() }, count);
}

/// The database's log lies on a volume of its own.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn committed_transactions_survive_with_log_and_data_on_two_volumes() {
    let setup = Setup {
        protocol: Protocol::C,
        disk_bytes: [DISK_BYTES; 2],
        second_disk_bytes: Some([LOG_BYTES; 2]),
        ..Setup::default()
    };
    survive(setup, 2);
}

fn survive(setup: Setup, count: u64) {
    let mut random = Random::from_env("postgres");
    let mut test =
        Test { pair: Pair::synced(setup), alpha_is_primary: true, machines: 0, ledger: Ledger::default() };
    let mut passed = Passed { what: "PostgreSQL", rounds: 0 };
    let mut machine = test.first_machine();
    for round in 0..count {
        let whole_machine = random.one_in(2);
        test.work_until_killed(machine, round, whole_machine, &mut random);
        machine = test.fail_over();
        test.old_primary_returns();
        passed.rounds += 1;
    }
    machine.shut_down();
    machine.check_file_systems();
    drop(machine);
    wait::until("nobody has the device open", || {
        test.primary().status().is_some_and(|s| s.openers.is_empty())
    });
    test.pair.assert_identical();
    println!("  {} commits were acknowledged, all were found", test.ledger.len());
}

struct Test {
    pair: Pair,
    alpha_is_primary: bool,
    /// Ever switched on.
    machines: u64,
    ledger: Ledger,
}

/// What COMMIT answered.
#[derive(Default)]
struct Ledger(Mutex<BTreeSet<u64>>);

impl Ledger {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Test {
    /// A machine on the primary with a new database.
    fn first_machine(&mut self) -> Machine {
        let mut machine = self.machine();
        machine.make_file_systems();
        machine.mount();
        machine.make_database();
        machine.start_database();
        machine.query("CREATE TABLE ledger (number bigint PRIMARY KEY)");
        Outcome::of(machine.client("pgbench", &["--initialize", "--quiet"])).ok();
        machine
    }

    /// A machine on the primary that has its disk.
    fn machine(&mut self) -> Machine {
        self.machines += 1;
        let mut machine = Machine::new(self.pair.folder().join(format!("machine{}", self.machines)));
        machine.attach(self.primary());
        machine
    }

    /// Clients and pgbench work until the primary's daemon is killed, alone or with everything beside it.
    fn work_until_killed(&self, machine: Machine, round: u64, whole_machine: bool, random: &mut Random) {
        println!(
            "  round {round}: {} is killed{}",
            self.primary().name,
            if whole_machine { ", and its machine" } else { "" }
        );
        let acknowledged = AtomicUsize::new(0);
        let enough = 50 + random.below(300) as usize;
        let mut bench = pgbench(&machine);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let first = (round * CLIENTS + client) * ROWS_PER_ROUND;
                let (psql, ledger, acknowledged) = (psql(&machine), &self.ledger, &acknowledged);
                scope.spawn(move || insert_rows(psql, first, ledger, acknowledged));
            }
            wait::until("clients commit", || acknowledged.load(Ordering::Relaxed) >= enough);
            if whole_machine {
                // At the same time, as in a power cut.
                scope.spawn(move || drop(machine));
                self.primary().kill();
            } else {
                self.primary().kill();
                // The database sees what a disk that is gone looks like.
                thread::sleep(Duration::from_millis(random.below(1000)));
                drop(machine);
            }
        });
        // It has lost its server.
        let _ = bench.wait();
    }

    /// The survivor takes over: the file system is mounted, the database recovers, and nothing is missing.
    fn fail_over(&mut self) -> Machine {
        self.alpha_is_primary = !self.alpha_is_primary;
        self.primary().promote();
        let mut machine = self.machine();
        machine.mount();
        machine.start_database();
        let found: BTreeSet<u64> = machine
            .query("SELECT number FROM ledger")
            .lines()
            .map(|number| number.parse().unwrap())
            .collect();
        let ledger = self.ledger.0.lock().unwrap();
        let lost: Vec<&u64> = ledger.difference(&found).collect();
        assert!(
            lost.is_empty(),
            "{} acknowledged commits are missing, among them {:?}",
            lost.len(),
            &lost[..lost.len().min(8)]
        );
        let balance = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM \
                       pgbench_history) AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM \
                       pgbench_branches)";
        drop(ledger);
        assert_eq!(machine.query(balance), "t", "half a transaction of pgbench is there");
        machine
    }

    fn old_primary_returns(&self) {
        self.pair.other(self.primary()).adm(&["up", RESOURCE]).ok();
        self.pair.wait_healed();
    }

    fn primary(&self) -> &Node {
        if self.alpha_is_primary { &self.pair.alpha } else { &self.pair.bravo }
    }
}

fn pgbench(machine: &Machine) -> Child {
    let mut bench = machine.client("pgbench", &["--client=2", "--time=600", "--no-vacuum"]);
    bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn psql(machine: &Machine) -> Command {
    let mut psql = machine.client("psql", &["-X", "-v", "ON_ERROR_STOP=1"]);
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    psql
}

/// Inserts one row after the other, each in a transaction of its own, until the server is gone. What it says of each is
/// noted only after it has said so.
fn insert_rows(mut psql: Command, first: u64, ledger: &Ledger, acknowledged: &AtomicUsize) {
    let mut psql = psql.spawn().unwrap();
    let mut commands = psql.stdin.take().unwrap();
    let mut answers = BufReader::new(psql.stdout.take().unwrap()).lines();
    for number in first..first + ROWS_PER_ROUND {
        if writeln!(commands, "INSERT INTO ledger VALUES ({number});").is_err() {
            break;
        }
        let Some(Ok(answer)) = answers.next() else { break };
        assert_eq!(answer, "INSERT 0 1");
        ledger.0.lock().unwrap().insert(number);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    drop(commands);
    let _ = psql.wait();
}
