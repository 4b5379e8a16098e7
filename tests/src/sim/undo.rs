//! Undo logs: whatever has become of a target, its log leads back to exactly what it held when the resync began.

use tandem_core::io::{Device, DiskError, DiskOp, DiskOpKind};
use tandem_core::metadata::{self, MetaIo, Metadata, UndoLog};
use tandem_core::units::{ByteRange, NodeId};

use super::disk::{SECTOR, SimDisk, UNDO_BYTES, sectors};
use super::faults::Kind;
use super::oracle::{Violation, undamaged};
use super::resize::MOST_BYTES;
use super::world::World;

/// Where a header tells which log it begins.
const ID: std::ops::Range<usize> = 16..24;

/// The file for undo logs.
struct UndoFile<'a>(&'a mut SimDisk);

impl MetaIo for UndoFile<'_> {
    fn size_bytes(&self) -> u64 {
        UNDO_BYTES as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let range = sectors(ByteRange::new(offset, buffer.len() as u64));
        for (target, source) in buffer.chunks_exact_mut(SECTOR).zip(&self.0.undo.view[range]) {
            target.copy_from_slice(source);
        }
        Ok(())
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), DiskError> {
        Err(DiskError("only the engine writes undo logs".into()))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

impl World {
    /// A log begins: what it will lead back to.
    pub(super) fn note_image(&mut self, n: usize, op: &DiskOp) {
        if let (Device::Undo, DiskOpKind::Write { offset: 0, data, .. }) = (op.device, &op.kind) {
            let mut id = [0; 8];
            id.copy_from_slice(&data[ID]);
            let held = self.nodes[n].disk.tokens().to_vec();
            self.nodes[n].image = Some((u64::from_le_bytes(id), held));
            self.nodes[n].undo_failed = false;
        }
    }

    /// What the driver reads at attach.
    pub(super) fn load_undo_log(&mut self, n: usize, metadata: &Metadata) -> UndoLog {
        let mut file = UndoFile(&mut self.nodes[n].disk);
        let volume_bytes = metadata.volume_bytes();
        metadata::read_undo_log(&mut file, &metadata.superblock, volume_bytes, |_, _| Ok(()))
            .unwrap_or_else(|_| UndoLog::new(0, volume_bytes))
    }

    /// The node is dead. If it was a target, its log must lead back; sometimes it does.
    pub(super) fn check_undo(&mut self, n: usize, power: bool) {
        if let Err(violation) = self.try_undo(n, power) {
            self.broken_undo = Some(violation);
        }
    }

    fn try_undo(&mut self, n: usize, power: bool) -> Result<(), Violation> {
        let probed = self.look_at_metadata(n, |disk, placement, _| metadata::probe(disk, placement));
        let Ok(superblock) = probed else { return Ok(()) };
        if superblock.undo_id == 0 || superblock.flags.consistent || self.split {
            return Ok(());
        }
        let mut records: Vec<(ByteRange, Vec<u8>)> = Vec::new();
        let mut file = UndoFile(&mut self.nodes[n].disk);
        let log = metadata::read_undo_log(&mut file, &superblock, MOST_BYTES, |range, content| {
            records.push((range, content.to_vec()));
            Ok(())
        });
        let held = self.nodes[n].image.clone().filter(|(id, _)| *id == superblock.undo_id);
        // Until another begins, however often the node dies before its disk says that it has none: what a failed write has left
        // in the cache is there after a process has died, and not after a power loss.
        if self.nodes[n].undo_failed && log.is_err() {
            return Ok(());
        }
        self.nodes[n].undo_failed &= !power;
        let (Ok(_), Some((_, held))) = (log, held) else {
            let text = format!("node {n} names an undo log that is not there: {}", self.describe());
            return Err(Violation::new("undo", text));
        };
        let mut back = self.nodes[n].disk.all_tokens().to_vec();
        for (range, content) in &records {
            for (sector, bytes) in sectors(*range).zip(content.chunks_exact(512)) {
                let mut token = [0; 8];
                token.copy_from_slice(&bytes[..8]);
                back[sector] = u64::from_le_bytes(token);
            }
        }
        if let Some(sector) = (0..held.len()).find(|s| undamaged(back[*s]) != undamaged(held[*s])) {
            let text = format!(
                "the undo log of node {n} leads sector {sector} back to {:#x}, it held {:#x}: {}",
                back[sector],
                held[sector],
                self.describe()
            );
            return Err(Violation::new("undo", text));
        }
        if self.healing.is_none() && self.prng.chance(1, 4) {
            self.undo(n, &back, &records)?;
        }
        Ok(())
    }

    /// The administrator gives the source up, too early.
    fn undo(&mut self, n: usize, back: &[u64], records: &[(ByteRange, Vec<u8>)]) -> Result<(), Violation> {
        self.counts.note(Kind::Undone);
        self.trace(Some(n), "undone", || format!("{} pieces", records.len()));
        let ranges: Vec<ByteRange> = records.iter().map(|(range, _)| *range).collect();
        let disk = &mut self.nodes[n].disk;
        for sector in ranges.iter().flat_map(|range| sectors(*range)) {
            disk.rot(sector, back[sector]);
        }
        self.look_at_metadata(n, |disk, placement, bytes| {
            metadata::undone(disk, placement, bytes, NodeId(n as u8), &ranges)
        })
        .map_err(|e| Violation::new("undo", format!("node {n} cannot note that it went back: {e}")))?;
        self.nodes[n].bits = None;
        self.nodes[n].mixed = false;
        self.oracle.disk_replaced(n);
        Ok(())
    }
}
