//! What a decision about a split brain has overwritten is put back: through the device, as any client would write it, so
//! that both nodes get it.

use std::path::Path;

use tandem_control::ResourceSpec;
use tandem_core::layout::Layout;
use tandem_core::state::{ConnectionState, Role};
use tandem_core::status::Status;
use tandem_core::units::ByteRange;

use super::split_brain::ShownSave;
use crate::bar::Bar;
use crate::divergence_text::size;
use crate::failure::Failure;
use crate::nbd::Space;
use crate::output::{errln, outln};
use crate::saved_blocks::{self, Header, SavedError};
use crate::session::Session;

/// With `save`, what the device holds in these places is saved first.
pub(super) fn restore(
    session: &Session,
    spec: &ResourceSpec,
    file: &Path,
    save: Option<&Path>,
) -> Result<(), Failure> {
    let name = &spec.name;
    let mut pieces: Vec<ByteRange> = Vec::new();
    let header = saved_blocks::for_each_piece::<SavedError>(file, |range, _| {
        pieces.push(range);
        Ok(())
    })
    .inspect_err(|_| errln!("{name}: nothing was changed"))?;
    outln!(
        "{name}: {} holds {} of {}, as {} had it in generation {:016X}",
        file.display(),
        size(header.data_bytes),
        header.resource,
        node_name(spec, &header),
        header.generation
    );
    let resource = session.require_status(name)?;
    let status = &resource.engine;
    check_that_it_fits(spec, file, &header, status, &resource.layout())?;
    check_that_it_may_be_written(spec, status)?;
    if session.dry_run {
        outln!("{name}: {} would be written to the device; nothing was changed", size(header.data_bytes));
        return Ok(());
    }
    let mut device = Space::open(&session.run.nbd_socket(), &resource)
        .map_err(|e| Failure::System("opening the device", e))?;
    let openers = session.require_status(name)?.engine.openers;
    if openers.len() > device.count() {
        let text = format!(
            "the device is in use: {}. What uses it would not notice that its data changes: stop it, and try again",
            openers.join(", ")
        );
        return Err(Failure::NotResolved(text));
    }
    if let Some(path) = save {
        let now = Header { generation: status.generations.current, node: spec.node.id, ..header.clone() };
        let mut shown = ShownSave::new(session.bars, name, &pieces);
        let read = |range| {
            shown.read(range);
            device.read(range).map_err(|e| Failure::System("reading the device", e))
        };
        let saved = saved_blocks::save(path, &now, &pieces, read)?;
        outln!("{name}: {} saved in {}, and verified", size(saved.data_bytes), path.display());
    }
    write(session, &mut device, file, &header).inspect_err(|_| {
        errln!(
            "{name}: not everything was restored. {} is unchanged: run the same command again",
            file.display()
        );
    })?;
    outln!("{name}: {} restored, here and on every connected peer", size(header.data_bytes));
    outln!(
        "{name}: what was written elsewhere since stays. If the device was used since, a filesystem on it is a mixture: check it \
         before it is mounted"
    );
    Ok(())
}

fn check_that_it_fits(
    spec: &ResourceSpec,
    file: &Path,
    header: &Header,
    status: &Status,
    layout: &Layout,
) -> Result<(), Failure> {
    if header.resource != spec.name {
        let (of, path) = (&header.resource, file.display());
        return Err(Failure::NotResolved(format!("{path} was saved from {of}, not from {}", spec.name)));
    }
    if !header.layout.begins(layout) {
        let text = format!(
            "the volumes are not those that {} was saved from: what is in it belongs elsewhere",
            file.display()
        );
        return Err(Failure::NotResolved(text));
    }
    if status.size_bytes < header.volume_bytes {
        let text = format!(
            "the device has {} bytes, and had {} when {} was saved: it does not fit",
            status.size_bytes,
            header.volume_bytes,
            file.display()
        );
        return Err(Failure::NotResolved(text));
    }
    Ok(())
}

fn check_that_it_may_be_written(spec: &ResourceSpec, status: &Status) -> Result<(), Failure> {
    let (name, own) = (&spec.name, &spec.node.name);
    if status.role != Role::Primary {
        return Err(Failure::NotResolved(format!(
            "{own} is {}: run 'tandemadm primary {name}' first, or restore on the node that is Primary",
            status.role
        )));
    }
    for peer in &status.peers {
        match peer.connection {
            ConnectionState::Connected => (),
            // It would go on as it is, and each of the two in its own way.
            ConnectionState::StandAlone => {
                let reason = peer.standalone_reason.clone().unwrap_or_default();
                return Err(Failure::NotResolved(format!(
                    "{} stands alone towards {} ({reason}): bring them together first, so that both get what is restored",
                    own, peer.name
                )));
            }
            _ => {
                errln!("{name}: {} is not connected: it gets what is restored when it comes back", peer.name)
            }
        }
    }
    Ok(())
}

fn write(session: &Session, device: &mut Space, file: &Path, header: &Header) -> Result<(), Failure> {
    let failed = |e| Failure::System("writing to the device", e);
    let (mut bar, mut done) = (Bar::new(session.bars), 0);
    saved_blocks::for_each_piece(file, |range, data| {
        done += range.length;
        bar.draw_work(&format!("{}: restoring", header.resource), done, header.data_bytes);
        device.write(range.offset, data).map_err(failed)
    })?;
    device.flush().map_err(failed)
}

fn node_name(spec: &ResourceSpec, header: &Header) -> String {
    let mut nodes = std::iter::once(&spec.node).chain(&spec.peers);
    let known = nodes.find(|node| node.id == header.node).map(|node| node.name.clone());
    known.unwrap_or_else(|| format!("node {}", header.node))
}

#[cfg(test)]
mod tests {
    use tandem_core::layout::VolumeSize;

    use super::*;

    fn layout(volumes: &[(u16, u64)]) -> Layout {
        let sizes = volumes.iter().map(|&(number, mib)| VolumeSize { number, bytes: mib << 20 });
        Layout::new(sizes.collect()).unwrap()
    }

    #[test]
    fn a_volume_that_begins_elsewhere_gets_nothing_of_another() {
        let then = layout(&[(0, 4), (1, 8)]);
        for (now, fits) in [
            (then.clone(), true),
            (layout(&[(0, 4), (1, 9)]), true),
            (layout(&[(0, 5), (1, 8)]), false),
            (layout(&[(0, 4), (1, 7)]), false),
            (layout(&[(0, 4), (2, 8)]), false),
            (layout(&[(0, 4), (1, 8), (2, 8)]), false),
            (Layout::default(), false),
        ] {
            assert_eq!(then.begins(&now), fits, "{now:?}");
        }
        assert!(Layout::default().begins(&Layout::default()));
    }
}
