//! Logs in the runtime folder, which is memory: each keeps what was said last, and no more than that.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Twice this, with what was said before.
const MAX_BYTES: u64 = 1 << 20;

/// Puts aside what a log says once it is long, over what was put aside before. Whoever writes to it appends, and goes on.
pub fn bound(log: &Path) -> io::Result<()> {
    if fs::metadata(log).map_or(0, |log| log.len()) <= MAX_BYTES {
        return Ok(());
    }
    fs::copy(log, log.with_extension("log.old"))?;
    File::options().write(true).open(log)?.set_len(0)
}

/// The same for every log in a folder.
pub fn bound_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            bound(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_keeps_what_was_said_last_and_no_more() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-logs-XXXXXX")).unwrap();
        let log = folder.join("nfs.keep.log");
        let mut writer = File::options().create(true).append(true).open(&log).unwrap();
        let line = [b'x'; 1 << 16];
        for _ in 0..100 {
            writer.write_all(&line).unwrap();
            bound_all(&folder).unwrap();
            let sizes =
                [&log, &folder.join("nfs.keep.log.old")].map(|f| fs::metadata(f).map_or(0, |f| f.len()));
            assert!(sizes[0] > 0 || sizes[1] > MAX_BYTES, "{sizes:?}");
            assert!(sizes.iter().sum::<u64>() <= 2 * MAX_BYTES + line.len() as u64, "{sizes:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
