//! What must be on the volume: the state that moves with it, and the exported folders.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Scene, server};
use crate::config::Service;
use crate::plan::{Step, Trouble, Turn, trouble};

const LIMIT: Duration = Duration::from_secs(10);

/// Makes the state's folders, and sees that every exported folder lies on the volume.
pub(super) struct Folders(pub(super) Arc<Scene>);

impl Step for Folders {
    fn name(&self) -> &'static str {
        "folders"
    }

    fn intention(&self) -> String {
        format!("see that {} and the exports are on the volume", self.0.service.state.display())
    }

    fn limit(&self) -> Duration {
        LIMIT
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let service = &self.0.service;
        for folder in server::STATE_FOLDERS {
            let folder = service.state.join(folder);
            fs::create_dir_all(&folder).map_err(trouble(folder.display()))?;
        }
        expect(service)?;
        Ok(format!("{} exports", service.exports.len()))
    }
}

/// The state and every exported folder lie on the volume.
pub(super) fn expect(service: &Service) -> Result<(), Trouble> {
    let volume = device_of(&service.mount.point)?;
    for path in service.exports.iter().map(|export| export.path.as_path()).chain([service.state.as_path()]) {
        if device_of(path)? != volume {
            let (path, point) = (path.display(), service.mount.point.display());
            return Err(Trouble::new(format!("{path} is not on the volume mounted on {point}")));
        }
    }
    Ok(())
}

fn device_of(path: &Path) -> Result<u64, Trouble> {
    let metadata = fs::metadata(path).map_err(trouble(format_args!("{}", path.display())))?;
    match metadata.is_dir() {
        true => Ok(metadata.dev()),
        false => Err(Trouble::new(format!("{} is no folder", path.display()))),
    }
}
