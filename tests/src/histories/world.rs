//! Two engines beside the truth: what an event does to both, and what must then hold.

use std::hash::{DefaultHasher, Hash, Hasher};

use tandem_core::config::Protocol;
use tandem_core::io::{ClientOp, Command, Payload};
use tandem_core::metadata::Metadata;
use tandem_core::mutation::Mutation;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::{BLOCK_BYTES, ByteRange};

use super::Violation;
use super::event::Event;
use super::pair::{Contents, Pair, Point, Seen, Wish, marked};
use super::truth::{Relation, Truth};

/// A pair and the truth about it.
#[derive(Clone)]
pub(super) struct World {
    protocol: Protocol,
    pair: Pair,
    truth: Truth,
    next_token: u64,
}

/// How things stood before the nodes met.
struct Before {
    relation: Relation,
    truth: Truth,
    contents: [Contents; 2],
    roles: [Role; 2],
    disks: [bool; 2],
    /// A Primary whose clients have seen what is on its own disk.
    exposed: [bool; 2],
    /// The disk does not call itself Inconsistent.
    consistent: [bool; 2],
    /// Blocks that either bitmap marks.
    known: u64,
    /// Whose data was to be given up.
    loser: Option<usize>,
}

impl Before {
    /// The copies differ, or may, and the other one is worth having.
    fn gives_up_something(&self, loser: usize) -> bool {
        let related = matches!(self.relation, Relation::Diverged | Relation::Newer(_));
        let worth = self.consistent[1 - loser];
        worth && (related || self.relation == Relation::Equal && self.truth.owed.is_some())
    }
}

/// What must come of a meeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// One of these copies on both nodes.
    Sync([bool; 2]),
    /// Nothing: neither has data.
    Nothing,
    /// Both stand alone, the reason says this, and nothing is changed.
    Refusal(&'static str),
    /// A node has no disk: nothing is changed.
    Diskless,
}

impl World {
    pub(super) fn new(protocol: Protocol, mutation: Option<Mutation>) -> Result<World, Violation> {
        Ok(World { protocol, pair: Pair::new(protocol, mutation)?, truth: Truth::new(), next_token: 100 })
    }

    /// The rules by which the last meeting was decided.
    pub(super) fn seen(&self) -> &Seen {
        &self.pair.seen
    }

    /// Makes it happen. False if it cannot, or changes nothing worth following.
    pub(super) fn happen(&mut self, event: Event) -> Result<bool, Violation> {
        self.pair.watch();
        match event {
            Event::Write(n) => self.write(n),
            Event::Read(n) => self.read(n),
            Event::Flush(n) => self.flush(n),
            Event::Promote(n) => self.promote(n, false),
            Event::Force(n) => self.promote(n, true),
            Event::Demote(n) => self.demote(n),
            Event::Disconnect(n) => self.disconnect(n),
            Event::Detach(n) => self.detach(n),
            Event::Attach(n) => self.attach(n),
            Event::Crash(n) => self.crash(n),
            Event::CrashInFlight { node, here, there } => self.crash_in_flight(node, here, there),
            Event::Cut => self.cut(),
            Event::CutInFlight { node, there } => self.cut_in_flight(node, there),
            Event::Connect => self.connect(),
            Event::ConnectUntil(point) => self.connect_until(point),
            Event::Discard(n) => self.discard(n),
            Event::Ask(n) => self.ask(n),
        }
    }

    // Requests.

    fn write(&mut self, n: usize) -> Result<bool, Violation> {
        if self.role(n) != Role::Primary {
            return Ok(false);
        }
        let copies = self.copies(n);
        let (op, token, block) = self.next_write(n);
        if self.pair.request(n, op)?.is_err() {
            return if copies == [false; 2] { Ok(false) } else { Err("a write failed".into()) };
        }
        for copy in (0..2).filter(|copy| copies[*copy]) {
            if self.pair.contents(copy)[block] != token {
                return Err(format!("a write has completed and is not on node {copy}"));
            }
        }
        self.truth.goes_on(n, copies);
        self.truth.reigned[n] = copies[n];
        Ok(true)
    }

    fn next_write(&mut self, n: usize) -> (ClientOp, u64, usize) {
        self.next_token += 1;
        let block = if self.copies(n) == [true; 2] { 4 } else { 2 * n };
        let mut data = vec![0; BLOCK_BYTES as usize];
        data[..8].copy_from_slice(&self.next_token.to_le_bytes());
        let payload = Payload::new(data.into());
        let offset = block as u64 * BLOCK_BYTES;
        (ClientOp::Write { offset, payload, fua: false }, self.next_token, block)
    }

    fn read(&mut self, n: usize) -> Result<bool, Violation> {
        if self.role(n) != Role::Primary {
            return Ok(false);
        }
        let copies = self.copies(n);
        let source = if copies[n] { n } else { 1 - n };
        match self.pair.request(n, ClientOp::Read(ByteRange::new(4 * BLOCK_BYTES, 512)))? {
            Ok(data) if data[..8] == self.pair.contents(source)[4].to_le_bytes() => {}
            Ok(_) => return Err("a read returned something else".into()),
            Err(_) => return Ok(false),
        }
        self.served(n, copies);
        Ok(true)
    }

    fn flush(&mut self, n: usize) -> Result<bool, Violation> {
        let copies = self.copies(n);
        if self.role(n) != Role::Primary || self.pair.request(n, ClientOp::Flush)?.is_err() {
            return Ok(false);
        }
        self.served(n, copies);
        Ok(true)
    }

    /// The first request that a Primary alone answers decides for its copy, as the first write does.
    fn served(&mut self, n: usize, copies: [bool; 2]) {
        let alone = copies == [n == 0, n == 1];
        if alone && !self.truth.reigned[n] {
            self.truth.goes_on(n, copies);
            self.truth.reigned[n] = true;
        }
    }

    // Roles.

    fn promote(&mut self, n: usize, force: bool) -> Result<bool, Violation> {
        let before = self.before()?;
        if before.roles[n] == Role::Primary {
            return Ok(false);
        }
        let good = self.disk(n) == DiskState::UpToDate;
        let alone = !self.connected() || !before.disks[1 - n];
        if self.pair.command(n, Command::Primary { force })?.is_err() {
            return Ok(false);
        }
        if !force && alone && self.truth.mixed[n] {
            return Err(format!("node {n} was promoted in the middle of a resync"));
        }
        // Whoever is promoted may keep what it has.
        self.truth.owed = self.truth.owed.filter(|owed| *owed == n);
        if force && !good {
            self.truth.forced(n);
            let before = Before { relation: self.truth.relation(), truth: self.truth.clone(), ..before };
            self.met(&before)?;
        } else if good && alone && self.truth.crashed[n] {
            // Between two copies that look alike, the administrator has decided for this one.
            self.truth.goes_on(n, [n == 0, n == 1]);
            self.truth.reigned[n] = true;
        }
        Ok(true)
    }

    fn demote(&mut self, n: usize) -> Result<bool, Violation> {
        if self.role(n) != Role::Primary || self.pair.command(n, Command::Secondary)?.is_err() {
            return Ok(false);
        }
        self.truth.reigned[n] = false;
        Ok(true)
    }

    // Disks, deaths, and the link.

    fn detach(&mut self, n: usize) -> Result<bool, Violation> {
        let (primary, done) = (
            self.role(n) == Role::Primary,
            self.has_disk(n) && self.pair.command(n, Command::Detach)?.is_ok(),
        );
        if primary && done {
            // From here on it works with the other's copy, and that has a generation of its own.
            self.truth.goes_on(n, [n == 1, n == 0]);
            // What its own disk is used for later begins anew.
            self.truth.reigned[n] = false;
        }
        Ok(done)
    }

    fn attach(&mut self, n: usize) -> Result<bool, Violation> {
        let before = self.before()?;
        if before.disks[n] || self.pair.attach(n)?.is_err() {
            return Ok(false);
        }
        self.met(&Before { disks: [0, 1].map(|n| self.has_disk(n)), ..before })?;
        Ok(true)
    }

    fn disconnect(&mut self, n: usize) -> Result<bool, Violation> {
        Ok(self.pair.command(n, Command::Disconnect)?.is_ok())
    }

    fn crash(&mut self, n: usize) -> Result<bool, Violation> {
        self.pair.crash(n)?;
        self.died(n);
        Ok(true)
    }

    fn died(&mut self, n: usize) {
        self.truth.crashed[n] |= std::mem::take(&mut self.truth.reigned[n]);
    }

    fn crash_in_flight(&mut self, n: usize, here: bool, there: bool) -> Result<bool, Violation> {
        let copies = self.copies(n);
        if self.role(n) != Role::Primary || !copies[n] || there && copies != [true; 2] {
            return Ok(false);
        }
        let (op, ..) = self.next_write(n);
        self.pair.write_in_flight(n, op, here, there)?;
        self.pair.crash(n)?;
        if copies != [true; 2] {
            self.truth.goes_on(n, copies);
        } else if self.protocol == Protocol::A && here && !there {
            self.truth.owed = Some(n);
        }
        self.truth.reigned[n] = true;
        self.died(n);
        Ok(true)
    }

    fn cut(&mut self) -> Result<bool, Violation> {
        self.pair.cut_link()?;
        Ok(true)
    }

    /// The write completes without the peer, which may have it, or not.
    fn cut_in_flight(&mut self, n: usize, there: bool) -> Result<bool, Violation> {
        if self.role(n) != Role::Primary || self.copies(n) != [true; 2] {
            return Ok(false);
        }
        let (op, ..) = self.next_write(n);
        self.pair.write_in_flight(n, op, true, there)?;
        self.pair.cut_link()?;
        self.truth.goes_on(n, [n == 0, n == 1]);
        self.truth.reigned[n] = true;
        Ok(true)
    }

    fn connect(&mut self) -> Result<bool, Violation> {
        if self.connected() {
            return Ok(false);
        }
        let before = self.before()?;
        self.pair.connect(None, None)?;
        if self.pair.seen.rules.is_empty() {
            return Err("the nodes do not meet".into());
        }
        self.met(&before)?;
        Ok(true)
    }

    fn connect_until(&mut self, point: Point) -> Result<bool, Violation> {
        if self.connected() {
            return Ok(false);
        }
        let before = self.before()?;
        self.pair.connect(Some(point), None)?;
        if !self.pair.seen.cut {
            return Ok(false);
        }
        self.interrupted(&before)?;
        Ok(true)
    }

    /// Only a node that stands alone can be told to connect.
    fn may_wish(&self, n: usize) -> bool {
        !self.connected() && self.stands_alone()[n] && self.role(n) == Role::Secondary
    }

    fn discard(&mut self, n: usize) -> Result<bool, Violation> {
        if !self.may_wish(n) {
            return Ok(false);
        }
        let before = Before { loser: Some(n), ..self.before()? };
        self.pair.connect(None, Some(Wish { node: n, tentative: false }))?;
        self.met(&before)?;
        Ok(true)
    }

    /// Whatever the answer: nothing changes.
    fn ask(&mut self, n: usize) -> Result<bool, Violation> {
        if !self.may_wish(n) {
            return Ok(false);
        }
        let before = self.before()?;
        let generations = self.generations();
        self.pair.connect(None, Some(Wish { node: n, tentative: true }))?;
        let contents = [self.pair.contents(0), self.pair.contents(1)];
        let unchanged = contents == before.contents && generations == self.generations();
        if !unchanged || self.connected() || !self.stands_alone()[n] || self.stands_alone()[1 - n] {
            return Err(self.wrong(&before, Due::Nothing));
        }
        Ok(true)
    }

    // What must hold.

    /// What must come of a meeting.
    fn due(&self, before: &Before) -> Due {
        if before.disks != [true; 2] {
            return Due::Diskless;
        }
        let primary = |n: usize| before.roles[n] == Role::Primary;
        // A Primary whose disk has just come has shown its clients the other's data.
        if let Some(n) = (0..2).find(|n| primary(*n) && !before.exposed[*n]) {
            return Due::Sync([n == 1, n == 0]);
        }
        let sync = |winner: usize| match primary(1 - winner) && !before.truth.mixed[1 - winner] {
            true => Due::Refusal("primar"),
            false => Due::Sync([winner == 0, winner == 1]),
        };
        match (before.truth.mixed, before.loser) {
            ([true, false], _) => return sync(1),
            ([false, true], _) => return sync(0),
            // The newer data may be given up, too; data that never was cannot win.
            (_, Some(loser)) if before.gives_up_something(loser) => return sync(1 - loser),
            _ => {}
        }
        match before.relation {
            Relation::BothFresh => Due::Nothing,
            Relation::Unrelated => Due::Refusal("Unrelated"),
            Relation::Diverged => Due::Refusal("Split-Brain"),
            Relation::Newer(n) => sync(n),
            Relation::Equal => match ([primary(0), primary(1)], before.truth.owed) {
                ([true, true], _) => Due::Refusal("primar"),
                ([true, false], _) => sync(0),
                ([false, true], _) => sync(1),
                (_, Some(n)) => sync(n),
                _ => Due::Sync([true; 2]),
            },
        }
    }

    /// The nodes have met, and all that follows has come to its end.
    fn met(&mut self, before: &Before) -> Result<(), Violation> {
        if self.pair.seen.rules.is_empty() {
            // They cannot meet: the link is down, or one does not want to.
            return Ok(());
        }
        let due = self.due(before);
        let now = [self.pair.contents(0), self.pair.contents(1)];
        match due {
            Due::Sync(allowed) => self.check_sync(before, allowed, now)?,
            Due::Nothing if self.connected() && now == before.contents => {}
            Due::Refusal(word) if self.refused_with(word) && now == before.contents => {}
            Due::Diskless if now == before.contents => {}
            _ => return Err(self.wrong(before, due)),
        }
        Ok(())
    }

    fn check_sync(
        &mut self,
        before: &Before,
        allowed: [bool; 2],
        now: [Contents; 2],
    ) -> Result<(), Violation> {
        let due = Due::Sync(allowed);
        let good = (0..2).all(|n| {
            let status = self.pair.status(n);
            let peer = &status.peers[0];
            peer.replication == ReplicationState::Established
                && (status.disk, peer.disk) == (DiskState::UpToDate, DiskState::UpToDate)
                && peer.out_of_sync_bytes == 0
        });
        let winner = (0..2).find(|n| allowed[*n] && now == [before.contents[*n]; 2]);
        let Some(winner) = winner.filter(|_| good) else { return Err(self.wrong(before, due)) };
        self.check_amount(before, winner)?;
        self.truth.taken_over(1 - winner);
        self.truth.in_sync();
        Ok(())
    }

    /// What the bitmaps tell is enough, unless a copy is new.
    fn check_amount(&self, before: &Before, winner: usize) -> Result<(), Violation> {
        let superfluous = self.pair.seen.blocks & !before.known;
        if superfluous != 0 && !before.truth.is_fresh(1 - winner) {
            return Err(format!("blocks {superfluous:#b} were sent, {:#b} were marked", before.known));
        }
        Ok(())
    }

    /// The link was cut in the middle: whatever was changed had to be changed.
    fn interrupted(&mut self, before: &Before) -> Result<(), Violation> {
        let due = self.due(before);
        let now = [self.pair.contents(0), self.pair.contents(1)];
        let seen = self.pair.seen.clone();
        for n in (0..2).filter(|n| now[*n] != before.contents[*n]) {
            let may_be_target = matches!(due, Due::Sync(allowed) if allowed[1 - n]);
            if !may_be_target || seen.target != Some(n) {
                return Err(self.wrong(before, due));
            }
        }
        if let Some(target) = seen.target {
            self.check_amount(before, 1 - target)?;
            self.truth.mixed[target] = true;
        }
        // A target that has everything is complete; nobody need have heard it say so.
        let complete = seen.chosen.filter(|n| self.disk(*n) == DiskState::UpToDate);
        if let Some(target) = seen.complete.or(complete) {
            let may_be_target = matches!(due, Due::Sync(allowed) if allowed[1 - target]);
            if !may_be_target || now[target] != before.contents[1 - target] {
                return Err(self.wrong(before, due));
            }
            self.truth.taken_over(target);
        }
        Ok(())
    }

    fn wrong(&self, before: &Before, due: Due) -> Violation {
        let node = |n: usize| {
            let s = self.pair.status(n);
            let p = &s.peers[0];
            format!(
                "node {n}: {} {} {} {} oos:{} {:?} {:?}",
                s.role,
                s.disk,
                p.connection,
                p.replication,
                p.out_of_sync_bytes,
                p.standalone_reason,
                self.pair.contents(n)
            )
        };
        format!(
            "copies {:?}, before: {:?} {:?} {:?}; due: {due:?}; rules {:?}; {}; {}",
            before.relation,
            before.roles,
            before.contents[0],
            before.contents[1],
            self.pair.seen.rules,
            node(0),
            node(1)
        )
    }

    // What the engines say.

    fn before(&self) -> Result<Before, Violation> {
        Ok(Before {
            relation: self.truth.relation(),
            truth: self.truth.clone(),
            contents: [self.pair.contents(0), self.pair.contents(1)],
            roles: [self.role(0), self.role(1)],
            disks: [0, 1].map(|n| self.has_disk(n)),
            exposed: [0, 1].map(|n| self.role(n) == Role::Primary && self.has_disk(n)),
            known: self.pair.known_to(0)? | self.pair.known_to(1)?,
            loser: None,
            consistent: [0, 1].map(|n| self.disk(n) > DiskState::Inconsistent),
        })
    }

    fn generations(&self) -> [tandem_core::generation::Generations; 2] {
        [0, 1].map(|n| self.pair.status(n).generations)
    }

    fn role(&self, n: usize) -> Role {
        self.pair.status(n).role
    }

    fn disk(&self, n: usize) -> DiskState {
        self.pair.status(n).disk
    }

    fn has_disk(&self, n: usize) -> bool {
        self.disk(n) > DiskState::Diskless
    }

    fn connected(&self) -> bool {
        (0..2).all(|n| self.pair.status(n).peers[0].connection == ConnectionState::Connected)
    }

    fn stands_alone(&self) -> [bool; 2] {
        [0, 1].map(|n| self.pair.status(n).peers[0].connection == ConnectionState::StandAlone)
    }

    fn refused_with(&self, word: &str) -> bool {
        self.stands_alone() == [true; 2]
            && (0..2).all(|n| {
                let reason = self.pair.status(n).peers[0].standalone_reason.clone();
                reason.is_some_and(|r| r.contains(word))
            })
    }

    /// The copies that get what this Primary writes.
    fn copies(&self, n: usize) -> [bool; 2] {
        let mut copies = [false; 2];
        copies[n] = self.disk(n) == DiskState::UpToDate;
        copies[1 - n] = self.connected() && self.disk(1 - n) == DiskState::UpToDate;
        copies
    }

    // Telling states apart.

    /// Equal for states from which the same can follow. Identifiers count by where they are found, tokens by whether
    /// the copies differ.
    pub(super) fn fingerprint(&self) -> Result<u64, Violation> {
        let mut hasher = DefaultHasher::new();
        let metadata = [self.pair.metadata(0)?, self.pair.metadata(1)?];
        self.hash_identifiers(&metadata, &mut hasher);
        for (n, m) in metadata.iter().enumerate() {
            let f = m.superblock.flags;
            (f.consistent, f.up_to_date, f.primary, f.crashed_primary, marked(m)).hash(&mut hasher);
            m.superblock.agreed_bytes.hash(&mut hasher);
            let status = self.pair.status(n);
            let peer = &status.peers[0];
            (status.role as u8, status.disk as u8, self.pair.known_to(n)?).hash(&mut hasher);
            (peer.connection as u8, peer.replication as u8, peer.role as u8, peer.disk as u8)
                .hash(&mut hasher);
        }
        let (a, b) = (self.pair.contents(0), self.pair.contents(1));
        let differ: Vec<bool> = a.iter().zip(b).map(|(a, b)| *a != b).collect();
        let t = &self.truth;
        let fresh = [t.is_fresh(0), t.is_fresh(1)];
        (differ, t.relation(), fresh, t.mixed, t.crashed, t.reigned, t.owed).hash(&mut hasher);
        self.pair.link_is_down.hash(&mut hasher);
        Ok(hasher.finish())
    }

    /// Identifiers are only ever compared: two sets of them are alike if the same places hold the same. Former
    /// generations that only one node remembers will never be met again.
    fn hash_identifiers(&self, metadata: &[Metadata; 2], hasher: &mut DefaultHasher) {
        let mut places: std::collections::BTreeMap<u64, u32> = std::collections::BTreeMap::new();
        for (n, m) in metadata.iter().enumerate() {
            let sb = &m.superblock;
            let exposed = self.pair.status(n).generations.current;
            let single = [sb.generations.current, sb.peers[0].bitmap_id, sb.peers[0].resync_id, exposed];
            for (i, id) in single.into_iter().enumerate() {
                *places.entry(id & !1).or_default() |= 1 << (5 * n + i);
            }
            for id in sb.generations.history {
                *places.entry(id & !1).or_default() |= 1 << (5 * n + 4);
            }
        }
        let zero = places.remove(&0);
        let fresh = places.remove(&tandem_core::generation::JUST_CREATED);
        let mut kinds: Vec<u32> = places.into_values().filter(|p| *p != 1 << 4 && *p != 1 << 9).collect();
        kinds.sort_unstable();
        kinds.dedup();
        (zero, fresh, kinds).hash(hasher);
    }
}
