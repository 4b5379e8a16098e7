//! The kernel has one NFS server, and somebody else may have started it: Debian does when its package is installed. That one
//! has neither our times nor our list of clients, so that it is not taken for ours; nor is one that somebody has started in
//! place of ours.
//!
//! Ours is known by a note that is made before its threads are started, names them once they are, and does not outlive the
//! machine any more than these do. Another one that exports nothing is of use to nobody, and makes room; one that does is
//! left alone.

use std::fs;
use std::path::{Path, PathBuf};

use super::kernel::TRACKER;
use super::{STOP_PATIENCE, Scene, exports};
use crate::plan::{Trouble, trouble};
use crate::system::process::{self, Process};

/// The kernel's name of a thread.
const THREAD: &str = "nfsd";
const BEGUN: &str = "the kernel's NFS server is being started for this service\n";
const STARTED: &str =
    "the kernel's NFS server was started for this service; its threads, and when each began:\n";

/// What is noted of the threads.
#[derive(PartialEq, Eq, Debug)]
enum Note {
    /// None were started.
    None,
    /// They are about to be started.
    Begun,
    /// These were; none are known where the kernel's threads are not to be seen.
    Started(Vec<Process>),
}

impl Note {
    fn of(scene: &Scene) -> Note {
        Note::read(&note(scene))
    }

    fn read(file: &Path) -> Note {
        let text = fs::read_to_string(file).unwrap_or_default();
        match text.strip_prefix(STARTED) {
            Some(threads) => Note::Started(threads.lines().filter_map(Process::of_line).collect()),
            None if file.exists() => Note::Begun,
            None => Note::None,
        }
    }

    /// Whether those that run are these, if any run.
    fn is_ours(&self) -> bool {
        match self {
            Note::None => false,
            Note::Begun => true,
            Note::Started(threads) => threads.is_empty() || threads.iter().any(|one| one.is_running()),
        }
    }

    fn is_started(&self) -> bool {
        matches!(self, Note::Started(_))
    }
}

fn note(scene: &Scene) -> PathBuf {
    scene.here.file(&scene.service.name, "nfsd")
}

/// Notes that the threads that are about to be started are ours.
pub(super) fn note_begun(scene: &Scene) -> Result<(), Trouble> {
    let note = note(scene);
    fs::write(&note, BEGUN).map_err(trouble(note.display()))
}

/// Notes that those that run are ours, and nothing is left to be started.
pub(super) fn note_started(scene: &Scene) -> Result<(), Trouble> {
    let note = note(scene);
    let threads: String = process::named(THREAD).into_iter().map(Process::to_line).collect();
    fs::write(&note, STARTED.to_owned() + &threads).map_err(trouble(note.display()))
}

/// They have ended.
pub(super) fn forget_ours(scene: &Scene) {
    // None may ever have been started.
    let _ = fs::remove_file(note(scene));
}

/// Whether the threads, if there are any, are ours.
pub(super) fn is_ours(scene: &Scene) -> bool {
    Note::of(scene).is_ours()
}

/// Whether they are, and all of what starting them takes was done.
pub(super) fn is_started(scene: &Scene) -> bool {
    let note = Note::of(scene);
    note.is_started() && note.is_ours()
}

/// Whether ours were started, and those that run, if any do, are not these any more.
pub(super) fn is_replaced(scene: &Scene) -> bool {
    let note = Note::of(scene);
    note.is_started() && !note.is_ours()
}

/// A folder that somebody else has the kernel's server export, while it is not ours.
pub(super) fn served(scene: &Scene) -> Option<PathBuf> {
    exports::of_others(scene).filter(|_| !is_ours(scene))
}

/// Ends others that would keep the clients' list, of which the kernel tells one or the other, as it happens.
pub(super) fn end_trackers(own: Option<Process>) -> Result<(), Trouble> {
    let others = process::named(TRACKER).into_iter().filter(|other| Some(*other) != own);
    others.into_iter().try_for_each(|other| other.stop(STOP_PATIENCE))
}

/// Why the service cannot be had beside it.
pub(super) fn refusal(folder: &Path) -> Trouble {
    let folder = folder.display();
    Trouble::new(format!(
        "the kernel's NFS server already runs on this node and exports {folder}, which is not this service's; there is one \
         server, and its times and its list of clients move with the volume: take {folder} out of /etc/exports and \
         'systemctl disable --now nfs-server', or export it by this service"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_known_by_their_threads() {
        let file = std::env::temp_dir().join(format!("nfs-threads-{}", std::process::id()));
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            let note = Note::read(&file);
            (note.is_started(), note.is_ours())
        };
        let own = Process::of(std::process::id() as i32).unwrap().to_line();
        let gone = format!("{} 1\n", std::process::id());
        assert_eq!(Note::read(&file), Note::None);
        assert_eq!(read(BEGUN), (false, true));
        assert_eq!(read(&format!("{STARTED}{gone}{own}")), (true, true), "some may be ended");
        assert_eq!(read(&format!("{STARTED}{gone}{gone}")), (true, false), "these are others");
        assert_eq!(read(STARTED), (true, true), "they are not to be seen");
        assert_eq!(read(&STARTED[..20]), (false, true), "it was killed while it wrote");
        fs::remove_file(file).unwrap();
        assert!(!Note::None.is_ours() && !Note::None.is_started());
    }

    #[test]
    fn a_refusal_names_the_folder() {
        assert!(refusal("/home".as_ref()).message.contains("exports /home"));
    }
}
