//! Starts `tandemd` when a resource is brought up and nobody listens on the control socket.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tandem_control::{ClientError, Request, RuntimeDir, ask, reason};
use thiserror::Error;

use crate::output::outln;

/// How long the daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Pause between attempts to reach it.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Lines of its log that are shown when it fails.
const LOG_LINES: usize = 10;

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum StartError {
    /// The system would not let us.
    #[error("cannot start tandemd: {what}: {}", reason(source))]
    System {
        /// What was tried.
        what: String,
        /// What happened.
        source: std::io::Error,
    },
    /// It ended at once.
    #[error("tandemd ended at once ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// It runs and does not answer.
    #[error("tandemd (pid {pid}) does not answer after {} s; the end of {}:\n{tail}", START_LIMIT.as_secs(), log.display())]
    Silent {
        /// Its process id.
        pid: u32,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Something is there that cannot be talked to.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Makes sure that a daemon answers; says so if one had to be started.
pub fn ensure_running(run: &RuntimeDir) -> Result<(), StartError> {
    if answers_or_is_gone(run)? {
        return Ok(());
    }
    std::fs::create_dir_all(run.path())
        .map_err(|e| system(&format!("creating {}", run.path().display()), e))?;
    let log = Log::open(run.log_file())?;
    let mut child = spawn_detached(&log)?;
    wait_for_answer(run, &log, &mut child)
}

/// Becomes `program`, leader of a session of its own: no terminal's signals reach it. Returns only if that fails.
pub fn exec_detached(program: &Path) -> std::io::Error {
    match nix::unistd::setsid() {
        Ok(_) => Command::new(program).exec(),
        Err(errno) => errno.into(),
    }
}

/// Runs this same program as `sh-exec-detached`: a new session needs a process that leads no group yet.
fn spawn_detached(log: &Log) -> Result<Child, StartError> {
    let output = || log.file.try_clone().map_err(|e| system("duplicating the log's descriptor", e));
    Command::new("/proc/self/exe")
        .arg("sh-exec-detached")
        .arg(program())
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?)
        .spawn()
        .map_err(|e| system("running /proc/self/exe", e))
}

/// `tandemd` beside this program; otherwise the name alone, to be looked up in PATH.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("tandemd"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "tandemd".into())
}

fn wait_for_answer(run: &RuntimeDir, log: &Log, child: &mut Child) -> Result<(), StartError> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let ended = child.try_wait().map_err(|e| system("waiting for tandemd", e))?;
        // Asked after the look at the child: if another start won the race, its daemon answers.
        if answers(run)? {
            if ended.is_none() {
                outln!("tandemd started (pid {}, log {})", child.id(), log.path.display());
            }
            return Ok(());
        }
        if let Some(status) = ended {
            return Err(StartError::Ended { status, log: log.path.clone(), tail: log.tail() });
        }
        if Instant::now() >= deadline {
            return Err(StartError::Silent { pid: child.id(), log: log.path.clone(), tail: log.tail() });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// False once nobody listens. A daemon that hangs up is ending: it may have been killed a moment ago.
fn answers_or_is_gone(run: &RuntimeDir) -> Result<bool, StartError> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match answers(run) {
            Err(StartError::Client(ClientError::NoReply(_))) if Instant::now() < deadline => {
                std::thread::sleep(POLL_INTERVAL);
            }
            other => return other,
        }
    }
}

fn answers(run: &RuntimeDir) -> Result<bool, StartError> {
    match ask(&run.control_socket(), &Request::BriefStatus { resource: None }, START_LIMIT) {
        Ok(_) => Ok(true),
        Err(ClientError::NotRunning(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The daemon's log, and where this start's part of it begins.
struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    fn open(path: PathBuf) -> Result<Log, StartError> {
        let failed = |e| system(&format!("opening {}", path.display()), e);
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&path).map_err(failed)?;
        let begin = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Log { path, file, begin })
    }

    /// The last lines written since it was opened.
    fn tail(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.begin))?;
            file.read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            return format!("(it cannot be read: {error})");
        }
        if bytes.is_empty() {
            return "(nothing was written there: is the file system full?)".to_owned();
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

fn system(what: &str, source: std::io::Error) -> StartError {
    StartError::System { what: what.to_owned(), source }
}
