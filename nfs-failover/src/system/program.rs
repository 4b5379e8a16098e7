//! Other programs: run to their end within a time, or left to run.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::logs;
use super::process::Process;
use crate::plan::{Trouble, Turn, trouble};

/// Whoever calls us may have a bare environment; what we need lies here.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Between two looks whether a program has ended.
const LOOK_INTERVAL: Duration = Duration::from_micros(300);
/// What a program has said is there when it has ended, unless it left a daemon behind.
const SAID_LIMIT: Duration = Duration::from_millis(50);
/// What is shown of what a program said.
const MAX_SAID_BYTES: u64 = 2000;
/// What is read of what a program printed.
const MAX_PRINTED_BYTES: u64 = 1 << 20;

/// Becomes a program that is killed for want of memory like any other; where that may not be changed, it was not the service
/// that has started it.
const KILLABLE: &str = "{ echo 0 >/proc/self/oom_score_adj; } 2>/dev/null; exec \"$@\"";

/// A program with arguments.
pub fn program<S: AsRef<std::ffi::OsStr>>(name: impl AsRef<Path>, arguments: &[S]) -> Command {
    let mut command = Command::new(name.as_ref());
    command.args(arguments).env("PATH", PATH).env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // Killed with its children if it takes too long, and not by the terminal's Ctrl-C.
    command.process_group(0);
    command
}

/// Where a program of this name lies.
pub fn find(name: &str) -> Option<PathBuf> {
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Runs it to its end; what it said if it failed or took too long.
pub fn run(command: Command, limit: Duration) -> Result<(), Trouble> {
    run_with(command, "", limit)
}

/// As [`run`], for what it prints.
pub fn output(mut command: Command, limit: Duration) -> Result<String, Trouble> {
    command.stdout(Stdio::piped());
    run_until(name_of(&command), command, "", limit, || false)
}

/// As [`run`], for a program of the administrator's and no longer than somebody wants it. The service is never killed for want
/// of memory; that program is nothing special, nor is anything that it starts.
pub fn run_hook(command: &Command, turn: &Turn) -> Result<(), Trouble> {
    let mut killable = program("/bin/sh", &["-c", KILLABLE, "sh"]);
    killable.arg(command.get_program()).args(command.get_args());
    killable.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run_until(name_of(command), killable, "", turn.left(), || turn.is_cancelled()).map(drop)
}

/// As [`run`], with something to read.
pub fn run_with(command: Command, input: &str, limit: Duration) -> Result<(), Trouble> {
    run_until(name_of(&command), command, input, limit, || false).map(drop)
}

fn name_of(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn run_until(
    name: String,
    mut command: Command,
    input: &str,
    limit: Duration,
    unwanted: impl Fn() -> bool,
) -> Result<String, Trouble> {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    command.stderr(Stdio::piped());
    let mut child = command.spawn().map_err(trouble(format_args!("cannot start {name}")))?;
    if let Some(mut pipe) = child.stdin.take() {
        // It may have ended without reading; its exit status tells.
        let _ = pipe.write_all(input.as_bytes());
    }
    let printed = listen(child.stdout.take(), MAX_PRINTED_BYTES);
    let said = listen(child.stderr.take(), MAX_SAID_BYTES);
    match ended(&mut child, limit, &unwanted) {
        Some(status) if status.success() => Ok(printed.recv_timeout(SAID_LIMIT).unwrap_or_default()),
        Some(status) => {
            let said = said.recv_timeout(SAID_LIMIT).unwrap_or_default();
            Err(Trouble::new(format!("{name} ended with {status}: {}", said.trim())))
        }
        None => {
            kill_group(&mut child);
            if unwanted() {
                return Err(Trouble::new(format!("{name} was killed: somebody wants something else by now")));
            }
            Err(Trouble::new(format!("{name} took longer than {:.1} s and was killed", limit.as_secs_f64())))
        }
    }
}

/// Starts a program that stays; what it says goes to the log. The service is never killed for want of memory; what it starts is
/// nothing special.
pub fn start(mut command: Command, log: &Path) -> Result<Process, Trouble> {
    let name = name_of(&command);
    logs::bound(log).map_err(trouble(log.display()))?;
    let log = File::options().create(true).append(true).open(log).map_err(trouble(log.display()))?;
    command.stdout(log.try_clone().map_err(trouble("cannot use the log"))?).stderr(log);
    let mut child = command.spawn().map_err(trouble(format_args!("cannot start {name}")))?;
    let process =
        Process::of(child.id() as i32).ok_or_else(|| Trouble::new(format!("{name} ended at once")))?;
    // Where it may not be changed, it was not the service that has started it.
    let _ = fs::write(format!("/proc/{}/oom_score_adj", process.pid()), "0");
    // A process that has ended is gone only when somebody has asked how.
    thread::spawn(move || child.wait());
    Ok(process)
}

fn listen(pipe: Option<impl Read + Send + 'static>, most_bytes: u64) -> mpsc::Receiver<String> {
    let (say, said) = mpsc::channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.take(most_bytes).read_to_end(&mut text);
            let _ = say.send(String::from_utf8_lossy(&text).into_owned());
        });
    }
    said
}

fn ended(child: &mut Child, limit: Duration, unwanted: impl Fn() -> bool) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if began.elapsed() < limit && !unwanted() => thread::sleep(LOOK_INTERVAL),
            Ok(None) | Err(_) => return None,
        }
    }
}

fn kill_group(child: &mut Child) {
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    // A process in a hanging system call does not even die.
    let _ = ended(child, SAID_LIMIT, || false);
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::plan::Cancel;

    const LONG: Duration = Duration::from_secs(30);

    /// What is done is done by a process that is spared where memory is short, as root may; others may only be killed sooner.
    fn spared<T>(act: impl FnOnce() -> T) -> T {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let own = "/proc/self/oom_score_adj";
        let before = fs::read_to_string(own).unwrap();
        fs::write(own, "-500").or_else(|_| fs::write(own, "500")).unwrap();
        let outcome = act();
        fs::write(own, before).unwrap();
        outcome
    }

    #[test]
    fn what_is_started_may_be_killed_for_want_of_memory_although_who_starts_it_is_spared() {
        let log = std::env::temp_dir().join(format!("nfs-failover-start-{}", std::process::id()));
        let adjusted = spared(|| {
            let process = start(program("sleep", &["600"]), &log).unwrap();
            let adjusted = fs::read_to_string(format!("/proc/{}/oom_score_adj", process.pid())).unwrap();
            process.signal(Signal::SIGKILL).unwrap();
            adjusted
        });
        fs::remove_file(log).unwrap();
        assert_eq!(adjusted, "0\n");
    }

    #[test]
    fn so_may_what_a_hook_starts() {
        let mut hook =
            program("sh", &["-c", "test $(cat /proc/self/oom_score_adj)-$1-$TOLD = 0-a-b", "sh", "a"]);
        hook.env("TOLD", "b");
        spared(|| run_hook(&hook, &Turn::new(LONG, Cancel::default()))).unwrap();
        let said = run_hook(&program("/no/such", &[""; 0]), &Turn::new(LONG, Cancel::default()))
            .unwrap_err()
            .message;
        assert!(said.starts_with("/no/such ended with") && said.contains("not found"), "{said}");
    }

    #[test]
    fn what_a_program_says_is_shown_if_it_fails() {
        run(program("sh", &["-c", "exit 0"]), LONG).unwrap();
        let said = run(program("sh", &["-c", "echo no >&2; exit 3"]), LONG).unwrap_err().message;
        assert!(said.contains("exit status: 3: no"), "{said}");
        assert!(run(program("/no/such", &[""; 0]), LONG).unwrap_err().message.contains("cannot start"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let began = Instant::now();
        let said =
            run(program("sh", &["-c", "sleep 600; true"]), Duration::from_millis(50)).unwrap_err().message;
        assert!(said.contains("was killed"), "{said}");
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn a_program_that_is_not_wanted_any_more_is_killed() {
        let cancel = Cancel::default();
        cancel.set();
        let turn = Turn::new(LONG, cancel);
        let said = run_hook(&program("sleep", &["600"]), &turn).unwrap_err().message;
        assert!(said.contains("somebody wants something else"), "{said}");
        assert!(!turn.left().is_zero());
    }

    #[test]
    fn what_a_program_prints_is_read_to_its_end() {
        let script = "yes | head -c 100000; echo no >&2";
        assert_eq!(output(program("sh", &["-c", script]), LONG).unwrap().len(), 100_000);
        let said = output(program("sh", &["-c", "echo yes; echo no >&2; exit 1"]), LONG).unwrap_err().message;
        assert!(said.contains("no") && !said.contains("yes"), "{said}");
    }

    #[test]
    fn a_program_reads_what_it_is_given() {
        run_with(program("grep", &["-q", "abc"]), "xabcx\n", LONG).unwrap();
        run_with(program("grep", &["-q", "abc"]), "x\n", LONG).unwrap_err();
    }
}
