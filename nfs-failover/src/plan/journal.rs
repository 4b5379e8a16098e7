//! The journal: which steps a plan has begun, for whoever runs it again after a kill.
//!
//! It lies in the runtime folder, which a power cut empties, as it undoes mounts, addresses and processes. So nothing is
//! flushed: what a killed process has written is there.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One line of the journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// A plan begins.
    Started(String),
    /// A step is about to be done.
    Begun(String),
    /// A step is taken back.
    Undone(String),
    /// The plan has ended.
    Ended(String),
}

/// What a plan that was killed has left to the one that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inherited {
    /// The steps that it had begun and not taken back; none if none was killed.
    Steps(BTreeSet<String>),
    /// It was the other plan: whatever is there is what that has left of an earlier one.
    Everything,
}

impl Inherited {
    /// For the plan of this name, after that unfinished one.
    pub(super) fn by(plan: &str, unfinished: Option<(String, BTreeSet<String>)>) -> Inherited {
        match unfinished {
            None => Inherited::Steps(BTreeSet::new()),
            Some((earlier, steps)) if earlier == plan => Inherited::Steps(steps),
            Some(_) => Inherited::Everything,
        }
    }
}

/// Where a plan's progress is kept.
pub trait Journal {
    /// Begins a plan.
    fn start(&mut self, plan: &str) -> io::Result<Inherited>;
    /// Notes a step.
    fn note(&mut self, progress: Progress) -> io::Result<()>;
}

/// A journal in a file.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    file: Option<File>,
}

impl FileJournal {
    /// The journal of this file, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None }
    }

    /// The plan that was killed and the steps it had begun, if one was.
    pub fn unfinished(path: &Path) -> io::Result<Option<(String, BTreeSet<String>)>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(unfinished(text.lines().filter_map(|line| serde_json::from_str(line).ok()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Journal for FileJournal {
    fn start(&mut self, plan: &str) -> io::Result<Inherited> {
        let unfinished = Self::unfinished(&self.path)?;
        if unfinished.is_none() {
            File::create(&self.path)?;
        }
        let inherited = Inherited::by(plan, unfinished);
        self.file = Some(OpenOptions::new().append(true).create(true).open(&self.path)?);
        self.note(Progress::Started(plan.to_owned()))?;
        Ok(inherited)
    }

    fn note(&mut self, progress: Progress) -> io::Result<()> {
        let mut line = serde_json::to_vec(&progress)?;
        line.push(b'\n');
        match &mut self.file {
            Some(file) => file.write_all(&line),
            None => Err(io::Error::other("no plan was started")),
        }
    }
}

/// A line that was cut off by the kill was no step begun: each is written before the step.
pub(super) fn unfinished(lines: impl Iterator<Item = Progress>) -> Option<(String, BTreeSet<String>)> {
    let mut open: Option<(String, BTreeSet<String>)> = None;
    for line in lines {
        match line {
            Progress::Started(plan) if open.as_ref().is_none_or(|(name, _)| *name != plan) => {
                open = Some((plan, BTreeSet::new()));
            }
            Progress::Started(_) => {}
            Progress::Begun(step) => open.iter_mut().for_each(|(_, steps)| {
                steps.insert(step.clone());
            }),
            Progress::Undone(step) => open.iter_mut().for_each(|(_, steps)| {
                steps.remove(&step);
            }),
            Progress::Ended(_) => open = None,
        }
    }
    open
}
