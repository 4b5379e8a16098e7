//! A temporary folder with daemons in it, both gone at the end, whatever the end is.
//!
//! A guard process holds the other end of a pipe. When this program ends, by return, panic, Ctrl-C or SIGKILL, the
//! pipe breaks and the guard cleans up. No signal is caught or blocked: the daemons would inherit that.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkdtemp};

use crate::process::Result;

/// A killed process is gone within this time, or the machine is in trouble.
const GONE_LIMIT: Duration = Duration::from_secs(10);
/// Tells the guard to leave everything as it is.
const KEEP: u8 = b'k';

/// The folder. When it is dropped, or this program ends without doing so, every process whose environment names the
/// folder in `TANDEM_RUN_DIR` is killed, and the folder is removed.
pub(crate) struct Sandbox {
    path: PathBuf,
    guard: Child,
}

impl Sandbox {
    /// A new folder, guarded.
    pub(crate) fn new() -> Result<Sandbox> {
        let path = mkdtemp(&std::env::temp_dir().join("tandem-xtask-XXXXXX"))?;
        let guard = Command::new(std::env::current_exe()?)
            .arg("guard")
            .arg(&path)
            .stdin(Stdio::piped())
            // A group of its own: the terminal's Ctrl-C does not reach it.
            .process_group(0)
            .spawn()?;
        Ok(Sandbox { path, guard })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves everything as it is.
    pub(crate) fn keep(mut self) -> Result<()> {
        if let Some(pipe) = &mut self.guard.stdin {
            pipe.write_all(&[KEEP])?;
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        if let Err(error) = self.guard.wait() {
            eprintln!("xtask: waiting for the guard: {error}");
        }
    }
}

/// What the guard process does: waits until the pipe breaks, then cleans up, unless it was told not to.
pub(crate) fn guard(mut pipe: impl Read, path: &Path) -> Result<()> {
    let mut said = Vec::new();
    pipe.read_to_end(&mut said)?;
    if said == [KEEP] {
        return Ok(());
    }
    // Again and again: what was being started when the first look was taken shows up in the next.
    loop {
        let found = inhabitants(path);
        if found.is_empty() {
            break;
        }
        for pid in found {
            kill_and_wait(pid)?;
        }
    }
    Ok(std::fs::remove_dir_all(path)?)
}

/// Sends SIGKILL and waits until the process is gone, or only a zombie is left of it.
pub(crate) fn kill_and_wait(pid: Pid) -> Result<()> {
    // It may have ended by itself.
    let _ = kill(pid, Signal::SIGKILL);
    let start = Instant::now();
    while is_running(pid) {
        if start.elapsed() > GONE_LIMIT {
            return Err(format!("process {pid} survives SIGKILL").into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Processes that were started with a runtime folder inside this one.
fn inhabitants(path: &Path) -> Vec<Pid> {
    let wanted = format!("TANDEM_RUN_DIR={}/", path.display());
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|p| p.file_name().to_str()?.parse().ok());
    let lives_there = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable.starts_with(wanted.as_bytes()))
    };
    pids.filter(lives_there).map(Pid::from_raw).collect()
}

fn is_running(pid: Pid) -> bool {
    // The state is the first field after the name, which ends with the last parenthesis.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        mkdtemp(&std::env::temp_dir().join("tandem-guard-XXXXXX")).unwrap()
    }

    #[test]
    fn a_broken_pipe_takes_folder_and_processes_along() {
        let path = folder();
        let mut child =
            Command::new("sleep").arg("600").env("TANDEM_RUN_DIR", path.join("alpha")).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        // The environment is the new program's once it has been executed.
        while inhabitants(&path) != [pid] {
            thread::yield_now();
        }
        guard(std::io::empty(), &path).unwrap();
        assert!(!is_running(pid));
        assert!(!path.exists());
        child.wait().unwrap();
    }

    #[test]
    fn what_is_to_be_kept_is_kept() {
        let path = folder();
        guard(&[KEEP][..], &path).unwrap();
        assert!(path.exists());
        std::fs::remove_dir(path).unwrap();
    }
}
