//! Processes that outlive whoever started them: known by their number and by when they began, since numbers come again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::plan::{Cancel, Trouble, Turn, trouble};

/// A process with SIGKILL is gone after this, or hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    pid: i32,
    /// In ticks since the machine was switched on.
    began: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        let (_, began) = stat(pid)?;
        Some(Self { pid, began })
    }

    /// Its number.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs. Those that only wait for somebody to ask how they ended do not.
    pub fn is_running(self) -> bool {
        stat(self.pid).is_some_and(|(state, began)| began == self.began && !matches!(state, 'Z' | 'X'))
    }

    /// Whether that is its program's name.
    pub fn is_called(self, name: &str) -> bool {
        fs::read_to_string(format!("/proc/{}/comm", self.pid)).is_ok_and(|comm| comm.trim_end() == name)
    }

    /// Whether it has a file of this name open.
    pub fn has_open(self, name: &str) -> bool {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == name)
    }

    /// Sends a signal; that it is gone is fine.
    pub fn signal(self, signal: Signal) -> Result<(), Trouble> {
        match kill(Pid::from_raw(self.pid), signal).err().filter(|_| self.is_running()) {
            None | Some(Errno::ESRCH) => Ok(()),
            Some(error) => Err(trouble(format_args!("cannot signal process {}", self.pid))(error)),
        }
    }

    /// Ends it: asks, waits so long, and kills.
    pub fn stop(self, patience: Duration) -> Result<(), Trouble> {
        let gone = |limit| {
            Turn::new(limit, Cancel::default()).until(|| (!self.is_running()).then_some(())).is_some()
        };
        if !self.is_running() {
            return Ok(());
        }
        self.signal(Signal::SIGTERM)?;
        if gone(patience) {
            return Ok(());
        }
        self.signal(Signal::SIGKILL)?;
        match gone(KILL_LIMIT) {
            true => Ok(()),
            false => {
                Err(Trouble::new(format!("process {} survives SIGKILL: it hangs in the kernel", self.pid)))
            }
        }
    }

    /// Notes it in a file.
    pub fn save(self, path: &Path) -> Result<(), Trouble> {
        fs::write(path, self.to_line()).map_err(trouble(path.display()))
    }

    /// The process noted in a file, if it still runs.
    pub fn saved(path: &Path) -> Option<Self> {
        Self::of_line(&fs::read_to_string(path).ok()?).filter(|process| process.is_running())
    }

    /// As a line of a file.
    pub fn to_line(self) -> String {
        format!("{} {}\n", self.pid, self.began)
    }

    /// The process of such a line, whether it still runs or not.
    pub fn of_line(line: &str) -> Option<Self> {
        let (pid, began) = line.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, began: began.parse().ok()? })
    }
}

/// Processes of this name that live in this network.
pub fn named(name: &str) -> Vec<Process> {
    let network = |folder: &Path| fs::read_link(folder.join("ns/net")).ok();
    let own = network(Path::new("/proc/thread-self"));
    let all = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|folder| fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
        .filter(|folder| network(folder) == own)
        .filter_map(|folder| Process::of(folder.file_name()?.to_str()?.parse().ok()?))
        .collect()
}

/// The state and the beginning of a process, from behind its name, which may hold anything.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn processes_are_found_by_their_name() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        // It has the name once it is that program.
        Turn::new(Duration::from_secs(30), Cancel::default())
            .until(|| named("sleep").contains(&process).then_some(()))
            .unwrap();
        assert!(named("no-such-program").is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!named("sleep").contains(&process));
    }

    #[test]
    fn a_process_is_known_again_and_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        let path = std::env::temp_dir().join(format!("nfs-failover-{}.pid", child.id()));
        process.save(&path).unwrap();
        assert_eq!(Process::saved(&path), Some(process));
        process.stop(Duration::from_secs(10)).unwrap();
        assert_eq!(Process::saved(&path), None);
        child.wait().unwrap();
        process.stop(Duration::ZERO).unwrap();
        fs::write(&path, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(Process::saved(&path), None, "the number belongs to somebody else by now");
        fs::remove_file(path).unwrap();
    }
}
