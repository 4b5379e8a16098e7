//! The block device of the Primary.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Scene;
use crate::plan::{Step, Trouble, Turn};
use crate::system::filesystem;
use crate::tandem;

const LIMIT: Duration = Duration::from_secs(10);

/// Waits until the device is there, with the size of the volume.
pub(super) struct Device(pub(super) Arc<Scene>);

impl Step for Device {
    fn name(&self) -> &'static str {
        "device"
    }

    fn intention(&self) -> String {
        format!("wait for the block device of {} and compare its size", self.0.service.resource)
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        look(&self.0)
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let mut last = Ok(None);
        turn.until(|| {
            last = look(&self.0);
            last.as_ref().ok().cloned().flatten()
        })
        .ok_or_else(|| match last {
            Err(trouble) => trouble,
            Ok(_) => Trouble::new("the device does not appear; look at tandemd's log"),
        })
    }
}

/// Its name and size, if both are right.
fn look(scene: &Scene) -> Result<Option<String>, Trouble> {
    let status = tandem::status(&scene.here, &scene.service.resource)?;
    let size_bytes = status.volumes().first().map_or(0, |(_, volume)| volume.size_bytes);
    let device = status.spec.volume.device;
    // A device that is just being attached is not there, or is empty.
    match filesystem::size(&device) {
        Ok(bytes) if bytes == size_bytes => {
            let shown = format!("{} of {bytes} bytes", device.display());
            scene.found().device = Some(device);
            Ok(Some(shown))
        }
        Ok(0) | Err(_) => Ok(None),
        Ok(bytes) => {
            let (shown, wanted) = (device.display(), size_bytes);
            Err(Trouble::new(format!(
                "{shown} has {bytes} bytes and the volume {wanted}: it is another device"
            )))
        }
    }
}

/// The one that was found to be the volume in this plan.
pub(super) fn found(scene: &Scene) -> Result<PathBuf, Trouble> {
    let known = scene.found().device.clone();
    known.map_or_else(|| path(scene), Ok)
}

/// Its name.
pub(super) fn path(scene: &Scene) -> Result<PathBuf, Trouble> {
    Ok(tandem::status(&scene.here, &scene.service.resource)?.spec.volume.device)
}
