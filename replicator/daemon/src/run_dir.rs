//! The runtime folder: who holds its lock is the daemon; sockets are removed only under that lock.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tandem_control::RuntimeDir;
use thiserror::Error;
use tokio::net::UnixListener;

/// Where sockets are made; a short name, because a socket's path is limited.
const PRIVATE_FOLDER: &str = "new";

/// Why the runtime folder cannot be used.
#[derive(Debug, Error)]
pub(crate) enum RunDirError {
    #[error("tandemd is already running{pid} and holds {path}; stop it first, or choose another --run-dir")]
    Running { pid: String, path: PathBuf },
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// The runtime folder of a running daemon.
pub(crate) struct RunDir {
    dir: RuntimeDir,
    pid_file: Flock<File>,
}

impl RunDir {
    /// Creates the folder if need be, takes its lock and removes what a crashed daemon left.
    pub(crate) fn acquire(dir: RuntimeDir) -> Result<RunDir, RunDirError> {
        for folder in [dir.path(), parent(&dir.proc_drbd())] {
            let created = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
            created.map_err(|e| RunDirError::Io(folder.to_owned(), e))?;
        }
        let path = dir.pid_file();
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|e| RunDirError::Io(path.clone(), e))?;
        let mut pid_file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(file, _)| RunDirError::Running { pid: read_pid(file), path: path.clone() })?;
        write_pid(&mut pid_file).map_err(|e| RunDirError::Io(path, e))?;
        let run_dir = RunDir { dir, pid_file };
        run_dir.remove_files();
        Ok(run_dir)
    }

    /// The paths in it.
    pub(crate) fn paths(&self) -> &RuntimeDir {
        &self.dir
    }

    fn remove_files(&self) {
        for path in [self.dir.control_socket(), self.dir.nbd_socket(), self.dir.proc_drbd()] {
            // Mostly it is not there.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        self.remove_files();
        // The file itself stays: removing it would let two daemons lock two files of the same name.
        let _ = self.pid_file.set_len(0);
    }
}

/// Listens on a Unix socket that only its owner may use. It is made where nobody else can reach it and moved once its
/// permissions are right: who connects is held by them at every moment.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, RunDirError> {
    let private = parent(path).join(PRIVATE_FOLDER);
    let bind = || {
        // A daemon that was killed here has left it.
        let _ = std::fs::remove_dir_all(&private);
        std::fs::DirBuilder::new().mode(0o700).create(&private)?;
        let born = private.join("s");
        let listener = UnixListener::bind(&born)?;
        std::fs::set_permissions(&born, Permissions::from_mode(0o600))?;
        std::fs::rename(&born, path)?;
        std::fs::remove_dir(&private)?;
        Ok(listener)
    };
    bind().map_err(|e| RunDirError::Io(path.to_owned(), e))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(mut file: File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!(" (pid {})", text.trim()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_owners_alone_from_the_first_moment() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("tandemd-bind-XXXXXX")).unwrap();
        let path = folder.join("a.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        // What a killed daemon left is in nobody's way.
        std::fs::create_dir(folder.join(PRIVATE_FOLDER)).unwrap();
        std::fs::write(&path, "left over").unwrap();
        let _listener = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(!folder.join(PRIVATE_FOLDER).exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_why() {
        let path = std::env::temp_dir().join(format!("tandemd-run-dir-{}", std::process::id()));
        let first = RunDir::acquire(RuntimeDir::new(&path)).unwrap();
        std::fs::write(first.paths().control_socket(), "in use").unwrap();
        let second = RunDir::acquire(RuntimeDir::new(&path)).err().expect("a second daemon is refused");
        assert!(second.to_string().contains(&format!("(pid {})", std::process::id())), "{second}");
        assert!(first.paths().control_socket().exists(), "the running daemon's socket is left alone");
        drop(first);
        drop(RunDir::acquire(RuntimeDir::new(&path)).unwrap());
        std::fs::remove_dir_all(path).unwrap();
    }
}
