//! What makes a block device of the export.

use std::fs::File;
use std::io;
use std::path::Path;

/// A device that is there.
pub(crate) trait Backend: Send + Sync {
    /// How it is made, in the configuration's words.
    fn driver(&self) -> &'static str;

    /// What the kernel calls it.
    fn node(&self) -> &Path;

    /// Bytes.
    fn size_bytes(&self) -> u64;

    /// Whether tandemd serves us, how many requests wait, and whether every request fails.
    fn condition(&self) -> (bool, usize, bool);

    /// Becomes as large as the export, if that has grown.
    fn resize(&self) -> io::Result<()>;

    /// Fails every request from now on, those that wait included. When this returns, nothing more is sent.
    fn fail(&self);

    /// Gives the device up, once nobody but `claim` has it open.
    fn remove(&self, claim: File) -> io::Result<()>;
}
