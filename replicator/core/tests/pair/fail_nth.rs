//! The same life again and again; each time another operation of one disk fails.

use tandem_core::config::{OnIoError, Options, Protocol, ResyncOptions};
use tandem_core::io::{ClientOp, Command, Payload};
use tandem_core::state::{ConnectionState, DiskState, Role};

use crate::harness::Pair;
use crate::scene::{PROMOTE, PROTOCOLS, peer, read, status};

/// More operations than a life has.
const MOST_OPERATIONS: u64 = 500;

/// A pair in sync, and the bytes that clients were told to be written, by block.
struct Life {
    pair: Pair,
    acknowledged: Vec<u8>,
}

impl Life {
    fn write(&mut self, n: usize, block: usize) {
        let byte = self.acknowledged.len() as u8 + 100;
        let payload = Payload::new(vec![byte; 4096].into());
        let fua = block.is_multiple_of(2);
        let write = ClientOp::Write { offset: block as u64 * 4096, payload, fua };
        // Whoever was told of an error knows nothing of the block.
        let told = self.pair.client(n, write).map(|_| byte);
        self.acknowledged.push(told.unwrap_or(0));
    }

    /// What the administrator does about a disk that has failed, or a node that stands alone.
    fn mend(&mut self) {
        for n in 0..2 {
            if status(&self.pair, n).disk == DiskState::Diskless && self.pair.attach(n).is_err() {
                // A Primary that had newer data than its peer.
                self.pair.command(n, Command::Secondary).unwrap();
                self.pair.attach(n).unwrap();
            }
        }
        for n in 0..2 {
            if peer(&self.pair, n).connection == ConnectionState::StandAlone {
                self.pair.command(n, Command::Connect).unwrap();
            }
        }
        self.pair.heal();
        if status(&self.pair, self.primary()).role == Role::Secondary {
            self.pair.command(0, PROMOTE).unwrap();
        }
    }

    /// Roles move only while both have everything.
    fn move_to(&mut self, n: usize) {
        let good = |n: usize| status(&self.pair, n).disk == DiskState::UpToDate;
        if good(0) && good(1) && peer(&self.pair, 0).out_of_sync_bytes == 0 {
            self.pair.command(1 - n, Command::Secondary).unwrap();
            self.pair.command(n, PROMOTE).unwrap();
        }
    }

    fn primary(&self) -> usize {
        usize::from(status(&self.pair, 1).role == Role::Primary)
    }
}

/// Writes in sync, alone, and after a move; a resync; flushes and reads. False if the operation was never reached.
fn live(options: &Options, broken: usize, at: u64) -> bool {
    let mut pair = Pair::with_options(options);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    let mut life = Life { pair, acknowledged: Vec::new() };
    life.pair.fails_next(broken, at);
    for block in 0..4 {
        life.write(0, block);
    }
    let _ = life.pair.client(0, ClientOp::Flush);
    life.pair.link_is_down = true;
    life.pair.cut();
    for block in 4..8 {
        life.write(0, block);
    }
    life.pair.heal();
    life.move_to(1);
    for block in 8..12 {
        life.write(life.primary(), block);
    }
    let _ = life.pair.client(life.primary(), ClientOp::Flush);
    life.mend();
    let acknowledged = life.acknowledged.clone();
    let context = format!("{:?}, operation {at} of node {broken}", options.protocol);
    for (block, byte) in acknowledged.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        let primary = life.primary();
        let found = read(&mut life.pair, primary, block as u64 * 4096);
        assert_eq!(found, *byte, "{context}: block {block}");
    }
    // It may have failed just now; what a target could not write is asked for again after a while.
    life.mend();
    life.pair.run_until(|pair| (0..2).all(|n| peer(pair, n).out_of_sync_bytes == 0));
    life.pair.assert_in_sync();
    life.pair.fails_at[broken].is_none()
}

#[test]
fn whichever_operation_fails_nothing_acknowledged_is_lost() {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    for (protocol, on_io_error) in PROTOCOLS.into_iter().flat_map(both_policies) {
        let options = Options { protocol, on_io_error, resync: resync.clone(), ..Options::default() };
        for broken in 0..2 {
            let lives = (1..MOST_OPERATIONS).take_while(|at| live(&options, broken, *at)).count();
            assert!((30..MOST_OPERATIONS as usize - 1).contains(&lives), "{lives} lives");
        }
    }
}

fn both_policies(protocol: Protocol) -> [(Protocol, OnIoError); 2] {
    [OnIoError::Detach, OnIoError::PassOn].map(|policy| (protocol, policy))
}
