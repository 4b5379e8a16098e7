//! The device: a loop device over the served file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Export;
use crate::backend::Backend;
use crate::line::Line;
use crate::loop_device::LoopDevice;

/// A served file with a loop device over it.
pub(crate) struct FuseDevice {
    pub(crate) line: Arc<Line>,
    pub(crate) export: Export,
    pub(crate) device: LoopDevice,
}

impl Backend for FuseDevice {
    fn driver(&self) -> &'static str {
        "fuse"
    }

    fn node(&self) -> &Path {
        self.device.node()
    }

    fn size_bytes(&self) -> u64 {
        self.line.size_bytes()
    }

    fn condition(&self) -> (bool, usize, bool) {
        self.line.condition()
    }

    fn resize(&self) -> io::Result<()> {
        let size_bytes = self.line.look_at_size()?;
        if self.export.look_at_size()? != size_bytes {
            return Err(io::Error::other("the kernel does not see the new size"));
        }
        self.device.resize()
    }

    fn fail(&self) {
        self.line.fail();
    }

    fn remove(&self, claim: File) -> io::Result<()> {
        self.device.remove(claim)?;
        self.line.close();
        Ok(())
    }
}
