//! Who uses a filesystem: found by the device of everything that a process has open, whatever path it came by.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::process::Process;

/// Every process that uses the filesystem of this device number, except this one.
pub fn of(device: (u64, u64)) -> Vec<Process> {
    let own = std::process::id() as i32;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own && uses(*pid, device)).filter_map(Process::of).collect()
}

/// The process with its name, for the operator.
pub fn shown(process: Process) -> String {
    let name = fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap_or_default();
    format!("{} ({})", name.trim(), process.pid())
}

fn uses(pid: i32, device: (u64, u64)) -> bool {
    let folder = format!("/proc/{pid}");
    let named = ["cwd", "root", "exe"].map(|name| format!("{folder}/{name}"));
    let is_there =
        |path: &Path| fs::metadata(path).is_ok_and(|file| (major(file.dev()), minor(file.dev())) == device);
    let open_files = fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten();
    named.iter().any(|path| is_there(path.as_ref()))
        || open_files.map(|entry| entry.path()).any(|path| is_there(&path))
        || maps(&fs::read_to_string(format!("{folder}/maps")).unwrap_or_default(), device)
}

/// `7f.. r-xp 00000000 07:03 12 /srv/x`, the numbers in hexadecimal.
fn maps(text: &str, device: (u64, u64)) -> bool {
    let wanted = format!("{:02x}:{:02x}", device.0, device.1);
    text.lines().any(|line| line.split(' ').nth(3) == Some(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_use() {
        let line = "7f00-7f01 r--p 00000000 07:0a 12 /srv/nfs/x\n";
        assert!(maps(line, (7, 10)));
        assert!(!maps(line, (7, 11)));
    }

    #[test]
    fn a_process_that_stands_in_a_folder_uses_it() {
        let folder = fs::metadata("/dev/shm").unwrap();
        let device = (major(folder.dev()), minor(folder.dev()));
        let mut child =
            std::process::Command::new("sleep").arg("600").current_dir("/dev/shm").spawn().unwrap();
        assert!(of(device).iter().any(|process| process.pid() == child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
