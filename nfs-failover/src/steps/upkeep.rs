//! What may be lost of a service while it is up, other than its server: the volume's mount, its addresses, and the process
//! that keeps the list of clients. Whoever takes an address off an interface, as a restart of the network does, takes the
//! clients along.

use std::sync::Arc;
use std::time::Duration;

use super::keep::Keep;
use super::{Scene, address, keep};
use crate::here::State;
use crate::plan::{Cancel, SMALL_LIMIT, Step, Trouble, Turn};
use crate::system::mounts;
use tandem_control::output::outln;

/// Puts back what can be put back of a service that is up; what cannot is the trouble.
pub fn tend(scene: &Arc<Scene>) -> Result<(), Trouble> {
    if is_whole(scene)? {
        return Ok(());
    }
    // A plan that is under way takes it away, or brings it.
    let Ok(_lock) = scene.here.lock(&scene.service.name, Duration::ZERO) else { return Ok(()) };
    if scene.here.standing(&scene.service.name).state != State::Primary {
        return Ok(());
    }
    expect_mounted(scene)?;
    if keep::serves(scene) && !address::all_here(&scene.service)? {
        put_back(scene)?;
    }
    let keeper = Keep(Arc::clone(scene));
    if keeper.check()?.is_none() {
        outln!("{}: saving the list of clients again: {}", scene.service.name, keeper.act(&turn())?);
    }
    Ok(())
}

fn is_whole(scene: &Arc<Scene>) -> Result<bool, Trouble> {
    let is_mounted = mounts::at(&scene.service.mount.point)?.is_some();
    Ok(is_mounted && address::all_here(&scene.service)? && Keep(Arc::clone(scene)).check()?.is_some())
}

fn expect_mounted(scene: &Scene) -> Result<(), Trouble> {
    let point = &scene.service.mount.point;
    match mounts::at(point)? {
        Some(_) => Ok(()),
        None => Err(Trouble::new(format!("the volume is not mounted on {} any more", point.display()))),
    }
}

/// As at a promotion: nobody else may have them.
fn put_back(scene: &Arc<Scene>) -> Result<(), Trouble> {
    let lost = |Trouble { message, .. }| Trouble::new(format!("an address was taken away here: {message}"));
    let turn = turn();
    address::Ask(Arc::clone(scene)).act(&turn).map_err(lost)?;
    let said = address::Add(Arc::clone(scene)).act(&turn).map_err(lost)?;
    outln!("{}: an address was taken away here, and is put back: {said}", scene.service.name);
    Ok(())
}

fn turn() -> Turn {
    Turn::new(SMALL_LIMIT, Cancel::default())
}
