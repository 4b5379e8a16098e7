//! What was done, and how long it took.

use std::time::{Duration, Instant};

use crate::process::Result;

/// The steps of a story, in order.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Runs a step under a headline; its title is in the error, should it fail.
    pub(crate) fn run<T>(&mut self, title: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {title}");
        let start = Instant::now();
        let result = step().map_err(|e| format!("{title}: {e}"))?;
        self.note(title, start.elapsed());
        Ok(result)
    }

    /// Adds a row that was measured otherwise.
    pub(crate) fn note(&mut self, title: &str, took: Duration) {
        self.done.push((title.to_owned(), took));
    }

    /// How long a step took.
    pub(crate) fn took(&self, title: &str) -> Option<Duration> {
        self.done.iter().find(|(done, _)| done == title).map(|(_, took)| *took)
    }

    /// Prints one row for each step.
    pub(crate) fn print(&self) {
        print_beside(&[("seconds", self)]);
    }
}

/// Prints stories with the same steps side by side.
pub(crate) fn print_beside(stories: &[(&str, &Steps)]) {
    let Some((_, first)) = stories.first() else { return };
    let row = |title: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>8}")).collect();
        println!("{title:<46}{cells}");
    };
    println!();
    row("step", stories.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (title, _) in &first.done {
        let seconds = |steps: &Steps| steps.took(title).map(|t| format!("{:.2}", t.as_secs_f64()));
        row(title, stories.iter().map(|(_, steps)| seconds(steps).unwrap_or_default()).collect());
    }
}
