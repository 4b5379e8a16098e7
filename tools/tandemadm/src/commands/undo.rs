//! `resync-undo`: a target whose source is lost goes back to what it was before the resync.

use std::fs::File;
use std::path::Path;

use tandem_control::ResourceSpec;
use tandem_core::metadata::{self, MetaIo};

use crate::bar::Bar;
use crate::device::{Access, Device, Target};
use crate::failure::Failure;
use crate::output::outln;
use crate::session::Session;

pub(crate) fn resync_undo(session: &Session, specs: &[ResourceSpec], force: bool) -> u8 {
    session.for_each("resync-undo", specs, |spec| {
        let name = &spec.name;
        let Some(path) = &spec.undo_log else {
            let text = format!("{name} keeps no undo log: there is no 'disk {{ resync-undo FILE; }}'.");
            return Err(Failure::Config(text, 10));
        };
        if session.find_status(name)?.is_some() {
            let text = format!("{name} is up: run 'tandemadm down {name}' first. A peer that can be reached need not be undone.");
            return Err(Failure::Config(text, 11));
        }
        if session.dry_run {
            outln!("resync-undo {} from {}", spec.volume.disk.display(), path.display());
            return Ok(());
        }
        put_back(session, spec, path, force)
    })
}

fn put_back(session: &Session, spec: &ResourceSpec, path: &Path, force: bool) -> Result<(), Failure> {
    let mut target = Target::open_all(spec, Access::Exclusive)?;
    let (placement, backing_bytes, node) = (target.placement(), target.data.size_bytes(), spec.node.id);
    let what = format!("{}: resync-undo", spec.name);
    let mut loaded = metadata::load(&mut target.shown(session, &what), placement, backing_bytes, node)?;
    target.check(spec, &mut loaded)?;
    let (superblock, volume_bytes) = (&loaded.superblock, loaded.volume_bytes());
    if superblock.flags.consistent || superblock.undo_id == 0 {
        let text = "there is nothing to undo: the data is no target's of a resync that was interrupted, or was given up since.";
        return Err(Failure::Config(text.into(), 11));
    }
    let mut log = Device::open(path, Access::Exclusive)?;
    let mut ranges = Vec::new();
    metadata::read_undo_log(&mut log, superblock, volume_bytes, |range, _| {
        ranges.push(range);
        Ok(())
    })?;
    if !force {
        session.confirm(&format!(
            "{} goes back to generation {:016X}, as it was before the resync; what was received since is lost here.",
            spec.name, superblock.generations.current
        ))?;
    }
    let bytes = ranges.iter().map(|range| range.length).sum::<u64>();
    let (mut bar, mut done) = (Bar::new(session.bars), 0);
    metadata::read_undo_log(&mut log, superblock, volume_bytes, |range, content| {
        done += range.length;
        bar.draw_work(&what, done, bytes);
        Ok(target.write_space(&superblock.layout, range.offset, content)?)
    })?;
    bar.draw_wait(&format!("{what}: making it durable"));
    target.flush_data()?;
    drop(bar);
    metadata::undone(&mut target.shown(session, &what), placement, backing_bytes, node, &ranges)?;
    drop(log);
    let emptied = File::options().write(true).open(path).and_then(|file| file.set_len(0));
    emptied.map_err(|e| Failure::System("emptying the undo log", e))?;
    let kib = bytes / 1024;
    outln!("{kib} KiB were put back. The data is Outdated: 'tandemadm primary --force' takes it into use.");
    Ok(())
}
